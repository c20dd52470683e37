"""Commands over HTTP: one endpoint for each in the registry, all served by the same few steps."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import re
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from pvc.clock import new_ulid
from pvc.commands.access_rights import Asker, Rights, guarded, require_covered
from pvc.commands.audit import ErasePerson
from pvc.commands.base import CommandSpec, Decide, Decision
from pvc.commands.cluster import InitCluster
from pvc.commands.registry import BY_NAME, COMMANDS
from pvc.errors import InvalidInput, NotFound, OutcomeUnknown
from pvc.events.record import Actor, Record
from pvc.events.registry import encode_event
from pvc.gateway.access_log import told_in_access_log
from pvc.gateway.auth import NewToken, make_token
from pvc.gateway.bodies import control_of, read_fields
from pvc.gateway.cards import BASE_PATH, docstring
from pvc.gateway.endpoint import Call, Endpoint, json_response
from pvc.gateway.erasure import erased_before, notes_on_erasure, sealed_command
from pvc.gateway.fields import Fields
from pvc.gateway.records import decode_record
from pvc.gateway.request_meter import RECORD
from pvc.gateway.services import GatewayServices
from pvc.gateway.tags import held_to, required_revisions
from pvc.gateway.webhook_commands import completed
from pvc.projections.state import RECENT_COMMANDS
from pvc.projections.story import ToldEvent, tell
from pvc.runtime.appender import Outcome, key_reused
from pvc.runtime.appender import Request as Submission

COMMAND_DEADLINE_S = 60.0
"""Longer than the appender tries (some 20 s) and the disk may take (30 s); past it the outcome is not known."""

_DIGEST_BYTES = 8
"""Told apart are a client's own mistakes, not an attacker's forgeries."""

_KEY = re.compile(r"[\x21-\x7e]{1,128}")


class OperationRef(msgspec.Struct, frozen=True, kw_only=True):
    """Where to find out what comes of a command that takes time."""

    id: Annotated[str, Meta(description="That of the command's record.")]
    href: Annotated[str, Meta(examples=["/api/v1/operations/01JJXW6S00VTW2Z7Q4C9RTAH3N"])]


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a command."""

    position: Annotated[int, Meta(description="The position that has the outcome in it; give it as `min_position`.")]
    record: Annotated[str | None, Meta(description="Id of its record; null when nothing changed, or for a dry run.")]
    command: Annotated[str, Meta(description="The command's id: the Idempotency-Key, or one that was made.")]
    name: Annotated[str, Meta(description="The command.", examples=["vm.start"])]
    changed: Annotated[bool, Meta(description="False: it was so already, and nothing was written.")]
    dry_run: bool
    repeated: Annotated[bool, Meta(description="It had been done before, under the same key; this is that outcome.")]
    events: list[ToldEvent]
    notes: list[str]
    outcomes: Annotated[
        dict[str, bool],
        Meta(
            description="Types of the events that end the operation, and whether that is success; none: it has ended."
        ),
    ]
    operation: Annotated[
        OperationRef | None,
        Meta(description="What the command has begun; null where it is done already, and for a dry run."),
    ] = None


class TokenReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a command that makes a token."""

    token: Annotated[str, Meta(description="The token. Shown here and never again.")] = ""


class SecretReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """What became of `webhook.add` or `webhook.rotate_secret`."""

    secret: Annotated[str, Meta(description="`whsec_...` or `whpk_...`. Shown here and never again.")] = ""


def command_endpoints() -> list[Endpoint]:
    """An endpoint for every command of the registry."""
    return [_endpoint(spec) for spec in COMMANDS]


def _endpoint(spec: CommandSpec) -> Endpoint:
    summary, help_text = docstring(spec.struct)
    return Endpoint(
        name=spec.name,
        method=spec.method,
        path=spec.path,
        action=spec.action,
        handle=functools.partial(_handle, spec, Fields(spec.struct, hidden=spec.internal)),
        summary=summary,
        help=help_text,
        command=spec,
        reply=_reply_of(spec),
        before_init=spec.struct is InitCluster,
    )


async def _handle(spec: CommandSpec, fields: Fields, services: GatewayServices, call: Call) -> Response:
    with told_in_access_log(spec.name, services.clock, call.principal.actor) as line:
        key = idempotency_key_of(call.request)
        dry_run = dry_run_of(call.request)
        values = await read_fields(call.request, fields)
        line.about = str(values.get("vm") or values.get("name") or "")
        given = fields.decode(spec.struct, values)
        try:
            command = await sealed_command(spec, services, given, dry_run=dry_run)
        except NotFound:
            earlier = await erased_before(services, key, spec.name) if isinstance(given, ErasePerson) else None
            if earlier is None:
                raise
            line.position = earlier.position
            return json_response(_repeated(spec, earlier), earlier.position)
        digest = digest_of(command)
        command, secret = await completed(services, call.principal, command, dry_run=dry_run)
        token = make_token(services.rng) if makes_token(spec) else None
        if token is not None:
            made: dict[str, Any] = {"token_id": token.id, "token_sha256": token.sha256}
            command = msgspec.structs.replace(command, **made)
        key_or_new = key or new_ulid(services.clock, services.rng)
        actor = call.principal.actor if dry_run else await services.people.seal_actor(call.principal.actor)
        submission = _submission(
            spec,
            services,
            call.principal.asker,
            actor,
            command,
            key_or_new,
            digest,
            held_to(spec.decide, spec, required_revisions(call.request, spec)),
        )
        repeated = await _done_long_ago(services, submission) if key else None
        if key and not call.rights.everything:
            await _refuse_others_outcome(services, call.rights, submission, repeated)
        if repeated is not None:
            reply = _repeated(spec, repeated)
        elif dry_run:
            reply = dry_reply(spec, services, submission)
        else:
            reply = await real_reply(spec, services, submission, token)
        if secret:
            # That of a repeated command was shown the first time; this one signs nothing.
            shown = secret if reply.changed and not reply.repeated else ""
            reply = SecretReply(**msgspec.structs.asdict(reply), secret=shown)
        if isinstance(given, ErasePerson) and isinstance(command, ErasePerson):
            notes = await notes_on_erasure(services, given, command)
            reply = msgspec.structs.replace(reply, notes=[*reply.notes, *notes])
        line.position, line.record = reply.position, reply.record or ""
        if reply.record and not reply.repeated:
            call.request.scope[RECORD] = reply.record
        return json_response(reply, reply.position)


def makes_token(spec: CommandSpec) -> bool:
    """Whether the gateway makes a secret for it, of which the log has the hash."""
    return "token_sha256" in spec.internal


def _reply_of(spec: CommandSpec) -> type[Reply]:
    if makes_token(spec):
        return TokenReply
    return SecretReply if "secret_box" in spec.internal else Reply


def _repeated(spec: CommandSpec, record: Record) -> Reply:
    return reply_of(spec, record.command.id, record.position, record, Decision(events=()), repeated=True)


def idempotency_key_of(request: Request) -> str:
    """The client's key for this command, or nothing."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return ""
    if not _KEY.fullmatch(key):
        raise InvalidInput(
            "the Idempotency-Key must have 1 to 128 visible ASCII characters",
            code="idempotency.key_invalid",
            hint="a ULID or UUID does well",
            field="Idempotency-Key",
        )
    return key


def digest_of(command: msgspec.Struct) -> str:
    """A hash of what the client asked for, before the gateway adds anything of its own."""
    data = msgspec.msgpack.encode(command, order="deterministic")
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def dry_run_of(request: Request) -> bool:
    """Whether nothing is to be done. Raises InvalidInput."""
    if "dry_run" not in request.query_params:
        return False
    text = control_of(request, "dry_run").lower()
    # Empty is neither: who wrote `dry_run=` did not mean it to be done.
    if text not in ("true", "1", "false", "0"):
        raise InvalidInput(
            f"`dry_run` cannot be {text[:40]!r}", hint="it is true or false", code="input.invalid", field="dry_run"
        )
    return text in ("true", "1")


def _submission(
    spec: CommandSpec,
    services: GatewayServices,
    asker: Asker,
    actor: Actor,
    command: msgspec.Struct,
    key: str,
    digest: str,
    decide: Decide,
) -> Submission:
    state = services.world.state
    vm = getattr(command, "vm", "")
    vm_id = state.vm_names.get(vm, vm)
    return Submission(
        name=spec.name,
        command=command,
        decide=guarded(decide, spec.action, asker),
        actor=actor,
        command_id=key,
        digest=digest,
        audit_vm=vm_id if vm_id in state.vms else "",
        audit_refusal=True,
        told_by_caller=True,
    )


def dry_reply(spec: CommandSpec, services: GatewayServices, submission: Submission) -> Reply:
    """What a command would lead to, against the present state. Raises what the real one would."""
    decision = services.appender.try_out(submission)
    return Reply(
        position=services.world.position,
        record=None,
        command=submission.command_id,
        name=spec.name,
        changed=bool(decision.events),
        dry_run=True,
        repeated=False,
        events=[tell(encode_event(event)) for event in decision.events],
        notes=list(decision.notes),
        outcomes=_outcomes(spec, [event.TYPE for event in decision.events]),
    )


