"""The log in ZooKeeper: one multi per append sets the segment's head by its version and creates the records.

The version check makes an append a comparison; the server numbers the records, so positions are dense. After a lost
connection the outcome is unknown: read the first position; my bytes, another's, or nothing, in which case the same
bytes may be sent again, since at most one of the two can pass the version check. The reasons for every step are in
docs/decisions/0003-commit-protocol.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Self, TypeVar

import msgspec

from pvc.errors import LogDamaged, OutcomeUnknown, Unavailable
from pvc.events.record import EMPTY, Entry, Head
from pvc.log.base import MAX_READ_BYTES, check_batch, closed, conflict
from pvc.log.kazoo_bridge import (
    SESSION_TIMEOUT_S,
    BadVersion,
    Bridge,
    Create,
    Credentials,
    Lost,
    NodeExists,
    NoNode,
    NoSession,
    NotAllowed,
    SetData,
    Tls,
)
from pvc.log.tail import Tail
from pvc.log.zookeeper_layout import Layout, decode_active, decode_head, encode_head

DEADLINE_S = 15.0
"""How long a call waits for ZooKeeper: longer than a session's time-out and a new election together."""

POLL_S = 5.0
"""Followers look at the head this often even if no watch fires."""

REWIND_GRACE_S = 3.0
"""A server met after a lost session may be behind the others for moments; one that stays behind was set back."""

READ_WINDOW = 64
"""Reads in flight at once; more gains nothing through kazoo."""

READ_BATCH = 512
"""Records per read."""

