"""How soon another process has folded what one appended, against how soon it holds what one wrote, by watch and get."""

from __future__ import annotations

import asyncio
import sys
import time

from kazoo.client import KazooClient

from pvc.events.record import EMPTY
from pvc.log.zookeeper import ZookeeperLog
from tests.bench.append import some_records
from tests.bench.measure import Bench, Row, at_most, compare, percentile, skipped

PAUSE_S = 0.004
"""Between two appends, so that each is delivered by itself."""

ANSWER_S = 30
"""Until another process has said something; it takes milliseconds, and a second to start."""

CLUSTER = "follow"
RAW = "/raw-follow"


async def measure(bench: Bench) -> list[Row]:
    if not bench.zookeeper:
        why = "there is no ZooKeeper here (apt-get install zookeeper default-jre-headless)"
        return [skipped("appended until folded in another process, ZooKeeper", why)]
    return await among(bench, bench.zookeeper, [bench.zookeeper], "in another process, ZooKeeper")


async def among(bench: Bench, hosts: str, peers: list[str], where: str) -> list[Row]:
    """The row of a writer that is connected to `hosts`, and of as many other processes as there are `peers`, each
    connected to its own; what counts is the last of them."""
    log = await ZookeeperLog.open(hosts, CLUSTER)
    client = KazooClient(hosts=hosts)
    client.start(timeout=10)
    client.create(RAW, b"0")
    arguments = [[sys.executable, "-m", "tests.bench.follow_peer", peer, CLUSTER, RAW] for peer in peers]
    others = [await asyncio.create_subprocess_exec(*each, stdout=asyncio.subprocess.PIPE) for each in arguments]
    try:
        writer = _Writer(log, client, others)
        await writer.warm_up()
        count = bench.size(40, 80)
        ours: list[list[float]] = []
        raw: list[list[float]] = []
        for _ in range(bench.rounds):
            ours.append(await writer.appends(count))
            raw.append(await writer.sets(count))
    finally:
        for other in others:
            other.kill()
            await other.wait()
        client.stop()
        client.close()
        await log.close()
    tails = [percentile([value for round_ in side for value in round_], 99) for side in (ours, raw)]
    note = f"p50; p99 is {tails[0]:.1f} ms against {tails[1]:.1f} ms"
    p50, raw_p50 = ([percentile(round_, 50) for round_ in side] for side in (ours, raw))
    return [compare(f"appended until folded {where}", "ms", p50, raw_p50, "kazoo set, watch, get", at_most(2), note)]


class _Writer:
    """Writes in this process and reads from the other one when it had what was written."""

    def __init__(self, log: ZookeeperLog, client: KazooClient, peers: list[asyncio.subprocess.Process]) -> None:
        self._log = log
        self._client = client
        self._peers = peers
        self._records = some_records()
        self._head = EMPTY
        self._number = 0

    async def warm_up(self) -> None:
        for peer in self._peers:
            assert await _line(peer) == "ready"
        await self.appends(20)
        await self.sets(20)

    async def appends(self, count: int) -> list[float]:
        """Milliseconds from before the append until the record was folded there."""
        return [await self._append() for _ in range(count)]

    async def sets(self, count: int) -> list[float]:
        """Milliseconds from before the set until the data was read there."""
        return [await self._set() for _ in range(count)]

    async def _append(self) -> float:
        entry = next(self._records)
        await asyncio.sleep(PAUSE_S)
        begun = time.monotonic_ns()
        self._head = await self._log.append([entry], after=self._head)
        return await self._told(f"fold {entry.position}", begun)

    async def _set(self) -> float:
        self._number += 1
        await asyncio.sleep(PAUSE_S)
        begun = time.monotonic_ns()
        self._client.set(RAW, b"%d" % self._number + bytes(330))
        return await self._told(f"raw {self._number}", begun)

    async def _told(self, expected: str, begun: int) -> float:
        """CLOCK_MONOTONIC is one clock for all processes of a machine."""
        last = 0
        for peer in self._peers:
            what, _, when = (await _line(peer)).rpartition(" ")
            assert what == expected, f"{what!r} instead of {expected!r}"
            last = max(last, int(when))
        return (last - begun) / 1e6


async def _line(peer: asyncio.subprocess.Process) -> str:
    assert peer.stdout is not None
    async with asyncio.timeout(ANSWER_S):
        return (await peer.stdout.readline()).decode().rstrip("\n")
