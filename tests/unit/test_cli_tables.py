"""Which column gives way on a narrow screen, and how wide signs of other writings are."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pvc.cli.session import format_data, format_line
from pvc.cli.table import MIN_COLUMN, WHOLE, Cell, Column, Row, lay_out, render_table
from pvc.cli.text import Look, clean, escaped, fit, harmless, is_harmless, width_of

COLUMNS = (
    Column("VM", rank=0),
    Column("NODE"),
    Column("MEMORY", right=True),
    Column("TAGS", rank=2),
    Column("NOTE", rank=2, optional=True),
)
ROW: list[str | Cell] = [
    "a-name-of-18-signs",
    "hypervisor-01",
    "1024 MiB",
    "one,two,three,four",
    "a note of some length",
]


def shown(width: int, rows: list[Row] | None = None) -> tuple[list[str], tuple[str, ...]]:
    laid = lay_out(COLUMNS, [ROW] if rows is None else rows, Look(width=width))
    return laid.text.splitlines(), laid.left_out


def test_what_matters_least_is_cut_first_and_numbers_never() -> None:
    lines, left_out = shown(80)
    assert left_out == ()
    assert width_of(lines[1]) == 80
    assert lines[1].startswith("a-name-of-18-signs  hypervisor-01  1024 MiB  one,two,thre") and lines[1].endswith("…")
    lines, left_out = shown(63)
    assert left_out == ()
    assert lines[1] == "a-name-of-18-signs  hypervisor-01  1024 MiB  one,two…  a note …"
    lines, left_out = shown(61)
    assert left_out == ()
    assert lines[1] == "a-name-of-18-signs  hypervisor…  1024 MiB  one,two…  a note …"


@pytest.mark.parametrize("width", range(1, 120))
def test_a_table_fits_whenever_it_can(width: int) -> None:
    lines, left_out = shown(width)
    assert all(width_of(line) <= max(width, MIN_COLUMN) for line in lines)
    assert "VM" not in left_out
    assert lines[0].startswith("VM")


def test_columns_leave_from_the_last_of_the_least_rank_and_numbers_stay_whole() -> None:
    seen = [shown(width)[1] for width in range(100, 10, -1)]
    order = list(dict.fromkeys(seen))
    assert order == [
        (),
        ("NOTE",),
        ("TAGS", "NOTE"),
        ("MEMORY", "TAGS", "NOTE"),
        ("NODE", "MEMORY", "TAGS", "NOTE"),
    ]
    for width in range(100, 10, -1):
        lines, left_out = shown(width)
        assert "MEMORY" in left_out or lines[1].count("1024 MiB") == 1


def test_a_column_that_may_be_missing_is_where_nothing_is_in_it() -> None:
    assert "NOTE" not in render_table(COLUMNS, [[*ROW[:4], ""]], Look())
    assert "NOTE" in render_table(COLUMNS, [[*ROW[:4], "x"]], Look())
    assert shown(0, [[*ROW[:4], ""]])[1] == (), "it is not told as left out for want of room"


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("日本語", 6),
        ("한국어", 6),
        ("\u1112\u1161\u11ab", 2),
        ("😀", 2),
        ("ｆｕｌｌ", 8),
        ("é", 1),
        ("e\u0301", 1),
        ("שלום", 4),
        ("नमस्ते", 4),
    ],
)
def test_the_width_is_that_of_a_terminal(text: str, width: int) -> None:
    assert width_of(clean(text)) == width


def test_signs_that_each_terminal_draws_in_another_width_are_drawn_apart() -> None:
    assert clean("👨\u200d👩\u200d👧") == "👨👩👧" and width_of(clean("👨\u200d👩\u200d👧")) == 6
    assert clean("❤\ufe0f") == "❤"
    assert clean("👍\U0001f3fd") == "👍"


@pytest.mark.parametrize(
    "evil",
    [
        "\x1b[2J",
        "\x9b31m",
        "\x07",
        "\x7f",
        "a\u202eb",
        "a\u2066b",
        "web\u200b01",
        "a\u00adb",
        "\ufeffa",
        "\U000e0041",
        "\ud800",
        "a\u2028b",
        "a\rb",
        "a\x85b",
    ],
)
def test_what_a_terminal_would_obey_or_nobody_would_see_gets_a_mark(evil: str) -> None:
    told = clean(evil)
    assert is_harmless(told) and "\n" not in told
    assert told != evil
    for output in ("json", "yaml"):
        document = format_data({"name": evil}, output)
        assert is_harmless(document), (output, document)
        line = format_line({"name": evil}, output)
        assert is_harmless(line), (output, line)
    assert json.loads(format_data({"name": evil}, "json")) == {"name": evil}
    if evil != "\ud800":
        assert yaml.safe_load(format_data({"name": evil}, "yaml")) == {"name": evil}


def test_a_pile_of_accents_stays_on_its_line() -> None:
    assert clean("a" + "\u0301" * 50) == "a" + "\u0301" * 4


@given(st.text(max_size=60), st.integers(1, 40))
def test_no_text_gets_past_its_width_or_keeps_a_control(text: str, width: int) -> None:
    told = fit(clean(text), width)
    assert width_of(told) <= width
    assert is_harmless(told) and "\n" not in told


@given(st.dictionaries(st.text(), st.text()))
def test_data_is_the_same_after_it_was_made_harmless(data: dict[str, str]) -> None:
    document = escaped(json.dumps(data, ensure_ascii=False))
    assert json.loads(document) == data
    assert is_harmless(document)


def test_a_column_that_means_nothing_when_cut_leaves_before_another_becomes_too_narrow() -> None:
    columns = (Column("WHAT", rank=0), Column("TYPE", rank=3, least=WHOLE), Column("SUMMARY", least=20))
    row = ["web01", "vm.start_requested", "start requested on hv1 by anna"]
    wide = lay_out(columns, [row], Look(width=80)).text
    assert "vm.start_requested" in wide and "by anna" in wide
    cut = lay_out(columns, [row], Look(width=50))
    assert "vm.start_requested" in cut.text and "…" in cut.text and cut.left_out == ()
    left = lay_out(columns, [row], Look(width=46))
    assert left.left_out == ("TYPE",) and "by anna" in left.text


def test_of_all_commands_to_a_terminal_only_our_own_colours_get_out() -> None:
    assert harmless("\x1b[1ma\x1b[0m\n\tb \x1b[31mc\x1b[0m\n") == "\x1b[1ma\x1b[0m\n\tb \x1b[31mc\x1b[0m\n"
    assert harmless("\x1b[8mhidden") == "�[8mhidden"
    assert harmless("\x1b[2Ja\x9b31mb\r\u202ec") == "�[2Ja�31mb�c"
