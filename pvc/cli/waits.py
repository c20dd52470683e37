"""--wait where no single event is the end: the migrations of a rebalance, the recoveries from a node declared off."""

from __future__ import annotations

import sys
import time

from pvc.cli import exits
from pvc.cli.moves import render_results, results_of
from pvc.cli.progress import ProgressLine
from pvc.cli.run import sentence
from pvc.cli.session import Session, write_error
from pvc.cli.text import paint
from pvc.cli.times import took
from pvc.cli.watch import watching
from pvc.client.api_types import OperationInfo, Reply
from pvc.client.waiting import OPEN, timed_out

DONE = {"cluster.rebalance": "moved", "node.confirm_fenced": "recovered"}
"""What is said of the VMs for which it went well."""


def finish(session: Session, reply: Reply, operation: str, label: str, timeout_s: float) -> int:
    """Wait for what becomes of each VM, at most so many seconds; show it, and return the exit code."""
    began = time.monotonic()
    told: dict[str, str] = {}
    with ProgressLine(sys.stderr, plain=not session.wants_data) as progress:
        if label:
            for event in reply["events"]:
                progress.step(sentence(label, event["summary"]))

        def on_change(info: OperationInfo) -> None:
            for vm in info["vms"]:
                first, over = vm["subject"] not in told, vm["state"] not in OPEN
                if vm["text"] and (first or over) and told.get(vm["subject"]) != vm["text"]:
                    told[vm["subject"]] = vm["text"]
                    progress.step(f"{vm['name']}: {vm['text']}")

        with watching(session, reply["name"], "", progress):
            info = session.client.follow_operation(operation, timeout_s=timeout_s, on_change=on_change)
    if info is None:
        raise timed_out(reply["name"], operation, timeout_s)
    success = None if info["state"] in OPEN else info["state"] == "succeeded"
    if not success:
        session.ends_with = exits.WAIT_TIMED_OUT if success is None else exits.OUTCOME_FAILED
    results = results_of(info)
    counts = info["progress"]
    if session.wants_data:
        session.show_data({**reply, "outcome": {"success": success, "record": None}, "vms": results})
    else:
        if results:
            session.show(render_results(results, session.look))
        waited = paint(f"(+{took(round((time.monotonic() - began) * 1e6))})", "dim", session.look)
        well = counts["done"] - counts["failed"]
        session.show(f"{well} of {counts['total']} VMs {DONE[reply['name']]} {waited}\n")
    if success is None:
        raise timed_out(reply["name"], operation, timeout_s)
    if success:
        return exits.OK
    failed = [one["vm"] for one in results if one["success"] is False]
    hint = f"`pvc history vm {failed[0]}` shows how it came about" if failed else ""
    write_error(session, f"{counts['failed']} of {counts['total']} VMs failed", hint=hint, code=reply["name"])
    return exits.OUTCOME_FAILED
