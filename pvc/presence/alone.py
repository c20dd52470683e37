"""Presence of a node with a log of its own: there is nobody else, so it is always there and always the primary."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from pvc.presence.base import SESSION_TIMEOUT_S, Member, closed, not_joined
from pvc.presence.hints import Hints

_SESSION = "alone"


class AlonePresence:
    """The one daemon of a cluster of one. Nothing outlives the process, and nothing needs to."""

    session_timeout_s = SESSION_TIMEOUT_S

    def __init__(self) -> None:
        self._member: Member | None = None
        self._primary = ""
        self._telemetry: dict[str, bytes] = {}
        self._hints = Hints()
        self._closed = False

    async def join(self, name: str, hello: bytes) -> None:
        """Take the place."""
        await self._open()
        self._member = Member(name=name, session=_SESSION, hello=hello)
        self._hints.give()

    async def leave(self) -> None:
        """Give the place up."""
        await self._open()
        self._member, self._primary = None, ""
        self._hints.give()

    async def update(self, hello: bytes) -> None:
        """Say something else."""
        self._member = Member(name=(await self._joined()).name, session=_SESSION, hello=hello)

    @property
    def joined(self) -> bool:
        """Whether the place is taken."""
        return self._member is not None and not self._closed

    def lease_left_s(self) -> float:
        """It never runs down."""
        return self.session_timeout_s if self.joined else 0.0

    async def members(self) -> dict[str, Member]:
        """This node, if it has joined."""
        await self._open()
        return {self._member.name: self._member} if self._member is not None else {}

    def changes(self) -> AsyncIterator[None]:
        """Hints of what this node does itself."""
        return self._hints.take()

    async def claim_primary(self, name: str) -> bool:
        """Nobody else wants to be it."""
        await self._open()
        if self._member is not None and self._primary != name:
            self._primary = name
            self._hints.give()
        return self._member is not None

    async def resign_primary(self) -> None:
        """Be it no longer."""
        await self._open()
        self._primary = ""
        self._hints.give()

    async def primary(self) -> str:
        """This node, if it claimed to be."""
        await self._open()
        return self._primary

    async def publish(self, telemetry: bytes) -> None:
        """Replace the telemetry."""
        self._telemetry[(await self._joined()).name] = telemetry

    async def telemetry(self) -> dict[str, bytes]:
        """What was published."""
        await self._open()
        return dict(self._telemetry)

    async def forget(self, name: str) -> None:
        """Delete it."""
        await self._open()
        self._telemetry.pop(name, None)

    async def close(self, *, expire: bool = True) -> None:
        """Later calls raise Unavailable."""
        self._closed = True
        self._hints.close()

    async def _open(self) -> None:
        await asyncio.sleep(0)  # as where it takes time to ask
        if self._closed:
            raise closed()

    async def _joined(self) -> Member:
        await self._open()
        if self._member is None:
            raise not_joined()
        return self._member
