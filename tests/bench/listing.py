"""List all VMs through the API: the whole request as a client on the Unix socket sees it, decoding included."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Sequence

from tests.bench.daemon import Api, daemon, prepare
from tests.bench.measure import Bench, Row, Side, at_least, at_most, compare, figure, stopwatch, take_turns
from tests.bench.records import Chain, a_cluster

UPSTREAM_MS = 4_100.0
"""The best of what upstream PVC 1.0.3 took for its list of 1,000 VMs from the same kind of ZooKeeper."""

SIZES = (100, 1_000, 10_000)
PAGE = 1_000
OVERHEAD = 1.5
"""Listing ten times as many may take ten times as long and half of that again: the way there costs nearly nothing."""


async def measure(bench: Bench) -> list[Row]:
    with contextlib.ExitStack() as stack:
        sides = []
        for size in SIZES:
            home = bench.home / str(size)
            await prepare(home, a_cluster(Chain(), size))
            sides.append(_list_all(stack.enter_context(daemon(home)), size, bench.size(1, 2)))
        figures = await take_turns(bench.rounds, *sides)
    rows = [
        compare(
            f"list {size:,} VMs, whole API request",
            "ms",
            times,
            figures[0],
            f"{SIZES[0]} VMs",
            at_most(size / SIZES[0] * OVERHEAD),
            f"{size // PAGE} page{'s' if size > PAGE else ''} of {PAGE:,}",
        )
        for size, times in list(zip(SIZES, figures, strict=True))[1:]
    ]
    return [*rows, _against_upstream(figures[1])]


def _against_upstream(times: Sequence[float]) -> Row:
    faster = [UPSTREAM_MS / time for time in times]
    return Row(
        what="list 1,000 VMs, times faster than upstream",
        measured=figure(statistics.median(times), "ms"),
        reference=f"upstream: {figure(UPSTREAM_MS, 'ms')} (not this run)",
        ratio=statistics.median(faster),
        spread=(min(faster), max(faster)),
        target=at_least(100),
        note="NOT side by side: upstream PVC 1.0.3 listing in its own process, on a comparable machine (4.1-4.9 s)",
    )


def _list_all(api: Api, size: int, times: int) -> Side:
    async def round_() -> float:
        with stopwatch() as watch:
            for _ in range(times):
                assert _count(api) == size
        return watch.seconds / times * 1_000

    return round_


def _count(api: Api) -> int:
    page = api.get("/vms", limit=PAGE)
    count = len(page["items"])
    while page["next"]:
        page = api.get("/vms", limit=PAGE, after=page["next"])
        count += len(page["items"])
    return count
