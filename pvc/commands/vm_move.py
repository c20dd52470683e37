"""Commands that bring a VM to another node: migrate for a time, move for good, bring home, cancel."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from pvc.commands.access_table import Action
from pvc.commands.base import CommandSpec, Context, Decision, find_node, find_vm
from pvc.commands.placement import Choice, affinity_notes, obstacle_on, place, wish_of
from pvc.commands.vm_ref import DEFAULT_SHUTDOWN_TIMEOUT_S, NOTHING, VmRef, wrong_state
from pvc.commands.vm_settings import MaxDowntimeMs
from pvc.errors import Rejected
from pvc.events import vm as e
from pvc.events import vm_moves as m
from pvc.events.types import MigrationMethod, NodeName, TimeoutS
from pvc.projections.state import ClusterState, NodeState, Vm
from pvc.projections.vm_machine import AT_REST, VmState

Target = Annotated[NodeName, Meta(description="The node to go to; chosen by the VM's selector if not given.")]
ForceLive = Annotated[
    bool, Meta(description="Only live, whatever that costs the guest: it is slowed down until it can be moved.")
]
ShutdownTimeout = Annotated[
    TimeoutS, Meta(description="If it has to be shut down: so many seconds, then it is forced off.")
]


class MigrateVm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bring a VM to another node for a time, until it is brought back home.

    A running VM moves live; where that is not possible it is shut down and started there. A VM at rest just belongs
    to the other node.
    """

    vm: VmRef
    node: Target | None = None
    force_live: ForceLive = False
    max_downtime_ms: MaxDowntimeMs | None = None
    timeout_s: ShutdownTimeout = DEFAULT_SHUTDOWN_TIMEOUT_S


class MoveVm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bring a VM to another node for good: that becomes its home.

    A running VM moves live; where that is not possible it is shut down and started there.
    """

    vm: VmRef
    node: Target | None = None
    force_live: ForceLive = False
    max_downtime_ms: MaxDowntimeMs | None = None
    timeout_s: ShutdownTimeout = DEFAULT_SHUTDOWN_TIMEOUT_S


class UnmigrateVm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bring a VM back to its home node."""

    vm: VmRef
    force_live: ForceLive = False
    max_downtime_ms: MaxDowntimeMs | None = None
    timeout_s: ShutdownTimeout = DEFAULT_SHUTDOWN_TIMEOUT_S


