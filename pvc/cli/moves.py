"""Many VMs on their way at once: the moves of a rebalance as a table, and what a flush came to for each VM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pvc.cli.names import subject_names
from pvc.cli.session import Session
from pvc.cli.table import Cell, Column, render_table
from pvc.cli.text import Look
from pvc.cli.times import took
from pvc.client.api_types import RecordView, Reply
from pvc.client.client import Client

MOVES = (Column("VM"), Column("FROM"), Column("TO"), Column("WHY"))
RESULTS = (Column("VM"), Column("RESULT"), Column("TOOK", right=True))

PAGE = 1000
"""Records of a page of the history."""

STEPS = frozenset({"vm.migration_requested", "vm.migration_prepared", "vm.migrated", "vm.relocated"})
"""What a VM goes through on its way; anything else is where that has led."""


def show_moves(session: Session, reply: Reply) -> None:
    """The migrations that a command asks for, or would."""
    names = subject_names(session.client, [reply])
    rows = [
        [names[event["subject"]], data["source"], data["target"], ", ".join(data.get("why", ()))]
        for event in reply["events"]
        if "target" in (data := event["data"])
    ]
    session.show(render_table(MOVES, rows, session.look))


def results_of(client: Client, record: str) -> list[dict[str, Any]]:
    """What became of each VM in the chain that began with this record, in the order in which they set out."""
    began: dict[str, int] = {}
    ended: dict[str, dict[str, Any]] = {}
    records = _chain(client, record)
    for one in records:
        for event in one["events"]:
            subject = event["subject"]
            if not subject.startswith("vm/"):
                continue
            began.setdefault(subject, one["time_us"])
            if event["type"] not in STEPS:
                ended[subject] = {
                    "success": not event.get("failure", False),
                    "result": event["summary"],
                    "took_us": one["time_us"] - began[subject],
                }
    names = subject_names(client, records) if began else {}
    unknown = {"success": False, "result": "still on its way", "took_us": 0}
    return [{"vm": names[subject], **ended.get(subject, unknown)} for subject in began]


def render_results(results: Sequence[dict[str, Any]], look: Look) -> str:
    """A line for each VM."""
    rows = [
        [
            one["vm"],
            Cell(one["result"], "" if one["success"] else "red"),
            took(one["took_us"]) if one["took_us"] else "",
        ]
        for one in results
    ]
    return render_table(RESULTS, rows, look)


def _chain(client: Client, record: str) -> list[RecordView]:
    """All records that follow from this one, oldest first."""
    found: list[RecordView] = []
    before: int | None = None
    while True:
        page = client.history(correlation=record, limit=PAGE, **({"before": before} if before else {}))
        found += page["records"]
        before = page["next_before"]
        if before is None:
            return found[::-1]
