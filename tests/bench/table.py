"""The rows as a table for a terminal, or as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench.measure import Row

_TITLES = ("what", "measured", "reference", "ratio", "(rounds)", "target", "ok")


def text(rows: Sequence[Row]) -> str:
    """Columns side by side; notes below, where there are any."""
    lines = [_TITLES, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_TITLES))]
    told = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    told.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*told, *_notes(rows)])


def markdown(rows: Sequence[Row]) -> str:
    """The same as a Markdown table."""
    lines = [_TITLES, tuple("---" for _ in _TITLES), *(_cells(row) for row in rows)]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), *_notes(rows)])


def _cells(row: Row) -> tuple[str, ...]:
    verdict = {True: "yes", False: "NO", None: "-"}[row.ok]
    return (
        row.what,
        row.measured or "-",
        row.reference or "-",
        _ratio(row.ratio) if row.ratio is not None else "-",
        f"{_ratio(row.spread[0])}..{_ratio(row.spread[1])}" if row.spread else "-",
        str(row.target) if row.target else "-",
        verdict,
    )


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _notes(rows: Sequence[Row]) -> list[str]:
    told = [f"- {row.what}: {row.note}" for row in rows if row.note]
    return ["", *told] if told else []
