"""Bugs in the log's way to ZooKeeper, each a thing that has gone wrong in somebody's log before. For the simulator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from pvc.errors import Unavailable
from pvc.events.record import Entry, Head
from pvc.log.base import conflict
from pvc.log.zookeeper import ZookeeperLog
from pvc.log.zookeeper_layout import Active, Layout, SegmentHead, encode_head
from pvc.log.zookeeper_view import View
from pvc.sim.log_simulation import LogFaults
from pvc.sim.mutation import Kind, Mutant
from pvc.sim.zookeeper_bridge import SimBridge
from pvc.zookeeper.insist import PAUSE_S
from pvc.zookeeper.types import BadVersion, Create, Delete, Lost, NoSession, SetData

LOSING = LogFaults(lossy=1.0)
"""Each run loses acknowledged records once."""

real_multi = SimBridge.multi
real_commit = ZookeeperLog._commit
real_refresh = View.refresh
real_roll = Layout.roll


async def create_and_retry(self: ZookeeperLog, entries: Sequence[Entry], *, after: Head) -> Head:
    """A sequential create, sent again for as long as no answer comes."""
    view = self._view
    await view.trusted()
    if view.head != after:
        raise conflict(view.head, after)
    operations: list[SetData | Create] = [
        SetData(view.layout.segment(view.segment), encode_head(view.stored.after(entries)), -1),
        *(view.layout.new_entry(view.segment, entry) for entry in entries),
    ]
    while True:
        try:
            await view.trusted()
            await view.bridge.multi(operations)
            return entries[-1].head
        except (Lost, NoSession):
            await asyncio.sleep(PAUSE_S)


async def any_version(self: SimBridge, operations: Sequence[Any]) -> list[int | str]:
    """The head is set whatever its version is."""
    return await real_multi(
        self, [SetData(one.path, one.data, -1) if isinstance(one, SetData) else one for one in operations]
    )


async def without_head(
    self: ZookeeperLog, entries: Sequence[Entry], along: Sequence[Delete] = (), release: bool = False
) -> Head:
    """The records are created, and the head is set afterwards."""
    view, stored, version = self._view, self._view.stored.after(entries), self._view.version
    await view.bridge.multi([view.layout.new_entry(view.segment, entry) for entry in entries])
    await view.bridge.multi([SetData(view.layout.segment(view.segment), encode_head(stored), -1)])
    view.advance(view.segment, stored, version + 1)
    return entries[-1].head


async def one_by_one(
    self: ZookeeperLog, entries: Sequence[Entry], along: Sequence[Delete] = (), release: bool = False
) -> Head:
    """A batch is several transactions."""
    for entry in entries:
        head = await real_commit(self, [entry], along, release)
    return head


async def again_at_once(
    self: ZookeeperLog, entries: Sequence[Entry], along: Sequence[Delete] = (), release: bool = False
) -> Head:
    """What was lost is sent again in the next connection or session, without a look at what became of it."""
    while True:
        try:
            return await real_commit(self, entries, along, release)
        except (Lost, NoSession):
            await self._view.bridge.wait_connected()
            await asyncio.sleep(PAUSE_S)


async def never_took_place(self: ZookeeperLog, entries: Sequence[Entry], after: Head) -> bool:
    """What is in the log is taken for another's if it is not where the head was."""
    await self._view.bridge.sync(self._view.layout.log)
    head = await self._view.refresh()
    if head != after:
        raise conflict(head, after)
    return False


async def always_took_place(self: ZookeeperLog, entries: Sequence[Entry], after: Head) -> bool:
    """A lost reply is taken for success."""
    return True


async def unknown_is_failed(self: ZookeeperLog, entries: Sequence[Entry], *, after: Head) -> Head:
    """A lost reply is taken for failure."""
    try:
        await self._view.trusted()
        await self._expect_head(after)
        return await self._commit(entries, ())
    except BadVersion:
        await self._learn_head()
        raise conflict(self._view.head, after) from None
    except (Lost, NoSession) as error:
        raise Unavailable("it failed") from error


async def look_over_nothing(self: View) -> None:
    """In a new connection only the layout is looked for: a server that was set back is trusted."""
    self.segment, self.stored, self.version = await self._read_head(await self._find_or_found())
    self.head = self.stored.head


def seal_any_version(
    self: Layout, segment: int, stored: SegmentHead, version: int, active: Active, active_version: int
) -> list[SetData | Create]:
    """A full segment is sealed whatever was added to it meanwhile."""
    return real_roll(self, segment, stored, -1, active, -1)


async def no_watch(self: View, watch: Callable[[], None] | None = None) -> Head:
    """The watch on the head is not set again once it has fired."""
    if watch is not None and getattr(self, "_watched", False):
        watch = None
    self._watched = True  # type: ignore[attr-defined]
    return await real_refresh(self, watch)


async def skip_to_the_end(self: ZookeeperLog, after: int) -> AsyncIterator[list[bytes]]:
    """A follower goes on at the end after each new connection."""
    if self._watcher is None:
        self._watcher = asyncio.create_task(self._watch(), name="watch the log's head")
    connection = self._view._connection
    while True:
        known = await self._view.tail.beyond(after)
        if connection != self._view._connection:
            connection, after = self._view._connection, known - 1
        batch = await self.read(after + 1, known - after)
        after += len(batch)
        yield batch


async def begin_again(self: ZookeeperLog, after: int) -> AsyncIterator[list[bytes]]:
    """A follower reads its last batch again after each new connection."""
    if self._watcher is None:
        self._watcher = asyncio.create_task(self._watch(), name="watch the log's head")
    connection, last = self._view._connection, after
    while True:
        known = await self._view.tail.beyond(after)
        if connection != self._view._connection:
            connection, after = self._view._connection, last
        last = after
        batch = await self.read(after + 1, known - after)
        after += len(batch)
        yield batch


def _log(name: str, within: int, *changes: tuple[object, str, Any], faults: LogFaults | None = None) -> Mutant:
    return Mutant(name=name, kind=Kind.LOG, within=within, changes=changes, faults=faults)


LOG_MUTANTS: tuple[Mutant, ...] = (
    _log("a sequential create is sent again until it is answered", 10, (ZookeeperLog, "append", create_and_retry)),
    _log("the head is set whatever its version (-1)", 10, (SimBridge, "multi", any_version)),
    _log("records are created without the head", 10, (ZookeeperLog, "_commit", without_head)),
    _log("a batch is several transactions", 10, (ZookeeperLog, "_commit", one_by_one)),
    _log("what was lost is sent again, also over expiry", 20, (ZookeeperLog, "_commit", again_at_once)),
    _log("one's own batch is not recognised in the log", 20, (ZookeeperLog, "_took_place", never_took_place)),
    _log("a lost reply is taken for success", 20, (ZookeeperLog, "_took_place", always_took_place)),
    _log("a lost reply is taken for failure", 20, (ZookeeperLog, "append", unknown_is_failed)),
    _log(
        "a log that was set back is trusted",
        20,
        (View, "_look_over", look_over_nothing),
        faults=LOSING,
    ),
    _log("a segment is sealed whatever its version", 60, (Layout, "roll", seal_any_version)),
    _log("the watch is not set again", 10, (View, "refresh", no_watch)),
    _log("a follower skips what came while it had no connection", 20, (ZookeeperLog, "follow", skip_to_the_end)),
    _log("a follower repeats what it had before the connection broke", 20, (ZookeeperLog, "follow", begin_again)),
)
