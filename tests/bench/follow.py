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

CLUSTER = "follow"
RAW = "/raw-follow"


async def measure(bench: Bench) -> list[Row]:
    what = "appended until folded in another process, ZooKeeper"
    if not bench.zookeeper:
        return [skipped(what, "there is no ZooKeeper here (apt-get install zookeeper default-jre-headless)")]
    log = await ZookeeperLog.open(bench.zookeeper, CLUSTER)
    client = KazooClient(hosts=bench.zookeeper)
    client.start(timeout=10)
    client.create(RAW, b"0")
    peer = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.follow_peer", bench.zookeeper, CLUSTER, RAW, stdout=asyncio.subprocess.PIPE
    )
    try:
        writer = _Writer(log, client, peer)
        await writer.warm_up()
        count = bench.size(40, 80)
        ours: list[list[float]] = []
        raw: list[list[float]] = []
        for _ in range(bench.rounds):
            ours.append(await writer.appends(count))
            raw.append(await writer.sets(count))
    finally:
        peer.kill()
        await peer.wait()
        client.stop()
        client.close()
        await log.close()
    tails = [percentile([value for round_ in side for value in round_], 99) for side in (ours, raw)]
    note = f"p50; p99 is {tails[0]:.1f} ms against {tails[1]:.1f} ms"
    p50, raw_p50 = ([percentile(round_, 50) for round_ in side] for side in (ours, raw))
    return [compare(what, "ms", p50, raw_p50, "kazoo set, watch, get", at_most(2), note)]


class _Writer:
    """Writes in this process and reads from the other one when it had what was written."""

    def __init__(self, log: ZookeeperLog, client: KazooClient, peer: asyncio.subprocess.Process) -> None:
        self._log = log
        self._client = client
        self._peer = peer
        self._records = some_records()
        self._head = EMPTY
        self._number = 0

    async def warm_up(self) -> None:
        assert self._peer.stdout is not None
        assert await asyncio.wait_for(self._peer.stdout.readline(), 30) == b"ready\n"
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
        assert self._peer.stdout is not None
        line = await asyncio.wait_for(self._peer.stdout.readline(), 30)
        what, _, when = line.decode().rpartition(" ")
        assert what == expected, f"{what!r} instead of {expected!r}"
        return (int(when) - begun) / 1e6
