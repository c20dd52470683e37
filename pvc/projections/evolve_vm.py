"""How VMs follow from events; which state an event leads to is told by `vm_machine` alone."""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec.structs import replace

from pvc.events import vm as e
from pvc.events import vm_moves as m
from pvc.events.record import Record
from pvc.events.types import EndPolicy, ShutdownTimeoutAction
from pvc.projections.state import ClusterState, Fault, Vm
from pvc.projections.vm_machine import ACTIVE, VmState, next_state

Request: TypeAlias = (
    e.VmStartRequested
    | e.VmShutdownRequested
    | e.VmStopRequested
    | e.VmRestartRequested
    | e.VmResetRequested
    | e.VmDisabled
    | e.VmEnabled
)
Setting: TypeAlias = (
    e.VmAutostartSet
    | e.VmSelectorSet
    | e.VmNodeLimitsSet
    | e.VmMigrationMethodSet
    | e.VmMaxDowntimeSet
    | e.VmPrioritySet
    | e.VmAffinitySet
    | e.VmAntiAffinitySet
)
Move: TypeAlias = (
    m.VmMigrationRequested
    | m.VmMigrationPrepared
    | m.VmMigrationCancelRequested
    | m.VmMigrationFailed
    | m.VmMigrated
    | m.VmArrived
    | m.VmRelocated
    | m.VmMoved
    | m.VmRecovered
    | m.VmRecoveryDelayed
)
Fact: TypeAlias = (
    e.VmStarted
    | e.VmStartFailed
    | e.VmStopped
    | e.VmCrashed
    | e.VmShutdownTimedOut
    | e.VmShutdownAbandoned
    | e.VmWasReset
)

FAILED = "vm.failed"
UNPLACED = "vm.unplaced"

KEPT_ENDINGS = 8
"""Times of unwanted endings kept per VM; more than any policy looks at."""


def defined(state: ClusterState, event: e.VmDefined, record: Record) -> None:
    """A new VM, at rest."""
    if event.vm in state.vms or event.name in state.vm_names:
        return
    state.put_vm(
        Vm(
            id=event.vm,
            name=event.name,
            spec=event.spec,
            node=event.node,
            home=event.node,
            description=event.description,
            selector=event.selector,
            node_limits=event.node_limits,
            migration_method=event.migration_method,
            autostart=event.autostart,
            on_poweroff=event.on_poweroff,
            on_crash=event.on_crash,
            tags=dict.fromkeys(event.tags, False),
            max_downtime_ms=event.max_downtime_ms,
            priority=event.priority,
            affinity=event.affinity,
            anti_affinity=event.anti_affinity,
            defined_us=record.time_us,
            changed_us=record.time_us,
            position=record.position,
        )
    )


def modified(state: ClusterState, event: e.VmModified, record: Record) -> None:
    """Fields that the event carries replace the VM's."""
    names = ("spec", "description", "on_poweroff", "on_crash")
    changes = {name: value for name in names if (value := getattr(event, name)) is not None}
    _change(state, event.vm, record, **changes)


def renamed(state: ClusterState, event: e.VmRenamed, record: Record) -> None:
    """Another name; a name that is taken meanwhile changes nothing."""
    if event.name not in state.vm_names:
        _change(state, event.vm, record, name=event.name)


def removed(state: ClusterState, event: e.VmRemoved, record: Record) -> None:
    """The VM is gone from the state; its history is not."""
    vm = state.vms.get(event.vm)
    if vm is not None:
        state.drop_vm(vm.id)
        for code in (FAILED, UNPLACED):
            state.drop_fault(f"{code}/{vm.id}")


def setting_changed(
    state: ClusterState,
    event: Setting,
    record: Record,
) -> None:
    """The event's one field besides `vm` is the VM's field of the same name."""
    name = next(field for field in event.__struct_fields__ if field != "vm")
    _change(state, event.vm, record, **{name: getattr(event, name)})


def tag_added(state: ClusterState, event: e.VmTagAdded, record: Record) -> None:
    """One more tag, or another protection for it."""
    vm = state.vms.get(event.vm)
    if vm is not None:
        _change(state, vm.id, record, tags={**vm.tags, event.tag: event.protected})


def tag_removed(state: ClusterState, event: e.VmTagRemoved, record: Record) -> None:
    """One tag fewer."""
    vm = state.vms.get(event.vm)
    if vm is not None:
        _change(state, vm.id, record, tags={tag: held for tag, held in vm.tags.items() if tag != event.tag})


def request(state: ClusterState, event: Request, record: Record, **changes: Any) -> None:
    """Any request: the state follows the table, and the facts that answer it will name this record."""
    vm = state.vms.get(event.vm)
    if vm is not None:
        changes["cause"] = record.id
        move(state, vm, event, record, **changes)


def start_requested(state: ClusterState, event: e.VmStartRequested, record: Record) -> None:
    """A new run begins, with the spec as it is now."""
    vm = state.vms.get(event.vm)
    if vm is not None:
        request(state, event, record, epoch=event.epoch, node=event.node, running_spec=vm.spec, forced=False)


