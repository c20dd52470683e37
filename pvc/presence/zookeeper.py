"""Presence in ZooKeeper: ephemeral znodes of a session of its own, whose lease is kept fresh by small writes.

The session is not the log's: it must live for as long as the node is well, whatever the log's client goes through.
All writes of a place name the version they replace, and a place is replaced in one transaction, so nobody ever sees
it empty. What is read and found stale is looked at again. The reasons: docs/decisions/0010-presence.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Self, TypeVar

import msgspec

from pvc.clock import BootClock, Clock
from pvc.presence.base import SESSION_TIMEOUT_S, Member, closed, name_taken, not_joined, unreachable
from pvc.presence.hints import Hints
from pvc.presence.lease import RENEWAL_PART, Lease
from pvc.presence.zookeeper_layout import Layout, Place, decode_place, new_place
from pvc.zookeeper.bridge import Bridge
from pvc.zookeeper.insist import PAUSE_S, insist, lay
from pvc.zookeeper.port import OpenSession, ZookeeperSession
from pvc.zookeeper.types import (
    READ,
    WRITE,
    BadVersion,
    Create,
    Credentials,
    Delete,
    Lost,
    NodeExists,
    NoNode,
    NoSession,
    SetData,
    Tls,
    Znode,
)

POLL_S = 5.0
"""Members and primary are looked at this often even if no watch fires."""

_log = logging.getLogger(__name__)
T = TypeVar("T")


class ZookeeperPresence:
    """One daemon's client. Make it with `await ZookeeperPresence.open(hosts, cluster, machine=...)`."""

    def __init__(self, layout: Layout, machine: str, asked_timeout_s: float, clock: Clock) -> None:
        self._layout = layout
        self._machine = machine
        self._asked_timeout_s = asked_timeout_s
        self._clock = clock
        self._lease = Lease(clock)
        self._hints = Hints()
        self._session = 0
        self._place: Place | None = None
        """What the present session has put into our place, None while it has none."""
        self._placing = asyncio.Lock()
        self._renewing = asyncio.Lock()
        self._wake = asyncio.Event()
        """There is a new connection, in which the lease has to be renewed at once."""
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self._bridge: ZookeeperSession

    @classmethod
    async def open(
        cls,
        hosts: str,
        cluster: str,
        *,
        machine: str,
        credentials: Credentials | None = None,
        tls: Tls | None = None,
        session_timeout_s: float = SESSION_TIMEOUT_S,
        clock: Clock | None = None,
        bridge: OpenSession = Bridge,
    ) -> Self:
        """Connect to `hosts` ("a:2181,b:2181,c:2181"); `machine` is what this machine is known by, see `Presence`.

        `bridge`: what makes sessions; the simulator has its own.

        Raises Unavailable after `session_timeout_s` without a server, InvalidInput (the cluster's name).
        """
        clock = clock or BootClock()
        presence = cls(Layout(cluster), machine, session_timeout_s, clock)
        presence._bridge = bridge(
            hosts,
            credentials=credentials,
            tls=tls,
            session_timeout_s=session_timeout_s,
            on_connected=presence._connected,
            clock=clock,
        )
        try:
            presence._bridge.start()
            await presence._insist(presence._found)
        except BaseException:
            await presence.close(expire=False)
            raise
        presence._tasks = [
            asyncio.create_task(presence._keep_lease(), name="keep the lease"),
            asyncio.create_task(presence._watch(), name="watch who is there"),
        ]
        return presence

    @property
    def session_timeout_s(self) -> float:
        """As granted, or as asked for."""
        handshake = self._bridge.handshake
        return handshake.timeout_s if handshake is not None else self._asked_timeout_s

    async def join(self, name: str, hello: bytes) -> None:
        """Take the place of node `name`; see `Presence.join`."""
        place = Place(name=name, machine=self._machine, hello=hello)

        async def join() -> None:
            async with self._placing:
                if not await self._take(self._layout.node(name), place):
                    raise name_taken(name)
                self._place = place
            await self._renew()  # so that the lease begins with the place

        await self._insist(join)

    async def leave(self) -> None:
        """Give place and primaryship up at once."""

        async def leave() -> None:
            async with self._placing:
                place, self._place = self._place, None
                try:
                    await self._give_up(self._layout.primary)
                    if place is not None:
                        await self._give_up(self._layout.node(place.name))
                except BaseException:
                    self._place = place
                    raise

        await self._insist(leave)
        self._hints.give()

    async def update(self, hello: bytes) -> None:
        """Say something else in the place held."""

        async def update() -> None:
            async with self._placing:
                if self._place is None:
                    raise not_joined()
                place = msgspec.structs.replace(self._place, hello=hello)
                if not await self._take(self._layout.node(place.name), place, replace=False):
                    self._lose_place("it was taken over")
                    raise not_joined()
                self._place = place

        await self._insist(update)

    @property
    def joined(self) -> bool:
        """Whether the present session holds our place, as far as is known."""
        return self._place is not None and not self._closed

    def lease_left_s(self) -> float:
        """For so long the place held is surely ours."""
        return self._lease.left_s() if self.joined else 0.0

    async def members(self) -> dict[str, Member]:
        """Who is there."""

        async def members() -> dict[str, Member]:
            await self._bridge.sync(self._layout.nodes)
            names = sorted(await self._bridge.children(self._layout.nodes))
            znodes = await self._bridge.find_many([self._layout.node(name) for name in names])
            return {name: _member(name, znode) for name, znode in zip(names, znodes, strict=True) if znode is not None}

        return await self._insist(members)

    def changes(self) -> AsyncIterator[None]:
        """Hints that something may have changed."""
        return self._hints.take()

    async def claim_primary(self, name: str) -> bool:
        """Be the primary if there is none."""

        async def claim() -> bool:
            place = Place(name=name, machine=self._machine)
            return self.joined and await self._take(self._layout.primary, place) and self.joined

        return await self._insist(claim)

    async def resign_primary(self) -> None:
        """Let another be primary."""
        await self._insist(lambda: self._give_up(self._layout.primary))

    async def primary(self) -> str:
        """The primary's name, or nothing."""

        async def primary() -> str:
            znode = await self._look(self._layout.primary)
            return decode_place(znode.data).name if znode is not None else ""

        return await self._insist(primary)

    async def publish(self, telemetry: bytes) -> None:
        """Replace this node's telemetry."""

        async def publish() -> None:
            if self._place is None:
                raise not_joined()
            path = self._layout.telemetry_of(self._place.name)
            try:
                await self._bridge.multi([SetData(path, telemetry, -1)])
            except NoNode:
                await self._bridge.multi([Create(path, telemetry, READ | WRITE)])

        await self._insist(publish)

    async def telemetry(self) -> dict[str, bytes]:
        """The last telemetry of each node."""

        async def telemetry() -> dict[str, bytes]:
            names = sorted(await self._bridge.children(self._layout.telemetry))
            znodes = await self._bridge.find_many([self._layout.telemetry_of(name) for name in names])
            return {name: znode.data for name, znode in zip(names, znodes, strict=True) if znode is not None}

        return await self._insist(telemetry)

    async def forget(self, name: str) -> None:
        """Delete the telemetry of a removed node."""

        async def forget() -> None:
            with contextlib.suppress(NoNode):
                await self._bridge.multi([Delete(self._layout.telemetry_of(name), -1)])

        await self._insist(forget)

    async def close(self, *, expire: bool = True) -> None:
        """Go, and leave the session to its expiry or end it."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        self._hints.close()
        await self._bridge.close(end_session=not expire)

    async def _insist(self, act: Callable[[], Awaitable[T]]) -> T:
        """Do `act`, which may be repeated, again after every outage or lost race, until the deadline."""
        try:
            return await insist(
                self._bridge,
                act,
                deadline_s=self._asked_timeout_s,
                check_open=self._check_open,
                found=self._found,
            )
        except TimeoutError:
            raise unreachable(self._asked_timeout_s) from None

    def _check_open(self) -> None:
        if self._closed:
            raise closed()

    async def _found(self) -> None:
        await lay(self._bridge, self._layout.foundation())

    async def _look(self, path: str) -> Znode | None:
        """The znode as it is now, not as this server saw it last."""
        await self._bridge.sync(path)
        [znode] = await self._bridge.find_many([path])
        return znode

    async def _take(self, path: str, place: Place, *, replace: bool = True) -> bool:
        """Have `place` at `path` in this session: anew, or instead of what this machine put there earlier."""
        session, new = self._session, new_place(path, place)
        znode = await self._look(path)
        if znode is None and replace:
            await self._bridge.multi([new])
        elif znode is not None and znode.owner == session:
            if znode.data != new.data:
                await self._bridge.multi([SetData(path, new.data, znode.version)])
        elif znode is not None and replace and self._is_earlier(znode, place):
            await self._bridge.multi([Delete(path, znode.version), new])
        else:
            return False
        if session != self._session:
            raise Lost("the session ended in the middle", code="log.lost")
        return True

    def _is_earlier(self, znode: Znode, place: Place) -> bool:
        there = decode_place(znode.data)
        return (there.name, there.machine) == (place.name, place.machine)

    async def _give_up(self, path: str) -> None:
        znode = await self._look(path)
        if znode is not None and znode.owner == self._session:
            with contextlib.suppress(NoNode):
                await self._bridge.multi([Delete(path, znode.version)])

    def _connected(self) -> None:
        handshake = self._bridge.handshake
        assert handshake is not None, "there is a connection"
        same = handshake.session == self._session
        if not same:
            self._session = handshake.session
            self._lose_place("the session expired")
        self._lease.connected(handshake.began, handshake.timeout_s, same_session=same)
        self._wake.set()
        self._changed.set()

    def _lose_place(self, why: str) -> None:
        if self._place is not None:
            _log.warning("place lost, %s node=%s", why, self._place.name)
            self._place = None
        self._hints.give()

    async def _keep_lease(self) -> None:
        while True:
            await self._bridge.wait_connected()
            self._wake.clear()
            try:
                await self._renew()
            except NoNode:
                self._changed.set()  # the watch founds it again
            except (Lost, NoSession):
                await asyncio.sleep(PAUSE_S)
                continue
            except Exception:  # noqa: BLE001 - without its keeper the lease would never come back
                _log.exception("renewing the lease failed, trying again")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.session_timeout_s * RENEWAL_PART):
                    await self._wake.wait()

    async def _renew(self) -> None:
        async with self._renewing:
            sent = self._clock.monotonic()
            await self._bridge.check(self._layout.nodes)
            self._lease.answered(sent)

    async def _watch(self) -> None:
        """Keep watches on the members and the primary, and an eye on our place; give hints."""
        while True:
            try:
                await self._bridge.wait_connected()
                self._changed.clear()
                await self._bridge.children(self._layout.nodes, self._changed.set)
                await self._bridge.exists(self._layout.primary, self._changed.set)
                await self._look_at_place()
                self._hints.give()
                async with asyncio.timeout(POLL_S):
                    await self._changed.wait()
            except TimeoutError:
                pass
            except (Lost, NoSession, NodeExists, BadVersion):
                self._hints.give()
                await asyncio.sleep(PAUSE_S)
            except NoNode:
                with contextlib.suppress(Lost, NoSession, NoNode):
                    await self._found()
                await asyncio.sleep(PAUSE_S)
            except Exception:  # noqa: BLE001 - a watcher that ended would leave its listeners asleep
                _log.exception("looking at who is there failed, trying again")
                await asyncio.sleep(POLL_S)

    async def _look_at_place(self) -> None:
        """An admin, or a second daemon on this machine, may have laid hands on it."""
        async with self._placing:
            place = self._place
            if place is not None and not await self._take(self._layout.node(place.name), place, replace=False):
                self._lose_place("it was taken over or deleted")


def _member(name: str, znode: Znode) -> Member:
    return Member(name=name, session=f"{znode.owner & 0xFFFFFFFFFFFFFFFF:x}", hello=decode_place(znode.data).hello)