_PAUSE_S = 0.05
"""After a lost connection, so that one that breaks at once is not tried in a tight loop."""

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a node remembers of a log (in its own files), to recognise it when it meets it again."""

    incarnation: str
    head: Head


class ZookeeperLog:
    """One process's client of the cluster's log. Make it with `await ZookeeperLog.open(hosts, cluster)`."""

    def __init__(self, layout: Layout, deadline_s: float, seen: Seen | None) -> None:
        self._layout = layout
        self._deadline_s = deadline_s
        self._bridge: Bridge
        self._incarnation = seen.incarnation if seen else ""
        self._segment = 0
        self._head = seen.head if seen else EMPTY
        self._version = -1
        """Of the segment's znode at `_head`; -1 while unknown."""
        self._connection = 0
        """Counts the connections; the log is looked over once in each before it is used."""
        self._trusted_connection = 0
        self._trusting = asyncio.Lock()
        self._tail = Tail()
        self._changed = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._damage: LogDamaged | None = None
        self._closed = False

    @classmethod
    async def open(
        cls,
        hosts: str,
        cluster: str,
        *,
        credentials: Credentials | None = None,
        tls: Tls | None = None,
        seen: Seen | None = None,
        deadline_s: float = DEADLINE_S,
        session_timeout_s: float = SESSION_TIMEOUT_S,
    ) -> Self:
        """Connect to `hosts` ("a:2181,b:2181,c:2181") and find the log of `cluster`, or found it if there is none.

        With `seen`, the log must exist, be that incarnation, and reach at least as far with the same record there.
        Raises Unavailable after `deadline_s` without a server, LogDamaged, InvalidInput (the cluster's name).
        """
        log = cls(Layout(cluster), deadline_s, seen)
        log._bridge = Bridge.start(
            hosts,
            credentials=credentials,
            tls=tls,
            session_timeout_s=session_timeout_s,
            on_connected=log._begin_connection,
        )
        try:
            await log._insisting(log._refresh)
        except BaseException:
            await log.close()
            raise
        return log

    @property
    def seen(self) -> Seen:
        """What to remember across restarts and to hand to the next `open`."""
        return Seen(incarnation=self._incarnation, head=self._head)

    async def head(self) -> Head:
        """The last committed position, as the server now says."""
        return await self._insisting(self._refresh)

    async def append(self, entries: Sequence[Entry], *, after: Head) -> Head:
        """Commit all entries in one round trip, or raise; see `Log.append`."""
        check_batch(entries, after)
        maybe_sent = False
        try:
            async with asyncio.timeout(self._deadline_s):
                while True:
                    try:
                        await self._trusted()
                        if not maybe_sent:
                            await self._expect_head(after)
                        elif await self._took_place(entries, after):
                            return entries[-1].head
                    except (Lost, NoSession):
                        await asyncio.sleep(_PAUSE_S)
                        continue
                    if self._head != after:
                        continue  # somebody appended since it was looked at
                    earlier, maybe_sent = maybe_sent, True
                    try:
                        return await self._commit(entries)
                    except Lost:
                        await asyncio.sleep(_PAUSE_S)
                    except NoSession:
                        maybe_sent = earlier
                    except NotAllowed:
                        maybe_sent = earlier
                        raise
                    except BadVersion:
                        # Perhaps because of the very request whose reply was lost: then look again.
                        if not earlier:
                            await self._learn_head()
                            raise conflict(self._head, after) from None
        except (TimeoutError, Unavailable) as error:
            if maybe_sent:
                raise OutcomeUnknown(
                    f"whether record {entries[0].position} was committed could not be learned "
                    f"within {self._deadline_s:g} s",
                    hint="ask for the outcome by the command's id once ZooKeeper can be reached",
                ) from error
            raise self._unreachable() if isinstance(error, TimeoutError) else error from None

    async def read(self, first: int, limit: int) -> list[bytes]:
        """Up to `limit` records from `first` on; stops early after READ_BATCH or about MAX_READ_BYTES."""
        assert first >= 1 and limit >= 1, "positions and limits start at 1"

        async def read() -> list[bytes]:
            if first + limit - 1 > self._head.position:
                await self._refresh()
            last = min(first + min(limit, READ_BATCH) - 1, self._head.position)
            batch: list[bytes] = []
            while first + len(batch) <= last and sum(map(len, batch)) < MAX_READ_BYTES:
                start = first + len(batch)
                batch += await self._entries(start, min(start + READ_WINDOW - 1, last))
            return batch

        return await self._insisting(read)

    async def follow(self, after: int) -> AsyncIterator[list[bytes]]:
        """Batches from `after + 1` on, for ever."""
        if self._watcher is None and not self._closed:
            self._watcher = asyncio.create_task(self._watch(), name="watch the log's head")
        while True:
            await self._tail.beyond(after)
            try:
                batch = await self.read(after + 1, READ_BATCH)
            except Unavailable:
                if self._closed:
                    raise
                continue
            after += len(batch)
            yield batch

    async def close(self) -> None:
        """End the session and wake the followers."""
        self._closed = True
        self._tail.fail(closed())
        if self._watcher is not None:
            self._watcher.cancel()
        await self._bridge.close()

    # -- One append ------------------------------------------------------------------------------------------------

    async def _expect_head(self, after: Head) -> None:
        """Know the commit token at `after`, or raise Conflict. Costs nothing where this client made the last append."""
        if after.position > self._head.position or self._version < 0:
            await self._refresh()
        if self._head != after:
            raise conflict(self._head, after)

    async def _commit(self, entries: Sequence[Entry]) -> Head:
        segment, version, last = self._segment, self._version, entries[-1]
        assert version >= 0, "ZooKeeper takes -1 for any version"
        path = self._layout.segment(segment)
        operations: list[SetData | Create] = [
            SetData(path, encode_head(last.head, last.record.level), version),
            *(self._layout.new_entry(segment, entry) for entry in entries),
        ]
        results: list[int | str] = []
        with contextlib.suppress(NodeExists):  # misnumbered likewise, but refused by the server
            results = await self._bridge.multi(operations)
        if results != [version + 1, *(self._layout.entry(segment, entry.position) for entry in entries)]:
            raise self._damaged(
                f"records {entries[0].position} to {last.position} were numbered {results[1:]}",
                "log.misnumbered",
                "something that is not PVC creates znodes in the log; find it, then restore the log from a replica",
            )
        self._advance(last.head, version + 1)
        return last.head

    async def _took_place(self, entries: Sequence[Entry], after: Head) -> bool:
        """Whether an append whose reply was lost is in the log. Raises Conflict if another's is in its place."""
        await self._bridge.sync(self._layout.log)
        head = await self._refresh()
        if head == after:
            return False
        (found,) = await self._entries(entries[0].position, entries[0].position)
        if found != entries[0].data:
            raise conflict(head, after)
        return True

    # -- What the server says --------------------------------------------------------------------------------------

    async def _refresh(self, watch: Callable[[], None] | None = None) -> Head:
        """Read the head; raises Lost when it is behind what was seen, after which the connection is looked over."""
        floor, connection = self._head, self._connection
        head, version = await self._read_head(watch)
        if head.position < floor.position or connection != self._connection:
            self._trusted_connection = 0
            raise Lost("the server is behind what was seen before", code="log.behind")
        self._check_same(head)
        self._advance(head, version)
        return self._head

    async def _read_head(self, watch: Callable[[], None] | None = None) -> tuple[Head, int]:
        try:
            data, version = await self._bridge.get(self._layout.segment(self._segment), watch)
            return decode_head(data), version
        except NoNode:
            raise self._gone() from None
        except LogDamaged as error:
            raise self._damaged(error.message, error.code, error.hint) from None

    async def _learn_head(self) -> None:
        """After a conflict; if it fails, the next call does it."""
        try:
            await self._refresh()
        except (Lost, NoSession):
            self._version = -1

    async def _entries(self, first: int, last: int) -> list[bytes]:
        """The records at `first` to `last`, all at or before the head."""
        paths = [self._layout.entry(self._segment_of(position), position) for position in range(first, last + 1)]
        try:
            return await self._bridge.get_many(paths)
        except NoNode:
            await self._bridge.sync(self._layout.log)
        try:
            return await self._bridge.get_many(paths)
        except NoNode:
            raise self._damaged(
                f"a record from {first} to {last} is missing, though the head is at {self._head.position}",
                "log.gap",
                "restore the log from a node's replica",
            ) from None

    def _segment_of(self, position: int) -> int:
        """The segment that holds `position`. All in one for now; when segments roll, this looks them up."""
        return self._segment

    def _advance(self, head: Head, version: int) -> None:
        if head.position >= self._head.position:
            self._head, self._version = head, version
            self._tail.advance(head.position)

    # -- Trust: is this still the log that was seen before? --------------------------------------------------------

    def _begin_connection(self) -> None:
        self._connection += 1
        self._changed.set()

    async def _trusted(self) -> None:
        """Return once there is a connection in which the log was found to be the one known; no deadline."""
        while True:
            self._check_usable()
            if self._bridge.connected and self._trusted_connection == self._connection:
                return
            async with self._trusting:
                if self._trusted_connection != self._connection or not self._bridge.connected:
                    await self._bridge.wait_connected()
                    self._check_usable()
                    connection = self._connection
                    try:
                        await self._look_over()
                    except (Lost, NoSession):
                        await asyncio.sleep(_PAUSE_S)
                    else:
                        self._trusted_connection = connection

    async def _look_over(self) -> None:
        """Compare the log with what was seen of it. Raises LogDamaged when it is another or was set back."""
        until = asyncio.get_running_loop().time() + REWIND_GRACE_S
        while True:
            await self._find_or_found()
            head, version = await self._read_head()
            if head.position >= self._head.position:
                break
            if asyncio.get_running_loop().time() > until:
                raise self._damaged(
                    f"ZooKeeper's log ends at position {head.position}, but this node has seen {self._head.position}",
                    "log.rewound",
                    "ZooKeeper was set back or restored; do not write on, restore the log from a node's replica",
                )
            await asyncio.sleep(_PAUSE_S)
        self._check_same(head)
        if EMPTY.position < self._head.position < head.position:
            (data,) = await self._entries(self._head.position, self._head.position)
            if hashlib.sha256(data).digest() != self._head.hash:
                raise self._rewritten()
        self._advance(head, version)

    async def _find_or_found(self) -> None:
        """Learn the active segment and check the incarnation; create an empty log if none was ever seen here."""
        for _ in range(2):
            await self._bridge.sync("/")  # what another has just created must be seen here too
            try:
                data, _ = await self._bridge.get(self._layout.active)
                break
            except NoNode:
                if self._incarnation:
                    raise self._gone() from None
                await self._found()
        else:
            raise self._gone()
        segment, incarnation = decode_active(data)
        if self._incarnation not in ("", incarnation):
            raise self._damaged(
                f"ZooKeeper holds incarnation {incarnation} of the log, this node knows {self._incarnation}",
                "log.other_incarnation",
                "this is another cluster's ensemble, or the log was made anew; check the node's list of hosts",
            )
        self._segment, self._incarnation = segment, incarnation

    async def _found(self) -> None:
        """Create the layout in one multi, together with what is missing above it; whoever is first wins."""
        missing = [create for create in self._layout.ancestors() if not await self._bridge.exists(create.path)]
        try:
            await self._bridge.multi([*missing, *self._layout.foundation(str(uuid.uuid4()))])
            _log.info("log founded path=%s", self._layout.log)
        except NodeExists:
            _log.info("log founded by another path=%s", self._layout.log)

    def _check_same(self, head: Head) -> None:
        if head.position == self._head.position and head != self._head:
            raise self._rewritten()

    def _gone(self) -> LogDamaged:
        return self._damaged(
            f"{self._layout.log} is not, or not whole, in ZooKeeper",
            "log.gone",
            "ZooKeeper was wiped or set back, or this is another ensemble; restore the log from a node's replica",
        )

    def _rewritten(self) -> LogDamaged:
        return self._damaged(
            f"ZooKeeper's record {self._head.position} is not the one that this node has seen there",
            "log.rewritten",
            "ZooKeeper was set back and written to, or tampered with; do not write on, compare the nodes' replicas",
        )

    def _damaged(self, message: str, code: str, hint: str) -> LogDamaged:
        """From now on nothing is written, and followers end."""
        if self._damage is None:
            self._damage = LogDamaged(message, code=code, hint=hint)
            self._tail.fail(self._damage)
            _log.critical("log damaged code=%s path=%s: %s", code, self._layout.log, message)
        return self._damage

    def _check_usable(self) -> None:
        if self._closed:
            raise closed()
        if self._damage is not None:
            raise self._damage

    # -- Waiting ---------------------------------------------------------------------------------------------------

    async def _insisting(self, read: Callable[[], Awaitable[T]]) -> T:
        """Do `read`, which changes nothing, again after every outage, until the deadline."""
        try:
            async with asyncio.timeout(self._deadline_s):
                while True:
                    await self._trusted()
                    try:
                        return await read()
                    except (Lost, NoSession):
                        await asyncio.sleep(_PAUSE_S)
        except TimeoutError:
            raise self._unreachable() from None

    def _unreachable(self) -> Unavailable:
        return Unavailable(
            f"ZooKeeper at {self._bridge.hosts} did not answer within {self._deadline_s:g} s",
            code="log.unreachable",
            hint="see that a majority of the coordinators runs and can be reached",
        )

    async def _watch(self) -> None:
        """Keep the tail up to date for all followers: by a watch on the head, and by a look every POLL_S."""
        while True:
            try:
                await self._trusted()
                self._changed.clear()
                await self._refresh(self._changed.set)
                async with asyncio.timeout(POLL_S):
                    await self._changed.wait()
            except TimeoutError:
                pass
            except (Lost, NoSession):
                await asyncio.sleep(_PAUSE_S)
            except LogDamaged as error:
                self._tail.fail(error)
                return
            except Exception:  # noqa: BLE001 - a watcher that ended would leave its followers asleep
                if self._closed:
                    return
                _log.exception("looking at the log's head failed, trying again path=%s", self._layout.log)
                await asyncio.sleep(POLL_S)
