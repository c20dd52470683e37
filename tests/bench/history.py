"""The newest 50 records of one VM cost the same in a long history as in a short one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

from pvc.events.record import Entry
from pvc.log.history import HistoryIndex, HistoryQuery
from tests.bench.measure import Bench, Row, Side, at_most, compare, stopwatch, take_turns
from tests.bench.records import Chain, a_cluster, daily_life, vm_name

VMS = 100
SHORT = 10_000
NEWEST = 50
_BATCH = 5_000


async def measure(bench: Bench) -> list[Row]:
    length = 1_000_000 if bench.full else bench.size(50_000, 200_000)
    short = await _history_of(bench, SHORT)
    long = await _history_of(bench, length)
    try:
        slow, fast = await take_turns(bench.rounds, newest(long), newest(short))
    finally:
        await short.close()
        await long.close()
    what = f"history of one VM, newest {NEWEST} of {length:,} records"
    return [compare(what, "ms", slow, fast, f"of {SHORT:,} records", at_most(2))]


async def _history_of(bench: Bench, length: int) -> HistoryIndex:
    index = await HistoryIndex.open(bench.home / f"{length}.db")
    records = _records(length)
    while batch := await asyncio.to_thread(lambda: list(itertools.islice(records, _BATCH))):
        await index.index(batch)
    return index


def _records(length: int) -> Iterator[Entry]:
    chain = Chain()
    return itertools.islice(itertools.chain(a_cluster(chain, VMS), daily_life(chain, VMS, length)), length)


def newest(index: HistoryIndex) -> Side:
    """The newest records of each of the first VMs, one query after the other; milliseconds for one."""

    async def round_() -> float:
        with stopwatch() as watch:
            for number in range(VMS):
                found = await index.query(HistoryQuery(subject=f"vm/{vm_name(number)}", limit=NEWEST))
                assert len(found) == NEWEST
        return watch.seconds / VMS * 1_000

    return round_
