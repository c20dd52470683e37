"""How far a log is known to reach, and the place where followers sleep until it reaches further."""

from __future__ import annotations

import asyncio

from pvc.errors import PvcError


class Tail:
    """The last known position. It only grows; when it does, everyone who waits for more wakes.

    Belongs to one event loop. A sleeping follower costs one future, however often others append.
    """

    def __init__(self) -> None:
        self._position = 0
        self._failure: PvcError | None = None
        self._sleepers: dict[asyncio.Future[None], None] = {}
        """In the order of their coming, so that a simulation can be repeated."""

    @property
    def position(self) -> int:
        """The last position known to be committed."""
        return self._position

    @property
    def awaited(self) -> bool:
        """Whether anyone sleeps here, that is, whether looking for growth is worth the trouble."""
        return bool(self._sleepers)

    def advance(self, position: int) -> None:
        """The log reaches at least to `position`."""
        if position > self._position:
            self._position = position
            self._wake()

    def fail(self, error: PvcError) -> None:
        """There will be no more: every present and later `beyond` raises `error`. The first failure stays."""
        self._failure = self._failure or error
        self._wake()

    async def beyond(self, position: int) -> int:
        """Sleep until the log reaches beyond `position`; returns the last known position."""
        while True:
            if self._failure is not None:
                raise self._failure
            if self._position > position:
                return self._position
            sleeper = asyncio.get_running_loop().create_future()
            self._sleepers[sleeper] = None
            try:
                await sleeper
            finally:
                self._sleepers.pop(sleeper, None)

    def _wake(self) -> None:
        for sleeper in list(self._sleepers):
            if not sleeper.done():
                sleeper.set_result(None)
