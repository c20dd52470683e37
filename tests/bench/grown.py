"""A log that grows on a ZooKeeper server of its own, with what a coordinator keeps beside it.

The same parts as in `pvcd` do the work: the archivist describes, keeps and removes segments while records come. What is
left out is the way back: fold and replica get each record from here, not from ZooKeeper.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import sqlite3
import statistics
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pvc.archive.base import parse_blob_name
from pvc.archive.directory import DirectoryArchive
from pvc.clock import SystemClock, SystemRng
from pvc.events.record import Entry, unseal
from pvc.events.registry import Event
from pvc.log.history import HistoryIndex
from pvc.log.manifest import encode_manifest
from pvc.log.quota import MIB, Quota
from pvc.log.zookeeper import ZookeeperLog
from pvc.log.zookeeper_layout import SegmentLimits
from pvc.node.archivist import LOOK_S, ArchiveParts, Archivist, unsigned
from pvc.node.standing import Standing
from pvc.presence.zookeeper import ZookeeperPresence
from pvc.projections.snapshot import snapshot
from pvc.runtime.appender import Appender
from pvc.runtime.past_files import PastFiles
from pvc.runtime.shelves import AllCopies, Shelf
from pvc.runtime.snapshots import SnapshotFile, keep_snapshots
from pvc.runtime.world import World
from tests.bench.java import live_heap
from tests.bench.measure import cpu_stopwatch, stopwatch
from tests.bench.records import NODE, Chain, a_cluster, daily_life
from tests.integration.zookeeper_server import JARS, ZookeeperServer, four_letters

CLUSTER = "main"
VMS = 100
"""Few, so that the state does not hide what grows with the log."""
BATCH = 200
QUOTA = Quota(records=200_000, size_bytes=64 * MIB)
"""What `pvcd` sets by default."""
KEPT_REQUESTS = 500
"""A server keeps its last ones in memory, whatever their size."""
TIDY_S = 300.0
"""For everything that is to be archived and removed; the archivist looks every 5 s."""
REPLAY_BATCH = 2_000


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """What stays in ZooKeeper."""

    segment_records: int = 4_096
    hot_segments: int = 16
    trimmed: bool = True
    """False: nothing is ever removed, and no quota refuses it."""
    pause_s: float = LOOK_S
    """Between two of the archivist's looks."""


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """What a log takes, in bytes where nothing else is said."""

    records: int
    hot_records: int
    """Of these, in ZooKeeper."""
    znodes: int
    heap: int
    """Live, after a full collection, when the last requests were small."""
    heap_busy: int
    """The same right after large ones."""
    server_snapshot: int
    server_start_s: float
    sealed_records: int
    sealed: int
    """The archive's blobs with these."""
    manifests: int
    replica: int
    state: int
    """The newest stored state of this node."""
    past_states: int


def why_not() -> str:
    """Why there can be no server here; empty where there can."""
    if shutil.which("java") and (JARS / "zookeeper.jar").exists():
        return ""
    return "there is no ZooKeeper here (apt-get install zookeeper default-jre-headless)"


@contextlib.contextmanager
def a_server(home: Path) -> Iterator[ZookeeperServer]:
    """An empty ZooKeeper server within the block."""
    server = ZookeeperServer(home / "zookeeper")
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextlib.asynccontextmanager
async def grown(home: Path, window: Window, server: ZookeeperServer) -> AsyncIterator[GrownLog]:
    """An empty log on this server, with the node's files in `home / "data"`, and all that works on it, within the
    block."""
    async with contextlib.AsyncExitStack() as stack:
        empty_heap = live_heap(server.pid)
        data = home / "data"
        data.mkdir(mode=0o700, parents=True)
        history = await HistoryIndex.open(data / "history.db")
        stack.push_async_callback(history.close)
        archive = DirectoryArchive(data / "archive")
        stack.push_async_callback(archive.close)
        shelf = Shelf(archive)
        copies = AllCopies((shelf,))
        limits = SegmentLimits(records=window.segment_records)
        log = await ZookeeperLog.open(
            server.hosts, CLUSTER, source=copies, limits=limits, quota=QUOTA if window.trimmed else None
        )
        stack.push_async_callback(log.close)
        presence = await ZookeeperPresence.open(server.hosts, CLUSTER, machine="bench")
        stack.push_async_callback(presence.close)
        world = World()
        parts = ArchiveParts(
            segments=log.segments,
            history=history,
            own=shelf,
            shared=(),
            source=copies,
            hot_segments=window.hot_segments,
            pause_s=window.pause_s,
            incarnation=lambda: log.incarnation,
        )
        epoch: Callable[[], int | None] = lambda: 1 if window.trimmed else None  # noqa: E731
        archivist = Archivist(NODE, world, parts, presence, epoch=epoch, sign=unsigned)
        standing = Standing(NODE, world, presence, asyncio.Event(), archived=lambda: archivist.archived)
        files = SnapshotFile(data / "snapshot"), PastFiles(data / "snapshots")
        clock = _LogClock()
        appender = Appender(world, log, origin=NODE, clock=clock, rng=SystemRng())
        work = standing.run(), archivist.run(), keep_snapshots(world, *files), appender.run()
        tasks = [asyncio.create_task(part) for part in work]
        made = _Parts(log=log, world=world, history=history, archivist=archivist, appender=appender, clock=clock)
        one = GrownLog(home, window, server, empty_heap, made)
        with world.listening(one.note):
            yield one
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What works on a log."""

    log: ZookeeperLog
    world: World
    history: HistoryIndex
    archivist: Archivist
    appender: Appender
    clock: _LogClock


class _LogClock(SystemClock):
    """Tells the time of the last record: with the machine's, the made ones would be half a year old."""

    time_us = 0

    def wall_us(self) -> int:
        return self.time_us


