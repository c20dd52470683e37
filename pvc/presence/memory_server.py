"""The server of presence in memory: sessions that die of silence, and what is tied to them; with faults to order.

Faults go by the clients' names: `cut` loses requests, `lose_replies` what comes back, `freeze` stops the client itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable

import msgspec

from pvc.clock import BootClock, Clock
from pvc.presence.base import SESSION_TIMEOUT_S, Member, name_taken


class NoAnswer(Exception):
    """The request or its reply was lost."""


class Session(msgspec.Struct, eq=False):
    """A client's session."""

    id: str
    heard: float


class Place(msgspec.Struct, frozen=True):
    """What a session holds: a node's place, or the primaryship."""

    session: Session
    name: str
    machine: str
    hello: bytes = b""


class PresenceServer:
    """What the clients of one cluster share. Make it in the loop that it serves."""

    def __init__(self, clock: Clock | None = None, *, session_timeout_s: float = SESSION_TIMEOUT_S) -> None:
        self.clock = clock or BootClock()
        self.session_timeout_s = session_timeout_s
        self.sessions: dict[Session, None] = {}
        self.places: dict[str, Place] = {}
        self.primary: Place | None = None
        self.telemetry: dict[str, bytes] = {}
        self.listeners: dict[Hashable, Callable[[], None]] = {}
        """The clients' ears; in the order of their making, so that a simulation can be repeated."""
        self._sessions_made = 0
        self._down = False
        self._cut: set[str] = set()
        self._mute: set[str] = set()
        self._frozen: dict[str, asyncio.Event] = {}

    # -- Faults ----------------------------------------------------------------------------------------------------

    def cut(self, name: str) -> None:
        """The client's requests do not arrive any more."""
        self._cut.add(name)
        self._tell()

    def lose_replies(self, name: str) -> None:
        """The client's requests arrive and are done, and it does not hear of it."""
        self._mute.add(name)

    def restore(self, name: str) -> None:
        """End what `cut` and `lose_replies` began."""
        self._cut.discard(name)
        self._mute.discard(name)

    def freeze(self, name: str) -> None:
        """The client stops in mid-step, as by SIGSTOP; what is on its way waits."""
        self._frozen.setdefault(name, asyncio.Event())
        self._tell()

    def thaw(self, name: str) -> None:
        """Let it go on."""
        if name in self._frozen:
            self._frozen.pop(name).set()

    def go_down(self) -> None:
        """No majority of servers runs any more: nobody is answered, and nobody expires."""
        self._down = True
        self._tell()

    def come_up(self) -> None:
        """A new leader begins: all sessions get their full time-out."""
        self._down = False
        for session in self.sessions:
            session.heard = self.clock.monotonic()

    def reachable(self, name: str) -> bool:
        """Whether the client could be told something now."""
        return not (self._down or name in self._cut or name in self._mute or name in self._frozen)

    async def passage(self, name: str, *, reply: bool = False) -> None:
        """The way there or back. Raises NoAnswer if the message is lost."""
        await asyncio.sleep(0)
        while name in self._frozen:
            await self._frozen[name].wait()
        if self._down or name in self._cut or (reply and name in self._mute):
            raise NoAnswer

    # -- Sessions --------------------------------------------------------------------------------------------------

    def begin(self) -> Session:
        """A new session."""
        self._sessions_made += 1
        session = Session(f"{self._sessions_made:04x}", self.clock.monotonic())
        self.sessions[session] = None
        self._watch_over(session, self.session_timeout_s)
        return session

    def hear(self, session: Session) -> None:
        """A sign of life."""
        session.heard = self.clock.monotonic()

    def end(self, session: Session) -> None:
        """The session is over, and what it held is free."""
        if session in self.sessions:
            del self.sessions[session]
            self.give_up(session)
            self._tell()

    def _watch_over(self, session: Session, wait_s: float) -> None:
        asyncio.get_running_loop().call_later(wait_s, self._expire, session)

    def _expire(self, session: Session) -> None:
        if session not in self.sessions:
            return
        left_s = session.heard + self.session_timeout_s - self.clock.monotonic()
        if self._down or left_s > 0:
            self._watch_over(session, self.session_timeout_s if self._down else max(left_s, 0.001))
        else:
            self.end(session)

    # -- What sessions hold ----------------------------------------------------------------------------------------

    def members(self) -> dict[str, Member]:
        """Who is there."""
        return {
            name: Member(name=name, session=place.session.id, hello=place.hello)
            for name, place in sorted(self.places.items())
        }

    def take_place(self, session: Session, name: str, machine: str, hello: bytes) -> None:
        """See `Presence.join`; also where the session has the place already."""
        held = self.places.get(name)
        if held is not None and held.session is not session and held.machine != machine:
            raise name_taken(name)
        self.places[name] = Place(session, name, machine, hello)
        if held is None or held.session is not session:
            self._tell()

    def take_primary(self, session: Session, name: str, machine: str) -> bool:
        """See `Presence.claim_primary`."""
        held = self.primary
        if held is not None and held.session is not session and (held.name, held.machine) != (name, machine):
            return False
        if held is None or held.session is not session:
            self.primary = Place(session, name, machine)
            self._tell()
        return True

    def resign(self, session: Session) -> None:
        """The primaryship is free, if this session had it."""
        if self.primary is not None and self.primary.session is session:
            self.primary = None
            self._tell()

    def give_up(self, session: Session) -> None:
        """All that the session holds is free."""
        self.resign(session)
        for name in [name for name, place in self.places.items() if place.session is session]:
            del self.places[name]
            self._tell()

    def _tell(self) -> None:
        for listener in list(self.listeners.values()):
            listener()
