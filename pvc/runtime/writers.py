"""How many nodes write to the log at present, and whether that is a crowd. Pure: the time comes in."""

from __future__ import annotations

WINDOW_S = 10.0
"""Who has written within so long is a writer."""

CROWD = 5
"""From so many writers on reports go through one appender. Three do as well by themselves; of nodes that do nothing but
report, forwarding is 1.4 times as fast at four, twice at five and five times at six (`./dev bench writers`)."""

CALM = 3
"""At so few they do not any more. Two below, so that one node more or less does not change the way each time."""


class Writers:
    """Fed with the origin of each record; tells whether there is a crowd."""

    def __init__(self, crowd: int = CROWD) -> None:
        self._crowd = crowd
        self._calm = max(crowd - (CROWD - CALM), 0)
        self._last_s: dict[str, float] = {}
        """Origin -> when it last wrote, the longest ago first."""
        self._crowded = False

    def note(self, origin: str, now_s: float) -> None:
        """A record of this node was folded."""
        self._last_s.pop(origin, None)
        self._last_s[origin] = now_s

    def count(self, now_s: float) -> int:
        """The nodes that have written within WINDOW_S."""
        while self._last_s and now_s - self._last_s[oldest := next(iter(self._last_s))] > WINDOW_S:
            del self._last_s[oldest]
        return len(self._last_s)

    def crowded(self, now_s: float) -> bool:
        """Whether there are too many to let each append by itself; at the border what was true last stays so."""
        count = self.count(now_s)
        self._crowded = count > self._calm if self._crowded else count >= self._crowd
        return self._crowded
