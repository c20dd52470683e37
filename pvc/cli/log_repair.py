"""`pvc log repair`: compares the log with the replica of the node that is asked, and restores the log from it."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from pvc.cli import exits
from pvc.cli.base import PvcCommand
from pvc.cli.progress import ProgressLine
from pvc.cli.run import confirm
from pvc.cli.session import Session
from pvc.cli.table import Cell, render_facts

POLL_S = 0.5

TOLD = {
    "whole": "the log has all that this node's replica has",
    "short": "the log ends early; this node's replica goes on from there",
    "gone": "there is no log; this node's replica has it",
    "diverged": "the log and this node's replica contradict each other",
}


def repair_log(session: Session, keep: str | None, take_over: bool, force: bool, dry_run: bool, yes: bool) -> int:
    """Look, ask, repair, and follow until it is done."""
    found = session.client.get("/log/repair")
    if found["running"]:
        return _follow(session, found)
    if dry_run:
        if session.wants_data:
            session.show_data(found)
        else:
            _show(session, found)
        return exits.OK if found["survey"]["verdict"] == "whole" else exits.REJECTED
    if not session.wants_data:
        _show(session, found)
    if found["survey"]["verdict"] != "whole" and not yes:
        confirm(_question(found, keep))
    return _follow(
        session, session.client.post("/log/repair", body={"keep": keep, "take_over": take_over, "force": force})
    )


def _follow(session: Session, state: dict[str, Any]) -> int:
    with ProgressLine(sys.stderr) as progress:
        while state["running"]:
            progress.step(f"{state['step']}: {state['reached']:,} of {state['survey']['replica_position']:,} records")
            time.sleep(POLL_S)
            state = session.client.get("/log/repair")
    if session.wants_data:
        session.show_data(state)
    elif state["error"]:
        session.note(f"The repair has ended: {state['error']}. It can be begun again.")
    else:
        session.note(f"Done: {state['step']}.")
    return exits.REJECTED if state["error"] else exits.OK


def _show(session: Session, found: dict[str, Any]) -> None:
    survey = found["survey"]
    verdict = survey["verdict"]
    facts: list[tuple[str, str | Cell]] = [
        ("Verdict", Cell(TOLD[verdict], "green" if verdict == "whole" else "red")),
        ("Log", f"{survey['log_position']:,} records"),
        ("Replica", f"{survey['replica_position']:,} records"),
    ]
    if verdict == "diverged":
        facts.append(("Same up to", f"{survey['common']:,}"))
    if found["held_by"]:
        facts.append(("Held by", Cell(found["held_by"], "yellow")))
    if found["longer"]:
        facts.append(("More records on", Cell(", ".join(found["longer"]), "red")))
    session.show(render_facts(facts, session.look))


def _question(found: dict[str, Any], keep: str | None) -> str:
    survey = found["survey"]
    common, replica, log = survey["common"], survey["replica_position"], survey["log_position"]
    if keep == "log":
        return f"Give up the records {common + 1} to {replica} that only this node has? It starts over from the log"
    if survey["verdict"] == "diverged":
        return f"Cut off the log's records {common + 1} to {log}, and append this node's up to {replica}?"
    return f"Append the records {common + 1} to {replica} again, as this node has them?"


repair = PvcCommand(
    "repair",
    repair_log,
    params=[
        click.Option(
            ["--keep"],
            type=click.Choice(["replica", "log"]),
            help="Which is to stand where the two contradict each other; the other is kept in a file.",
        ),
        click.Option(["--take-over"], is_flag=True, help="Go on although a repair that has died holds the log."),
        click.Option(["--force"], is_flag=True, help="Although another node is known to have more records."),
        click.Option(["--dry-run"], is_flag=True, help="Compare only, and change nothing; exit 1 if there is work."),
        click.Option(["--yes", "-y"], is_flag=True, help="Do not ask."),
    ],
    help="Restore a log that was set back or wiped, from the replica of the node that is asked.\n\nWhat is appended are"
    " the very bytes that stood there before. Nothing is lost without being asked for by --keep.",
    example="pvc log repair --dry-run\npvc log repair\npvc log repair --keep replica",
)
