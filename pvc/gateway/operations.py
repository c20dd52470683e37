"""Operations: what commands have begun and what came of it, as things to be listed, waited for and cancelled."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.responses import Response

from pvc.clock import new_ulid
from pvc.commands.access_rights import Rights, guarded, require
from pvc.commands.access_table import Action
from pvc.commands.base import CommandSpec, Context, Decision
from pvc.commands.node import ReadyNode
from pvc.commands.registry import BY_NAME
from pvc.commands.vm_move import CancelVmMigration
from pvc.errors import NotFound, Rejected
from pvc.gateway.access_log import told_in_access_log
from pvc.gateway.cards import BASE_PATH
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
from pvc.gateway.event_sight import sight_of
from pvc.gateway.history import ActorName, Subject, check_subject
from pvc.gateway.live import migration_progress
from pvc.gateway.moments import INDEX_DEADLINE_S
from pvc.gateway.queries import NoArguments
from pvc.gateway.records import iso_time
from pvc.gateway.seen_subjects import sees_subject
from pvc.gateway.services import GatewayServices
from pvc.gateway.sight import MAX_AMONG, MAX_LOOKS, covered
from pvc.projections.operations import Member, Operation, OperationState
from pvc.projections.state import ClusterState, FlushState
from pvc.projections.views import MigrationProgress
from pvc.projections.vm_machine import VmState
from pvc.runtime.appender import Request as Submission
from pvc.runtime.operation_file import OperationQuery

MAX_OPERATIONS = 1_000
"""Operations of a page at most: some 600 kB."""

MAX_VMS = 1_000
"""VMs of one operation that are told one by one; the counts are of all."""

MAX_WAIT_S = 60
"""How long a request may wait: under the time after which proxies give up on a silent connection."""

Wait = Annotated[
    int,
    Meta(ge=0, le=MAX_WAIT_S, description="Seconds to wait for its end, or with `seen` for a change.", examples=[30]),
]


class OperationListArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which operations are listed: those that match everything given."""

    state: Annotated[tuple[OperationState, ...], Meta(description="Only those in one of these states.")] = ()
    command: Annotated[
        tuple[str, ...],
        Meta(
            max_length=50, description="Names of commands, `vm.*` for all that begin with `vm.`.", examples=[["vm.*"]]
        ),
    ] = ()
    subject: Subject = ""
    actor: ActorName = ""
    limit: Annotated[int, Meta(ge=1, le=MAX_OPERATIONS, description="Operations at most.")] = 50
    after: (
        Annotated[int, Meta(ge=0, le=1 << 62, description="Begin after this one: `next` of the page before.")] | None
    ) = None


class OperationArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long to wait for one operation."""

    wait: Wait = 0
    seen: (
        Annotated[
            int, Meta(ge=0, le=1 << 62, description="Do not wait for the end, but for a change after this `position`.")
        ]
        | None
    ) = None


class OperationSubject(msgspec.Struct, frozen=True, kw_only=True):
    """Something an operation is about."""

    subject: Annotated[str, Meta(description="`vm/<id>`, `node/<name>`, `cluster`, ...", examples=["vm/4d7f0c52"])]
    name: Annotated[str, Meta(description="What it is called, or was when it was removed.", examples=["web01"])]


class OperationProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far an operation has come."""

    done: int
    total: Annotated[int, Meta(description="1 where it is about one thing, else VMs; more may join on the way.")]
    failed: Annotated[int, Meta(description="Of those done.")]
    text: Annotated[str, Meta(description="What happened last.", examples=["running on hv1"])]
    transfer: Annotated[
        MigrationProgress | None, Meta(description="Of a live migration under way, as it was a second ago.")
    ] = None


class OperationProblem(msgspec.Struct, frozen=True, kw_only=True):
    """Why an operation has failed or was cancelled."""

    code: Annotated[str, Meta(description="Stable, dotted: an error's code, or the type of the event that ended it.")]
    detail: str


