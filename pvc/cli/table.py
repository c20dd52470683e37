"""Tables and lists of facts as text. Pure: rows and the look of the screen in, text out.

Own code instead of a library because a table must be on the screen before one is even imported (measured: importing
rich's tables takes as long as Python needs to start).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pvc.cli.text import Look, clean, fit, pad, paint, width_of, wrap

GAP = "  "
MIN_COLUMN = 8
"""A column is never cut below this, so that what is left of it still says something."""

WHOLE = 10_000
"""Wider than any screen: for `Column.least` of what means nothing when it is cut."""

MIN_NAME = 16
"""The same for what names a row, as long as there is something else to give way."""


class Column(NamedTuple):
    """A column: its title, and whether it is of numbers, which are never cut."""

    title: str
    right: bool = False
    rank: int = 1
    """How early it gives way on a narrow screen: 0 names what the row is about, 2 is told by other commands too."""
    optional: bool = False
    """Whether it is left out where it would be empty."""
    least: int = 0
    """It leaves rather than be cut below this; 0: what its rank says."""


class Cell(NamedTuple):
    """A cell with a style of its own."""

    text: str
    style: str = ""


Row = Sequence[str | Cell]


class Laid(NamedTuple):
    """A table as text, and the titles of columns that there was no room for."""

    text: str
    left_out: tuple[str, ...]


def render_table(columns: Sequence[Column], rows: Sequence[Row], look: Look) -> str:
    """The table with its titles, each line ended; where the screen is too narrow, what matters least is cut first."""
    return lay_out(columns, rows, look).text


def lay_out(columns: Sequence[Column], rows: Sequence[Row], look: Look) -> Laid:
    """The table as it fits the screen, and which columns did not."""
    cells = [[_cell(value) for value in row] for row in rows]
    full = [i for i, column in enumerate(columns) if not column.optional or any(row[i].text for row in cells)]
    widths = [
        max([width_of(column.title), *(width_of(row[i].text) for row in cells)]) for i, column in enumerate(columns)
    ]
    shown = _that_fit(columns, widths, full, look.width)
    _shrink(columns, widths, shown, look.width)
    titles = [Cell(column.title, "bold") for column in columns]
    text = "".join(f"{_line(row, columns, widths, shown, look)}\n" for row in (titles, *cells))
    return Laid(text, tuple(columns[i].title for i in full if i not in shown))


def render_facts(facts: Sequence[tuple[str, str | Cell]], look: Look) -> str:
    """Labels and values, one a line; long values go on under themselves. A fact without a value is left out."""
    shown = [(label, _cell(value)) for label, value in facts if _cell(value).text]
    label_width = max((width_of(label) for label, _ in shown), default=0)
    lines = []
    for label, cell in shown:
        room = look.width - label_width - len(GAP) if look.width else 0
        parts = wrap(cell.text, max(room, MIN_COLUMN)) if room else [cell.text]
        for i, part in enumerate(parts):
            head = paint(pad(label if i == 0 else "", label_width), "bold", look)
            lines.append(f"{head}{GAP}{paint(part, cell.style, look)}")
    return "".join(line.rstrip() + "\n" for line in lines)


def _cell(value: str | Cell) -> Cell:
    return Cell(clean(value)) if isinstance(value, str) else Cell(clean(value.text), value.style)


def _that_fit(columns: Sequence[Column], widths: Sequence[int], shown: list[int], available: int) -> list[int]:
    """The columns that there is room for, all cut as far as they may be; the last of the least rank go first."""
    shown = list(shown)
    while available and _needed(columns, widths, shown) > available:
        least = max(columns[i].rank for i in shown)
        if least == 0 or len(shown) == 1:
            return shown
        shown.remove(max(i for i in shown if columns[i].rank == least))
    return shown


def _needed(columns: Sequence[Column], widths: Sequence[int], shown: Sequence[int]) -> int:
    least = [min(widths[i], _floor(columns[i])) for i in shown]
    return sum(least) + len(GAP) * (len(shown) - 1)


def _floor(column: Column) -> int:
    if column.right:
        return WHOLE
    return column.least or (MIN_COLUMN if column.rank else MIN_NAME)


def _shrink(columns: Sequence[Column], widths: list[int], shown: Sequence[int], available: int) -> None:
    """Cut what matters least, and of that the widest, again and again, until all fit or none may become narrower."""
    for rank, floor in ((2, MIN_COLUMN), (1, MIN_COLUMN), (0, MIN_NAME), (0, MIN_COLUMN)):
        while (excess := sum(widths[i] for i in shown) + len(GAP) * (len(shown) - 1) - available) > 0 and available:
            cut = [i for i in shown if columns[i].rank >= rank and widths[i] > _least(columns[i], floor)]
            if not cut:
                break
            widest = max(cut, key=lambda i: widths[i])
            second = max([widths[i] for i in cut if widths[i] < widths[widest]], default=0)
            widths[widest] -= max(min(excess, widths[widest] - max(second, _least(columns[widest], floor))), 1)


def _least(column: Column, floor: int) -> int:
    """How narrow it may become in this round."""
    return WHOLE if column.right else max(column.least, floor)


def _line(
    row: Sequence[Cell], columns: Sequence[Column], widths: Sequence[int], shown: Sequence[int], look: Look
) -> str:
    parts = []
    for i in shown:
        text = fit(row[i].text, widths[i])
        space = " " * (widths[i] - width_of(text))
        painted = paint(text, row[i].style, look)
        parts.append(space + painted if columns[i].right else painted + space)
    return GAP.join(parts).rstrip()
