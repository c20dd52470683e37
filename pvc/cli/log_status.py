"""`pvc log status`: where the log is, in ZooKeeper, in archives and on the nodes."""

from __future__ import annotations

from typing import Any

from pvc.cli.base import PvcCommand
from pvc.cli.session import Session
from pvc.cli.table import Cell, Column, render_facts, render_table
from pvc.cli.times import size

SEGMENTS = (Column("SEGMENT"), Column("RECORDS", right=True), Column("SIZE", right=True), Column("STATE"))
ARCHIVES = (Column("ARCHIVE"), Column("SEGMENTS", right=True), Column("MISSING", right=True), Column("STATE"))
NODES = (Column("NODE"), Column("RECORDS", right=True), Column("ARCHIVED", right=True), Column("COORDINATOR"))

KINDS = {
    "zookeeper": "ZooKeeper, with an archive on every coordinator",
    "sqlite": "embedded, in a file of this node",
    "memory": "in memory: gone with the daemon",
}


def show_status(session: Session) -> None:
    """All of it."""
    status = session.client.get("/log/status")
    if session.wants_data:
        session.show_data(status)
        return
    parts = [render_facts(_facts(status), session.look)]
    if status["segments"]:
        rows: list[list[str | Cell]] = [
            [
                f"{one['first']}..{max(one['last'], one['first'])}",
                f"{one['last'] - one['first'] + 1:,}",
                size(one["size_bytes"]),
                one["state"],
            ]
            for one in status["segments"]
        ]
        parts.append(render_table(SEGMENTS, rows, session.look))
    if status["archives"]:
        parts.append(render_table(ARCHIVES, [_archive(one) for one in status["archives"]], session.look))
    if status["nodes"]:
        parts.append(render_table(NODES, [_node(one) for one in status["nodes"]], session.look))
    session.show("\n\n".join(part.rstrip("\n") for part in parts) + "\n")


def _facts(status: dict[str, Any]) -> list[tuple[str, str | Cell]]:
    segments = status["segments"]
    removed = status["removed_position"]
    facts: list[tuple[str, str | Cell]] = [
        ("Log", KINDS.get(status["kind"], status["kind"])),
        ("Records", f"{status['position']:,}"),
        ("Replica here", f"{status['replica_position']:,} records, {size(status['replica_bytes'])}"),
    ]
    if segments:
        hot = segments[-1]["last"] - removed
        facts.append(("In ZooKeeper", f"{hot:,} records in {_segments(len(segments))}, from {removed + 1:,} on"))
        facts.append(
            ("Archived", f"{status['archived_position']:,} records in {_segments(status['archived_segments'])}")
        )
        facts.append(("Incarnation", status["incarnation"]))
    if status["waits_for"]:
        facts.append(("Old segments wait", Cell(f"for {status['waits_for']}", "yellow")))
    if status["held_by"]:
        facts.append(("Held by", Cell(status["held_by"], "red")))
    facts += [
        (f"Read from {one['title']}", f"{_segments(one['segments'])}, {size(one['size_bytes'])}")
        for one in status["fetched"]
    ]
    facts += [("Damaged", Cell(text, "red")) for text in status["damage"]]
    facts += [("Mended", text) for text in status["mended"]]
    return facts


def _segments(count: int) -> str:
    return f"{count:,} segment" if count == 1 else f"{count:,} segments"


def _archive(one: dict[str, Any]) -> list[str | Cell]:
    if one["problem"]:
        state = Cell(one["problem"], "red")
    else:
        state = Cell("complete", "green") if not one["missing"] else Cell("being filled", "yellow")
    return [one["title"], f"{one['segments']:,}", f"{one['missing']:,}", state]


def _node(one: dict[str, Any]) -> list[str | Cell]:
    archived = f"{one['archived']:,}" if one["coordinator"] else ""
    return [one["node"], f"{one['position']:,}", archived, "yes" if one["coordinator"] else ""]


status = PvcCommand(
    "status",
    show_status,
    reads=True,
    help="Show where the log is: its segments in ZooKeeper, its archives, and how far each node has it.",
    example="pvc log status\npvc log status -o json | jq .archives",
)
