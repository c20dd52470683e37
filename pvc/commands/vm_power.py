"""Commands that start and end a VM's runs."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from pvc.commands.access_table import Action
from pvc.commands.base import CommandSpec, Context, Decision, find_vm
from pvc.commands.vm_ref import DEFAULT_SHUTDOWN_TIMEOUT_S, VmRef, require_room, wrong_state
from pvc.errors import Rejected
from pvc.events import vm as e
from pvc.events.types import ShutdownTimeoutAction, TimeoutS
from pvc.projections.state import ClusterState, Vm
from pvc.projections.vm_machine import AT_REST, VmState


class StartVm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Start a VM."""

    vm: VmRef


class ShutdownVm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask the guest to shut itself down (ACPI power button).

    If it has not powered off when the time is over, it is forced off, or with `on_timeout: leave` left running.
    """

    vm: VmRef
    timeout_s: TimeoutS = DEFAULT_SHUTDOWN_TIMEOUT_S
    on_timeout: Annotated[
        ShutdownTimeoutAction, Meta(description="What happens when the guest does not power off in time.")
    ] = ShutdownTimeoutAction.FORCE


class StopVm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Force a VM off at once, as if its power cord were pulled."""

    vm: VmRef


class RestartVm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shut a VM down and start it again; changes to its definition take effect.

    A guest that has not powered off when the time is over is forced off.
    """

    vm: VmRef
    timeout_s: TimeoutS = DEFAULT_SHUTDOWN_TIMEOUT_S


class ResetVm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Press a VM's reset button: the guest boots again at once, unasked; its definition stays as it was started."""

    vm: VmRef


class DisableVm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Forbid a VM to be started, by anyone or anything, until it is enabled again."""

    vm: VmRef


class EnableVm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Allow a disabled VM to be started again."""

    vm: VmRef


def start_vm(state: ClusterState, command: StartVm, context: Context) -> Decision:
    """A VM at rest, enabled, with room for it on its node."""
    vm = find_vm(state, command.vm)
    if vm.state is VmState.DISABLED:
        raise wrong_state(vm, f"enable it first: pvc vm enable {vm.name}")
    if vm.state is VmState.RUNNING:
        raise Rejected(f"{vm.name} is already running", code="vm.is_running", hint="there is nothing to start")
    if vm.state not in AT_REST:
        raise wrong_state(vm, f"`pvc vm info {vm.name}` shows more")
    require_room(state, vm, vm.spec)
    return Decision(events=(start_of(vm),))


def shutdown_vm(state: ClusterState, command: ShutdownVm, context: Context) -> Decision:
    """A running VM."""
    vm = find_vm(state, command.vm)
    _require_running(vm)
    return Decision(
        events=(e.VmShutdownRequested(vm=vm.id, timeout_s=command.timeout_s, on_timeout=command.on_timeout),)
    )


def stop_vm(state: ClusterState, command: StopVm, context: Context) -> Decision:
    """Anything that runs, or is about to."""
    vm = find_vm(state, command.vm)
    if vm.state in AT_REST or vm.state is VmState.STOPPING:
        raise wrong_state(vm, "there is nothing to stop" if vm.state in AT_REST else "wait for it")
    return Decision(events=(e.VmStopRequested(vm=vm.id),))


def restart_vm(state: ClusterState, command: RestartVm, context: Context) -> Decision:
    """A running VM, with room for it as it is defined now."""
    vm = find_vm(state, command.vm)
    _require_running(vm)
    require_room(state, vm, vm.spec)
    return Decision(events=(restart_of(vm, command.timeout_s),))


def reset_vm(state: ClusterState, command: ResetVm, context: Context) -> Decision:
    """A running VM."""
    vm = find_vm(state, command.vm)
    _require_running(vm)
    return Decision(events=(e.VmResetRequested(vm=vm.id, mark=context.command_id),))


def disable_vm(state: ClusterState, command: DisableVm, context: Context) -> Decision:
    """A VM at rest."""
    vm = find_vm(state, command.vm)
    if vm.state is VmState.DISABLED:
        raise wrong_state(vm, f"enable it with: pvc vm enable {vm.name}")
    if vm.state not in AT_REST:
        raise wrong_state(vm, f"shut it down first: pvc vm shutdown {vm.name} --wait")
    return Decision(events=(e.VmDisabled(vm=vm.id),))


