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


class Column(NamedTuple):
    """A column: its title, and whether it is of numbers."""

    title: str
    right: bool = False


class Cell(NamedTuple):
    """A cell with a style of its own."""

    text: str
    style: str = ""


Row = Sequence[str | Cell]


def render_table(columns: Sequence[Column], rows: Sequence[Row], look: Look) -> str:
    """The table with its titles, each line ended; the widest columns are cut where the screen is too narrow."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [
        max([width_of(column.title), *(width_of(row[i].text) for row in cells)]) for i, column in enumerate(columns)
    ]
    _shrink(widths, look.width)
    lines = [_line([Cell(column.title, "bold") for column in columns], columns, widths, look)]
    lines += [_line(row, columns, widths, look) for row in cells]
    return "\n".join(lines) + "\n"


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


def _shrink(widths: list[int], available: int) -> None:
    """Take from the widest column, again and again, until all fit or none may become narrower."""
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - available
    if not available or excess <= 0:
        return
    while excess > 0:
        widest = max(widths)
        if widest <= MIN_COLUMN:
            return
        second = max([width for width in widths if width < widest], default=0)
        take = min(excess, widest - max(second, MIN_COLUMN))
        widths[widths.index(widest)] -= max(take, 1)
        excess -= max(take, 1)


def _line(row: Sequence[Cell], columns: Sequence[Column], widths: Sequence[int], look: Look) -> str:
    parts = []
    for cell, column, width in zip(row, columns, widths, strict=True):
        text = fit(cell.text, width)
        space = " " * (width - width_of(text))
        painted = paint(text, cell.style, look)
        parts.append(space + painted if column.right else painted + space)
    return GAP.join(parts).rstrip()