async def real_reply(
    spec: CommandSpec, services: GatewayServices, submission: Submission, token: NewToken | None = None
) -> Reply:
    """Carry a command out; what became of it."""
    outcome = await _submit(services, submission)
    record = outcome.entry.record if outcome.entry else None
    reply = reply_of(spec, submission.command_id, outcome.position, record, outcome.decision, repeated=outcome.repeated)
    if token is None:
        return reply
    # The secret of a repeated init was shown the first time; this one belongs to no token.
    return TokenReply(**msgspec.structs.asdict(reply), token="" if outcome.repeated else token.shown)


def reply_of(
    spec: CommandSpec,
    command_id: str,
    position: int,
    record: Record | None,
    decision: Decision,
    *,
    repeated: bool,
) -> Reply:
    """The reply about a record, or about none where nothing had to change."""
    events = record.events if record else ()
    types = [raw.type for raw in events]
    return Reply(
        position=position,
        record=record.id if record else None,
        command=command_id,
        name=spec.name,
        changed=bool(events),
        dry_run=False,
        repeated=repeated,
        events=[tell(raw) for raw in events],
        notes=list(decision.notes),
        outcomes=_outcomes(spec, types),
        operation=operation_ref(record.id) if record and types and spec.begun_with(types) else None,
    )


def _outcomes(spec: CommandSpec, types: Sequence[str]) -> dict[str, bool]:
    """What ends what it has begun, or would, with events of these types."""
    return dict(spec.outcomes) if spec.begun_with(types) else {}


class _Again(msgspec.Struct):
    """Stands for a command that is not decided again."""


async def given_before(services: GatewayServices, actor: Actor, key: str, digest: str) -> Reply | None:
    """The reply of an undo or a cancellation that was sent again: by now its own effect would stand in its way."""
    data = await services.history.find_command(key)
    if data is None:
        return None
    record = decode_record(data)
    name = record.command.name
    request = Submission(name=name, command=_Again(), decide=_never, actor=actor, command_id=key, digest=digest)
    refusal = key_reused(request, record)
    if refusal is not None:
        raise refusal
    return reply_of(BY_NAME[name], key, record.position, record, Decision(events=()), repeated=True)


def _never(*_: Any) -> Decision:
    raise AssertionError("what was carried out before is not decided again")


def operation_ref(record_id: str) -> OperationRef:
    """The operation that a record began."""
    return OperationRef(id=record_id, href=f"{BASE_PATH}/operations/{record_id}")


async def _submit(services: GatewayServices, submission: Submission) -> Outcome:
    """Submit in a task of its own: a client that goes away must not leave the outcome to chance."""
    task = asyncio.create_task(services.appender.submit(submission))
    task.add_done_callback(_looked_at)
    try:
        async with asyncio.timeout(COMMAND_DEADLINE_S):
            return await asyncio.shield(task)
    except TimeoutError as error:
        raise OutcomeUnknown(
            f"the log has not confirmed the command within {COMMAND_DEADLINE_S:g} s",
            hint="ask again with the same idempotency key: it will not be done twice",
        ) from error


def _looked_at(task: asyncio.Task[Outcome]) -> None:
    if not task.cancelled():
        task.exception()


async def _refuse_others_outcome(
    services: GatewayServices, rights: Rights, submission: Submission, repeated: Record | None
) -> None:
    """Whoever is limited is told the outcome of a command under the same key if it was their own, or is about what they
    may do it to; a VM that they have removed is covered no more, and yet they may ask again. Raises Forbidden."""
    position = services.world.state.recent.get(submission.command_id)
    if repeated is None and position is not None:
        await services.history.reach(position, COMMAND_DEADLINE_S)
        data = await services.history.data(position)
        repeated = decode_record(data) if data is not None else None
    if repeated is not None and repeated.actor.principal != submission.actor.principal:
        require_covered(services.world.state, rights, submission.command)


async def _done_long_ago(services: GatewayServices, submission: Submission) -> Record | None:
    """The record of a command so old that the state has forgotten its key; the history index has not."""
    forgotten = services.world.position - RECENT_COMMANDS
    if forgotten <= 0 or submission.command_id in services.world.state.recent:
        return None
    await services.history.reach(forgotten, COMMAND_DEADLINE_S)
    data = await services.history.find_command(submission.command_id)
    if data is None:
        return None
    record = decode_record(data)
    refusal = key_reused(submission, record)
    if refusal is not None:
        raise refusal
    return record
