"""A keyed work queue: one key at a time, different keys in parallel, back-off per key, a poison key harms no other.

Waking a key that is being worked on makes it be looked at once more afterwards, so no wake-up is ever lost; waking one
that waits merely makes it earlier. That is all a level-triggered reconciler needs of its events.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections.abc import Awaitable, Callable

from pvc.clock import Clock, Rng
from pvc.errors import PvcError
from pvc.meters import Meters

logger = logging.getLogger(__name__)

WORKERS = 32
"""Keys worked on at once. More than libvirt serves calls in parallel, as most of the time goes by until the log has a
report: the more of them are ready together, the fewer appends they take."""

BACKOFF_S = 0.2
MAX_BACKOFF_S = 30.0
"""No longer than the periodic pass, so that a mended fault is noticed as soon as by a healthy node."""

Work = Callable[[str], Awaitable[float | None]]
"""Works on a key; returns after how many seconds to look again, or None when there is nothing more to do."""


class KeyedQueue:
    """Calls `work` for woken keys while `run` is running."""

    def __init__(self, work: Work, *, clock: Clock, rng: Rng, meters: Meters | None = None) -> None:
        self._work = work
        self._clock = clock
        self._rng = rng
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._count = 0
        self._busy: set[str] = set()
        self._failures: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._meters = meters or Meters()
        self._meters.reconcile_pending = self._pending
        self._meters.reconcile_failing = lambda: len(self._failures)

    def wake(self, key: str, delay_s: float = 0.0) -> None:
        """Have `key` looked at, no later than after `delay_s`."""
        due = self._clock.monotonic() + delay_s
        if due >= self._due.get(key, float("inf")):
            return
        self._due[key] = due
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, key))
        self._changed.set()

    @property
    def idle(self) -> bool:
        """Whether nothing is being worked on or due now."""
        now = self._clock.monotonic()
        return not self._busy and all(due > now for due in self._due.values())

    def _pending(self) -> int:
        now = self._clock.monotonic()
        return len(self._busy) + sum(due <= now for key, due in self._due.items() if key not in self._busy)

    async def run(self) -> None:
        """Work until cancelled; what is under way is cancelled too."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                pause_s = self._dispatch(group)
                # Not wait_for: on Python 3.11 it can swallow a cancellation that comes together with the result.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._changed.wait()

    def _dispatch(self, group: asyncio.TaskGroup) -> float | None:
        """Begin whatever is due; returns how long nothing else will be."""
        put_back = []
        pause_s: float | None = None
        while self._heap and len(self._busy) < WORKERS:
            due, count, key = heapq.heappop(self._heap)
            if self._due.get(key) != due:
                continue  # an earlier wake-up has taken its place
            if key in self._busy:
                put_back.append((due, count, key))
                continue
            pause_s = due - self._clock.monotonic()
            if pause_s > 0:
                put_back.append((due, count, key))
                break
            del self._due[key]
            self._busy.add(key)
            group.create_task(self._serve(key))
            pause_s = None
        for item in put_back:
            heapq.heappush(self._heap, item)
        return pause_s

    async def _serve(self, key: str) -> None:
        delay_s: float | None
        began_s = self._clock.monotonic()
        try:
            delay_s = await self._work(key)
            self._failures.pop(key, None)
        except PvcError as error:
            delay_s = self._back_off(key, error)
        except Exception as error:
            logger.exception("reconcile: unexpected error key=%s", key)
            delay_s = self._back_off(key, error)
        finally:
            self._meters.reconcile_seconds.observe(self._clock.monotonic() - began_s)
            self._busy.discard(key)
            self._changed.set()
        if delay_s is not None:
            self.wake(key, delay_s)

    def _back_off(self, key: str, error: Exception) -> float:
        self._meters.reconcile_failures.add()
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        if failures in (1, 10, 100):
            logger.warning("reconcile: key=%s failures=%d error=%s", key, failures, error)
        ceiling_s = min(BACKOFF_S * 2.0 ** min(failures, 16), MAX_BACKOFF_S)
        return ceiling_s * (0.5 + self._rng.random() / 2)
