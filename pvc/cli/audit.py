"""`pvc audit people`: whom the log knows by name, and who is erased."""

from __future__ import annotations

from pvc.cli.base import PvcCommand
from pvc.cli.session import Session, now_us
from pvc.cli.table import Cell, Column, render_table
from pvc.cli.times import ago

COLUMNS = (Column("NAME"), Column("KEY"), Column("RECORDS", right=True), Column("STATE"))

_TOLD = {"erasing": "to be erased, asked for", "erased": "erased"}


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


people = PvcCommand(
    "people",
    show_people,
    help="List the people whom the log knows by name, and those who are erased.",
    example="pvc audit people",
)
