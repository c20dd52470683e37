"""Many VMs on their way at once: the moves of a rebalance as a table, and what a flush came to for each VM."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from pvc.cli.names import subject_names
from pvc.cli.session import Session
from pvc.cli.table import Cell, Column, render_table
from pvc.cli.text import Look
from pvc.cli.times import took
from pvc.client.api_types import RecordView, Reply
from pvc.client.errors import ClientError
from pvc.client.json_client import JsonClient

MOVES = (Column("VM"), Column("FROM"), Column("TO"), Column("WHY"))
RESULTS = (Column("VM"), Column("RESULT"), Column("TOOK", right=True))

STYLES = {True: "", False: "red", None: "yellow"}

PAGE = 1000
"""Records of a page of the history."""

STEPS = frozenset(
    {
        "vm.migration_requested",
        "vm.migration_prepared",
        "vm.migration_cancel_requested",
        "vm.migrated",
        "vm.relocated",
        "vm.recovered",
        "vm.shutdown_timed_out",
    }
)
"""What a VM goes through on its way; anything else is where that has led."""

SETTLE_S = 60.0
"""A node is flushed when its last VM has left; it takes a moment to arrive, or to boot where it was shut down."""

POLL_S = 20
"""How long a gateway holds an empty answer."""

STILL = "still on its way"

Chain = list[RecordView]
OnRecord = Callable[[RecordView], None]


def show_moves(session: Session, reply: Reply) -> None:
    """The migrations that a command asks for, or would."""
    names = subject_names(session.client, [reply])
    rows = [
        [names[event["subject"]], data["source"], data["target"], ", ".join(data.get("why", ()))]
        for event in reply["events"]
        if "target" in (data := event["data"])
    ]
    session.show(render_table(MOVES, rows, session.look))


def results_of(client: JsonClient, records: Chain) -> list[dict[str, Any]]:
    """What became of each VM in these records, in the order in which they set out; `success` None: nothing yet."""
    began: dict[str, int] = {}
    ended: dict[str, dict[str, Any]] = {}
    for one in records:
        for event in one["events"]:
            subject = event["subject"]
            if not subject.startswith("vm/"):
                continue
            began.setdefault(subject, one["time_us"])
            if event["type"] in STEPS:
                ended.pop(subject, None)  # it has set out anew
            else:
                ended[subject] = {
                    "success": not event.get("failure", False),
                    "result": event["summary"],
                    "took_us": one["time_us"] - began[subject],
                }
    names = subject_names(client, records) if began else {}
    unknown = {"success": None, "result": STILL, "took_us": 0}
    return [{"vm": names[subject], **ended.get(subject, unknown)} for subject in began]


def settled_chain(client: JsonClient, record: str, wait_s: float, on_record: OnRecord | None = None) -> Chain:
    """All records that follow from this one, oldest first, once each of their VMs has ended up somewhere.

    Those that have not within `wait_s` are left on their way.
    """
    records = _chain(client, record)
    after = max((one["position"] for one in records), default=0)
    until = time.monotonic() + wait_s
    while on_their_way(records) and (left_s := until - time.monotonic()) > 0:
        try:
            page = client.poll_events({"correlation": record}, after=after, wait_s=min(math.ceil(left_s), POLL_S))
        except ClientError:
            time.sleep(min(left_s, 1.0))  # it may be restarted just now
            continue
        for one in page["records"]:
            if on_record is not None:
                on_record(one)
        records += page["records"]
        after = max(after, page["next_after"])
    return records


def on_their_way(records: Chain) -> int:
    """How many VMs have set out and not ended up anywhere."""
    last: dict[str, str] = {}
    for one in records:
        last |= {event["subject"]: event["type"] for event in one["events"] if event["subject"].startswith("vm/")}
    return sum(kind in STEPS for kind in last.values())


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


def _chain(client: JsonClient, record: str) -> Chain:
    found: Chain = []
    before: int | None = None
    while True:
        page = client.history(correlation=record, limit=PAGE, **({"before": before} if before else {}))
        found += page["records"]
        before = page["next_before"]
        if before is None:
            return found[::-1]
