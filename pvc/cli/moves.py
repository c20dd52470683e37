"""Many VMs on their way at once: the moves of a rebalance as a table, and what came of it for each VM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pvc.cli.names import subject_names
from pvc.cli.session import Session
from pvc.cli.table import Cell, Column, render_table
from pvc.cli.text import Look
from pvc.cli.times import took
from pvc.client.api_types import OperationInfo, Reply
from pvc.client.waiting import OPEN

MOVES = (Column("VM"), Column("FROM"), Column("TO"), Column("WHY"))
RESULTS = (Column("VM"), Column("RESULT"), Column("TOOK", right=True))

STYLES = {True: "", False: "red", None: "yellow"}

STILL = "still on its way"


def show_moves(session: Session, reply: Reply) -> None:
    """The migrations that a command asks for, or would."""
    names = subject_names(session.client, [reply])
    rows = [
        [names[event["subject"]], data["source"], data["target"], ", ".join(data.get("why", ()))]
        for event in reply["events"]
        if "target" in (data := event["data"])
    ]
    session.show(render_table(MOVES, rows, session.look))


def results_of(info: OperationInfo) -> list[dict[str, Any]]:
    """What became of each VM of an operation; `success` None: nothing yet."""
    return [
        {
            "vm": vm["name"],
            "success": {"succeeded": True, "failed": False}.get(vm["state"]),
            "result": vm["text"] if vm["state"] not in OPEN else ", ".join(filter(None, (STILL, vm["text"]))),
            "took_us": vm["took_us"] or 0,
        }
        for vm in info["vms"]
    ]


def render_results(results: Sequence[dict[str, Any]], look: Look) -> str:
    """A line for each VM."""
    rows = [
        [
            one["vm"],
            Cell(one["result"], STYLES[one["success"]]),
            took(one["took_us"]) if one["took_us"] else "",
        ]
        for one in results
    ]
    return render_table(RESULTS, rows, look)
