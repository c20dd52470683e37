"""A large cluster in small: 30 nodes in one process and one `pvcd` of its own, on a real ZooKeeper, with 3,000 VMs.

One process has one interpreter: the 30 nodes share what on 30 machines each has for itself. So the times are far above
a real cluster's, and beside them stands what a node's part costs in seconds of processor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from pvc.commands.node import FlushNode
from pvc.commands.vm_define import DefineVm
from pvc.commands.vm_power import StartVm
from pvc.events.record import unseal
from pvc.log.zookeeper import ZookeeperLog
from pvc.presence.base import SESSION_TIMEOUT_S
from pvc.projections.state import FlushState, NodeState
from pvc.projections.vm_machine import VmState
from pvc.runtime.world import World
from tests.bench.crowd import (
    MIGRATION_SETUP_S,
    Cost,
    Crowd,
    Usage,
    all_ready,
    crowd,
    measured,
    usage_of,
)
from tests.bench.measure import Bench, Row, at_most, cpu_stopwatch, figure, skipped
from tests.integration.daemon_process import DaemonProcess

MEMORY_MIB = 256
ROOM = 4
"""A node has room for so many times its VMs: those of a lost one must fit elsewhere."""
RECOVERY_S = 3.0
"""What a recovery may take beyond session timeout and fence."""
DOWNTIME_MS = 10
"""Of a simulated migration; what is measured is the cluster's part."""
PARALLEL_MOVES = 4


async def measure(bench: Bench) -> list[Row]:
    nodes, vms = bench.size(5, 30), bench.size(100, 3_000)
    what = f"{nodes} nodes, {vms:,} VMs"
    if not bench.zookeeper:
        return [skipped(what, "there is no ZooKeeper here (apt-get install zookeeper default-jre-headless)")]
    alone = await _alone(bench, vms)
    found = await _together(bench, nodes, vms)
    return _rows(what, nodes, vms, alone, found)


class _Found(msgspec.Struct, kw_only=True):
    """What the phases took, and what was seen beside them."""

    define: Cost
    start: Cost
    flush: Cost | None = None
    loss: Cost | None = None
    idle_cpu_s: float = 0.0
    """Of this process in a second in which nothing happens."""
    fold_s: float = 0.0
    """Processor time of verifying, decoding and folding one record alone."""
    daemon: tuple[Usage, Usage] | None = None
    """The `pvcd`'s, before and after."""
    records: int = 0


async def _alone(bench: Bench, vms: int) -> _Found:
    """The same VMs on one node."""
    memory_mib = ROOM * MEMORY_MIB * vms
    async with crowd(bench.zookeeper, "one", 1, memory_mib=memory_mib) as made:
        return _Found(define=await _define(made, vms), start=await _start(made))


async def _together(bench: Bench, nodes: int, vms: int) -> _Found:
    memory_mib = ROOM * MEMORY_MIB * vms // nodes
    outsider = f"hv{nodes + 1}"
    daemon = DaemonProcess(
        bench.home / outsider,
        node={"name": outsider, "data_dir": str(bench.home / outsider / "data")},
        log={"kind": "zookeeper", "hosts": bench.zookeeper, "cluster": "many"},
    )
    async with crowd(bench.zookeeper, "many", nodes, memory_mib=memory_mib, extra=[outsider]) as made:
        try:
            await asyncio.to_thread(daemon.start)
            async with asyncio.timeout(60):
                await made.until(lambda: all_ready(made, [outsider]))
            pid = int((bench.home / outsider / "data" / "lock").read_text())
            before, first = usage_of(pid), made.first.world.position
            found = _Found(define=await _define(made, vms), start=await _start(made))
            found.flush = await _flush(made, made.members[-1].name)
            found.loss = await _lose(made, made.members[-2].name)
            found.records = made.first.world.position - first
            await asyncio.sleep(1)  # so that the other process has followed
            found.daemon = before, usage_of(pid)
            found.idle_cpu_s = await _idle(made, bench.size(3, 10))
            found.fold_s = await _fold_alone(bench.zookeeper)
        finally:
            await asyncio.to_thread(daemon.stop)
    return found


async def _phase(made: Crowd, work: Callable[[], Awaitable[None]]) -> Cost:
    with measured(made) as cost:
        await work()
    return cost


async def _define(made: Crowd, vms: int) -> Cost:
    names = [member.name for member in made.members]

    async def work() -> None:
        commands = [
            DefineVm(
                name=f"vm{number:05}",
                memory_mib=MEMORY_MIB,
                vcpus=1,
                node=names[number % len(names)],
                max_downtime_ms=DOWNTIME_MS,
            )
            for number in range(vms)
        ]
        positions = await asyncio.gather(*(made.ask("vm.define", command) for command in commands))
        await made.until_folded(max(positions))

    return await _phase(made, work)


