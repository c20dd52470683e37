"""What takes a look at ZooKeeper, as of some seconds ago: for who asks often, and must not make it work each time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

from pvc.clock import Clock
from pvc.errors import PvcError

T = TypeVar("T")

logger = logging.getLogger(__name__)

FIRST_S = 1.0
"""The very first look is waited for so long."""

DEADLINE_S = 20.0


class Glance(Generic[T]):
    """Looks when it is asked and the last look is old. Lives in one event loop."""

    def __init__(self, look: Callable[[], Awaitable[T]], clock: Clock, *, again_s: float) -> None:
        """`look` may raise PvcError: then what was seen before still stands."""
        self._look_now = look
        self._clock = clock
        self._again_s = again_s
        self._seen: T | None = None
        self._seen_s = 0.0
        self._begun_s = float("-inf")
        self._task: asyncio.Task[None] | None = None

    async def look(self) -> tuple[T | None, float]:
        """What was seen last, and its age in seconds; None: nothing yet."""
        if self._task is None and self._clock.monotonic() - self._begun_s >= self._again_s:
            self._begun_s = self._clock.monotonic()
            # Its own context: what it may have to say is about no request.
            self._task = asyncio.create_task(self._look(), name="glance", context=Context())
        if self._seen is None and self._task is not None:
            await asyncio.wait({self._task}, timeout=FIRST_S)
        return self._seen, self._clock.monotonic() - self._seen_s

    async def _look(self) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DEADLINE_S):
                    self._seen = await self._look_now()
                    self._seen_s = self._clock.monotonic()
        except PvcError as error:
            logger.debug("metrics: not looked at error=%s", error)
        finally:
            self._task = None