class OperationView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a command has begun."""

    id: Annotated[str, Meta(description="That of the record that began it; the same at every gateway, for ever.")]
    href: str
    command: Annotated[str, Meta(examples=["vm.migrate"])]
    subjects: list[OperationSubject]
    actor: str
    state: OperationState
    progress: OperationProgress
    problem: OperationProblem | None
    cancellable: Annotated[bool, Meta(description="Whether it can still be cancelled, by who may.")]
    position: Annotated[int, Meta(description="Of the last record that told something of it.")]
    started: str
    started_us: int
    ended: Annotated[str | None, Meta(description="Null while it goes on.")]
    ended_us: int | None


class OperationVm(msgspec.Struct, frozen=True, kw_only=True):
    """One VM of an operation that is about many."""

    subject: str
    name: str
    state: Annotated[OperationState, Meta(description="`pending`: it has not set out; `running`: it is on its way.")]
    text: str
    took_us: Annotated[int | None, Meta(description="From its setting out to its end.")]


class OperationInfo(OperationView, frozen=True, kw_only=True):
    """All about an operation."""

    vms: Annotated[list[OperationVm], Meta(description=f"Where it is about many: each of them, {MAX_VMS:,} at most.")]


class OperationPage(msgspec.Struct, frozen=True, kw_only=True):
    """Operations, the newest first."""

    position: int
    items: list[OperationView]
    next: Annotated[int | None, Meta(description="Give it as `after` for the next page; null: that was all.")]


class _Cancel(msgspec.Struct, frozen=True, kw_only=True):
    """What a cancellation asks for; two of the same are the same command."""

    cancel: str


async def _operations(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, OperationListArguments)
    check_subject(arguments.subject)
    position = await _caught_up(services)
    actors = await services.people.actors(arguments.actor, services.history.actors) if arguments.actor else ()
    subjects: tuple[str, ...] | None = None
    if arguments.subject:
        subjects = tuple(dict.fromkeys((arguments.subject, *await services.history.subjects(arguments.subject))))
    query = OperationQuery(
        states=tuple(state.value for state in arguments.state),
        commands=arguments.command,
        actors=actors,
        subjects=subjects,
        before=arguments.after,
    )
    found, following = await _seen_page(services, call.rights, query, arguments.limit)
    items = await _views(services, call.rights, found)
    return json_response(OperationPage(position=position, items=items, next=following), position)


async def _seen_page(
    services: GatewayServices, rights: Rights, query: OperationQuery, limit: int
) -> tuple[list[Operation], int | None]:
    """Up to `limit` operations that may be shown, and after which there may be more."""
    if not rights.everything:
        among = covered(services.world.state, rights)
        if not among:
            return [], None
        if len(among) <= MAX_AMONG:
            query = msgspec.structs.replace(query, among=among)
    shown: list[Operation] = []
    for _ in range(1 if rights.everything else MAX_LOOKS):
        found = await services.operations.find(msgspec.structs.replace(query, limit=limit + 1))
        more = len(found) > limit
        for one in found[:limit]:
            if _sees(services.world.state, rights, one):
                shown.append(one)
                if len(shown) == limit:
                    return shown, one.position if more or one is not found[-1] else None
        if not more:
            return shown, None
        query = msgspec.structs.replace(query, before=found[limit - 1].position)
    return shown, query.before


async def _operation(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, OperationArguments)
    operation_id, rights = call.request.path_params["operation"], call.rights
    await _caught_up(services)
    operation = await _find(services, rights, operation_id)
    if arguments.wait and not _answers(operation, arguments.seen):
        operation = await _wait_for(services, operation, arguments)
        # Much may have changed while it waited, also what of it may be seen.
        sight_of(call.principal, services.world.state, services.clock.wall_us())
        rights = require(services.world.state, call.principal.asker, Action.HISTORY_READ)
        operation = await _find(services, rights, operation_id)
    info = await _info(services, rights, operation)
    return json_response(info, max(services.operations.position, services.world.position))


async def _wait_for(services: GatewayServices, operation: Operation, arguments: OperationArguments) -> Operation:
    """The operation once it is over, or has changed, or the time is over."""
    stopping = asyncio.create_task(services.stopping.wait())
    until = services.clock.monotonic() + arguments.wait
    try:
        with services.operations.watching(operation.id) as changed:
            while changed is not None:
                changed.clear()
                operation = await services.operations.get(operation.id) or operation
                left_s = until - services.clock.monotonic()
                if _answers(operation, arguments.seen) or left_s <= 0 or services.stopping.is_set():
                    break
                change = asyncio.create_task(changed.wait())
                try:
                    await asyncio.wait((change, stopping), timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    change.cancel()
    finally:
        stopping.cancel()
    return operation


def _answers(operation: Operation, seen: int | None) -> bool:
    return not operation.open or (seen is not None and operation.changed > seen)


async def _cancel(services: GatewayServices, call: Call) -> Response:
    with told_in_access_log("operation.cancel", services.clock, call.principal.actor) as line:
        arguments_of(call.request, NoArguments)
        operation_id = line.about = call.request.path_params["operation"]
        key, dry_run = idempotency_key_of(call.request), dry_run_of(call.request)
        await _caught_up(services)
        readable = require(services.world.state, call.principal.asker, Action.HISTORY_READ)
        operation = await _find(services, readable, operation_id)
        digest = digest_of(_Cancel(cancel=operation_id))
        reply = await given_before(services, call.principal.actor, key, digest) if key else None
        if reply is None:
            spec, command, by = _cancellation(services.world.state, operation)
            require(services.world.state, call.principal.asker, spec.action)
            asking = call.principal.actor
            submission = Submission(
                name=spec.name,
                command=command,
                decide=guarded(functools.partial(_decide_if_still, operation, spec), spec.action, call.principal.asker),
                actor=asking if dry_run else await services.people.seal_actor(asking),
                command_id=key or new_ulid(services.clock, services.rng),
                digest=digest,
                cause=operation.id,
                audit_vm=by,
                audit_refusal=True,
            )
            if dry_run:
                reply = dry_reply(spec, services, submission)
            else:
                reply = await real_reply(spec, services, submission)
        line.position = reply.position
        return json_response(reply, reply.position)


def _cancellation(state: ClusterState, operation: Operation) -> tuple[CommandSpec, msgspec.Struct, str]:
    """The command that cancels an operation, and the VM that it is about, if it is one. Raises Rejected."""
    if not operation.open:
        raise _ended(operation)
    kind, _, name = operation.subjects[0].partition("/")
    if operation.command in _MIGRATIONS and kind == "vm":
        return BY_NAME["vm.cancel_migration"], CancelVmMigration(vm=name), name if name in state.vms else ""
    if operation.command == "node.flush":
        return BY_NAME["node.ready"], ReadyNode(node=name), ""
    raise Rejected(
        f"{operation.command} cannot be cancelled once it has begun",
        code="operation.not_cancellable",
        hint=_INSTEAD.get(operation.command, "wait for it: `pvc operation wait` does"),
    )


def _decide_if_still(
    operation: Operation, spec: CommandSpec, state: ClusterState, command: Any, context: Context
) -> Decision:
    """The decision, if it is still this operation that goes on there."""
    if not _goes_on(state, operation):
        raise _ended(operation)
    return spec.decide(state, command, context)


def _goes_on(state: ClusterState, operation: Operation) -> bool:
    """Whether what can be cancelled is what this operation began."""
    kind, _, name = operation.subjects[0].partition("/")
    if kind == "vm":
        vm = state.vms.get(name)
        migration = vm.migration.id if vm is not None and vm.migration is not None else ""
        return migration in (operation.key, f"{operation.key}.shutdown")
    node = state.nodes.get(name)
    return node is not None and node.flush is FlushState.FLUSHING and node.cause == operation.id


def _is_cancellable(state: ClusterState, operation: Operation) -> bool:
    if not operation.open or not _goes_on(state, operation):
        return False
    if operation.command not in _MIGRATIONS:
        return operation.command == "node.flush"
    vm = state.vms[operation.subjects[0].partition("/")[2]]
    return vm.state is VmState.MIGRATING and vm.migration is not None and not vm.migration.cancel


def _ended(operation: Operation) -> Rejected:
    told = f"has {operation.state}" if operation.state is not OperationState.CANCELLED else "was cancelled already"
    if operation.open:
        told = "goes on no more"
    return Rejected(
        f"operation {operation.id} ({operation.command}) {told}",
        code="operation.ended",
        hint=f"there is nothing to cancel; `pvc operation info {operation.id}` shows what became of it",
    )


async def _caught_up(services: GatewayServices) -> int:
    """Wait until what the fold has is in the operations; its position."""
    position = services.world.position
    await services.history.reach(position, INDEX_DEADLINE_S)
    await services.operations.reach(position, INDEX_DEADLINE_S)
    return position


async def _find(services: GatewayServices, rights: Rights, operation_id: str) -> Operation:
    """The operation, if there is one that may be seen. Raises NotFound."""
    operation = await services.operations.get(operation_id)
    if operation is None or not _sees(services.world.state, rights, operation):
        raise NotFound(
            f"there is no operation {operation_id[:64]!r}",
            code="operation.not_found",
            hint="`pvc operation list` shows those there are; what is done at once begins none",
            field="operation",
        )
    return operation


def _sees(state: ClusterState, rights: Rights, operation: Operation) -> bool:
    return any(sees_subject(state, rights, subject) for subject in operation.subjects)


async def _views(services: GatewayServices, rights: Rights, operations: Sequence[Operation]) -> list[OperationView]:
    subjects = [subject for operation in operations for subject in operation.subjects]
    names = await services.operations.names(list(dict.fromkeys(subjects)))
    state = services.world.state
    return [OperationView(**_told(state, rights, operation, names)) for operation in operations]


async def _info(services: GatewayServices, rights: Rights, operation: Operation) -> OperationInfo:
    state = services.world.state
    members = await services.operations.members(operation.position, MAX_VMS) if operation.total != 0 else []
    # Who sees only some VMs of an operation is told of those alone, also in the counts.
    members = [one for one in members if sees_subject(state, rights, one.subject)]
    names = await services.operations.names([*operation.subjects, *(one.subject for one in members)])
    told = _told(state, rights, operation, names)
    if members and not rights.everything:
        ended = [one for one in members if one.ended_us]
        lost = sum(not one.success for one in ended)
        told["progress"] = msgspec.structs.replace(told["progress"], done=len(ended), total=len(members), failed=lost)
    if operation.open and len(operation.subjects) == 1 and operation.subjects[0].startswith("vm/"):
        vm = state.vms.get(operation.subjects[0].partition("/")[2])
        if vm is not None and vm.migration is not None:
            transfer = migration_progress(await services.live.figures(), vm)
            told["progress"] = msgspec.structs.replace(told["progress"], transfer=transfer)
    return OperationInfo(**told, vms=sorted((_vm_of(one, names) for one in members), key=lambda vm: vm.name))


def _told(state: ClusterState, rights: Rights, operation: Operation, names: Mapping[str, str]) -> dict[str, Any]:
    seen = [subject for subject in operation.subjects if sees_subject(state, rights, subject)]
    whole = len(seen) == len(operation.subjects)
    progress = OperationProgress(
        done=operation.done if whole else 0,
        total=operation.total if whole else len(seen),
        failed=operation.failed if whole else 0,
        text=operation.text if whole else "",
    )
    problem = OperationProblem(code=operation.code, detail=operation.text if whole else "") if operation.code else None
    return {
        "id": operation.id,
        "href": f"{BASE_PATH}/operations/{operation.id}",
        "command": operation.command,
        "subjects": [_subject_of(subject, names) for subject in seen],
        "actor": operation.actor,
        "state": operation.state,
        "progress": progress,
        "problem": problem,
        "cancellable": _is_cancellable(state, operation),
        "position": operation.changed,
        "started": iso_time(operation.started_us),
        "started_us": operation.started_us,
        "ended": iso_time(operation.ended_us) if operation.ended_us else None,
        "ended_us": operation.ended_us or None,
    }


def _subject_of(subject: str, names: Mapping[str, str]) -> OperationSubject:
    return OperationSubject(subject=subject, name=names.get(subject, subject.partition("/")[2]))


def _vm_of(member: Member, names: Mapping[str, str]) -> OperationVm:
    state = OperationState.RUNNING if member.began_us else OperationState.PENDING
    if member.ended_us:
        state = OperationState.SUCCEEDED if member.success else OperationState.FAILED
    return OperationVm(
        subject=member.subject,
        name=names.get(member.subject, member.subject.partition("/")[2]),
        state=state,
        text=member.text,
        took_us=member.ended_us - member.began_us if member.ended_us and member.began_us else None,
    )


_MIGRATIONS = frozenset({"vm.migrate", "vm.move", "vm.unmigrate"})

_INSTEAD = {
    "vm.start": "`pvc vm stop` ends it, started or not",
    "vm.shutdown": "the guest has been asked already; start it again once it is off",
    "vm.restart": "`pvc vm stop` ends it",
    "cluster.rebalance": "cancel its migrations one by one: `pvc vm cancel-migration`",
    "node.ready": "`pvc node flush` sends its VMs away again",
}
"""What to do about operations that cannot be cancelled."""

_EXAMPLE: dict[str, Any] = {
    "id": "01JJXW6S00VTW2Z7Q4C9RTAH3N",
    "href": "/api/v1/operations/01JJXW6S00VTW2Z7Q4C9RTAH3N",
    "command": "vm.migrate",
    "subjects": [{"subject": "vm/4d7f0c52", "name": "web01"}],
    "actor": "admin",
    "state": "running",
    "progress": {
        "done": 0,
        "total": 1,
        "failed": 0,
        "text": "expected on hv2",
        "transfer": {
            "per_cent": 41.5,
            "total_bytes": 2147483648,
            "remaining_bytes": 1256277934,
            "seconds": 3.2,
        },
    },
    "problem": None,
    "cancellable": True,
    "position": 1044,
    "started": "2025-01-31T12:00:00.000Z",
    "started_us": 1738324800000000,
    "ended": None,
    "ended_us": None,
}

OPERATIONS = (
    Endpoint(
        name="operation.list",
        action=Action.HISTORY_READ,
        method="GET",
        path="/operations",
        handle=_operations,
        summary="What commands have begun and what came of it, the newest first.",
        help="Every command that takes time begins an operation; its reply says which. All of them are here, as far "
        "back as the log goes. A long list comes in pages: give `next` as `after`.",
        arguments=OperationListArguments,
        reply=OperationPage,
        reply_example={
            "position": 1044,
            "items": [{**_EXAMPLE, "progress": {**_EXAMPLE["progress"], "transfer": None}}],
            "next": None,
        },
    ),
    Endpoint(
        name="operation.show",
        action=Action.HISTORY_READ,
        method="GET",
        path="/operations/{operation}",
        handle=_operation,
        summary="All about an operation; waits for its end where asked to.",
        help="With `wait=30` the answer comes when it is over, or after 30 s as it stands then. To follow its progress "
        "give `position` of the answer before as `seen`, too.",
        arguments=OperationArguments,
        reply=OperationInfo,
        reply_example={**_EXAMPLE, "vms": []},
    ),
    Endpoint(
        name="operation.cancel",
        action=Action.VM_MOVE,
        method="POST",
        path="/operations/{operation}/cancel",
        handle=_cancel,
        summary="Cancel an operation.",
        help="By the command that takes back what can be taken back: a migration that has not left yet is given up, a "
        "flush is ended and its VMs come home. It needs the role of that command. The rest is refused "
        "(`operation.not_cancellable`), and so is what is over (`operation.ended`). The reply is that of the command; "
        "the operation is `cancelled` once that has come about.",
        arguments=NoArguments,
        controls=True,
        reply=Reply,
    ),
)
