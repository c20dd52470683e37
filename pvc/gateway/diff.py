"""What changed between two moments, object by object, and who did it: two past states compared, and the history."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.responses import Response

from pvc.commands.access_table import Action
from pvc.commands.base import quoted
from pvc.errors import NotFound
from pvc.events.record import Actor
from pvc.gateway.endpoint import Call, Endpoint, arguments_of, json_response
from pvc.gateway.history import Subject, check_subject, known_access
from pvc.gateway.lists import ListArguments, ListOf, Next, by_attributes
from pvc.gateway.moments import MOMENT_PATTERN, Moment, find_moment, state_at
from pvc.gateway.records import iso_time, record_view
from pvc.gateway.services import GatewayServices
from pvc.log.history import Found, HistoryQuery
from pvc.projections.diff import KINDS, Change, FieldChange, ObjectChange, diff_states
from pvc.projections.state import ClusterState

MAX_OBJECTS = 500
"""Objects of a page: for each the history is asked who changed it, at some 0.3 ms."""

DEFAULT_OBJECTS = 200

MAX_CAUSES = 5
"""Records told of one object, the newest; its history has them all."""

Point = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=40,
        description="A moment: a position of the log, a time in ISO 8601, how long ago (30m, 2h, 1d), or `now`.",
        examples=["2h"],
        extra_json_schema={"pattern": MOMENT_PATTERN},
    ),
]


class DiffArguments(ListArguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which moments are compared, and of what."""

    old: Point
    new: Point = "now"
    subject: Subject = ""
    limit: Annotated[int, Meta(ge=1, le=MAX_OBJECTS, description="Objects at most.")] = DEFAULT_OBJECTS


class MomentView(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two moments."""

    position: int
    time: str
    state_hash: str


class DiffCause(msgspec.Struct, frozen=True, kw_only=True):
    """A record that changed the object."""

    position: int
    time: str
    actor: Actor
    command: Annotated[str, Meta(description="The command or report it came of.", examples=["vm.start"])]
    summary: Annotated[str, Meta(description="What it says of the object.")]


class ObjectDiff(msgspec.Struct, frozen=True, kw_only=True):
    """An object that differs between the two moments."""

    kind: Annotated[str, Meta(description="`cluster`, `node`, `vm`, `fault`, `principal`, `token` or `erasure`.")]
    id: str
    name: str
    change: Change
    fields: Annotated[list[FieldChange], Meta(description="What differs; of what came or went, all there is.")]
    by: Annotated[list[DiffCause], Meta(description="What was recorded about it in between, the newest first.")]


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between two moments."""

    position: int
    old: MomentView
    new: MomentView
    total: Annotated[int, Meta(description="Objects that differ, on all pages.")]
    items: list[ObjectDiff]
    next: Next


async def _diff(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, DiffArguments)
    check_subject(arguments.subject)
    CHANGES.check_fields(arguments.fields)
    old_moment = await find_moment(services, arguments.old, "old")
    new_moment = await find_moment(services, arguments.new, "new")
    old, new = await state_at(services, old_moment.position), await state_at(services, new_moment.position)
    changes = await asyncio.to_thread(diff_states, old, new)
    if arguments.subject:
        wanted = _wanted(arguments.subject, old, new)
        changes = [change for change in changes if change.subject in wanted]
    shown, following = CHANGES.page(changes, arguments)
    with_causes = not arguments.fields or "by" in arguments.fields
    first, last = sorted((old_moment.position, new_moment.position))
    items = [
        _object_diff(change, await _found_causes(services, change, first, last) if with_causes else [])
        for change in shown
    ]
    reply = Diff(
        position=new_moment.position,
        old=_moment_view(old_moment, await services.past.hash_of(old)),
        new=_moment_view(new_moment, await services.past.hash_of(new)),
        total=len(changes),
        items=CHANGES.cut(items, arguments.fields),
        next=following,
    )
    return json_response(reply, services.world.position)


def _moment_view(moment: Moment, state_hash: str) -> MomentView:
    return MomentView(position=moment.position, time=iso_time(moment.time_us), state_hash=state_hash)


def _wanted(subject: str, old: ClusterState, new: ClusterState) -> set[str]:
    """The subjects that `subject` stands for. Raises NotFound where there was no such thing at either moment."""
    kind, _, name = subject.partition("/")
    if kind == "vm":
        found = {f"vm/{state.vm_names[name]}" for state in (old, new) if name in state.vm_names}
        found |= {subject} if name in old.vms or name in new.vms else set()
    elif kind == "node":
        found = {subject} if name in old.nodes or name in new.nodes else set()
    elif kind == "access":
        found = {subject} if name in known_access(old) or name in known_access(new) else set()
    else:
        found = {subject}
    if not found:
        shown = {"vm": "VM", "node": "node", "access": "token or principal"}[kind]
        raise NotFound(
            f"there was no {shown} {quoted(name)} at position {old.position}, nor at {new.position}",
            code=f"{kind}.not_found",
            hint="without it, everything that differs is shown",
            field="subject",
        )
    return found


async def _found_causes(services: GatewayServices, change: ObjectChange, first: int, last: int) -> list[Found]:
    query = HistoryQuery(subject=change.subject, after=first, before=last + 1, limit=MAX_CAUSES)
    found = await services.history.query(query)
    if not found and first < change.position <= last:
        # It was changed by what is about something else: its node was lost.
        data = await services.history.data(change.position)
        found = [Found(data, "")] if data is not None else []
    return found


def _object_diff(change: ObjectChange, found: list[Found]) -> ObjectDiff:
    return ObjectDiff(
        kind=change.kind,
        id=change.id,
        name=change.name,
        change=change.change,
        fields=change.fields,
        by=[_cause(one, change.subject) for one in found],
    )


def _cause(found: Found, subject: str) -> DiffCause:
    record = record_view(found)
    about = [event.summary for event in record.events if event.subject == subject]
    return DiffCause(
        position=record.position,
        time=record.time,
        actor=record.actor,
        command=record.command.name,
        summary="; ".join(about or [event.summary for event in record.events]),
    )


CHANGES: ListOf[ObjectChange] = ListOf(
    item=ObjectDiff,
    sorts={**by_attributes("name", "id", "change"), "kind": lambda change: KINDS.index(change.kind)},
    order="kind,name",
    key=lambda change: f"{change.id} {change.kind}",
)

DIFF = (
    Endpoint(
        name="time.diff",
        action=Action.PAST_READ,
        method="GET",
        path="/diff",
        handle=_diff,
        summary="What changed between two moments, and who did it.",
        help="Empty exactly where the two state hashes are equal. Faults are told by what they are about.",
        arguments=DiffArguments,
        listing=CHANGES,
        reply=Diff,
    ),
)
