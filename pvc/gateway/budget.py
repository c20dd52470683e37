"""So many of something at once, and then one every so often, for each of many: how floods are kept small."""

from __future__ import annotations

from collections import OrderedDict

from pvc.clock import Clock

MAX_KEYS = 10_000
"""Remembered; the one not seen for longest is forgotten first."""


class Budget:
    """A token bucket for each key. Lives in one event loop."""

    def __init__(self, clock: Clock, *, burst: int, every_s: float) -> None:
        self._clock = clock
        self._burst = burst
        self._every_s = every_s
        self._spent: OrderedDict[str, tuple[float, float, int]] = OrderedDict()
        """Key -> (taken and not yet given back, when that was counted, refused since the last that was not)."""

    def take(self, key: str) -> int | None:
        """Take one: how many were refused since the last that was taken, or None where there is none left."""
        now = self._clock.monotonic()
        spent, since, refused = self._spent.pop(key, (0.0, now, 0))
        spent = max(0.0, spent - (now - since) / self._every_s)
        over = spent + 1 > self._burst
        self._spent[key] = (spent, now, refused + 1) if over else (spent + 1, now, 0)
        if len(self._spent) > MAX_KEYS:
            self._spent.popitem(last=False)
        return None if over else refused

    def wait_s(self, key: str) -> int:
        """Whole seconds until there is one again, at least one."""
        spent, _, _ = self._spent.get(key, (0.0, 0.0, 0))
        return 1 + int(max(0.0, spent + 1 - self._burst) * self._every_s)
