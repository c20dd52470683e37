"""--wait where no single event is the end: the migrations of a rebalance, the recoveries from a node declared off."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from pvc.cli import exits
from pvc.cli.moves import STEPS, STILL, render_results, results_of, settled_chain
from pvc.cli.names import subject_names
from pvc.cli.progress import ProgressLine
from pvc.cli.session import Session, write_error
from pvc.cli.text import paint
from pvc.cli.times import took
from pvc.cli.watch import watching
from pvc.client.api_types import RecordView, Reply, VmRow
from pvc.client.errors import ClientError, WaitTimedOut

POLL_S = 2.0
"""Between two looks at VMs that are being recovered: each is a list of them all."""

AT_REST = frozenset({"stopped", "failed", "disabled"})

Results = Sequence[dict[str, Any]]

Finish = Callable[[Reply, float], int]
"""Waits for what a command has led to, at most so many seconds; shows it, and returns the exit code."""


def begin(session: Session, command: str, fields: dict[str, Any]) -> Finish:
    """To be called before the command is given."""
    if command == "cluster.rebalance":
        return lambda reply, timeout_s: _finish_moves(session, reply, timeout_s)
    assert command == "node.confirm_fenced", f"{command} has an outcome of its own"
    node = str(fields["node"])
    there = [vm for vm in session.client.vms(node=node) if vm["state"] not in AT_REST]
    return lambda reply, timeout_s: _finish_recoveries(session, reply, timeout_s, node, there)


def _finish_moves(session: Session, reply: Reply, timeout_s: float) -> int:
    began = time.monotonic()
    record = reply["record"]
    assert record is not None, "something was begun"
    with ProgressLine(sys.stderr, plain=not session.wants_data) as progress:
        names = subject_names(session.client, [reply])
        for event in reply["events"]:
            progress.step(f"{names[event['subject']]}: {event['summary']}")

        def on_record(record: RecordView) -> None:
            for event in record["events"]:
                if event["subject"] in names and event["type"] not in STEPS:
                    progress.step(f"{names[event['subject']]}: {event['summary']}")

        with watching(session, reply["name"], "", progress):
            chain = settled_chain(session.client, record, timeout_s, on_record)
    return _conclude(session, reply, results_of(session.client, chain), "moved", began, timeout_s)


def _finish_recoveries(session: Session, reply: Reply, timeout_s: float, node: str, there: Sequence[VmRow]) -> int:
    began = time.monotonic()
    ended: dict[str, dict[str, Any]] = {}
    with ProgressLine(sys.stderr, plain=not session.wants_data) as progress:
        for event in reply["events"]:
            progress.step(f"{node}: {event['summary']}")
        while len(ended) < len(there):
            for vm in _look(session, [vm for vm in there if vm["id"] not in ended]):
                outcome = _outcome(vm, node)
                if outcome is not None:
                    success, result = outcome
                    took_us = round((time.monotonic() - began) * 1e6)
                    ended[vm["id"]] = {"success": success, "result": result, "took_us": took_us}
                    progress.step(f"{vm['name']}: {result}")
            if time.monotonic() - began + POLL_S > timeout_s:
                break
            if len(ended) < len(there):
                time.sleep(POLL_S)
        results = [
            {"vm": vm["name"], **(ended.get(vm["id"]) or {"success": None, "result": _why(session, vm), "took_us": 0})}
            for vm in there
        ]
    return _conclude(session, reply, results, "recovered", began, timeout_s)


def _look(session: Session, wanted: Sequence[VmRow]) -> list[VmRow]:
    """The VMs as they are now; none where no gateway answers just now. A VM that is gone is shown as stopped."""
    try:
        rows = {row["id"]: row for row in session.client.vms()}
    except ClientError:
        return []
    return [rows.get(vm["id"]) or {**vm, "state": "stopped"} for vm in wanted]


def _outcome(vm: VmRow, lost: str) -> tuple[bool, str] | None:
    if vm["state"] == "failed":
        return False, "failed"
    if vm["state"] in AT_REST:
        return True, "off, like its whole node"
    return (True, f"runs on {vm['node']}") if vm["state"] == "running" and vm["node"] != lost else None


def _why(session: Session, vm: VmRow) -> str:
    try:
        return session.client.vm(vm["id"])["error"] or STILL
    except ClientError:
        return STILL


def _conclude(session: Session, reply: Reply, results: Results, done: str, began: float, timeout_s: float) -> int:
    """Show what became of each VM, and what that comes to."""
    failed = [one["vm"] for one in results if one["success"] is False]
    still = [one["vm"] for one in results if one["success"] is None]
    success = False if failed else None if still else True
    if session.wants_data:
        session.show_data({**reply, "outcome": {"success": success, "record": None}, "vms": list(results)})
    else:
        if results:
            session.show(render_results(results, session.look))
        waited = paint(f"(+{took(round((time.monotonic() - began) * 1e6))})", "dim", session.look)
        well = len(results) - len(failed) - len(still)
        session.show(f"{well} of {len(results)} VMs {done} {waited}\n")
    if failed:
        hint = f"`pvc history vm {failed[0]}` shows how it came about"
        write_error(session, f"{len(failed)} of {len(results)} VMs failed", hint=hint, code=reply["name"])
        return exits.OUTCOME_FAILED
    if still:
        short = f"{len(still)} of {len(results)} VMs were not {done} within {timeout_s:g} s"
        raise WaitTimedOut(
            f"{reply['name']} was accepted, but {short}",
            hint="it goes on; `pvc history all` shows what comes of it",
        )
    return exits.OK
