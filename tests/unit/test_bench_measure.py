"""The speed table's own arithmetic: turns, ratios, targets, and rows that could not be measured."""

from __future__ import annotations

from tests.bench.measure import Row, Side, at_least, at_most, compare, figure, percentile, skipped, take_turns
from tests.bench.table import markdown, text


def telling(name: str, told: list[str], value: float) -> Side:
    async def round_() -> float:
        told.append(name)
        return value

    return round_


async def test_sides_take_turns_after_a_round_that_does_not_count() -> None:
    told: list[str] = []
    figures = await take_turns(3, telling("A", told, 1.0), telling("B", told, 2.0))
    assert "".join(told) == "AB" + "AB" + "BA" + "AB"
    assert figures == [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]


def test_a_rate_must_reach_its_target_and_a_duration_must_not_pass_it() -> None:
    rate = compare("append", "/s", [90.0, 70.0, 80.0], [100.0, 100.0, 100.0], "raw", at_least(0.8))
    assert (rate.ratio, rate.spread, rate.ok) == (0.8, (0.7, 0.9), True)
    duration = compare("list", "ms", [21.0], [10.0], "short", at_most(2))
    assert (duration.ratio, duration.ok) == (2.1, False)


def test_what_was_not_measured_or_has_no_target_is_neither_met_nor_missed() -> None:
    assert skipped("follow", "no ZooKeeper").ok is None
    assert compare("effect", "ms", [2.0], [1.0], "none").ok is None


def test_both_tables_show_a_miss_and_why_a_row_is_empty() -> None:
    rows = [
        Row(what="slow", measured="1 /s", reference="raw: 2 /s", ratio=0.5, spread=(0.4, 12.0), target=at_least(0.8)),
        skipped("gone", "there is no ZooKeeper here"),
    ]
    for table in (text(rows), markdown(rows)):
        assert "NO" in table and ">= 0.8" in table and "0.40..12" in table
        assert "- gone: not measured: there is no ZooKeeper here" in table


def test_figures_have_three_digits() -> None:
    shown = [figure(value, "ms") for value in (123_456.0, 1_000.0, 12.345, 0.01234)]
    assert shown == ["123,000 ms", "1,000 ms", "12.3 ms", "0.012 ms"]


def test_a_percentile_of_few_values_is_one_of_them() -> None:
    assert (percentile([3.0, 1.0, 2.0], 50), percentile([1.0, 2.0], 99)) == (2.0, 2.0)
