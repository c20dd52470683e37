"""`pvc undo`: the command that takes back what an earlier one did, shown first and then given."""

from __future__ import annotations

import click

from pvc.cli.base import PvcCommand
from pvc.cli.run import confirm, show_reply
from pvc.cli.session import Session, now_us
from pvc.cli.story import who
from pvc.cli.text import clean
from pvc.cli.times import when
from pvc.client import other_times
from pvc.client.cards import Card, load_cards
from pvc.client.other_times import UndoReply


def undo_position(session: Session, position: int, dry_run: bool, yes: bool) -> None:
    """Show what would be done, ask, and do it."""
    shown = other_times.undo(session.client, position, dry_run=True)
    card = load_cards()[shown["name"]]
    if session.wants_data and dry_run:
        session.show_data(shown)
        return
    label = _label(shown)
    if not session.wants_data:
        for line in describe(shown, card):
            session.note(line)
    if dry_run:
        show_reply(session, shown, label)
        return
    if not yes:
        confirm(card["confirm"].format_map({**shown["fields"], "vm": label}) if card["confirm"] else "Undo it?")
    reply = other_times.undo(session.client, position)
    show_reply(session, reply, label)


def describe(shown: UndoReply, card: Card) -> list[str]:
    """What was done, and the command that takes it back, as one would type it."""
    record = shown["undone"]
    told = "; ".join(event["summary"] for event in record["events"])
    by = who(record)
    return [
        clean(f"Position {record['position']}, {when(record['time_us'], now_us())}, {by}: {told}"),
        clean(f"To undo it: {typed(shown, card)}"),
    ]


def typed(shown: UndoReply, card: Card) -> str:
    """The command as one would type it, with what differs from a field's default."""
    from pvc.cli.derive import example_line

    defaults = {field["name"]: field.get("default") for field in card["fields"]}
    given = {
        name: value
        for name, value in shown["fields"].items()
        if name in card["args"] or (value != defaults.get(name) and value not in ("", []))
    }
    if "vm" in given:
        given["vm"] = _label(shown)
    line = example_line({**card, "example": given, "outcomes": {}})
    return line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}…"


MAX_LINE = 300
"""Characters of a command that is shown; a definition from an XML has many more."""


def _label(shown: UndoReply) -> str:
    """The name of what it is about; the command names VMs by their ids."""
    return shown["label"]


undo = PvcCommand(
    "undo",
    undo_position,
    params=[
        click.Argument(["position"], type=click.IntRange(1)),
        click.Option(["--dry-run"], is_flag=True, help="Show the command that would undo it; change nothing."),
        click.Option(["-y", "--yes"], is_flag=True, help="Do not ask first."),
    ],
    about={"position": "The position of the record, as pvc event list shows it."},
    help="Undo what a command did.\n\nThe command that takes it back is shown first. There is none for facts that "
    "nodes reported, for what cannot be taken back (a reset), and where what it did was changed again since.",
    short_help="Undo what a command did.",
    example="pvc undo 1234",
)
