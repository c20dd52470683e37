"""`pvc fault list`: what is wrong with the cluster, until its cause is gone."""

from __future__ import annotations

from collections.abc import Sequence

import click

from pvc.cli.base import PvcCommand
from pvc.cli.past import at_option, note_past
from pvc.cli.session import Session, now_us
from pvc.cli.table import WHOLE, Cell, Column
from pvc.cli.text import MIN_WRAP, Look, clean, paint, wrap
from pvc.cli.times import age
from pvc.client.api_types import FaultInfo

COLUMNS = (
    Column("FAULT", rank=0, least=WHOLE),  # it is what the other commands take
    Column("SINCE", rank=2, least=WHOLE),
    Column("ACKNOWLEDGED", rank=2),
    Column("WHAT", rank=0),
)

MAX_HINTS = 10
"""A power cut makes many faults of one kind; what to do about the first of them is what to do about all."""


def show_faults(session: Session, new: bool, at: str | None) -> None:
    """Faults, the newest first."""
    faults = session.client.faults(acknowledged=False if new else None, at=at or "")
    past = note_past(session)
    if session.wants_data:
        session.show_data(faults)
        return
    if not faults:
        session.say(_none(new=new, past=past))
        return
    at_us = now_us()
    session.show_table(COLUMNS, [_row(fault, at_us) for fault in faults])
    if to_do := remedies(faults, session.look):
        session.show(to_do)


def remedies(faults: Sequence[FaultInfo], look: Look) -> str:
    """What to do about the faults that nobody has taken notice of."""
    new = [fault for fault in faults if not fault["acknowledged_by"]]
    hints = [(fault["message"], hint) for fault in new if (hint := fault.get("hint", ""))]
    if not hints:
        return ""
    # Below what is wrong, which the table may have cut; beside the ids there would be no room for it.
    width = max(look.width - 2, MIN_WRAP) if look.width else 0
    lines = []
    for message, hint in hints[:MAX_HINTS]:
        wrong, right = ([clean(text)] if not width else wrap(clean(text), width) for text in (message, hint))
        lines += [f"{'  ' if i else '- '}{paint(part, 'bold', look)}" for i, part in enumerate(wrong)]
        lines += [f"  {part}" for part in right]
    if len(hints) > MAX_HINTS:
        lines.append(f"... and {len(hints) - MAX_HINTS} more")
    return "\nWhat to do:\n" + "".join(f"{line}\n" for line in lines)


def _none(*, new: bool, past: bool) -> str:
    if new:
        return "No fault was unacknowledged." if past else "No fault is unknown to you."
    return "Nothing was wrong." if past else "Nothing is wrong."


def _row(fault: FaultInfo, at_us: int) -> list[str | Cell]:
    known = fault["acknowledged_by"]
    return [
        Cell(fault["id"], "dim" if known else "red"),
        age(fault["since_us"], at_us),
        f"by {known}" if known else "no",
        fault["message"],
    ]


list_faults = PvcCommand(
    "list",
    show_faults,
    params=[click.Option(["--new"], is_flag=True, help="Only those that nobody has acknowledged."), at_option()],
    help="List what is wrong with the cluster.\n\nA fault goes by itself when its cause is gone; acknowledged, it no "
    "longer counts for the cluster's health.",
    short_help="List what is wrong with the cluster.",
    example="pvc fault list --new",
)
