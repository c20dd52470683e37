"""Many nodes that report at once, each by its own appends, or forwarded to the primary's; one process for each node."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence

import msgspec

from pvc import __version__
from pvc.events import cluster, node, vm
from pvc.events.record import Entry
from pvc.log.zookeeper import ZookeeperLog
from tests.bench.measure import Bench, Row, Side, at_least, compare, percentile, skipped, take_turns
from tests.bench.records import FACT, FOREIGN, Chain, vm_id, vm_name
from tests.bench.running import fill
from tests.bench.writers_peer import Told

CROWDS = (3, 4, 6, 10, 16)
AT_ONCE = 4
"""Reports of a node under way, as when it starts VMs one after the other and several at a time."""

ROUNDS = 5
WARM_UP = 1
ANSWER_S = 300
"""Until a node has reported all; far more than it takes, so that only a defect ends it."""

HELD = 3.0
"""Of more than six nodes, forwarding is to be at least so many times as fast."""


async def measure(bench: Bench) -> list[Row]:
    return [await _among(bench, nodes) for nodes in CROWDS]


async def _among(bench: Bench, nodes: int) -> Row:
    what = f"{nodes} nodes report at once, forwarded"
    if not bench.zookeeper:
        return skipped(what, "there is no ZooKeeper here (apt-get install zookeeper default-jre-headless)")
    each = bench.size(20, 40)
    rounds = 3 if bench.quick else ROUNDS
    name = f"writers-{nodes}"
    log = await ZookeeperLog.open(bench.zookeeper, name)
    await fill(log, _starting(Chain(), nodes, each * (rounds + WARM_UP) * 2))
    await log.close()
    took_ms: dict[str, list[float]] = {"direct": [], "forwarded": []}
    async with _peers(bench.zookeeper, name, nodes) as peers:
        sides = (_reports(peers, way, each, took_ms[way]) for way in ("forwarded", "direct"))
        forwarded, direct = await take_turns(rounds, *sides, warm_up=WARM_UP)
    tails = [f"{percentile(took_ms[way], 50):.0f} and {percentile(took_ms[way], 99):,.0f} ms" for way in took_ms]
    note = f"p50 and p99 of a report: direct {tails[0]}, forwarded {tails[1]}"
    target = at_least(HELD) if nodes > 6 else None
    return compare(what, "/s", forwarded, direct, "each by itself", target, note)


def _starting(chain: Chain, nodes: int, each: int) -> Iterator[Entry]:
    """Nodes hv1.. of which the first is the primary, each with so many VMs that are to run."""
    yield chain.add("cluster.init", cluster.ClusterInitialised(cluster=str(uuid.UUID(int=1)), name="bench"))
    for number in range(1, nodes + 1):
        name = f"hv{number}"
        ready = node.NodeReady(
            node=name, memory_mib=4_194_304, vcpus=256, accelerator="tcg", hypervisor=FOREIGN, version=__version__
        )
        yield chain.add("node.report_ready", node.NodeJoined(node=name, coordinator=number == 1), ready, actor=FACT)
    yield chain.add("cluster.report_primary", cluster.PrimaryElected(node="hv1", epoch=1), actor=FACT)
    for number in range(nodes * each):
        name = f"hv{number % nodes + 1}"
        spec = vm.VmSpec(memory_mib=64, vcpus=1, disks=(vm.Disk(path=f"/images/{vm_name(number)}.raw"),))
        defined = vm.VmDefined(vm=vm_id(number), name=vm_name(number), spec=spec, node=name)
        yield chain.add("vm.define", defined, vm.VmStartRequested(vm=vm_id(number), node=name, epoch=1))


def _reports(peers: Sequence[asyncio.subprocess.Process], way: str, each: int, took_ms: list[float]) -> Side:
    """All nodes begin at the same time; the rate is of all reports until the last node has done."""

    async def round_() -> float:
        for peer in peers:
            assert peer.stdin is not None
            peer.stdin.write(f"{way} {AT_ONCE} {each}\n".encode())
        told = [msgspec.json.decode(line, type=Told) for line in await asyncio.gather(*map(_line, peers))]
        for one in told:
            took_ms.extend(one.took_ms)
        return len(peers) * each / (max(one.ended_s for one in told) - min(one.began_s for one in told))

    return round_


@contextlib.asynccontextmanager
async def _peers(hosts: str, name: str, nodes: int) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    peers: list[asyncio.subprocess.Process] = []
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    try:
        for number in range(1, nodes + 1):
            command = (sys.executable, "-m", "tests.bench.writers_peer", hosts, name, f"hv{number}")
            peers.append(await asyncio.create_subprocess_exec(*command, **pipes))
        for peer in peers:
            assert await _line(peer) == b"ready\n"
        yield peers
    finally:
        for peer in peers:
            peer.kill()
            await peer.wait()


async def _line(peer: asyncio.subprocess.Process) -> bytes:
    assert peer.stdout is not None
    async with asyncio.timeout(ANSWER_S):
        return await peer.stdout.readline()
