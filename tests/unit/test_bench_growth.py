"""The figures of how the log grows: what is compared with what, made from footprints that nobody had to measure."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.bench.grown import Footprint
from tests.bench.growth import footprint_rows, sizes_of
from tests.bench.measure import Bench, Row

MIB = 1024 * 1024

SMALL = Footprint(
    records=10_000,
    hot_records=10_000,
    znodes=10_020,
    heap=10 * MIB,
    heap_busy=30 * MIB,
    server_snapshot=5 * MIB,
    server_start_s=2.0,
    sealed_records=8_192,
    sealed=819_200,
    manifests=16_384,
    replica=7_000_000,
    state=400_000,
    past_states=100_000,
)
FULL = msgspec.structs.replace(SMALL, records=100_000, hot_records=68_000, heap=40 * MIB, replica=70_000_000)
LARGE = msgspec.structs.replace(FULL, records=1_000_000, heap=41 * MIB, replica=750_000_000)
UNTRIMMED = [
    SMALL,
    msgspec.structs.replace(SMALL, records=100_000, hot_records=100_000, heap=55 * MIB),
    msgspec.structs.replace(SMALL, records=200_000, hot_records=200_000, heap=105 * MIB),
]


def row(rows: list[Row], what: str) -> Row:
    (found,) = [one for one in rows if one.what == what]
    return found


def test_zookeepers_heap_is_compared_with_that_of_a_log_whose_window_was_just_full() -> None:
    heap = row(footprint_rows([SMALL, FULL, LARGE], UNTRIMMED, 5 * MIB), "ZooKeeper's live heap")
    assert (heap.measured, heap.ratio, heap.ok) == ("1,000,000 records: 41 MiB", 41 / 40, True)
    grown = msgspec.structs.replace(LARGE, heap=60 * MIB)
    assert row(footprint_rows([SMALL, FULL, grown], UNTRIMMED, 5 * MIB), heap.what).ok is False


def test_a_log_that_is_never_trimmed_shows_how_much_it_grows_and_has_no_target() -> None:
    heap = row(footprint_rows([SMALL, FULL, LARGE], UNTRIMMED, 5 * MIB), "ZooKeeper's live heap, never trimmed")
    assert (heap.measured, heap.ratio, heap.ok) == ("200,000 records: 105 MiB", 105 / 55, None)


def test_bytes_per_record_are_those_of_the_longest_log_against_the_shortest() -> None:
    replica = row(footprint_rows([SMALL, FULL, LARGE], UNTRIMMED, 5 * MIB), "bytes per record: replica")
    assert (replica.measured, replica.reference) == ("1,000,000 records: 750 B", "10,000 records: 700 B")
    assert replica.ok


def test_each_run_has_three_sizes_of_which_the_last_is_what_was_asked_for() -> None:
    for options, last in (({"quick": True}, 24_000), ({}, 200_000), ({"full": True}, 1_000_000)):
        sizes = sizes_of(Bench(home=Path("/nowhere"), **options))  # type: ignore[arg-type]
        assert sizes.records == tuple(sorted(sizes.records)) and len(sizes.records) == 3
        assert sizes.records[-1] == last and len(sizes.untrimmed) == 3
