"""The log in ZooKeeper: one multi per append sets the segment's head by its version and creates the records.

The version check makes an append a comparison; the server numbers the records, so positions are dense. After a lost
connection the outcome is unknown: read the first position; my bytes, another's, or nothing, in which case the same
bytes may be sent again, since at most one of the two can pass the version check. The reasons for every step are in
docs/decisions/0003-commit-protocol.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Self

import msgspec

from pvc.errors import LogDamaged, OutcomeUnknown, Unavailable
from pvc.events.record import Entry, Head
from pvc.log.archived import ArchivedRecords, SegmentSource
from pvc.log.base import MAX_READ_BYTES, check_batch, conflict
from pvc.log.inbox import overtaken
from pvc.log.quota import Quota, set_quota
from pvc.log.segments import Segments
from pvc.log.zookeeper_layout import Layout, SegmentLimits, encode_head, way_on_from
from pvc.log.zookeeper_mending import Mending
from pvc.log.zookeeper_view import Archived, Seen, View
from pvc.zookeeper.bridge import SESSION_TIMEOUT_S, Bridge
from pvc.zookeeper.insist import PAUSE_S
from pvc.zookeeper.port import OpenSession
from pvc.zookeeper.types import (
    BadVersion,
    Create,
    Credentials,
    Delete,
    Lost,
    NodeExists,
    NoNode,
    NoSession,
    NotAllowed,
    SetData,
    Tls,
)

__all__ = ["Credentials", "Seen", "Tls", "ZookeeperLog"]

DEADLINE_S = 15.0
"""How long a call waits for ZooKeeper: longer than a session's time-out and a new election together."""

POLL_S = 5.0
"""Followers look at the head this often even if no watch fires."""

READ_WINDOW = 64
"""Records asked for in one request: 16 MiB of the largest."""

READ_BATCH = 512
"""Records per read."""

ARCHIVE_PAUSE_S = 1.0
"""Before anybody asks again for what no archive could give."""

_log = logging.getLogger(__name__)