async def _start(made: Crowd) -> Cost:
    """All at once, by one client."""

    async def work() -> None:
        names = [vm.name for vm in made.first.world.state.vms.values()]
        await asyncio.gather(*(made.ask("vm.start", StartVm(vm=name)) for name in names))
        await made.until(lambda: _all_run(made))

    return await _phase(made, work)


async def _flush(made: Crowd, name: str) -> Cost:
    async def work() -> None:
        await made.ask("node.flush", FlushNode(node=name))
        await made.until(lambda: made.first.world.state.nodes[name].flush is FlushState.FLUSHED)

    return await _phase(made, work)


async def _lose(made: Crowd, name: str) -> Cost:
    """From the death of a node until all that ran there runs elsewhere."""
    victim = next(member for member in made.members if member.name == name)

    async def work() -> None:
        made.members.remove(victim)
        await victim.kill()
        await made.until(lambda: _is_recovered(made, name))

    return await _phase(made, work)


def _all_run(made: Crowd) -> bool:
    # Looked at after each record, so it stops at the first that does not.
    return all(vm.state is VmState.RUNNING for vm in made.first.world.state.vms.values())


def _is_recovered(made: Crowd, name: str) -> bool:
    state = made.first.world.state
    return state.nodes[name].state is NodeState.FENCED and not state.placed.on_node.get(name) and _all_run(made)


async def _idle(made: Crowd, seconds: int) -> float:
    with cpu_stopwatch() as watch:
        await asyncio.sleep(seconds)
    return watch.seconds / seconds


async def _fold_alone(hosts: str) -> float:
    log = await ZookeeperLog.open(hosts, "many")
    try:
        head = (await log.head()).position
        stored: list[bytes] = []
        while len(stored) < head:
            stored += await log.read(len(stored) + 1, 1_000)
    finally:
        await log.close()
    world = World()
    with cpu_stopwatch() as watch:
        for data in stored:
            world.apply(unseal(data))
    return watch.seconds / head


def _rows(what: str, nodes: int, vms: int, alone: _Found, found: _Found) -> list[Row]:
    assert found.flush is not None and found.loss is not None and found.daemon is not None
    each = vms // nodes
    least_s = each / PARALLEL_MOVES * (MIGRATION_SETUP_S + DOWNTIME_MS / 1_000)
    before, after = found.daemon
    return [
        _beside(f"{what}: define them all, folded on all", found.define, alone.define, "1 node"),
        _beside(f"{what}: start them all, all VmStarted folded on all", found.start, alone.start, "1 node"),
        _cpu(
            f"{what}: processor per node and record, mass start", found.start.cpu_s / nodes / found.start.records, found
        ),
        _row(
            f"{what}: flush of a node with {each} VMs",
            found.flush.seconds,
            least_s,
            "the simulated migrations alone",
            note=f"{PARALLEL_MOVES} at a time; {_told(found.flush)}",
        ),
        msgspec.structs.replace(
            _row(
                f"{what}: loss of a node with {each} VMs until they run elsewhere",
                found.loss.seconds,
                SESSION_TIMEOUT_S,
                "session timeout, fence at once",
                note=_told(found.loss),
            ),
            target=at_most((SESSION_TIMEOUT_S + RECOVERY_S) / SESSION_TIMEOUT_S),
        ),
        Row(
            what=f"{what}: processor of an idle node",
            measured=figure(found.idle_cpu_s / nodes * 1_000, "ms/s"),
            note="all of it is presence, telemetry, and on three of them standing for election",
        ),
        _cpu(
            f"{what}: one more `pvcd` as a member, processor per record",
            (after.cpu_s - before.cpu_s) / found.records,
            found,
            note=f"{after.cpu_s - before.cpu_s:.1f} s for {found.records:,} records, its history index included",
        ),
        _row(
            f"{what}: that `pvcd`'s memory",
            after.rss_mib,
            before.rss_mib,
            "with an empty log",
            unit="MiB",
        ),
    ]


def _beside(what: str, ours: Cost, reference: Cost, against: str) -> Row:
    return _row(what, ours.seconds, reference.seconds, against, note=f"{_told(ours)}; {against}: {_told(reference)}")


def _cpu(what: str, cpu_s: float, found: _Found, note: str = "") -> Row:
    return Row(
        what=what,
        measured=figure(cpu_s * 1_000_000, "us"),
        reference=f"verify + decode + fold: {figure(found.fold_s * 1_000_000, 'us')}",
        ratio=cpu_s / found.fold_s,
        note=note,
    )


def _row(what: str, ours: float, reference: float, against: str, note: str = "", unit: str = "s") -> Row:
    return Row(
        what=what,
        measured=figure(ours, unit),
        reference=f"{against}: {figure(reference, unit)}",
        ratio=ours / reference,
        note=note,
    )


def _told(cost: Cost) -> str:
    return f"{cost.records:,} records, {cost.records / cost.seconds:,.0f} /s, {cost.cpu_s:.1f} s of processor"
