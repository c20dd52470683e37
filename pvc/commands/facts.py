"""What a node reports. A report is a command that only nodes give: decided against the present state like any other.

Deciding matters because a report may come late: an admin may have asked for something else meanwhile, and then a
crash must not bring the VM back up. A report that no longer says anything new leads to no events.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct

from pvc.commands.base import Context, Decide, Decision
from pvc.commands.vm_power import start_of
from pvc.commands.vm_ref import NOTHING
from pvc.events import node as n
from pvc.events import vm as e
from pvc.events.registry import Event
from pvc.events.types import EndPolicy, NodeName
from pvc.projections.evolve_vm import concerned_epoch
from pvc.projections.state import ClusterState, Vm
from pvc.projections.vm_machine import AT_REST, TRANSITIONS, VmState

CRASH_LIMIT = 3
"""Restarts after a crash within CRASH_WINDOW_US; one more and the VM is left failed for an admin to look at."""

CRASH_WINDOW_US = 10 * 60 * 1_000_000


class Ending(StrEnum):
    """How a run ended, as the node found it."""

    GUEST = "guest"
    DESTROYED = "destroyed"
    CRASHED = "crashed"
    UNKNOWN = "unknown"
    LOST = "lost"
    """The domain is gone without a trace: the machine was rebooted, or somebody undefined it."""


class ReportNodeReady(Struct, frozen=True, kw_only=True):
    """The node's daemon has started and caught up with the log."""

    node: NodeName
    memory_mib: int
    vcpus: int
    accelerator: str
    hypervisor: str
    version: str
    boot: str


class ReportRunning(Struct, frozen=True, kw_only=True):
    """A domain of this run was seen running."""

    vm: str
    node: NodeName
    epoch: int


class ReportEnded(Struct, frozen=True, kw_only=True):
    """The domain of this run is off, or gone."""

    vm: str
    node: NodeName
    epoch: int
    ending: Ending


class ReportStartFailed(Struct, frozen=True, kw_only=True):
    """The hypervisor could not start this run, and would not if asked again."""

    vm: str
    node: NodeName
    epoch: int
    code: str
    message: str


class ReportShutdownTimedOut(Struct, frozen=True, kw_only=True):
    """The guest has not powered off within the time it was given."""

    vm: str
    node: NodeName
    epoch: int


class ReportReset(Struct, frozen=True, kw_only=True):
    """The reset button was pressed for this mark."""

    vm: str
    node: NodeName
    epoch: int
    mark: str


def node_ready(state: ClusterState, report: ReportNodeReady, context: Context) -> Decision:
    """The node joins if it is new, is ready, and after a boot of the machine its autostart VMs are to start."""
    known = state.nodes.get(report.node)
    ready = n.NodeReady(
        node=report.node,
        memory_mib=report.memory_mib,
        vcpus=report.vcpus,
        accelerator=report.accelerator,
        hypervisor=report.hypervisor,
        version=report.version,
        boot=report.boot,
    )
    if known is None:
        return Decision(events=(n.NodeJoined(node=report.node), ready))
    if known.boot == report.boot:
        return Decision(events=(ready,))
    waiting = sorted(
        (vm for vm in state.vms.values() if vm.node == report.node and vm.autostart and vm.state is VmState.STOPPED),
        key=lambda vm: vm.name,
    )
    return Decision(events=(ready, *(start_of(vm, reason="autostart: the node has booted") for vm in waiting)))


def running(state: ClusterState, report: ReportRunning, context: Context) -> Decision:
    """The run is up, if that is what is being waited for."""
    vm = _concerned(state, report, e.VmStarted.TYPE)
    if vm is None or (vm.state, e.VmStarted.TYPE) not in TRANSITIONS:
        return NOTHING
    return Decision(events=(e.VmStarted(vm=vm.id, node=report.node, epoch=report.epoch),))


def ended(state: ClusterState, report: ReportEnded, context: Context) -> Decision:
    """The run is over: as asked, by the guest's own wish, or by accident; the VM's policy says what follows."""
    vm = _concerned(state, report, e.VmStopped.TYPE)
    if vm is None or vm.state in AT_REST:
        return NOTHING
    about: dict[str, Any] = {"vm": vm.id, "node": report.node, "epoch": report.epoch}
    was_up: tuple[Event, ...] = (e.VmStarted(**about),) if vm.state is VmState.STARTING else ()
    if vm.state in (VmState.SHUTTING_DOWN, VmState.STOPPING, VmState.RESTARTING):
        how = {Ending.GUEST: "guest", Ending.DESTROYED: "forced"}.get(report.ending, "unknown")
        return Decision(events=(e.VmStopped(**about, how=how),))
    if report.ending is Ending.GUEST:
        stopped = e.VmStopped(**about, how="guest", requested=False)
        return Decision(events=(*was_up, stopped, *_after_poweroff(state, vm)))
    how = {Ending.DESTROYED: "killed", Ending.CRASHED: "crashed", Ending.LOST: "lost"}.get(report.ending, "unknown")
    return Decision(events=(*was_up, e.VmCrashed(**about, how=how), *_after_crash(state, vm, context)))


