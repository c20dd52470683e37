"""An asyncio event loop whose time is virtual: when nothing is ready, the clock jumps to the next timer.

So code under simulation uses plain `asyncio.sleep`, time-outs and tasks, a day passes in milliseconds, and the same
seed gives the same interleaving every time. There is no I/O: a loop with nothing ready and no timer is a deadlock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH_US = 1_767_225_600_000_000
"""Where simulated wall time begins: 2026-01-01T00:00:00Z."""


class Deadlock(AssertionError):
    """Everything waits, and no timer will ever end that."""


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop with timers and tasks only."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._selector = self
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now_s

    def select(self, timeout: float | None) -> list[Any]:
        """In a selector's place: instead of waiting, move the clock."""
        if timeout is None:
            raise Deadlock("nothing is ready and no timer is set")
        if timeout > 0:
            self._now_s += timeout
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        assert not event_list, "a virtual loop has no I/O"

    def _write_to_self(self) -> None:
        pass


class VirtualClock:
    """The running virtual loop's time."""

    def monotonic(self) -> float:
        """Virtual seconds."""
        return asyncio.get_running_loop().time()

    def wall_us(self) -> int:
        """Microseconds since the Unix epoch, beginning at EPOCH_US."""
        return EPOCH_US + round(asyncio.get_running_loop().time() * 1_000_000)


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end on a fresh virtual loop, then cancel whatever it left behind."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()
