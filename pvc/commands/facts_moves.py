"""What nodes report of VMs on their way from one to another. Decided like commands, because a report may come late."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from pvc.commands.base import Context, Decision
from pvc.commands.vm_ref import NOTHING
from pvc.events import vm_moves as m
from pvc.events.registry import Event
from pvc.events.types import NodeName
from pvc.projections.state import ClusterState, Migration, Vm
from pvc.projections.vm_machine import VmState

LIVE_REFUSED = "hypervisor.migration_refused"
"""The code with which a hypervisor says that this VM cannot be moved live at all, today or tomorrow."""


class ReportPrepared(Struct, frozen=True, kw_only=True):
    """The target can take the VM."""

    vm: str
    node: NodeName
    migration: str


class ReportMigrationFailed(Struct, frozen=True, kw_only=True):
    """The migration came to nothing; the guest still runs at the source. From the source, or a target that cannot."""

    vm: str
    node: NodeName
    migration: str
    code: str
    message: str


class ReportArrived(Struct, frozen=True, kw_only=True):
    """The guest runs at the target."""

    vm: str
    node: NodeName
    epoch: int


MoveReport: TypeAlias = ReportPrepared | ReportMigrationFailed | ReportArrived


def prepared(state: ClusterState, report: ReportPrepared, context: Context) -> Decision:
    """The source may begin."""
    vm, move = _under_way(state, report.vm, report.migration)
    if vm is None or move is None or vm.state is not VmState.MIGRATING or move.prepared or move.target != report.node:
        return NOTHING
    return Decision(events=(m.VmMigrationPrepared(vm=vm.id, node=report.node, migration=move.id),))


def migration_failed(state: ClusterState, report: ReportMigrationFailed, context: Context) -> Decision:
    """It runs on at the source; what cannot be moved live is shut down and started, if the request allows that."""
    vm, move = _under_way(state, report.vm, report.migration)
    if vm is None or move is None or vm.state is not VmState.MIGRATING:
        return NOTHING
    # A target that has said it can take the guest has had its say: now the source knows what becomes of it.
    if report.node != move.source and (report.node != move.target or move.prepared):
        return NOTHING
    if report.code == LIVE_REFUSED and move.live and move.fallback and not move.cancel:
        return Decision(events=(_by_shutdown(vm, move, report.message),))
    failed = m.VmMigrationFailed(
        vm=vm.id, node=report.node, migration=move.id, code=report.code, message=report.message
    )
    return Decision(events=(failed,))


def arrived(state: ClusterState, report: ReportArrived, context: Context) -> Decision:
    """The way is over."""
    vm = state.vms.get(report.vm)
    if vm is None or vm.state is not VmState.ARRIVING or (vm.node, vm.epoch) != (report.node, report.epoch):
        return NOTHING
    return Decision(events=(m.VmArrived(vm=vm.id, node=report.node, epoch=report.epoch),))


def handover(vm: Vm, *, live: bool) -> Event:
    """The source is rid of the VM: the target's turn."""
    move = vm.migration
    assert move is not None, f"{vm.name} is not migrating"
    if live:
        return m.VmMigrated(vm=vm.id, migration=move.id, source=vm.node, target=move.target, epoch=vm.epoch)
    return m.VmRelocated(vm=vm.id, migration=move.id, source=vm.node, target=move.target, epoch=vm.epoch + 1)


def target_lost(state: ClusterState, vm: Vm) -> m.VmMigrationFailed:
    """The VM was shut down to be moved, and there is nowhere to go now."""
    move = vm.migration
    assert move is not None, f"{vm.name} is not migrating"
    node = state.nodes.get(move.target)
    message = f"{move.target} is {node.state if node is not None else 'no node any more'}"
    return m.VmMigrationFailed(vm=vm.id, node=vm.node, migration=move.id, code="vm.target_lost", message=message)


def _by_shutdown(vm: Vm, move: Migration, why_not_live: str) -> m.VmMigrationRequested:
    return m.VmMigrationRequested(
        vm=vm.id,
        migration=f"{move.id}.shutdown",
        source=vm.node,
        target=move.target,
        live=False,
        permanent=move.permanent,
        max_downtime_ms=move.max_downtime_ms,
        timeout_s=move.timeout_s,
        away=move.away,
        reason=f"not live: {why_not_live}",
        why=move.why,
    )


def _under_way(state: ClusterState, vm_id: str, migration: str) -> tuple[Vm | None, Migration | None]:
    vm = state.vms.get(vm_id)
    if vm is None or vm.migration is None or vm.migration.id != migration:
        return None, None
    return vm, vm.migration
