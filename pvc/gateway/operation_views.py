"""How operations are told to a reader, and what of them somebody may see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from pvc.commands.access_rights import Rights
from pvc.commands.seen_subjects import sees_subject
from pvc.errors import NotFound
from pvc.gateway.cards import BASE_PATH
from pvc.gateway.live import migration_progress
from pvc.gateway.moments import INDEX_DEADLINE_S
from pvc.gateway.records import iso_time
from pvc.gateway.services import GatewayServices
from pvc.projections.operations import Member, Operation, OperationState
from pvc.projections.state import ClusterState, FlushState
from pvc.projections.views import MigrationProgress
from pvc.projections.vm_machine import VmState

MAX_VMS = 1_000
"""VMs of one operation that are told one by one; the counts are of all."""

MIGRATIONS = frozenset({"vm.migrate", "vm.move", "vm.unmigrate"})
"""Commands whose operations are migrations of one VM."""


class OperationSubject(msgspec.Struct, frozen=True, kw_only=True):
    """Something an operation is about."""

    subject: Annotated[str, Meta(description="`vm/<id>`, `node/<name>`, `cluster`, ...", examples=["vm/4d7f0c52"])]
    name: Annotated[str, Meta(description="What it is called, or was when it was removed.", examples=["web01"])]


class OperationProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far an operation has come."""

    done: int
    total: Annotated[
        int, Meta(description="1 where it is about one thing, else VMs or nodes; VMs may join on the way.")
    ]
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


async def caught_up(services: GatewayServices) -> int:
    """Wait until what the fold has is in the operations; its position."""
    position = services.world.position
    await services.history.reach(position, INDEX_DEADLINE_S)
    await services.operations.reach(position, INDEX_DEADLINE_S)
    return position


async def find_operation(services: GatewayServices, rights: Rights, operation_id: str) -> Operation:
    """The operation, if there is one that may be seen. Raises NotFound."""
    operation = await services.operations.get(operation_id)
    if operation is None or not sees_operation(services.world.state, rights, operation):
        raise NotFound(
            f"there is no operation {operation_id[:64]!r}",
            code="operation.not_found",
            hint="`pvc operation list` shows those there are; what is done at once begins none",
            field="operation",
        )
    return operation


def sees_operation(state: ClusterState, rights: Rights, operation: Operation) -> bool:
    """Whether somebody may see any of what it is about."""
    return any(sees_subject(state, rights, subject) for subject in operation.subjects)


async def operation_views(
    services: GatewayServices, rights: Rights, operations: Sequence[Operation]
) -> list[OperationView]:
    """Operations for a reader."""
    subjects = [subject for operation in operations for subject in operation.subjects]
    names = await services.operations.names(list(dict.fromkeys(subjects)))
    state = services.world.state
    return [OperationView(**_told(state, rights, operation, names)) for operation in operations]


async def operation_info(services: GatewayServices, rights: Rights, operation: Operation) -> OperationInfo:
    """One operation for a reader, with its VMs and how far a migration has come."""
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
        "cancellable": is_cancellable(state, operation),
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


def goes_on(state: ClusterState, operation: Operation) -> bool:
    """Whether what can be cancelled is what this operation began."""
    kind, _, name = operation.subjects[0].partition("/")
    if kind == "vm":
        vm = state.vms.get(name)
        migration = vm.migration.id if vm is not None and vm.migration is not None else ""
        return migration in (operation.key, f"{operation.key}.shutdown")
    node = state.nodes.get(name)
    return node is not None and node.flush is FlushState.FLUSHING and node.cause == operation.id


def is_cancellable(state: ClusterState, operation: Operation) -> bool:
    """Whether its cancellation would be accepted now, from who may."""
    if not operation.open or not goes_on(state, operation):
        return False
    if operation.command not in MIGRATIONS:
        return operation.command == "node.flush"
    vm = state.vms[operation.subjects[0].partition("/")[2]]
    return vm.state is VmState.MIGRATING and vm.migration is not None and not vm.migration.cancel
