"""What changed between two moments, undo, and what-if: the requests, and the shapes of their replies."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, cast

from pvc.client.api_types import Actor, RecordView, Reply, ToldEvent
from pvc.client.json_client import JsonClient


def fetch_diff(client: JsonClient, old: str, new: str = "now", subject: str = "") -> Diff:
    """What differs between two moments, all of it."""
    query: dict[str, Any] = {"old": old, "new": new, "subject": subject}
    diff = cast("Diff", client.get("/diff", query))
    # Of all pages the same moments: "two hours ago" is another one with each.
    query |= {"old": str(diff["old"]["position"]), "new": str(diff["new"]["position"])}
    following = diff["next"]
    while following is not None:
        page = cast("Diff", client.get("/diff", {**query, "after": following}))
        diff["items"] += page["items"]
        following = page["next"]
    return {**diff, "next": None}


def undo(client: JsonClient, position: int, *, dry_run: bool = False, key: str = "") -> UndoReply:
    """Undo what a record did, or show the command that would."""
    asked = "true" if dry_run else ""
    return cast("UndoReply", client.post(f"/undo/{position}", key=key or os.urandom(16).hex(), dry_run=asked))


def what_if(client: JsonClient, steps: Sequence[Mapping[str, Any]]) -> Forecast:
    """What would come of commands (`{"command": ..., "fields": {...}}`) and losses (`{"node_loss": ...}`)."""
    return cast("Forecast", client.post("/whatif", body={"steps": steps}, min_position=client.position or ""))


class FieldChange(TypedDict):
    """A field and its two values; inner fields are spelled `spec.memory_mib`."""

    field: str
    old: Any
    new: Any


class DiffCause(TypedDict):
    """A record that changed an object."""

    position: int
    time: str
    actor: Actor
    command: str
    summary: str


class ObjectDiff(TypedDict):
    """An object that differs between two moments; `change` is `added`, `removed` or `changed`."""

    kind: str
    id: str
    name: str
    change: str
    fields: list[FieldChange]
    by: list[DiffCause]


class MomentView(TypedDict):
    """One of the two moments of a diff."""

    position: int
    time: str
    state_hash: str


class Diff(TypedDict):
    """What differs between two moments."""

    position: int
    old: MomentView
    new: MomentView
    total: int
    items: list[ObjectDiff]
    next: str | None


class Refusal(TypedDict):
    """The error that a command would give."""

    code: str
    message: str
    hint: str
    field: str


class ForecastAnswer(TypedDict):
    """What would come of one question, by itself."""

    question: str
    refusal: Refusal | None
    events: list[ToldEvent]
    notes: list[str]


class Placement(TypedDict):
    """A VM that would be elsewhere (`source`, `target`: nodes), or in another state (`before`, `after`)."""

    vm: str
    name: str
    source: str
    target: str
    before: str
    after: str
    why: list[str]


class Unplaced(TypedDict):
    """A VM that would be left where it is."""

    vm: str
    name: str
    node: str
    reason: str


class NodeForecast(TypedDict):
    """A node that would be another one."""

    node: str
    before: str
    after: str
    memory_mib: int
    allocated_before_mib: int
    allocated_after_mib: int


class Forecast(TypedDict):
    """What would come of all questions, one after the other."""

    position: int
    answers: list[ForecastAnswer]
    placements: list[Placement]
    left: list[Unplaced]
    nodes: list[NodeForecast]
    records: int
    notes: list[str]


class UndoReply(Reply):
    """What became of an undo: the reply of the command that undoes, its fields, and the record that is undone."""

    undone: RecordView
    label: str
    fields: dict[str, Any]
