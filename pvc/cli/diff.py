"""`pvc diff`: what changed between two moments, object by object, and who did it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from pvc.cli import complete
from pvc.cli.base import PvcCommand
from pvc.cli.past import moment_us
from pvc.cli.session import Session, now_us
from pvc.cli.text import Look, clean, pad, paint, width_of
from pvc.cli.times import ago, when
from pvc.cli.values import Moment
from pvc.client.other_times import Diff, DiffCause, FieldChange, ObjectDiff, fetch_diff

KINDS = {"cluster": "cluster", "node": "node", "vm": "VM", "fault": "fault", "token": "token"}
STYLES = {"added": "green", "removed": "red", "changed": "yellow"}

BOOKKEEPING = frozenset(
    {
        *("position", "cause", "boot", "reset_mark", "endings_us", "migration.id"),
        *("changed_us", "defined_us", "joined_us", "ready_us", "ready_at", "since_us", "created_us", "initialised_us"),
    }
)
"""Fields that move with each record; told where nothing else has changed, or with -v."""

MAX_VALUE = 60
"""Characters of a value; -o json has it whole."""


def show_diff(session: Session, old: str, new: str, subject: str | None) -> None:
    """What differs."""
    diff = fetch_diff(session.client, old, new, subject or "")
    if session.wants_data:
        session.show_data(diff)
        return
    at_us = now_us()
    ends = [f"position {end['position']}, {ago(moment_us(end['time']), at_us)}" for end in (diff["old"], diff["new"])]
    session.note(f"From {ends[0]}")
    session.note(f"to {ends[1]}")
    if not diff["items"]:
        session.say("Nothing is different.")
        return
    session.show(render_diff(diff, session.look, at_us, verbose=session.verbose))


def render_diff(diff: Diff, look: Look, at_us: int, *, verbose: bool = False) -> str:
    """Each object with its fields, and below them what was recorded about it."""
    parts = [_object(item, look, at_us, verbose=verbose) for item in diff["items"]]
    return "\n".join("".join(f"{line.rstrip()}\n" for line in part) for part in parts)


def _object(item: ObjectDiff, look: Look, at_us: int, *, verbose: bool) -> Iterator[str]:
    name = clean(f"{KINDS.get(item['kind'], item['kind'])} {item['name']}")
    yield f"{paint(name, 'bold', look)} {paint(clean(item['change']), STYLES.get(item['change'], ''), look)}"
    fields = [] if item["change"] != "changed" else _told(item["fields"], verbose=verbose)
    width = max((width_of(clean(field["field"])) for field in fields), default=0)
    for field in fields:
        yield f"  {pad(clean(field['field']), width)}  {_value(field['old'])} → {_value(field['new'])}"
    for cause in item["by"]:
        yield f"  {paint(_cause(cause, at_us), 'dim', look)}"


def _told(fields: list[FieldChange], *, verbose: bool) -> list[FieldChange]:
    if verbose:
        return fields
    return [field for field in fields if field["field"] not in BOOKKEEPING]


def _value(value: Any) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    text = clean(text)
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}…"


def _cause(cause: DiffCause, at_us: int) -> str:
    time = when(moment_us(cause["time"]), at_us)
    return clean(f"{time}  {cause['actor']['principal']}  {cause['summary']}  (position {cause['position']})")


diff = PvcCommand(
    "diff",
    show_diff,
    reads=True,
    params=[
        click.Argument(["old"], type=Moment()),
        click.Argument(["new"], type=Moment(), default="now", metavar="[NEW]"),
        click.Argument(["subject"], required=False, metavar="[SUBJECT]", shell_complete=complete.subjects),
    ],
    about={
        "old": "A moment: a position of the log, 2h, yesterday, 07:30, '2026-07-24 07:30'.",
        "new": "Another one; now, if it is not given.",
        "subject": "Only this: vm/web01, node/hv1, cluster.",
    },
    help="Show what changed between two moments, and who did it.",
    example="pvc diff 2h now\npvc diff 1200 1234 vm/web01",
)
