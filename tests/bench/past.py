"""The state at a past position, in a long log against a short one and against its bound; and the fork of a state."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import statistics
from collections.abc import Iterator

from pvc.errors import Unavailable
from pvc.events.record import Entry
from pvc.log.history import HistoryIndex
from pvc.projections.state import ClusterState
from pvc.runtime.past import PastStates
from pvc.runtime.past_files import SPACING, PastFiles
from tests.bench.measure import Bench, Row, Side, at_most, compare, cpu_stopwatch, percentile, stopwatch, take_turns
from tests.bench.records import Chain, a_cluster, daily_life
from tests.support.core import replayed

VMS = 1_000
SHORT = 10_000
BOUND_MS = 200.0
POSITIONS = 8
"""Asked for in a round; its figure is the slowest of them."""
FORKS = 5
_BATCH = 5_000


async def measure(bench: Bench) -> list[Row]:
    length = 1_000_000 if bench.full else bench.size(50_000, 200_000)
    long, short = await _log_of(bench, length), await _log_of(bench, SHORT)
    rounds = min(bench.rounds, 9)
    try:
        slow, fast = await take_turns(rounds, long.slowest, short.slowest)
        note = f"processor; the slowest of {POSITIONS} positions, none at hand; {long.by_the_clock()}; {long.stored()}"
    finally:
        await long.close()
        await short.close()
    what = f"a past state, any of {length:,} records, {VMS:,} VMs"
    return [
        compare(what, "ms", slow, fast, f"of {SHORT:,} records", at_most(2), note),
        compare(f"{what}, its bound", "ms", slow, [BOUND_MS] * rounds, "bound", at_most(1)),
        *await _forks(rounds),
    ]


class _Log:
    """A history index with its stored states."""

    def __init__(self, index: HistoryIndex, files: PastFiles) -> None:
        self._index = index
        self._files = files
        self._rng = random.Random(1)
        self._by_the_clock: list[float] = []

    async def slowest(self) -> float:
        """Milliseconds of processor of the slowest of some positions, each as if nobody had asked before."""
        times = []
        for _ in range(POSITIONS):
            position = self._rng.randrange(VMS + 2, self._index.position)
            with stopwatch() as clock, cpu_stopwatch() as watch:
                state = await PastStates(self._index, self._files).at(position)
            assert state.position == position and len(state.vms) == VMS
            times.append(watch.seconds * 1_000)
            self._by_the_clock.append(clock.seconds * 1_000)
        return max(times)

    async def store(self) -> None:
        """Let every stored state be made; each look goes on where the time of the last was up."""
        while self._index.position - max(self._files.positions(), default=0) > SPACING:
            with contextlib.suppress(Unavailable):
                await PastStates(self._index, self._files).at(self._index.position)

    def by_the_clock(self) -> str:
        """What one took, with all that others did meanwhile."""
        return (
            f"{statistics.median(self._by_the_clock):.0f} ms, 90 % within {percentile(self._by_the_clock, 90):.0f} ms"
        )

    def stored(self) -> str:
        """What the stored states take."""
        return f"{len(self._files.positions())} stored states, {self._files.size_bytes / 1e6:.1f} MB in all"

    async def close(self) -> None:
        await self._index.close()


async def _log_of(bench: Bench, length: int) -> _Log:
    index = await HistoryIndex.open(bench.home / f"{length}.db")
    records = _records(length)
    while batch := await asyncio.to_thread(lambda: list(itertools.islice(records, _BATCH))):
        await index.index(batch)
    log = _Log(index, PastFiles(bench.home / f"{length}-states"))
    await log.store()
    return log


def _records(length: int) -> Iterator[Entry]:
    chain = Chain()
    return itertools.islice(itertools.chain(a_cluster(chain, VMS), daily_life(chain, VMS, length)), length)


async def _forks(rounds: int) -> list[Row]:
    states = [replayed(list(a_cluster(Chain(), vms))) for vms in (1_000, 10_000)]
    small, large, copy = await take_turns(rounds, _fork(states[0]), _fork(states[1]), _copy(states[1]))
    against = "a copy of its VMs' dict alone"
    return [
        compare("fork of a state with 10,000 VMs", "ms", large, copy, against),
        compare("fork of a state with 1,000 VMs", "ms", small, large, "with 10,000 VMs"),
    ]


def _fork(state: ClusterState) -> Side:
    async def round_() -> float:
        with stopwatch() as watch:
            for _ in range(FORKS):
                twin = state.fork()
        assert twin.head == state.head
        return watch.seconds / FORKS * 1_000

    return round_


def _copy(state: ClusterState) -> Side:
    async def round_() -> float:
        with stopwatch() as watch:
            for _ in range(FORKS):
                twin = state.vms.copy()
        assert len(twin) == len(state.vms)
        return watch.seconds / FORKS * 1_000

    return round_
