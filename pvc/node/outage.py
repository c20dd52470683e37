"""Measures for how long ZooKeeper did not answer this node, so that whoever is primary afterwards can put it on record.

While nothing can be written nobody can write that nothing can be written. Pure; the lease tells what answers.
"""

from __future__ import annotations

KEPT_S = 120.0
"""After its end an outage is told of by the next primary, or not at all: later elections have other reasons."""


class Outage:
    """The last one. `note` is called every now and then, while there is one too."""

    def __init__(self, session_timeout_s: float) -> None:
        self._session_timeout_s = session_timeout_s
        self._lease_ends: float | None = None
        self._out = False
        self._lasted_s = 0.0
        self._ended = 0.0
        self._epoch = 0

    def note(self, lease_left_s: float, now_s: float, epoch: int) -> None:
        """How much is left of the lease, and which epoch of the primary the log is at as far as is known."""
        if lease_left_s <= 0:
            self._out = self._lease_ends is not None  # nothing was lost by who never had a lease
            return
        if self._out and self._lease_ends is not None:
            # The last answer came about a session's time before the lease was over.
            self._lasted_s = now_s - self._lease_ends + self._session_timeout_s
            self._ended, self._epoch, self._out = now_s, epoch, False
        self._lease_ends = now_s + lease_left_s

    def take(self, now_s: float, epoch: int) -> float:
        """Seconds that the one who is elected now has to tell of; 0.0: none. `epoch` is that before the election."""
        lasted_s, self._lasted_s = self._lasted_s, 0.0
        return lasted_s if now_s - self._ended <= KEPT_S and epoch == self._epoch else 0.0
