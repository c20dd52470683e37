"""Presence in memory, for tests and the simulator: a client of a `PresenceServer` that may be cut off, muted or frozen.

It keeps its lease as the real client does, by the same rules and as often, so that what is simulated has no better
a lease than what is real. No threads, no I/O: it runs on virtual time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from pvc.errors import Unavailable
from pvc.presence.base import Member, closed, not_joined, unreachable
from pvc.presence.hints import Hints
from pvc.presence.lease import RENEWAL_PART, Lease
from pvc.presence.memory_server import NoAnswer, PresenceServer, Session

T = TypeVar("T")

PAUSE_PART = 1 / 50
"""Of the session's time-out: between two tries to reach the server."""


class MemoryPresence:
    """One daemon's client. `name` is what the server's faults know it by; `machine` is `name` if not given."""

    def __init__(self, server: PresenceServer, name: str, *, machine: str = "") -> None:
        self._server = server
        self._name = name
        self._machine = machine or name
        self._lease = Lease(server.clock)
        self._hints = Hints()
        self._session: Session | None = None
        self._contact = False
        """Whether the last message came through, as far as is known."""
        self._began = 0.0
        """When the present connection was begun."""
        self._renewing = asyncio.Lock()
        self._place = ""
        """Name of the place that the present session took, empty if none."""
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False
        server.listeners[self] = self._heard_of_change

    @property
    def name(self) -> str:
        """What the server's faults know this client by."""
        return self._name

    @property
    def session_timeout_s(self) -> float:
        """How long a session outlives its last sign of life."""
        return self._server.session_timeout_s

    async def join(self, name: str, hello: bytes) -> None:
        """Take the place of node `name`; see `Presence.join`."""

        def join(session: Session) -> Session:
            self._server.take_place(session, name, self._machine, hello)
            return session

        if await self._insist(join) is self._session:
            self._place = name
        with contextlib.suppress(NoAnswer):
            await self._renew()  # so that the lease begins with the place

    async def leave(self) -> None:
        """Give place and primaryship up at once."""

        def leave(session: Session) -> None:
            self._server.give_up(session)
            self._place = ""

        await self._insist(leave)

    async def update(self, hello: bytes) -> None:
        """Say something else in the place held."""

        def update(session: Session) -> None:
            self._check_joined()
            self._server.take_place(session, self._place, self._machine, hello)

        await self._insist(update)

    @property
    def joined(self) -> bool:
        """Whether the present session holds our place, as far as is known."""
        return bool(self._place) and not self._closed

    def lease_left_s(self) -> float:
        """For so long the place held is surely ours."""
        return self._lease.left_s() if self.joined else 0.0

    async def members(self) -> dict[str, Member]:
        """Who is there."""
        return await self._insist(lambda session: self._server.members())

    def changes(self) -> AsyncIterator[None]:
        """Hints that something may have changed."""
        self._keep_lease()  # which keeps the contact too, without which there are no hints
        return self._hints.take()

    async def claim_primary(self, name: str) -> bool:
        """Be the primary if there is none."""
        return await self._insist(
            lambda session: self.joined and self._server.take_primary(session, name, self._machine)
        )

    async def resign_primary(self) -> None:
        """Let another be primary."""
        await self._insist(lambda session: self._server.resign(session))

    async def primary(self) -> str:
        """The primary's name, or nothing."""
        return await self._insist(lambda session: self._server.primary.name if self._server.primary else "")

    async def publish(self, telemetry: bytes) -> None:
        """Replace this node's telemetry."""

        def publish(session: Session) -> None:
            self._check_joined()
            self._server.telemetry[self._place] = telemetry

        await self._insist(publish)

    async def telemetry(self) -> dict[str, bytes]:
        """The last telemetry of each node."""
        return await self._insist(lambda session: dict(self._server.telemetry))

    async def forget(self, name: str) -> None:
        """Delete the telemetry of a removed node."""
        await self._insist(lambda session: self._server.telemetry.pop(name, None))

    async def close(self, *, expire: bool = True) -> None:
        """Go, and leave the session to its expiry or end it. A daemon that is killed may be closed so too."""
        if self._closed:
            return
        self._closed = True
        self._server.listeners.pop(self, None)
        if self._keeper is not None:
            self._keeper.cancel()
        if self._session is not None and not expire and self._server.reachable(self._name):
            self._server.end(self._session)
        self._hints.close()

    async def _insist(self, act: Callable[[Session], T]) -> T:
        """Do `act`, which may be repeated, at the server; after every outage again, until the deadline."""
        self._keep_lease()
        try:
            async with asyncio.timeout(self.session_timeout_s):
                while True:
                    try:
                        return await self._round_trip(act)
                    except NoAnswer:
                        await asyncio.sleep(self.session_timeout_s * PAUSE_PART)
        except TimeoutError:
            raise unreachable(self.session_timeout_s) from None

    async def _round_trip(self, act: Callable[[Session], T]) -> T:
        """One try. Raises NoAnswer when the request or the reply is lost."""
        if self._closed:
            raise closed()
        await self._server.passage(self._name)
        self._connect()
        assert self._session is not None
        self._server.hear(self._session)
        result = act(self._session)
        try:
            await self._server.passage(self._name, reply=True)
        except NoAnswer:
            self._contact = False
            raise
        return result

    def _connect(self) -> None:
        """Resume the session, or begin one if there is none any more."""
        if self._contact and self._session in self._server.sessions:
            self._look_at_place()
            return
        self._began = self._server.clock.monotonic()
        same = self._session in self._server.sessions
        if not same:
            self._session = self._server.begin()
            self._place = ""
        self._contact = True
        self._lease.connected(self._began, self.session_timeout_s, same_session=same)
        self._look_at_place()
        self._hints.give()

    def _look_at_place(self) -> None:
        held = self._server.places.get(self._place)
        if self._place and (held is None or held.session is not self._session):
            self._place = ""
            self._hints.give()

    def _heard_of_change(self) -> None:
        if self._contact and self._server.reachable(self._name):
            if self._session in self._server.sessions:
                self._look_at_place()
            self._hints.give()
        else:
            self._contact = False  # the hint comes with the next contact

    def _check_joined(self) -> None:
        if not self.joined:
            raise not_joined()

    def _keep_lease(self) -> None:
        if self._keeper is None and not self._closed:
            self._keeper = asyncio.get_running_loop().create_task(self._renew_for_ever(), name=f"lease of {self._name}")

    async def _renew_for_ever(self) -> None:
        while True:
            try:
                await self._renew()
            except NoAnswer:
                self._contact = False
            except Unavailable:
                return
            await asyncio.sleep(self.session_timeout_s * RENEWAL_PART)

    async def _renew(self) -> None:
        async with self._renewing:
            sent = self._server.clock.monotonic()
            await self._round_trip(lambda session: None)
            self._lease.answered(max(sent, self._began))  # it may have begun the connection as well