def start_failed(state: ClusterState, report: ReportStartFailed, context: Context) -> Decision:
    """The run did not come to be; an admin has to look, since trying again would fail again."""
    vm = _concerned(state, report, e.VmStartFailed.TYPE)
    if vm is None or vm.state is not VmState.STARTING:
        return NOTHING
    failure = e.VmStartFailed(vm=vm.id, node=report.node, epoch=report.epoch, code=report.code, message=report.message)
    return Decision(events=(failure,))


def shutdown_timed_out(state: ClusterState, report: ReportShutdownTimedOut, context: Context) -> Decision:
    """The guest has used up its time; what the request said about that applies."""
    vm = _concerned(state, report, e.VmShutdownTimedOut.TYPE)
    if vm is None or vm.forced or vm.state not in (VmState.SHUTTING_DOWN, VmState.RESTARTING):
        return NOTHING
    timed_out = e.VmShutdownTimedOut(vm=vm.id, node=report.node, epoch=report.epoch, action=vm.shutdown_action)
    return Decision(events=(timed_out,))


def was_reset(state: ClusterState, report: ReportReset, context: Context) -> Decision:
    """The button was pressed."""
    vm = _concerned(state, report, e.VmWasReset.TYPE)
    if vm is None or vm.state is not VmState.RESETTING or vm.reset_mark != report.mark:
        return NOTHING
    return Decision(events=(e.VmWasReset(vm=vm.id, node=report.node, epoch=report.epoch, mark=report.mark),))


def _concerned(
    state: ClusterState,
    report: ReportRunning | ReportEnded | ReportStartFailed | ReportShutdownTimedOut | ReportReset,
    event_type: str,
) -> Vm | None:
    vm = state.vms.get(report.vm)
    if vm is None or vm.node != report.node or report.epoch != concerned_epoch(vm, event_type):
        return None
    return vm


def _after_poweroff(state: ClusterState, vm: Vm) -> tuple[Event, ...]:
    if vm.on_poweroff is EndPolicy.STOP:
        return ()
    return _start_again(state, vm, "policy: on_poweroff is restart")


def _after_crash(state: ClusterState, vm: Vm, context: Context) -> tuple[Event, ...]:
    if vm.on_crash is EndPolicy.STOP:
        return ()
    lately = sum(1 for time_us in vm.crashes_us if time_us > context.time_us - CRASH_WINDOW_US)
    if lately >= CRASH_LIMIT:
        minutes = CRASH_WINDOW_US // 60_000_000
        return (e.VmFailed(vm=vm.id, reason=f"crashed {lately + 1} times within {minutes} minutes"),)
    return _start_again(state, vm, f"policy: on_crash is restart, {lately + 1} of {CRASH_LIMIT} tries")


def _start_again(state: ClusterState, vm: Vm, reason: str) -> tuple[Event, ...]:
    node = state.nodes[vm.node]
    # The run that ended is still counted in the node's load here, so its share is free again.
    ended_mib = (vm.running_spec or vm.spec).memory_mib
    free_mib = node.memory_mib - state.load_of(node.name).memory_mib + ended_mib
    if vm.spec.memory_mib > free_mib:
        text = f"no room to start it again: it needs {vm.spec.memory_mib} MiB, node {node.name} has {free_mib} MiB free"
        return (e.VmFailed(vm=vm.id, reason=text),)
    return (start_of(vm, reason=reason),)


REPORTS: dict[type[Struct], tuple[str, Decide]] = {
    ReportNodeReady: ("node.report_ready", node_ready),
    ReportRunning: ("vm.report_running", running),
    ReportEnded: ("vm.report_ended", ended),
    ReportStartFailed: ("vm.report_start_failed", start_failed),
    ReportShutdownTimedOut: ("vm.report_shutdown_timed_out", shutdown_timed_out),
    ReportReset: ("vm.report_reset", was_reset),
}
"""Report -> (its name in records, its decide)."""