class GrownLog:
    """Made by `grown`."""

    def __init__(self, home: Path, window: Window, server: ZookeeperServer, empty_heap: int, parts: _Parts) -> None:
        self.data = home / "data"
        self.server = server
        self.empty_heap = empty_heap
        """Of the server before there was anything."""
        self.log = parts.log
        self.world = parts.world
        self.history = parts.history
        self.appender = parts.appender
        self._archivist = parts.archivist
        self._clock = parts.clock
        self._window = window
        self._chain = Chain()
        self._life = itertools.chain(
            a_cluster(self._chain, VMS, coordinator=True), daily_life(self._chain, VMS, 1 << 60)
        )
        self._fresh: list[Entry] = []
        """Folded, and not yet in the replica."""

    def note(self, entry: Entry, events: tuple[Event, ...]) -> None:
        """A record was folded."""
        self._clock.time_us = entry.record.time_us
        self._fresh.append(entry)

    async def grow(self, to: int) -> None:
        """Append in batches up to this position."""
        while self.world.position < to:
            entries = self._next(min(BATCH, to - self.world.position))
            await asyncio.gather(self.log.append(entries, after=self.world.state.head), self.fill_replica())
            for entry in entries:
                self.world.apply(entry)
        await self.fill_replica()

    async def append_singly(self, count: int) -> float:
        """Append one record after the other; returns the median's milliseconds."""
        times = []
        for entry in self._next(count):
            with stopwatch() as watch:
                await self.log.append([entry], after=self.world.state.head)
            self.world.apply(entry)
            times.append(watch.seconds * 1_000)
        await self.fill_replica()
        return statistics.median(times)

    async def settle(self) -> None:
        """Return when all that is to be archived and removed is so, and the replica is whole."""
        await self.fill_replica()
        async with asyncio.timeout(TIDY_S):
            while True:
                sealed = await self.log.segments.sealed()
                done = not self._window.trimmed or len(sealed) <= self._window.hot_segments
                if done and (not sealed or self._archivist.archived >= sealed[-1].last):
                    return
                await asyncio.sleep(0.5)

    async def replay(self) -> float:
        """Fold the replica's records anew, verified; returns records per second of processor."""
        world = World()
        with cpu_stopwatch() as watch:
            while data := await self.history.read(world.position + 1, REPLAY_BATCH):
                for one in data:
                    world.apply(unseal(one))
        assert world.position == self.world.position
        return world.position / watch.seconds

    async def footprint(self) -> Footprint:
        """Appends some records singly, restarts the server, and measures."""
        heap_busy = await asyncio.to_thread(live_heap, self.server.pid)
        await self.settle()
        await self.append_singly(KEPT_REQUESTS + 100)  # what removes records is large too
        heap = await asyncio.to_thread(live_heap, self.server.pid)
        start_s = await self.restart_server()
        _checkpoint(self.data / "history.db")
        described = await self.log.segments.manifests(0)
        sealed = await self.log.segments.sealed()
        blobs = [(path, parse_blob_name(path.name)) for path in (self.data / "archive").glob("*")]
        kept = [(path, said) for path, said in blobs if said is not None]
        return Footprint(
            records=self.world.position,
            hot_records=self.world.position - (sealed[0].first if sealed else self.log.active_segment[0]) + 1,
            znodes=_znodes(self.server),
            heap=heap,
            heap_busy=heap_busy,
            server_snapshot=_newest_snapshot(self.server),
            server_start_s=start_s,
            sealed_records=sum(said.last - said.first + 1 for _, said in kept),
            sealed=sum(path.stat().st_size for path, _ in kept),
            manifests=sum(len(encode_manifest(one.manifest)) for one in described),
            replica=(self.data / "history.db").stat().st_size,
            state=len(snapshot(self.world.state)),
            past_states=sum(path.stat().st_size for path in (self.data / "snapshots").glob("*")),
        )

    def _next(self, count: int) -> list[Entry]:
        self._chain.head = self.world.state.head  # the appender writes too
        return list(itertools.islice(self._life, count))

    async def fill_replica(self) -> None:
        """Put into the replica what was folded since."""
        fresh, self._fresh = self._fresh, []
        await self.history.index(fresh)

    async def restart_server(self) -> float:
        """Seconds until it serves again; a standalone server writes a snapshot of all it has when it starts."""
        with stopwatch() as watch:
            await asyncio.to_thread(self.server.stop)
            await asyncio.to_thread(self.server.start)
        return watch.seconds


def _znodes(server: ZookeeperServer) -> int:
    (line,) = [line for line in four_letters(server.port, b"srvr").splitlines() if line.startswith(b"Node count:")]
    return int(line.split(b":")[1])


def _checkpoint(replica: Path) -> None:
    """Put what is in SQLite's write-ahead log into the file itself."""
    with contextlib.closing(sqlite3.connect(replica)) as db:
        (busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert not busy, "nobody else is at work"


def _newest_snapshot(server: ZookeeperServer) -> int:
    files: Iterator[Path] = (server.data / "version-2").glob("snapshot.*")
    return max(files, key=lambda path: int(path.suffix[1:], 16)).stat().st_size
