"""`pvc event list` and `pvc event follow`: the log as it is, one event a line, for people and for programs."""

from __future__ import annotations

import sys
from typing import Any

import click

from pvc.cli import complete
from pvc.cli.base import PvcCommand
from pvc.cli.history import fetch_history, history_options
from pvc.cli.names import subject_names
from pvc.cli.past import note_past
from pvc.cli.session import Session, now_us
from pvc.cli.story import who
from pvc.cli.table import WHOLE, Cell, Column
from pvc.cli.text import PLAIN, Look, clean, pad, paint
from pvc.cli.times import when
from pvc.client.api_types import RecordView

COLUMNS = (
    Column("POSITION", right=True, rank=0),
    Column("WHEN", rank=0),
    Column("WHO", rank=2),
    Column("ABOUT", rank=0),
    Column("TYPE", rank=3, least=WHOLE),
    Column("WHAT", least=32),
)


def show_events(session: Session, subject: str | None, **options: Any) -> None:
    """The newest events, the last one last."""
    records, _, _ = fetch_history(session, subject or "", options)
    note_past(session)
    if session.wants_data:
        for record in records:
            session.show_record(record)
        return
    names = subject_names(session.client, records)
    at_us = now_us()
    rows = [row for record in records for row in _rows(record, names, at_us)]
    session.show_table(COLUMNS, rows)


def follow_events(session: Session, after: int | None, types: tuple[str, ...], **filters: str | None) -> None:
    """Events as they come."""
    given: dict[str, Any] = {name: text for name, text in filters.items() if text}
    names: dict[str, str] = {}
    for record in session.client.events(after=after, types=types, **given):
        if session.wants_data:
            session.show_record(record)
        else:
            if any(names.get(event["subject"]) is None or "name" in event["data"] for event in record["events"]):
                names |= subject_names(session.client, [record])
            for row in _rows(record, names, now_us()):
                session.show(_line(row, session.look))
        sys.stdout.flush()


def _rows(record: RecordView, names: dict[str, str], at_us: int) -> list[list[str | Cell]]:
    return [
        [
            str(record["position"]),
            Cell(when(record["time_us"], at_us), "dim"),
            who(record),
            names.get(event["subject"], event["subject"]),
            Cell(event["type"], "red" if event.get("failure") else "cyan"),
            event["summary"],
        ]
        for event in record["events"]
    ]


def _line(row: list[str | Cell], look: Look) -> str:
    """A line of an endless table: columns as wide as usual, never cut."""
    parts = []
    for value, width in zip(row, (8, 8, 10, 14, 22, 0), strict=True):
        cell = value if isinstance(value, Cell) else Cell(value)
        parts.append(paint(pad(clean(cell.text), width), cell.style, look or PLAIN))
    return "  ".join(parts).rstrip() + "\n"


def _subject_option() -> click.Option:
    return click.Option(
        ["--subject"],
        metavar="SUBJECT",
        shell_complete=complete.subjects,
        help="Only about this: vm/web01, node/hv1, cluster.",
    )


def _tag_option() -> click.Option:
    return click.Option(
        ["--tag"],
        metavar="TAG",
        shell_complete=complete.tag_names,
        help="Only about VMs that had this tag when it happened.",
    )


def _types_option() -> click.Option:
    return click.Option(
        ["--type", "types"],
        metavar="TYPE",
        multiple=True,
        shell_complete=complete.event_types,
        help="Only such events: vm.started, vm.*. Can be repeated.",
    )


list_events = PvcCommand(
    "list",
    show_events,
    params=[_subject_option(), _tag_option(), *history_options()],
    help="List the newest events, the last one last. With -o json, one record a line, for jq.",
    example="pvc event list --type 'vm.*' --limit 20\npvc event list -o json | jq -r '.events[].type'",
)

follow = PvcCommand(
    "follow",
    follow_events,
    params=[
        click.Option(
            ["--after"],
            type=click.IntRange(min=0),
            metavar="POSITION",
            help="Begin after this position; 0 is the very beginning. Without it: from now on.",
        ),
        _subject_option(),
        _tag_option(),
        click.Option(
            ["--actor"],
            metavar="NAME",
            shell_complete=complete.actors,
            help="Only what this principal did: anna, root, node/hv1.",
        ),
        click.Option(["--correlation"], metavar="ID", help="Only the chain of causes that this record is of."),
        _types_option(),
    ],
    short_help="Show events as they come.",
    help="Show events as they come, without a gap: it outlives restarts of gateways, and goes on at the next where the "
    "connection leads to several. Ctrl-C ends it. With -o json, one record a line, for jq.",
    example="pvc event follow --subject vm/web01\npvc event follow --type 'vm.*' -o json | jq -r '.events[].summary'",
)