class ZookeeperLog:
    """One process's client of the cluster's log. Make it with `await ZookeeperLog.open(hosts, cluster)`."""

    def __init__(self, view: View, archived: ArchivedRecords, limits: SegmentLimits) -> None:
        self._view = view
        self._archived = archived
        self._limits = limits
        self._watcher: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        hosts: str,
        cluster: str,
        *,
        credentials: Credentials | None = None,
        archivist: Credentials | None = None,
        tls: Tls | None = None,
        seen: Seen | None = None,
        quota: Quota | None = None,
        source: SegmentSource | None = None,
        limits: SegmentLimits | None = None,
        holder: str = "",
        may_found: bool = True,
        even_damaged: bool = False,
        deadline_s: float = DEADLINE_S,
        session_timeout_s: float = SESSION_TIMEOUT_S,
        bridge: OpenSession = Bridge,
    ) -> Self:
        """Connect to `hosts` ("a:2181,b:2181,c:2181") and find the log of `cluster`, or found it if there is none.

        With `quota`, ZooKeeper is told to refuse what goes beyond it (`log.quota`).
        With `seen`, the log must exist, be that incarnation, and reach at least as far with the same record there.
        `archivist`: a second identity, which alone may delete archived records where the log was founded with one.
        `source`: where the segments come from that are archived; without one they cannot be read. `holder`: under which
        name to append where somebody holds the log. `may_found`: whether to found it; not for who has a copy of one.
        `even_damaged`: open it all the same, for every call to tell what is wrong with it.
        `bridge`: what makes sessions; the simulator has its own.
        Raises Unavailable after `deadline_s` without a server, LogDamaged, InvalidInput (the cluster's name).
        """
        view = View(
            hosts,
            Layout(cluster),
            credentials=credentials,
            archivist=archivist,
            tls=tls,
            seen=seen,
            holder=holder,
            may_found=may_found,
            deadline_s=deadline_s,
            session_timeout_s=session_timeout_s,
            bridge=bridge,
        )
        try:
            view.bridge.start()
            await view.insist(view.refresh)
            if quota is not None:
                await view.insist(lambda: set_quota(view.bridge, view.layout, quota))
        except LogDamaged:
            if not even_damaged:
                await view.close()
                raise
        except BaseException:
            await view.close()
            raise
        return cls(view, ArchivedRecords(view.bridge, view.layout, source), limits or SegmentLimits())

    @property
    def seen(self) -> Seen:
        """What to remember across restarts and to hand to the next `open`."""
        return Seen(incarnation=self._view.incarnation, head=self._view.head)

    @property
    def incarnation(self) -> str:
        """Made with the log; another one is another log."""
        return self._view.incarnation

    @property
    def held_by(self) -> str:
        """Who alone may append, as of the last look; empty: everybody."""
        return self._view.stored.holder

    @property
    def filled_to(self) -> int:
        """Up to here it may have been filled while somebody held it, or before it was first seen."""
        return self._view.filled_to

    @property
    def active_segment(self) -> tuple[int, int, int]:
        """First and last position of the active segment, and its bytes, as of the last look."""
        return self._view.segment, self._view.stored.next - 1, self._view.stored.size_bytes

    @property
    def mending(self) -> Mending:
        """What a repair needs besides appending."""
        return Mending(self._view)

    @property
    def segments(self) -> Segments:
        """The sealed segments, for whoever archives and removes them."""
        return Segments(self._view)

    async def head(self) -> Head:
        """The last committed position, as the server now says."""
        return await self._view.insist(self._view.refresh)

    async def append(
        self, entries: Sequence[Entry], *, after: Head, along: Sequence[Delete] = (), release: bool = False
    ) -> Head:
        """Commit all entries in one round trip, or raise; see `Log.append`. `along` takes place in the same step, one
        for an entry at most; raises Overtaken where what it deletes is gone. `release`: afterwards nobody holds it."""
        check_batch(entries, after)
        assert len(along) <= len(entries), "more of these might not fit into the request"
        maybe_sent = False
        try:
            async with asyncio.timeout(self._view.deadline_s):
                while True:
                    try:
                        await self._view.trusted()
                        if not maybe_sent:
                            await self._expect_head(after)
                        elif await self._took_place(entries, after):
                            return entries[-1].head
                    except (Lost, NoSession):
                        await asyncio.sleep(PAUSE_S)
                        continue
                    if self._view.head != after:
                        continue  # somebody appended since it was looked at
                    self._refuse_if_held()
                    if self._limits.is_full(self._view.segment, self._view.stored, entries):
                        await self._roll()
                        continue
                    earlier, maybe_sent = maybe_sent, True
                    try:
                        return await self._commit(entries, along, release)
                    except Lost:
                        await asyncio.sleep(PAUSE_S)
                    except NoSession:
                        maybe_sent = earlier
                    except NotAllowed:
                        maybe_sent = earlier
                        raise
                    except BadVersion:
                        # Perhaps because of the very request whose reply was lost: then look again.
                        if not earlier:
                            await self._learn_head()
                            if self._view.head != after:
                                raise conflict(self._view.head, after) from None
        except (TimeoutError, Unavailable) as error:
            if maybe_sent:
                raise OutcomeUnknown(
                    f"whether record {entries[0].position} was committed could not be learned "
                    f"within {self._view.deadline_s:g} s",
                    hint="ask for the outcome by the command's id once ZooKeeper can be reached",
                ) from error
            raise self._view.unreachable() if isinstance(error, TimeoutError) else error from None

    async def read(self, first: int, limit: int) -> list[bytes]:
        """Up to `limit` records from `first` on; stops early after READ_BATCH, about MAX_READ_BYTES, or a segment."""
        assert first >= 1 and limit >= 1, "positions and limits start at 1"
        view = self._view

        async def read() -> list[bytes]:
            if first + limit - 1 > view.head.position:
                await view.refresh()
            last = min(first + min(limit, READ_BATCH) - 1, view.head.position)
            batch: list[bytes] = []
            while first + len(batch) <= last and sum(map(len, batch)) < MAX_READ_BYTES:
                start = first + len(batch)
                batch += await view.entries(start, min(start + READ_WINDOW - 1, last))
            return batch

        try:
            return await view.insist(read)
        except Archived:
            return await self._read_archived(first, limit)

    async def follow(self, after: int) -> AsyncIterator[list[bytes]]:
        """Batches from `after + 1` on, for ever."""
        if self._watcher is None and self._view.ended is None:
            self._watcher = asyncio.create_task(self._watch(), name="watch the log's head")
        while True:
            known = await self._view.tail.beyond(after)
            try:
                batch = await self.read(after + 1, known - after)
            except Unavailable:
                if self._view.ended is not None:
                    raise
                await asyncio.sleep(PAUSE_S)
                continue
            after += len(batch)
            yield batch

    async def close(self) -> None:
        """End the session and wake the followers."""
        if self._watcher is not None:
            self._watcher.cancel()
        await self._view.close()

    async def _expect_head(self, after: Head) -> None:
        """Know the commit token at `after`, or raise Conflict. Costs nothing where this client made the last append."""
        view = self._view
        if after.position > view.head.position or view.version < 0:
            await view.refresh()
        if view.head != after:
            raise conflict(view.head, after)

    async def _read_archived(self, first: int, limit: int) -> list[bytes]:
        """From the archive, which may take longer than ZooKeeper: whoever fetches has deadlines of its own."""
        while True:
            await self._view.insist(self._view.refresh)
            try:
                return await self._archived.read(first, limit)
            except (Lost, NoSession):
                await asyncio.sleep(PAUSE_S)
            except Unavailable:
                await asyncio.sleep(ARCHIVE_PAUSE_S)
                raise

    def _refuse_if_held(self) -> None:
        holder, own = self._view.stored.holder, self._view.holder
        if holder not in ("", own):
            raise Unavailable(
                f"the log is held by {holder}, which alone may append until it is whole again",
                code="log.held",
                hint=f"wait for it to end; `pvc log status` tells; if it has died, {way_on_from(holder)}",
            )
        if own and not holder:
            raise Unavailable(
                f"the log is no longer held by {own}: somebody has let go of it",
                code="log.held",
                hint="nothing more was appended; see `pvc log status`, and begin again",
            )

    async def _roll(self) -> None:
        """Seal the active segment and begin the next one. It does not matter who does it, or whether a reply is lost:
        the head is read again, and found to be in the one or the other."""
        view = self._view
        segment, stored, version = view.segment, view.stored, view.version
        assert version >= 0, "ZooKeeper takes -1 for any version"
        view.version = -1
        try:
            await view.bridge.multi(view.layout.roll(segment, stored, version, *await view.active()))
            _log.info("log: segment sealed first=%d last=%d", segment, stored.next - 1)
        except (BadVersion, NodeExists, NoNode):
            # Without a znode: it was not only sealed but archived and removed. Whether all is gone the next look tells.
            _log.debug("log: another writer was first segment=%d", segment)
        except (Lost, NoSession):
            await asyncio.sleep(PAUSE_S)

    async def _commit(self, entries: Sequence[Entry], along: Sequence[Delete], release: bool = False) -> Head:
        view, last = self._view, entries[-1]
        layout, segment, version = view.layout, view.segment, view.version
        assert version >= 0, "ZooKeeper takes -1 for any version"
        stored = view.stored.after(entries)
        if release:
            stored = msgspec.structs.replace(stored, holder="")
        operations: list[SetData | Create | Delete] = [
            SetData(layout.segment(segment), encode_head(stored), version),
            *(layout.new_entry(segment, entry) for entry in entries),
            *along,
        ]
        results: list[int | str] = []
        try:
            with contextlib.suppress(NodeExists):  # misnumbered likewise, but refused by the server
                results = await view.bridge.multi(operations)
        except NoNode:
            # Sealed, archived and removed since this client last looked, or what goes along is gone, or the whole log:
            # which of these, the next look at the head finds out.
            view.version = -1
            raise overtaken() if along else BadVersion("the segment is in ZooKeeper no more") from None
        if results[: 1 + len(entries)] != [version + 1, *(layout.entry(segment, entry.position) for entry in entries)]:
            raise view.damaged(
                f"records {entries[0].position} to {last.position} were numbered {results[1:]}",
                "log.misnumbered",
                "something that is not PVC creates znodes in the log; find it, then restore the log from a replica",
            )
        view.advance(segment, stored, version + 1)
        return last.head

    async def _took_place(self, entries: Sequence[Entry], after: Head) -> bool:
        """Whether an append whose reply was lost is in the log. Raises Conflict if another's is in its place."""
        first, last = entries[0].position, entries[-1].position
        await self._view.bridge.sync(self._view.layout.log)
        head = await self._view.refresh()
        if head == after:
            return False
        last = min(last, head.position)
        try:
            found = await self._view.entries(first, last)
        except Archived:
            found = await self._archived.read(first, last - first + 1)
        if found != [entry.data for entry in entries]:
            raise conflict(head, after)
        return True

    async def _learn_head(self) -> None:
        """After a conflict; if it fails, the next call does it."""
        try:
            await self._view.refresh()
        except (Lost, NoSession):
            self._view.version = -1

    async def _watch(self) -> None:
        """Keep the tail up to date for all followers: by a watch on the head, and by a look every POLL_S."""
        view, changed = self._view, self._view.connected_anew
        while True:
            try:
                await view.trusted()
                changed.clear()
                await view.refresh(changed.set)
                async with asyncio.timeout(POLL_S):
                    await changed.wait()
            except TimeoutError:
                pass
            except (Lost, NoSession):
                await asyncio.sleep(PAUSE_S)
            except LogDamaged as error:
                view.tail.fail(error)
                return
            except Exception:  # noqa: BLE001 - a watcher that ended would leave its followers asleep
                if view.ended is not None:
                    return
                _log.exception("looking at the log's head failed, trying again path=%s", view.layout.log)
                await asyncio.sleep(POLL_S)
