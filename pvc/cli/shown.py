"""What a command would show, kept instead of written: to be put together with that of other clusters, or drawn again.

Pure: parts and the look of the screen in, text out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pvc.cli.table import Cell, Column, Row, lay_out
from pvc.cli.text import Look, paint

CLUSTER = Column("CLUSTER", rank=0)


class Table(NamedTuple):
    """A table that is not laid out yet."""

    columns: Sequence[Column]
    rows: Sequence[Row]


class Text(NamedTuple):
    """Lines as they are."""

    text: str


class Data(NamedTuple):
    """An answer for a program; `line` where it is one of many that follow each other."""

    data: Any
    line: bool = False


class Kept:
    """What one call has shown: answers, and notes beside them."""

    def __init__(self) -> None:
        self.parts: list[Table | Text | Data] = []
        self.notes: list[str] = []


class Screen(NamedTuple):
    """What is to be seen: an answer, and what did not fit into it."""

    text: str
    left_out: tuple[str, ...] = ()


def screen_of(answers: Mapping[str, Kept], look: Look, *, several: bool) -> Screen:
    """What clusters have answered: of several the first tables as one, with a column for the cluster; the rest of what
    each says by itself."""
    texts: list[str] = []
    missing: list[str] = []
    together = _as_one(answers) if several else None
    if together is not None:
        _add(together, look, texts, missing)
    for name, kept in answers.items():
        parts = kept.parts[1:] if together else kept.parts
        if parts and several:
            texts.append(f"{chr(10) if texts else ''}{paint(f'{name}:', 'bold', look)}\n")
        for part in parts:
            _add(part, look, texts, missing)
    return Screen("".join(texts), tuple(dict.fromkeys(missing)))


def data_of(answers: Mapping[str, Kept], *, several: bool) -> list[Data]:
    """The data: of several one list, where each has given one, every item with its cluster's name."""
    told = [(name, part) for name, kept in answers.items() for part in kept.parts if isinstance(part, Data)]
    if not several:
        return [part for _, part in told]
    if any(part.line for _, part in told):
        return [Data(_marked(name, part.data), line=True) for name, part in told]
    items = [
        _marked(name, item)
        for name, part in told
        for item in (part.data if isinstance(part.data, list) else [part.data])
    ]
    return [Data(items)]


def _as_one(answers: Mapping[str, Kept]) -> Table | None:
    """One table of all; None where they do not begin with the same one."""
    first = {name: kept.parts[0] for name, kept in answers.items() if kept.parts}
    tables = {name: part for name, part in first.items() if isinstance(part, Table)}
    titles = {tuple(column.title for column in table.columns) for table in tables.values()}
    if not tables or len(tables) != len(first) or len(titles) != 1:
        return None
    rows: list[Row] = [[Cell(name), *row] for name, table in tables.items() for row in table.rows]
    return Table([CLUSTER, *next(iter(tables.values())).columns], rows)


def _add(part: Table | Text | Data, look: Look, texts: list[str], missing: list[str]) -> None:
    if isinstance(part, Table):
        laid = lay_out(part.columns, part.rows, look)
        texts.append(laid.text)
        missing += laid.left_out
    elif isinstance(part, Text):
        texts.append(part.text)


def _marked(name: str, item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        return {"cluster": name, "data": item}
    return {"cluster": name, **{key: value for key, value in item.items() if key != "cluster"}}
