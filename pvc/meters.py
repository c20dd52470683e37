"""What a process counts and times of itself: plain numbers that cost next to nothing until somebody reads them.

A count is never taken back and begins at nothing with the process. The sets of labels of each are bounded here, so that
nothing that comes from outside can make what is read grow.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence

MAX_SERIES = 1_000
"""Sets of labels of one counter or histogram. There are some hundred routes; what comes beyond is `other`."""

OTHER = "other"

FAST_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""For what takes milliseconds: an append, a reply."""

SLOW_BOUNDS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
"""For effects: a start takes a second, a migration minutes."""

Labels = tuple[str, ...]


class Counter:
    """Counts, for each set of labels."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: dict[Labels, float] = {}

    def add(self, *labels: str, by: float = 1) -> None:
        """Count one more, or `by` more."""
        if labels not in self.values and len(self.values) >= MAX_SERIES:
            labels = (OTHER,) * len(labels)
        self.values[labels] = self.values.get(labels, 0) + by

    def total(self, *labels: str) -> float:
        """How many were counted with these labels."""
        return self.values.get(labels, 0)


class Histogram:
    """How long something took, for each set of labels: how often it was within each bound."""

    __slots__ = ("bounds", "values")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.values: dict[Labels, tuple[list[int], list[float]]] = {}
        """Labels -> how many fell between each two bounds (the last: past them all), and a list of one: their sum."""

    def observe(self, seconds: float, *labels: str) -> None:
        """Note one."""
        if labels not in self.values and len(self.values) >= MAX_SERIES:
            labels = (OTHER,) * len(labels)
        series = self.values.get(labels)
        if series is None:
            series = self.values[labels] = ([0] * (len(self.bounds) + 1), [0.0])
        counts, total = series
        counts[bisect.bisect_left(self.bounds, seconds)] += 1
        total[0] += seconds


def nothing() -> int:
    """How many there are where nobody counts."""
    return 0


class Meters:
    """All that one daemon counts; its parts write, the gateway reads. Lives in one event loop."""

    def __init__(self) -> None:
        self.append_seconds = Histogram(FAST_BOUNDS_S)
        """Of an append to the log, with however many records."""
        self.appended = Counter()
        """Records that this process appended."""
        self.append_failures = Counter()
        """By `conflict`, `unknown` (the outcome), `unavailable`."""
        self.waiting: Callable[[], int] = nothing
        """Commands and reports that wait for the appender."""
        self.events = Counter()
        """Events folded, by type."""
        self.reconcile_seconds = Histogram(SLOW_BOUNDS_S)
        """Of one go at one VM."""
        self.reconcile_failures = Counter()
        self.reconcile_pending: Callable[[], int] = nothing
        """VMs that are due or being worked on."""
        self.reconcile_failing: Callable[[], int] = nothing
        """VMs whose last go failed."""
        self.effect_seconds = Histogram(SLOW_BOUNDS_S)
        """By what was done to the hypervisor: `define`, `start`, ..."""
        self.effect_failures = Counter()
        self.deliveries = Counter()
        """Of webhooks, by what came of them: `delivered`, `retry`, ..."""
        self.delivery_seconds = Histogram(SLOW_BOUNDS_S)
        self.requests = Counter()
        """By route, method and status."""
        self.request_seconds = Histogram(FAST_BOUNDS_S)
        """By route and method; not of what streams."""
        self.requests_under_way = 0
        self.refusals = Counter()
        """Replies that were refusals, by their code."""