def shutdown_requested(state: ClusterState, event: e.VmShutdownRequested, record: Record) -> None:
    """The guest has been given until the time-out."""
    request(state, event, record, shutdown_timeout_s=event.timeout_s, shutdown_action=event.on_timeout)


def restart_requested(state: ClusterState, event: e.VmRestartRequested, record: Record) -> None:
    """The present run is to end, the next has its number already."""
    request(
        state,
        event,
        record,
        epoch=event.epoch,
        shutdown_timeout_s=event.timeout_s,
        shutdown_action=ShutdownTimeoutAction.FORCE,
        forced=False,
    )


def reset_requested(state: ClusterState, event: e.VmResetRequested, record: Record) -> None:
    """The reset button is to be pressed once for this mark."""
    request(state, event, record, reset_mark=event.mark)


def fact(state: ClusterState, event: Fact, record: Record, **changes: Any) -> None:
    """Any fact: the state follows the table, if the fact is about the present run."""
    vm = state.vms.get(event.vm)
    if vm is not None and event.epoch == concerned_epoch(vm, event.TYPE):
        move(state, vm, event, record, **changes)


def started(state: ClusterState, event: e.VmStarted, record: Record) -> None:
    """The run is up."""
    fact(state, event, record, forced=False)


def start_failed(state: ClusterState, event: e.VmStartFailed, record: Record) -> None:
    """The run did not come to be; the reason is kept where the admin looks."""
    fact(state, event, record, error=event.message, running_spec=None)


def ended(state: ClusterState, event: e.VmStopped, record: Record) -> None:
    """The run is over; a guest that ends unasked but shall always run is counted like one that crashes."""
    vm = state.vms.get(event.vm)
    if vm is not None:
        counted = not event.requested and vm.on_poweroff is EndPolicy.RESTART
        _end(state, vm, event, record, endings_us=_with(vm, record) if counted else vm.endings_us)


def crashed(state: ClusterState, event: e.VmCrashed, record: Record) -> None:
    """The run is over, against everybody's will; when it happened counts for the policy."""
    vm = state.vms.get(event.vm)
    if vm is not None:
        _end(state, vm, event, record, error=f"the VM {event.words}", endings_us=_with(vm, record))


def failed(state: ClusterState, event: e.VmFailed, record: Record) -> None:
    """The policy gave up; the reason is kept where the admin looks."""
    vm = state.vms.get(event.vm)
    if vm is not None:
        move(state, vm, event, record, error=event.reason)


def shutdown_timed_out(state: ClusterState, event: e.VmShutdownTimedOut, record: Record) -> None:
    """The guest is forced off."""
    fact(state, event, record, forced=True)


def move(
    state: ClusterState, vm: Vm, event: Request | Fact | Move | e.VmFailed, record: Record, **changes: Any
) -> None:
    """Change the VM as the event says, where the table has the event for the VM's state."""
    target = next_state(vm.state, event.TYPE)
    if target is None:
        return
    if target is not vm.state:
        changes["changed_us"] = record.time_us
    if target is not VmState.FAILED:
        changes.setdefault("error", "")
    if vm.migration is not None and target not in (VmState.MIGRATING, VmState.ARRIVING):
        changes["migration"] = None
    changed = replace(vm, state=target, position=record.position, **changes)
    state.put_vm(changed)
    if changed.error != vm.error:
        _note_fault(state, changed, record)


def concerned_epoch(vm: Vm, event_type: str) -> int:
    """The run that a fact of this type must be about, to matter: while restarting, what ends is the run before."""
    if vm.state is VmState.RESTARTING and event_type != e.VmStarted.TYPE:
        return vm.epoch - 1
    return vm.epoch


def _with(vm: Vm, record: Record) -> tuple[int, ...]:
    return (*vm.endings_us, record.time_us)[-KEPT_ENDINGS:]


def _end(state: ClusterState, vm: Vm, event: e.VmStopped | e.VmCrashed, record: Record, **changes: Any) -> None:
    restarting = vm.state is VmState.RESTARTING
    fact(state, event, record, forced=False, running_spec=vm.spec if restarting else None, **changes)


def _change(state: ClusterState, vm_id: str, record: Record, **changes: Any) -> None:
    vm = state.vms.get(vm_id)
    if vm is not None and changes:
        state.put_vm(replace(vm, position=record.position, **changes))


def _note_fault(state: ClusterState, vm: Vm, record: Record) -> None:
    """An error of a VM is a fault until it is gone."""
    for code, holds in ((FAILED, vm.state is VmState.FAILED), (UNPLACED, vm.state in ACTIVE)):
        fault_id = f"{code}/{vm.id}"
        if vm.error and holds:
            message = f"{vm.name}: {vm.error}"
            state.put_fault(
                Fault(id=fault_id, code=code, subject=f"vm/{vm.id}", message=message, since_us=record.time_us)
            )
        else:
            state.drop_fault(fault_id)
