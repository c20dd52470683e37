"""How VMs' ways between nodes follow from events; which state an event leads to is told by `vm_machine` alone."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from pvc.events import vm_moves as m
from pvc.events.record import Record
from pvc.events.types import ShutdownTimeoutAction
from pvc.projections.evolve_vm import move
from pvc.projections.state import ClusterState, Migration, Vm

_TAKEN_OVER = (
    "source",
    "target",
    "live",
    "fallback",
    "permanent",
    "max_downtime_ms",
    "force_live",
    "timeout_s",
    "away",
    "reason",
    "why",
)


def way_of(event: m.VmMigrationRequested) -> Migration:
    """The migration as the request begins it."""
    return Migration(id=event.migration, **{field: getattr(event, field) for field in _TAKEN_OVER})


def migration_requested(state: ClusterState, event: m.VmMigrationRequested, record: Record) -> None:
    """It is on its way; the target keeps room for it."""
    vm = state.vms.get(event.vm)
    if vm is None:
        return
    since_us = record.time_us if vm.migration is None else vm.migration.since_us
    migration = replace(way_of(event), since_us=since_us)
    changes: dict[str, Any] = {"shutdown_timeout_s": event.timeout_s, "shutdown_action": ShutdownTimeoutAction.FORCE}
    if not event.reason:
        changes["failed_moves"] = 0
    if vm.migration is None:
        changes["cause"] = record.id  # else it goes on by another method, and whoever asked still waits
    move(state, vm, event, record, migration=migration, forced=False, **changes)


def prepared(state: ClusterState, event: m.VmMigrationPrepared, record: Record) -> None:
    """The target expects it."""
    vm = _migrating(state, event.vm, event.migration)
    if vm is not None and vm.migration is not None:
        move(state, vm, event, record, migration=replace(vm.migration, prepared=True))


def cancel_requested(state: ClusterState, event: m.VmMigrationCancelRequested, record: Record) -> None:
    """The source is to give it up."""
    vm = _migrating(state, event.vm, event.migration)
    if vm is not None and vm.migration is not None:
        move(state, vm, event, record, migration=replace(vm.migration, cancel=True), cause=record.id)


def migration_failed(state: ClusterState, event: m.VmMigrationFailed, record: Record) -> None:
    """It runs on where it was."""
    vm = _migrating(state, event.vm, event.migration)
    if vm is not None:
        move(state, vm, event, record, migration=None, forced=False, failed_moves=vm.failed_moves + 1)


def migrated(state: ClusterState, event: m.VmMigrated, record: Record) -> None:
    """It is the target's now."""
    vm = _migrating(state, event.vm, event.migration)
    if vm is not None and vm.migration is not None:
        home = event.target if vm.migration.permanent else vm.home
        moved = {"node": event.target, "home": home, "away": vm.migration.away, "why": vm.migration.why}
        move(state, vm, event, record, failed_moves=0, **moved)


def arrived(state: ClusterState, event: m.VmArrived, record: Record) -> None:
    """It runs on at the target."""
    vm = state.vms.get(event.vm)
    if vm is not None and vm.epoch == event.epoch:
        move(state, vm, event, record, migration=None)


def relocated(state: ClusterState, event: m.VmRelocated, record: Record) -> None:
    """It is the target's, to be started with its newest spec."""
    vm = _migrating(state, event.vm, event.migration)
    if vm is not None and vm.migration is not None:
        home = event.target if vm.migration.permanent else vm.home
        moved = {"node": event.target, "home": home, "away": vm.migration.away, "why": vm.migration.why}
        fresh = {"epoch": event.epoch, "running_spec": vm.spec, "migration": None, "forced": False}
        move(state, vm, event, record, failed_moves=0, **moved, **fresh)


def moved(state: ClusterState, event: m.VmMoved, record: Record) -> None:
    """It belongs to another node, at rest as it is."""
    vm = state.vms.get(event.vm)
    if vm is not None:
        home = event.target if event.permanent else vm.home
        move(state, vm, event, record, node=event.target, home=home, away=event.away, why=event.why)


def recovered(state: ClusterState, event: m.VmRecovered, record: Record) -> None:
    """It is to be started elsewhere."""
    vm = state.vms.get(event.vm)
    if vm is not None and vm.node == event.source:
        fresh = {"epoch": event.epoch, "running_spec": vm.spec, "migration": None, "forced": False}
        away = "" if event.target == vm.home else "recovery"
        move(state, vm, event, record, node=event.target, away=away, why=event.why, cause=record.id, **fresh)


def recovery_delayed(state: ClusterState, event: m.VmRecoveryDelayed, record: Record) -> None:
    """Nobody can take it for now."""
    vm = state.vms.get(event.vm)
    if vm is not None:
        move(state, vm, event, record, error=event.reason)


def _migrating(state: ClusterState, vm_id: str, migration: str) -> Vm | None:
    vm = state.vms.get(vm_id)
    if vm is None or vm.migration is None or vm.migration.id != migration:
        return None
    return vm
