"""Hints that something changed, for any number of listeners: several at once come as one, and none is missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from pvc.presence.base import closed


class Hints:
    """Where one client's hints are given and taken."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Event] = set()
        self._closed = False

    def give(self) -> None:
        """Something may have changed."""
        for event in self._waiting:
            event.set()

    def close(self) -> None:
        """Listeners get Unavailable from now on."""
        self._closed = True
        self.give()

    async def take(self) -> AsyncIterator[None]:
        """One hint at once, then one after each change; see `Presence.changes`."""
        event = asyncio.Event()
        event.set()
        self._waiting.add(event)
        try:
            while True:
                await event.wait()
                if self._closed:
                    raise closed()
                event.clear()
                yield
        finally:
            self._waiting.discard(event)
