"""What one process knows of the log in ZooKeeper, and whether what it meets there is still the same log.

In each new connection the log is looked over before anything else: same incarnation, not shorter than seen, and at the
last seen position the same record. So a wiped, rewound or rewritten ensemble is found out before a byte is written.
"""

from __future__ import annotations

import asyncio
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
from pvc.log.zookeeper_layout import Layout, decode_active, decode_head
from pvc.zookeeper.bridge import Bridge
from pvc.zookeeper.port import OpenSession, ZookeeperSession
from pvc.zookeeper.types import Credentials, Lost, NodeExists, NoNode, NoSession, Tls

REWIND_GRACE_S = 3.0
"""A server met after a lost session may be behind the others for moments; one that stays behind was set back."""

FOUNDING_TRIES = 3
"""Another cluster may have made the znode that all share in the same moment; and then there is the look afterwards."""

PAUSE_S = 0.05
"""After a lost connection, so that one that breaks at once is not tried in a tight loop."""

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a node remembers of a log (in its own files), to recognise it when it meets it again."""

    incarnation: str
    head: Head


class View:
    """The log as known here: `head`, the `version` of the segment's znode at that head, and the `tail` to wait at."""

    def __init__(
        self,
        hosts: str,
        layout: Layout,
        *,
        credentials: Credentials | None,
        tls: Tls | None,
        seen: Seen | None,
        deadline_s: float,
        session_timeout_s: float,
        bridge: OpenSession = Bridge,
    ) -> None:
        self.layout = layout
        self.deadline_s = deadline_s
        self.incarnation = seen.incarnation if seen else ""
        self.segment = 0
        self.head = seen.head if seen else EMPTY
        self.version = -1
        """-1 while unknown; never sent, for ZooKeeper takes it for "any"."""
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
            tls=tls,
            session_timeout_s=session_timeout_s,
            on_connected=self._begin_connection,
        )

    async def insist(self, read: Callable[[], Awaitable[T]]) -> T:
        """Do `read`, which changes nothing, again after every outage, until the deadline; then Unavailable."""
        try:
            async with asyncio.timeout(self.deadline_s):
                while True:
                    await self.trusted()
                    try:
                        return await read()
                    except (Lost, NoSession):
                        await asyncio.sleep(PAUSE_S)
        except TimeoutError:
            raise self.unreachable() from None

    async def refresh(self, watch: Callable[[], None] | None = None) -> Head:
        """Read the head; raises Lost when it is behind what was seen, and the connection will be looked over."""
        floor, connection = self.head, self._connection
        head, version = await self._read_head(watch)
        if head.position < floor.position or connection != self._connection:
            self._trusted_connection = 0
            raise Lost("the server is behind what was seen before", code="log.behind")
        self._check_same(head)
        self.advance(head, version)
        return self.head

    async def entries(self, first: int, last: int) -> list[bytes]:
        """The records at `first` to `last`, all at or before the head. One that is missing is damage."""
        paths = [self.layout.entry(self._segment_of(position), position) for position in range(first, last + 1)]
        try:
            return await self.bridge.get_many(paths)
        except NoNode:
            await self.bridge.sync(self.layout.log)
        try:
            return await self.bridge.get_many(paths)
        except NoNode:
            raise self.damaged(
                f"a record from {first} to {last} is missing, though the head is at {self.head.position}",
                "log.gap",
                "restore the log from a node's replica",
            ) from None

    def advance(self, head: Head, version: int) -> None:
        """The log is known to reach to `head`, where the segment's znode has `version`."""
        if head.position >= self.head.position:
            self.head, self.version = head, version
            self.tail.advance(head.position)

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
        """The segment that holds `position`. All in one for now; when segments roll, this looks them up."""
        assert position >= self.segment, f"position {position} is before segment {self.segment}"
        return self.segment

    async def _read_head(self, watch: Callable[[], None] | None = None) -> tuple[Head, int]:
        try:
            data, version = await self.bridge.get(self.layout.segment(self.segment), watch)
            return decode_head(data), version
        except NoNode:
            raise self.gone() from None
        except LogDamaged as error:
            raise self.damaged(error.message, error.code, error.hint) from None

    async def _look_over(self) -> None:
        """Compare the log with what was seen of it. Raises LogDamaged when it is another or was set back."""
        until = asyncio.get_running_loop().time() + REWIND_GRACE_S
        while True:
            await self._find_or_found()
            head, version = await self._read_head()
            if head.position >= self.head.position:
                break
            if asyncio.get_running_loop().time() > until:
                raise self.damaged(
                    f"ZooKeeper's log ends at position {head.position}, but this node has seen {self.head.position}",
                    "log.rewound",
                    "ZooKeeper was set back or restored; do not write on, restore the log from a node's replica",
                )
            await asyncio.sleep(PAUSE_S)
        self._check_same(head)
        if EMPTY.position < self.head.position < head.position:
            (data,) = await self.entries(self.head.position, self.head.position)
            if hashlib.sha256(data).digest() != self.head.hash:
                raise self._rewritten()
        self.advance(head, version)

    async def _find_or_found(self) -> None:
        """Learn the active segment and check the incarnation; create an empty log if none was ever seen here."""
        for _ in range(FOUNDING_TRIES):
            await self.bridge.sync("/")  # what another has just created must be seen here too
            try:
                data, _version = await self.bridge.get(self.layout.active)
                break
            except NoNode:
                if self.incarnation:
                    raise self.gone() from None
                await self._found()
        else:
            raise self.gone()
        try:
            segment, incarnation = decode_active(data)
        except LogDamaged as error:
            raise self.damaged(error.message, error.code, error.hint) from None
        if self.incarnation not in ("", incarnation):
            raise self.damaged(
                f"ZooKeeper holds incarnation {incarnation} of the log, this node knows {self.incarnation}",
                "log.other_incarnation",
                "this is another cluster's ensemble, or the log was made anew; check the node's list of hosts",
            )
        self.segment, self.incarnation = segment, incarnation

    async def _found(self) -> None:
        """Create the layout in one multi, together with what is missing above it; whoever is first wins."""
        missing = [create for create in self.layout.ancestors() if not await self.bridge.exists(create.path)]
        try:
            await self.bridge.multi([*missing, *self.layout.foundation(str(uuid.uuid4()))])
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
