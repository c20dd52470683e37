"""Undo: the inverse of an earlier record's command, found from the state before it, and given like any other."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.responses import Response

from pvc.clock import new_ulid
from pvc.commands.access_rights import guarded, require
from pvc.commands.access_table import Action
from pvc.commands.base import Context, Decision
from pvc.commands.undo import inverse_of
from pvc.commands.undoing import ChangedSince, Inverse
from pvc.errors import InvalidInput, NotFound, Rejected
from pvc.events.record import Record
from pvc.gateway.access_log import told_in_access_log
from pvc.gateway.commands import (
    Reply,
    digest_of,
    dry_reply,
    dry_run_of,
    given_before,
    idempotency_key_of,
    real_reply,
)
from pvc.gateway.endpoint import Call, Endpoint, arguments_of, json_response
from pvc.gateway.moments import INDEX_DEADLINE_S
from pvc.gateway.queries import NoArguments
from pvc.gateway.records import RecordView, decode_record, record_view
from pvc.gateway.services import GatewayServices
from pvc.log.history import Found, HistoryQuery
from pvc.projections.state import ClusterState
from pvc.runtime.appender import Request as Submission
from pvc.runtime.past import not_indexed


class UndoReply(Reply, frozen=True, kw_only=True):
    """What became of an undo: the reply of its command, and what it undid."""

    undone: Annotated[RecordView, Meta(description="The record that is undone; the new one names it as its cause.")]
    label: Annotated[
        str, Meta(description="What it is about, as people call it now: the fields name VMs by their ids.")
    ]
    fields: Annotated[
        dict[str, Any], Meta(description="The fields of the command `name` that undoes it; none where it is repeated.")
    ]


class _Undo(msgspec.Struct, frozen=True, kw_only=True):
    """What an undo asks for; two of the same are the same command."""

    undo: int


async def _undo(services: GatewayServices, call: Call) -> Response:
    with told_in_access_log("time.undo", services.clock, call.principal.actor) as line:
        arguments_of(call.request, NoArguments)
        position = _position(call.request.path_params["position"])
        line.about = f"position {position}"
        key, dry_run = idempotency_key_of(call.request), dry_run_of(call.request)
        found = await _record_at(services, position)
        record = decode_record(found.data)
        digest = digest_of(_Undo(undo=position))
        earlier = await given_before(services, call.principal.actor, key, digest) if key else None
        fields: dict[str, Any] = {}
        if earlier is not None:
            reply = earlier
        else:
            before = await services.past.at(position - 1) if position > 1 else ClusterState()
            inverse = await _inverse(services, before, record)
            require(services.world.state, call.principal.asker, inverse.spec.action)
            fields = {k: v for k, v in msgspec.to_builtins(inverse.command).items() if v is not None}
            asking = call.principal.actor
            submission = Submission(
                name=inverse.spec.name,
                command=inverse.command,
                decide=guarded(
                    functools.partial(_decide_anew, before, record, inverse), inverse.spec.action, call.principal.asker
                ),
                actor=asking if dry_run else await services.people.seal_actor(asking),
                command_id=key or new_ulid(services.clock, services.rng),
                digest=digest,
                cause=record.id,
                audit_refusal=True,
            )
            if dry_run:
                reply = dry_reply(inverse.spec, services, submission)
            else:
                reply = await real_reply(inverse.spec, services, submission)
            reply = msgspec.structs.replace(reply, notes=[*reply.notes, *inverse.notes])
        line.position = reply.position
        told = UndoReply(
            **msgspec.structs.asdict(reply), undone=record_view(found), label=_label(services, fields), fields=fields
        )
        return json_response(told, told.position)


def _label(services: GatewayServices, fields: Mapping[str, Any]) -> str:
    vm = services.world.state.vms.get(fields.get("vm", ""))
    named = ("node", "hook", "principal", "name")
    return vm.name if vm is not None else str(next((fields[name] for name in named if fields.get(name)), ""))


def _position(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) < 1:
        raise InvalidInput(
            f"`position` cannot be {text[:40]!r}",
            hint="it is a position of the log: `pvc history all -v` shows them",
            field="position",
        )
    return int(text)


async def _record_at(services: GatewayServices, position: int) -> Found:
    head = services.world.position
    if position > head:
        raise NotFound(
            f"the log ends at position {head}; there is no position {position} yet",
            code="at.not_yet",
            hint="`pvc event list` shows what there is",
            field="position",
        )
    await services.history.reach(head, INDEX_DEADLINE_S)
    found = await services.history.query(HistoryQuery(after=position - 1, before=position + 1, limit=1))
    if not found:
        raise not_indexed(position)
    return found[0]


async def _inverse(services: GatewayServices, before: ClusterState, record: Record) -> Inverse:
    try:
        return inverse_of(before, record, services.world.state)
    except ChangedSince as changed:
        later = await _changed_by(services, changed, record.position)
        raise (_told(changed, later) if later is not None else changed) from None


async def _changed_by(services: GatewayServices, changed: ChangedSince, after: int) -> Record | None:
    """The newest record that changed it again: one of the same kind, or any about the same thing."""
    for types in (changed.types, ()):
        query = HistoryQuery(subject=changed.subject, types=types, after=after, limit=1)
        if found := await services.history.query(query):
            return decode_record(found[0].data)
    return None


def _told(changed: ChangedSince, later: Record) -> Rejected:
    return Rejected(
        f"{changed.message}: position {later.position}, by {later.actor.principal} ({later.command.name})",
        code="undo.changed_since",
        hint=f"undo that first, if you mean it: pvc undo {later.position}",
    )


def _decide_anew(
    before: ClusterState, record: Record, inverse: Inverse, state: ClusterState, command: Any, context: Context
) -> Decision:
    """The decision, if it is still the inverse by the time it is decided."""
    if inverse_of(before, record, state).command != command:
        raise ChangedSince(f"what position {record.position} did", "cluster")
    return inverse.spec.decide(state, command, context)


UNDO = (
    Endpoint(
        name="time.undo",
        action=Action.UNDO,
        method="POST",
        path="/undo/{position}",
        places={"position": {"type": "integer", "minimum": 1, "maximum": 10**18 - 1, "examples": [1234]}},
        handle=_undo,
        summary="Undo what a command did, by the command that takes it back.",
        help="`name` and `fields` in the reply say which command that is; `dry_run=true` shows it first. Refused where "
        "there is none (`undo.no_inverse`), where the record is a fact (`undo.is_fact`), and where what it did was "
        "changed again since (`undo.changed_since`). It needs the role of the command. What follows from it names the "
        "undone record as its cause.",
        arguments=NoArguments,
        controls=True,
        reply=UndoReply,
    ),
)