def enable_vm(state: ClusterState, command: EnableVm, context: Context) -> Decision:
    """A disabled VM."""
    vm = find_vm(state, command.vm)
    if vm.state is not VmState.DISABLED:
        raise Rejected(f"{vm.name} is not disabled", code="vm.not_disabled", hint="there is nothing to enable")
    return Decision(events=(e.VmEnabled(vm=vm.id),))


def start_of(vm: Vm, reason: str = "") -> e.VmStartRequested:
    """The request for the VM's next run, where it is."""
    return e.VmStartRequested(vm=vm.id, node=vm.node, epoch=vm.epoch + 1, reason=reason)


def restart_of(vm: Vm, timeout_s: int) -> e.VmRestartRequested:
    """The request to end this run and begin the next."""
    return e.VmRestartRequested(vm=vm.id, epoch=vm.epoch + 1, timeout_s=timeout_s)


def _require_running(vm: Vm) -> None:
    if vm.state in AT_REST:
        raise wrong_state(vm, f"start it with: pvc vm start {vm.name}")
    if vm.state is not VmState.RUNNING:
        raise wrong_state(vm, f"wait until it is running, or force it off: pvc vm stop {vm.name}")


STARTS_WELL = {e.VmStarted.TYPE: True, e.VmStartFailed.TYPE: False, e.VmStopRequested.TYPE: False}
"""What ends a start, and a restart."""
_ENDS_WELL = {e.VmStopped.TYPE: True, e.VmCrashed.TYPE: True}

SPECS = (
    CommandSpec(
        name="vm.start",
        struct=StartVm,
        decide=start_vm,
        action=Action.VM_RUN,
        path="/vms/{vm}/start",
        cli=("vm", "start"),
        args=("vm",),
        example={"vm": "web01"},
        outcomes=STARTS_WELL,
    ),
    CommandSpec(
        name="vm.shutdown",
        struct=ShutdownVm,
        decide=shutdown_vm,
        action=Action.VM_RUN,
        path="/vms/{vm}/shutdown",
        cli=("vm", "shutdown"),
        args=("vm",),
        example={"vm": "web01", "timeout_s": 60},
        outcomes={**_ENDS_WELL, e.VmShutdownAbandoned.TYPE: False},
    ),
    CommandSpec(
        name="vm.stop",
        struct=StopVm,
        decide=stop_vm,
        action=Action.VM_RUN,
        path="/vms/{vm}/stop",
        cli=("vm", "stop"),
        args=("vm",),
        example={"vm": "web01"},
        outcomes=_ENDS_WELL,
        confirm="Force {vm} off? Whatever the guest has not written to its disks is lost",
    ),
    CommandSpec(
        name="vm.restart",
        struct=RestartVm,
        decide=restart_vm,
        action=Action.VM_RUN,
        path="/vms/{vm}/restart",
        cli=("vm", "restart"),
        args=("vm",),
        example={"vm": "web01", "timeout_s": 60},
        outcomes=STARTS_WELL,
    ),
    CommandSpec(
        name="vm.reset",
        struct=ResetVm,
        decide=reset_vm,
        action=Action.VM_RUN,
        path="/vms/{vm}/reset",
        cli=("vm", "reset"),
        args=("vm",),
        example={"vm": "web01"},
        outcomes={e.VmWasReset.TYPE: True, e.VmStopped.TYPE: False, e.VmCrashed.TYPE: False},
        confirm="Reset {vm}? Whatever the guest has not written to its disks is lost",
    ),
    CommandSpec(
        name="vm.disable",
        struct=DisableVm,
        decide=disable_vm,
        action=Action.VM_RUN,
        path="/vms/{vm}/disable",
        cli=("vm", "disable"),
        args=("vm",),
        example={"vm": "web01"},
    ),
    CommandSpec(
        name="vm.enable",
        struct=EnableVm,
        decide=enable_vm,
        action=Action.VM_RUN,
        path="/vms/{vm}/enable",
        cli=("vm", "enable"),
        args=("vm",),
        example={"vm": "web01"},
    ),
)
