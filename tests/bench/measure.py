"""How a figure is taken: two sides side by side in rounds, medians of both, and their ratio with its spread.

The sides take turns (A B, B A, A B, ...) so that a machine that grows slower or faster meanwhile does so for both.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec

Side = Callable[[], Awaitable[float]]
"""One round of one side: does its work and returns its figure, a rate or a duration."""


class Target(msgspec.Struct, frozen=True):
    """What the ratio should be."""

    bound: float
    at_least: bool

    def met_by(self, ratio: float) -> bool:
        return ratio >= self.bound if self.at_least else ratio <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"


def at_least(bound: float) -> Target:
    """For rates: our rate is at least `bound` times the reference's."""
    return Target(bound, at_least=True)


def at_most(bound: float) -> Target:
    """For durations: ours is at most `bound` times the reference's."""
    return Target(bound, at_least=False)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the table. Without a ratio it says in `note` why there is none."""

    what: str
    measured: str = ""
    reference: str = ""
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    """The smallest and the largest ratio of any round."""
    target: Target | None = None
    note: str = ""

    @property
    def ok(self) -> bool | None:
        """Whether the target is met; None where there is none, or nothing was measured."""
        if self.target is None or self.ratio is None:
            return None
        return self.target.met_by(self.ratio)


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """How thorough this run is, and where it may write."""

    home: Path
    """An empty directory on a real disk."""
    quick: bool = False
    full: bool = False
    zookeeper: str = ""
    """Address of a server of our own; empty where there is none."""

    def size(self, quick: int, normal: int) -> int:
        """How much of something to do."""
        return quick if self.quick else normal

    @property
    def rounds(self) -> int:
        """Many short ones rather than few long ones: a burst of somebody else's work then spoils few of them. Odd, so
        that the median is one of them."""
        return 5 if self.quick else 15


async def take_turns(rounds: int, *sides: Side, warm_up: int = 1) -> list[list[float]]:
    """The figures of each side, one a round, after `warm_up` rounds of each that do not count."""
    for _ in range(warm_up):
        for side in sides:
            await side()
    figures: list[list[float]] = [[] for _ in sides]
    order = list(range(len(sides)))
    for _ in range(rounds):
        for index in order:
            gc.collect()
            figures[index].append(await sides[index]())
        order.reverse()
    return figures


def compare(
    what: str,
    unit: str,
    ours: Sequence[float],
    reference: Sequence[float],
    against: str,
    target: Target | None = None,
    note: str = "",
) -> Row:
    """The row of two sides measured in the same rounds."""
    ratios = [mine / other for mine, other in zip(ours, reference, strict=True)]
    return Row(
        what=what,
        measured=figure(statistics.median(ours), unit),
        reference=f"{against}: {figure(statistics.median(reference), unit)}",
        ratio=statistics.median(ratios),
        spread=(min(ratios), max(ratios)),
        target=target,
        note=note,
    )


def skipped(what: str, why: str) -> Row:
    """The row of something that could not be measured here."""
    return Row(what=what, note=f"not measured: {why}")


def figure(value: float, unit: str) -> str:
    """Three digits are all such a measurement is worth."""
    if value >= 1000:
        return f"{round(value, -len(str(int(value))) + 3):,.0f} {unit}"
    return f"{value:.3g} {unit}" if value >= 0.1 else f"{value:.2g} {unit}"


class Stopwatch:
    """What a `with stopwatch()` block took, in seconds, once it is over."""

    seconds = 0.0


@contextmanager
def stopwatch(clock: Callable[[], float] = time.perf_counter) -> Iterator[Stopwatch]:
    """Times its block."""
    watch = Stopwatch()
    begun = clock()
    try:
        yield watch
    finally:
        watch.seconds = clock() - begun


def cpu_stopwatch() -> AbstractContextManager[Stopwatch]:
    """Times its block in seconds of processor, all threads together: for work that waits for nothing, on a machine
    that others use too."""
    return stopwatch(time.process_time)


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` % of all are below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
