"""What one process knows of the log in ZooKeeper, and whether what it meets there is still the same log.

In each new connection the log is looked over before anything else: same incarnation, not shorter than seen, and at the
last seen position the same record. So a wiped, rewound or rewritten ensemble is found out before a byte is written.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import hashlib
import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from pvc.errors import LogDamaged, PvcError, Unavailable
from pvc.events.record import EMPTY, Head
from pvc.log.base import closed
from pvc.log.tail import Tail
from pvc.log.zookeeper_layout import NOTHING, Active, Layout, SegmentHead, decode_active, decode_head
from pvc.zookeeper.bridge import Bridge
from pvc.zookeeper.insist import PAUSE_S
from pvc.zookeeper.kazoo_parts import digest_of
from pvc.zookeeper.port import OpenSession, ZookeeperSession
from pvc.zookeeper.types import Credentials, Lost, NodeExists, NoNode, NoSession, Tls

REWIND_GRACE_S = 3.0
"""A server met after a lost session may be behind the others for moments; one that stays behind was set back."""

FOUNDING_TRIES = 3
"""Another cluster may have made the znode that all share in the same moment; and then there is the look afterwards."""

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a node remembers of a log (in its own files), to recognise it when it meets it again."""

    incarnation: str
    head: Head


class Archived(Exception):
    """The record at `position` is not in ZooKeeper any more: its segment has a manifest, and was archived."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class View:
    """The log as known here: `head`, the `version` of the segment's znode at that head, and the `tail` to wait at."""

    def __init__(
        self,
        hosts: str,
        layout: Layout,
        *,
        credentials: Credentials | None,
        archivist: Credentials | None,
        tls: Tls | None,
        seen: Seen | None,
        holder: str,
        may_found: bool,
        deadline_s: float,
        session_timeout_s: float,
        bridge: OpenSession = Bridge,
    ) -> None:
        self.layout = layout
        self.deadline_s = deadline_s
        self.holder = holder
        self._may_found = may_found
        self.archivist = digest_of(archivist) if archivist else ""
        self.incarnation = seen.incarnation if seen else ""
        self.head = seen.head if seen else EMPTY
        self.segment = 0
        """The active one."""
        self.stored: SegmentHead = NOTHING
        """What stands in its znode at `version`."""
        self.version = -1
        """-1 while unknown; never sent, for ZooKeeper takes it for "any"."""
        self.starts: list[int] = []
        """First positions of the segments in ZooKeeper, ascending. What is before them is in the archive."""
        self.filled_to = 0
        """Up to here the log may have been filled while somebody held it, or before it was first seen: no record
        before this one says how things are."""
        self.tail = Tail()
        self.connected_anew = asyncio.Event()
        """Set at each new connection, for the one who keeps a watch."""
        self._connection = 0
        """Counts the connections; the log must be looked over once in each."""
        self._trusted_connection = 0
        self._trusting = asyncio.Lock()
        self._damage: LogDamaged | None = None
        self._closed = False
        self.bridge: ZookeeperSession = bridge(
            hosts,
            credentials=credentials,
            also=archivist,
            tls=tls,
            session_timeout_s=session_timeout_s,
            on_connected=self._begin_connection,
        )

    async def insist(self, act: Callable[[], Awaitable[T]], *, trusted: bool = True) -> T:
        """Do `act`, which may be done any number of times, again after every outage, until the deadline; then
        Unavailable. `trusted`: only in a connection in which the log was found to be the one that was seen before."""
        ready = self.trusted if trusted else self.bridge.wait_connected
        try:
            async with asyncio.timeout(self.deadline_s):
                while True:
                    await ready()
                    try:
                        return await act()
                    except (Lost, NoSession):
                        await asyncio.sleep(PAUSE_S)
        except TimeoutError:
            raise self.unreachable() from None

    def forget_position(self) -> None:
        """The log may be shorter than it was seen: for who made it so."""
        self.head, self.segment, self.version = EMPTY, 0, -1

    async def refresh(self, watch: Callable[[], None] | None = None) -> Head:
        """Read the head; raises Lost when it is behind what was seen, and the connection will be looked over."""
        floor, connection = self.head, self._connection
        segment, stored, version = await self._read_head(self.segment, watch)
        if stored.head.position < floor.position or connection != self._connection:
            self._trusted_connection = 0
            raise Lost("the server is behind what was seen before", code="log.behind")
        self._check_same(stored.head)
        self.advance(segment, stored, version)
        return self.head

    async def entries(self, first: int, last: int) -> list[bytes]:
        """The records at `first` to `last`, all at or before the head.

        Raises Archived for the first that is in ZooKeeper no more. One that is nowhere is damage.
        """
        for asked_anew in (False, True):
            if first < self.starts[0]:
                raise Archived(first)
            paths = [self.layout.entry(self._segment_of(position), position) for position in range(first, last + 1)]
            try:
                return await self.bridge.get_many(paths)
            except NoNode:
                if not asked_anew:
                    await self.bridge.sync(self.layout.log)
                    await self._list_segments()
        # Of a segment that is just being removed some records are gone already.
        if await self.bridge.exists(self.layout.manifest(self._segment_of(first))):
            raise Archived(first)
        raise self.damaged(
            f"a record from {first} to {last} is missing, though the head is at {self.head.position}",
            "log.gap",
            "restore the log from a node's replica",
        )

    def advance(self, segment: int, stored: SegmentHead, version: int) -> None:
        """The log is known to reach to what is `stored` in the active segment's znode at `version`."""
        if stored.next > self.head.position and (segment, version) > (self.segment, self.version):
            if segment > self.segment and segment not in self.starts:
                bisect.insort(self.starts, segment)
            if self.stored.holder or stored.holder or self.head == EMPTY:
                self.filled_to = stored.head.position
            self.head, self.segment, self.stored, self.version = stored.head, segment, stored, version
            self.tail.advance(self.head.position)

    def damaged(self, message: str, code: str, hint: str) -> LogDamaged:
        """The error to raise; from now on nothing is written, and followers end."""
        if self._damage is None:
            self._damage = LogDamaged(message, code=code, hint=hint)
            self.tail.fail(self._damage)
            _log.critical("log damaged code=%s path=%s: %s", code, self.layout.log, message)
        return self._damage

    def gone(self) -> LogDamaged:
        """The error to raise when a part of the layout is missing."""
        return self.damaged(
            f"{self.layout.log} is not, or not whole, in ZooKeeper",
            "log.gone",
            "ZooKeeper was wiped or set back, or this is another ensemble; restore the log from a node's replica",
        )

    def unreachable(self) -> Unavailable:
        """The error to raise when the deadline passed and nothing was written."""
        return Unavailable(
            f"ZooKeeper at {self.bridge.hosts} did not answer within {self.deadline_s:g} s",
            code="log.unreachable",
            hint="see that a majority of the coordinators runs and can be reached",
        )

    async def trusted(self) -> None:
        """Return once there is a connection in which the log was found to be the one known; no deadline."""
        while True:
            self._check_usable()
            if self.bridge.connected and self._trusted_connection == self._connection:
                return
            async with self._trusting:
                if self.bridge.connected and self._trusted_connection == self._connection:
                    continue
                await self.bridge.wait_connected()
                self._check_usable()
                connection = self._connection
                try:
                    await self._look_over()
                except (Lost, NoSession):
                    await asyncio.sleep(PAUSE_S)
                else:
                    self._trusted_connection = connection

    async def close(self) -> None:
        """End the session; who waits at the tail is told."""
        self._closed = True
        self.tail.fail(closed())
        await self.bridge.close()

    @property
    def ended(self) -> PvcError | None:
        """Why nothing more can be done with this log, if so."""
        return closed() if self._closed else self._damage

    def _check_usable(self) -> None:
        if (error := self.ended) is not None:
            raise error

    def _begin_connection(self) -> None:
        self._connection += 1
        self.connected_anew.set()

    def _segment_of(self, position: int) -> int:
        """The segment that holds `position`, which is not before all of them."""
        return self.starts[bisect.bisect_right(self.starts, position) - 1]

    async def _read_head(self, segment: int, watch: Callable[[], None] | None = None) -> tuple[int, SegmentHead, int]:
        """The active segment, which is `segment` or a later one, what its znode states, and its version; `watch` tells
        when that changes."""
        connection, looked_up = self._connection, False
        try:
            while True:
                try:
                    data, version = await self.bridge.get(self.layout.segment(segment), watch)
                except NoNode:
                    if connection != self._connection:  # this is another server, which may be behind
                        raise Lost("the connection changed", code="log.behind") from None
                    if looked_up:
                        raise self.gone() from None
                    # Sealed, archived and removed since it was last looked at.
                    await self._list_segments()
                    segment, looked_up = int((await self.active())[0].segment), True
                    continue
                stored = decode_head(data)
                if not stored.sealed:
                    return segment, stored, version
                segment = stored.next
        except LogDamaged as error:
            raise self.damaged(error.message, error.code, error.hint) from None

    async def active(self) -> tuple[Active, int]:
        """What `active` states, and its version."""
        try:
            data, version = await self.bridge.get(self.layout.active)
        except NoNode:
            raise self.gone() from None
        return self._decode_active(data), version

    async def _list_segments(self) -> None:
        try:
            names = await self.bridge.children(self.layout.segments)
        except NoNode:
            raise self.gone() from None
        if not names:
            raise self.gone()
        self.starts = sorted(map(int, names))

    async def _look_over(self) -> None:
        """Compare the log with what was seen of it. Raises LogDamaged when it is another or was set back."""
        until = asyncio.get_running_loop().time() + REWIND_GRACE_S
        while True:
            segment, stored, version = await self._read_head(await self._find_or_found())
            if stored.head.position >= self.head.position:
                break
            if asyncio.get_running_loop().time() > until:
                raise self.damaged(
                    f"ZooKeeper's log ends at position {stored.next - 1}, but this node has seen {self.head.position}",
                    "log.rewound",
                    "ZooKeeper was set back or restored; do not write on, restore the log from a node's replica",
                )
            await asyncio.sleep(PAUSE_S)
        self._check_same(stored.head)
        if EMPTY.position < self.head.position < stored.head.position:
            # Of one that is archived, the next one that is read tells: it names the hash of the one before.
            with contextlib.suppress(Archived):
                (data,) = await self.entries(self.head.position, self.head.position)
                if hashlib.sha256(data).digest() != self.head.hash:
                    raise self._rewritten()
        self.advance(segment, stored, version)

    async def _find_or_found(self) -> int:
        """Check the incarnation; create an empty log if none was ever seen here. Returns the active segment."""
        for _ in range(FOUNDING_TRIES):
            await self.bridge.sync("/")  # what another has just created must be seen here too
            try:
                data, _version = await self.bridge.get(self.layout.active)
                break
            except NoNode:
                if self.incarnation or not self._may_found:
                    raise self.gone() from None
                await self._found()
        else:
            raise self.gone()
        active = self._decode_active(data)
        if self.incarnation not in ("", active.incarnation):
            raise self.damaged(
                f"ZooKeeper holds incarnation {active.incarnation} of the log, this node knows {self.incarnation}",
                "log.other_incarnation",
                "this is another cluster's ensemble, or the log was made anew; check the node's list of hosts",
            )
        self.incarnation = active.incarnation
        await self._list_segments()
        return int(active.segment)

    def _decode_active(self, data: bytes) -> Active:
        try:
            return decode_active(data)
        except LogDamaged as error:
            raise self.damaged(error.message, error.code, error.hint) from None

    async def _found(self) -> None:
        """Create the layout in one multi, together with what is missing above it; whoever is first wins."""
        missing = [create for create in self.layout.ancestors() if not await self.bridge.exists(create.path)]
        try:
            await self.bridge.multi([*missing, *self.layout.foundation(str(uuid.uuid4()), self.archivist)])
            _log.info("log founded path=%s", self.layout.log)
        except NodeExists:
            _log.info("log founded by another path=%s", self.layout.log)

    def _check_same(self, head: Head) -> None:
        if head.position == self.head.position and head != self.head:
            raise self._rewritten()

    def _rewritten(self) -> LogDamaged:
        return self.damaged(
            f"ZooKeeper's record {self.head.position} is not the one that this node has seen there",
            "log.rewritten",
            "ZooKeeper was set back and written to, or tampered with; do not write on, compare the nodes' replicas",
        )
