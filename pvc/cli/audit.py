"""`pvc audit`: the people whom the log knows by name, and copies of their keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from pvc.cli import exits
from pvc.cli.base import PvcCommand, usage_error
from pvc.cli.log import written
from pvc.cli.session import Session, now_us
from pvc.cli.table import Cell, Column, render_table
from pvc.cli.times import ago

COLUMNS = (Column("NAME"), Column("KEY"), Column("RECORDS", right=True), Column("STATE"))

_TOLD = {"erasing": "to be erased, asked for", "erased": "erased"}

PORTION = 1_000
"""Keys of one request."""


def show_people(session: Session) -> None:
    """All of them; the erased ones last."""
    people = session.client.get("/audit/people")["items"]
    if session.wants_data:
        session.show_data(people)
        return
    at_us = now_us()
    rows: list[list[str | Cell]] = []
    for person in people:
        readable = person["state"] == "readable"
        told = person["state"] if readable else f"{_TOLD[person['state']]} {ago(person['since_us'], at_us)}"
        style = {"readable": "green", "erasing": "yellow"}.get(person["state"], "dim")
        rows.append([person["name"], person["key"], str(person["records"]), Cell(told, style)])
    session.show(render_table(COLUMNS, rows, session.look))
    if not rows:
        session.note("Nobody has acted with a token yet.")


def export_keys(session: Session, file: str) -> None:
    """Write all keys into a file that is its owner's alone."""
    keys = session.client.get("/audit/keys")["keys"]
    with written(file) as out:
        out.write(json.dumps({"keys": keys}, indent=1).encode() + b"\n")
    session.note(f"Exported {len(keys)} keys. Keep them apart from the log, and destroy them before long: whoever is")
    session.note("erased meanwhile can be read with this copy.")


def import_keys(session: Session, file: str) -> int:
    """Have the keys of a file again; says which could not be kept."""
    keys = _keys_in(file)
    kept, erased, taken = 0, 0, list[str]()
    for first in range(0, len(keys), PORTION):
        reply = session.client.post("/audit/keys", body={"keys": keys[first : first + PORTION]})
        kept, erased, taken = kept + reply["kept"], erased + reply["erased"], taken + reply["taken"]
    if session.wants_data:
        session.show_data({"kept": kept, "erased": erased, "taken": taken})
    else:
        session.say(f"Keys kept: {kept}. Of people who were erased, and so not kept: {erased}.")
        for name in taken:
            session.note(f"Not kept: {name} has another key by now; what was sealed with the old one stays unreadable.")
    return exits.OUTCOME_FAILED if taken else exits.OK


def _keys_in(file: str) -> list[Any]:
    try:
        keys = json.loads(Path(file).read_bytes())["keys"]
    except OSError as error:
        raise usage_error(f"{file} cannot be read: {error.strerror}", "give a file of pvc audit export-keys") from error
    except (ValueError, KeyError, TypeError):
        raise usage_error(f"{file} has no keys", "give a file of pvc audit export-keys") from None
    if not isinstance(keys, list):
        raise usage_error(f"{file} has no keys", "give a file of pvc audit export-keys")
    return keys


people = PvcCommand(
    "people",
    show_people,
    help="List the people whom the log knows by name, and those who are erased.",
    example="pvc audit people",
)

export = PvcCommand(
    "export-keys",
    export_keys,
    params=[click.Argument(["file"])],
    about={"file": "The file to write; - is standard output."},
    help="Write the keys that make people's names readable into a file.\n\nOnly as root on a node. A backup of the"
    " cluster has its log and not these keys.",
    example="pvc audit export-keys /safe/keys.json",
)

restore = PvcCommand(
    "import-keys",
    import_keys,
    params=[click.Argument(["file"])],
    about={"file": "A file of pvc audit export-keys."},
    help="Have keys again that were lost, from a copy.\n\nOnly as root on a node. After a restore, before anybody else"
    " acts. Keys of people who were erased are not kept.",
    example="pvc audit import-keys /safe/keys.json",
)
