"""Text on a terminal: its width, its cutting, and that nothing dangerous reaches the screen."""

from __future__ import annotations

import pytest

from pvc.cli.table import Cell, Column, render_facts, render_table
from pvc.cli.text import Look, clean, fit, paint, width_of, wrap
from pvc.cli.vm_serial import printable

COLUMNS = (Column("VM"), Column("STATE"), Column("MEMORY", right=True))
ROWS = [["web01", Cell("running", "green"), "2 GiB"], ["a-very-long-name-of-a-vm", "stopped", "512 MiB"]]


def test_a_table_in_a_pipe_is_complete_and_without_colour() -> None:
    assert render_table(COLUMNS, ROWS, Look()) == (
        "VM                        STATE     MEMORY\n"
        "web01                     running    2 GiB\n"
        "a-very-long-name-of-a-vm  stopped  512 MiB\n"
    )


def test_a_table_on_a_narrow_screen_is_cut_to_fit() -> None:
    text = render_table(COLUMNS, ROWS, Look(width=32))
    assert text == (
        "VM              STATE     MEMORY\nweb01           running    2 GiB\na-very-long-n…  stopped  512 MiB\n"
    )
    assert max(len(line) for line in text.splitlines()) == 32


def test_colour_does_not_disturb_the_columns() -> None:
    plain = render_table(COLUMNS, ROWS, Look())
    painted = render_table(COLUMNS, ROWS, Look(colour=True))
    assert "\x1b[32mrunning\x1b[0m" in painted
    for escape in ("\x1b[32m", "\x1b[1m", "\x1b[0m"):
        painted = painted.replace(escape, "")
    assert painted == plain


def test_a_screen_narrower_than_any_table_still_gets_one() -> None:
    assert render_table(COLUMNS, ROWS, Look(width=3)).count("\n") == 3


def test_wide_characters_take_two_columns() -> None:
    text = render_table([Column("NAME"), Column("X")], [["日本語", "1"], ["abc", "2"]], Look())
    assert text == "NAME    X\n日本語  1\nabc     2\n"
    assert width_of("日本語") == 6
    assert width_of("e\N{COMBINING ACUTE ACCENT}") == 1


def test_facts_without_a_value_are_left_out_and_long_ones_go_on_beneath() -> None:
    facts = [("Name", "web01"), ("Error", ""), ("Description", "one two three four five six")]
    assert render_facts(facts, Look(width=28)) == (
        "Name         web01\nDescription  one two three\n             four five six\n"
    )


def test_control_characters_never_reach_the_screen() -> None:
    evil = "x\x1b]52;c;Zm9v\x07y\x9bz\N{RIGHT-TO-LEFT OVERRIDE}"
    assert "\x1b" not in clean(evil)
    assert "\x9b" not in clean(evil)
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in clean(evil)
    assert "\x1b" not in render_table([Column("A")], [[evil]], Look(colour=False))
    assert clean("two\nlines\tand a tab") == "two lines and a tab"


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [("short", 10, "short"), ("exactly", 7, "exactly"), ("too long", 5, "too …"), ("日本語", 4, "日…"), ("ab", 1, "…")],
)
def test_cutting_never_exceeds_the_width(text: str, width: int, expected: str) -> None:
    assert fit(text, width) == expected
    assert width_of(fit(text, width)) <= width


def test_wrapping_keeps_every_word_and_breaks_the_endless() -> None:
    assert wrap("the disk is not there", 8) == ["the disk", "is not", "there"]
    assert wrap("abcdefghij", 4) == ["abcd", "efgh", "ij"]
    assert wrap("", 4) == [""]


def test_what_is_set_in_stays_so_on_every_line() -> None:
    words = "the disk is not there any more"
    assert wrap(f"  {words}", 22) == ["  the disk is not", "  there any more"]
    assert wrap(f"  {words}", 12) == wrap(words, 12), "where there is no room for that, it is not"


def test_paint_is_plain_without_colour() -> None:
    assert paint("x", "red", Look()) == "x"
    assert paint("x", "red", Look(colour=True)) == "\x1b[31mx\x1b[0m"


def test_a_guests_output_keeps_its_colours_and_loses_what_moves_the_cursor() -> None:
    said = b"\x1b[2J\x1b[H\x1b[1;31mred\x1b[0m\r\n\x1b]0;title\x07ok\x07\x1b[6n\tend\x1bc"
    text, rest = printable(said)
    assert text == b"\x1b[1;31mred\x1b[0m\n\tend".replace(b"\n", b"\n").replace(b"\n\t", b"\nok\t")
    assert rest == b""


def test_an_escape_cut_in_two_by_the_network_is_still_one() -> None:
    text, rest = printable(b"before\x1b[2")
    assert (text, rest) == (b"before", b"\x1b[2")
    text, rest = printable(rest + b"Jafter")
    assert (text, rest) == (b"after", b"")