class CancelVmMigration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Give up a migration that is under way; the VM runs on where it was. It may be too late for that."""

    vm: VmRef


def migrate_vm(state: ClusterState, command: MigrateVm, context: Context) -> Decision:
    """To a node that can take it, and is not the one it is on."""
    vm = find_vm(state, command.vm)
    choice = _target(state, vm, command.node, context)
    away = "" if choice.node == vm.home else "migrate"
    return _go(state, vm, choice, command, context, away=away, permanent=False)


def move_vm(state: ClusterState, command: MoveVm, context: Context) -> Decision:
    """To a node that can take it; where it is already, it is only at home from now on."""
    vm = find_vm(state, command.vm)
    if command.node == vm.node != vm.home and vm.state in (*AT_REST, VmState.RUNNING):
        return Decision(events=(m.VmMoved(vm=vm.id, source=vm.node, target=vm.node, permanent=True),))
    choice = _target(state, vm, command.node, context)
    return _go(state, vm, choice, command, context, away="", permanent=True)


def unmigrate_vm(state: ClusterState, command: UnmigrateVm, context: Context) -> Decision:
    """To its home, if it is not there."""
    vm = find_vm(state, command.vm)
    if vm.node == vm.home:
        raise Rejected(f"{vm.name} is at home on {vm.home}", code="vm.is_home", hint="there is nothing to bring back")
    return _go(state, vm, _target(state, vm, vm.home, context), command, context, away="", permanent=False)


def cancel_migration(state: ClusterState, command: CancelVmMigration, context: Context) -> Decision:
    """One that has not left yet."""
    vm = find_vm(state, command.vm)
    if vm.migration is None:
        raise Rejected(f"{vm.name} is not migrating", code="vm.not_migrating", hint="there is nothing to cancel")
    if vm.state is VmState.ARRIVING:
        raise Rejected(
            f"{vm.name} has left {vm.migration.source} already",
            code="vm.has_left",
            hint=f"bring it back once it has arrived: pvc vm migrate {vm.name} {vm.migration.source}",
        )
    if vm.migration.cancel:
        return NOTHING
    return Decision(events=(m.VmMigrationCancelRequested(vm=vm.id, migration=vm.migration.id),))


def migration_of(
    vm: Vm,
    choice: Choice,
    migration: str,
    *,
    away: str,
    reason: str = "",
    permanent: bool = False,
    force_live: bool = False,
    max_downtime_ms: int | None = None,
    timeout_s: int = DEFAULT_SHUTDOWN_TIMEOUT_S,
) -> m.VmMigrationRequested:
    """The request that brings a running VM to the chosen node, by the method that is set for it."""
    live = force_live or vm.migration_method is not MigrationMethod.SHUTDOWN
    return m.VmMigrationRequested(
        vm=vm.id,
        migration=migration,
        source=vm.node,
        target=choice.node,
        live=live,
        fallback=live and not force_live,
        permanent=permanent,
        max_downtime_ms=max_downtime_ms or vm.max_downtime_ms,
        force_live=force_live,
        timeout_s=timeout_s,
        away=away,
        reason=reason,
        why=choice.why,
    )


def _target(state: ClusterState, vm: Vm, wanted: str | None, context: Context) -> Choice:
    wish = wish_of(vm)
    needs_room = vm.state not in AT_REST
    if wanted is None:
        return place(state, wish, exclude=(vm.node,), usage=context.usage, needs_room=needs_room)
    node = find_node(state, wanted)
    if node.name == vm.node:
        raise Rejected(f"{vm.name} is on {vm.node} already", code="vm.is_there", hint="name another node, or none")
    obstacle = obstacle_on(state, wish, node, needs_room=needs_room)
    if obstacle:
        raise Rejected(
            f"{vm.name} cannot go to {node.name}: it {obstacle}",
            code="node.unsuitable",
            hint="name another node, or none to have one chosen",
        )
    return Choice(node=node.name, why=("as asked", *affinity_notes(state, wish, node)))


def _go(
    state: ClusterState,
    vm: Vm,
    choice: Choice,
    command: MigrateVm | MoveVm | UnmigrateVm,
    context: Context,
    *,
    away: str,
    permanent: bool,
) -> Decision:
    if vm.state in AT_REST:
        moved = m.VmMoved(vm=vm.id, source=vm.node, target=choice.node, permanent=permanent, away=away, why=choice.why)
        return Decision(events=(moved,))
    if vm.state is not VmState.RUNNING:
        raise wrong_state(vm, "wait until it runs, or is off")
    source = state.nodes[vm.node]
    if source.state is not NodeState.READY:
        raise Rejected(
            f"{vm.name} runs on node {source.name}, which is {source.state}",
            code="node.not_ready",
            hint="it is recovered when the node is fenced, or runs on when the node is back: `pvc node list`",
        )
    if vm.migration_method is MigrationMethod.NONE:
        raise Rejected(
            f"{vm.name} is not to be moved while it runs (its migration method is none)",
            code="vm.not_movable",
            hint=f"shut it down first, or: pvc vm migration-method {vm.name} live",
        )
    request = migration_of(
        vm,
        choice,
        context.command_id,
        away=away,
        permanent=permanent,
        force_live=command.force_live,
        max_downtime_ms=command.max_downtime_ms,
        timeout_s=command.timeout_s,
    )
    return Decision(events=(request,))


_OUTCOMES = {
    m.VmArrived.TYPE: True,
    m.VmMoved.TYPE: True,
    e.VmStarted.TYPE: True,
    m.VmMigrationFailed.TYPE: False,
    e.VmStartFailed.TYPE: False,
    e.VmStopRequested.TYPE: False,
    e.VmStopped.TYPE: False,
    e.VmCrashed.TYPE: False,
    m.VmRecovered.TYPE: False,
}

SPECS = (
    CommandSpec(
        name="vm.migrate",
        struct=MigrateVm,
        decide=migrate_vm,
        action=Action.VM_MOVE,
        path="/vms/{vm}/migrate",
        cli=("vm", "migrate"),
        args=("vm", "node"),
        example={"vm": "web01", "node": "hv2"},
        outcomes=_OUTCOMES,
    ),
    CommandSpec(
        name="vm.unmigrate",
        struct=UnmigrateVm,
        decide=unmigrate_vm,
        action=Action.VM_MOVE,
        path="/vms/{vm}/unmigrate",
        cli=("vm", "unmigrate"),
        args=("vm",),
        example={"vm": "web01"},
        outcomes=_OUTCOMES,
    ),
    CommandSpec(
        name="vm.move",
        struct=MoveVm,
        decide=move_vm,
        action=Action.VM_MOVE,
        path="/vms/{vm}/move",
        cli=("vm", "move"),
        args=("vm", "node"),
        example={"vm": "web01", "node": "hv2"},
        outcomes=_OUTCOMES,
    ),
    CommandSpec(
        name="vm.cancel_migration",
        struct=CancelVmMigration,
        decide=cancel_migration,
        action=Action.VM_MOVE,
        path="/vms/{vm}/cancel-migration",
        cli=("vm", "cancel-migration"),
        args=("vm",),
        example={"vm": "web01"},
        outcomes={
            m.VmMigrationFailed.TYPE: True,
            m.VmArrived.TYPE: False,
            e.VmStarted.TYPE: False,
            e.VmStopped.TYPE: False,
            e.VmCrashed.TYPE: False,
        },
    ),
)
