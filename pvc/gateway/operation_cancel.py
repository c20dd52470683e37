"""Cancelling operations: by the command that takes back what can be taken back."""

from __future__ import annotations

import functools
from typing import Any

import msgspec
from starlette.responses import Response

from pvc.clock import new_ulid
from pvc.commands.access_rights import guarded, require
from pvc.commands.access_table import Action
from pvc.commands.base import CommandSpec, Context, Decision
from pvc.commands.node import ReadyNode
from pvc.commands.registry import BY_NAME
from pvc.commands.vm_move import CancelVmMigration
from pvc.errors import Rejected
from pvc.gateway.access_log import told_in_access_log
from pvc.gateway.commands import digest_of, dry_reply, dry_run_of, given_before, idempotency_key_of, real_reply
from pvc.gateway.endpoint import Call, arguments_of, json_response
from pvc.gateway.operation_views import MIGRATIONS, caught_up, find_operation, goes_on
from pvc.gateway.queries import NoArguments
from pvc.gateway.services import GatewayServices
from pvc.projections.operations import Operation, OperationState
from pvc.projections.state import ClusterState
from pvc.runtime.appender import Request as Submission


class _Cancel(msgspec.Struct, frozen=True, kw_only=True):
    """What a cancellation asks for; two of the same are the same command."""

    cancel: str


async def cancel_operation(services: GatewayServices, call: Call) -> Response:
    """Give the command that cancels an operation."""
    with told_in_access_log("operation.cancel", services.clock, call.principal.actor) as line:
        arguments_of(call.request, NoArguments)
        operation_id = line.about = call.request.path_params["operation"]
        key, dry_run = idempotency_key_of(call.request), dry_run_of(call.request)
        await caught_up(services)
        readable = require(services.world.state, call.principal.asker, Action.HISTORY_READ)
        operation = await find_operation(services, readable, operation_id)
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
    if operation.command in MIGRATIONS and kind == "vm":
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
    if not goes_on(state, operation):
        raise _ended(operation)
    return spec.decide(state, command, context)


def _ended(operation: Operation) -> Rejected:
    told = f"has {operation.state}" if operation.state is not OperationState.CANCELLED else "was cancelled already"
    if operation.open:
        told = "goes on no more"
    return Rejected(
        f"operation {operation.id} ({operation.command}) {told}",
        code="operation.ended",
        hint=f"there is nothing to cancel; `pvc operation info {operation.id}` shows what became of it",
    )


_INSTEAD = {
    "vm.start": "`pvc vm stop` ends it, started or not",
    "vm.shutdown": "the guest has been asked already; start it again once it is off",
    "vm.restart": "`pvc vm stop` ends it",
    "vm.modify": "`pvc vm stop` ends the restart; the definition stays changed",
    "cluster.rebalance": "cancel its migrations one by one: `pvc vm cancel-migration`",
    "node.ready": "`pvc node flush` sends its VMs away again",
}
"""What to do about operations that cannot be cancelled."""
