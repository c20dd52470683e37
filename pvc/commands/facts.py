"""What a node reports. A report is a command that only nodes give: decided against the present state like any other.

Deciding matters because a report may come late: an admin may have asked for something else meanwhile, and then a
crash must not bring the VM back up. A report that no longer says anything new leads to no events.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, TypeAlias, get_args

from msgspec import Struct

from pvc.commands.audit import ReportPersonErased, person_erased
from pvc.commands.base import Context, Decide, Decision
from pvc.commands.facts_cluster import (
    PrimaryReport,
    ReportDiverged,
    ReportFenceFailed,
    ReportFlushStep,
    ReportLevel,
    ReportNodeFenced,
    ReportNodeLost,
    ReportPrimary,
    ReportRecovery,
    fence_failed,
    flush_step,
    node_diverged,
    node_fenced,
    node_lost,
    primary_elected,
    raise_level,
    recovery,
)
from pvc.commands.facts_log import (
    LogReport,
    ReportAnchor,
    ReportCheckpoint,
    ReportLogDiffers,
    ReportSigningKey,
    anchor,
    checkpoint,
    log_differs,
    signing_key,
)
from pvc.commands.facts_moves import (
    MoveReport,
    ReportArrived,
    ReportMigrationFailed,
    ReportPrepared,
    arrived,
    handover,
    migration_failed,
    prepared,
    target_lost,
)
from pvc.commands.facts_webhook import WEBHOOK_REPORTS, WebhookReport
from pvc.commands.vm_power import start_of
from pvc.commands.vm_ref import NOTHING, free_mib
from pvc.errors import Rejected
from pvc.events import node as n
from pvc.events import vm as e
from pvc.events import vm_moves as m
from pvc.events.registry import Event
from pvc.events.types import EndPolicy, NodeName, ShutdownTimeoutAction
from pvc.projections.evolve_vm import concerned_epoch
from pvc.projections.state import ClusterState, FlushState, Migration, NodeState, Vm, held_mib
from pvc.projections.vm_machine import ACTIVE, AT_REST, TRANSITIONS, WANTED, VmState

RESTART_LIMIT = 3
"""Starts by policy within RESTART_WINDOW_US; one more ending and the VM is left failed for an admin to look at."""

RESTART_WINDOW_US = 10 * 60 * 1_000_000

MAX_AUTOSTARTS = 1_000
"""VMs that one boot of a node starts (the first by name): their requests must fit into one record with NodeReady."""


class Ending(StrEnum):
    """How a run ended, as the node found it."""

    GUEST = "guest"
    DESTROYED = "destroyed"
    CRASHED = "crashed"
    UNKNOWN = "unknown"
    MIGRATED = "migrated"
    """The guest has gone to another node."""
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
    address: str = ""
    self_fence_s: int = 0
    level: int = 1


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
    request: str
    """Id of the record with the request whose time is over: the next request has a time of its own."""


class ReportReset(Struct, frozen=True, kw_only=True):
    """The reset button was pressed for this mark."""

    vm: str
    node: NodeName
    epoch: int
    mark: str


VmReport: TypeAlias = ReportRunning | ReportEnded | ReportStartFailed | ReportShutdownTimedOut | ReportReset
Report: TypeAlias = (
    ReportNodeReady
    | VmReport
    | MoveReport
    | ReportPrimary
    | PrimaryReport
    | LogReport
    | WebhookReport
    | ReportPersonErased
)


def node_ready(state: ClusterState, report: ReportNodeReady, context: Context) -> Decision:
    """A member is ready; after a boot of the machine its autostart VMs are to start, and after a fence what ran on it.

    The first node of a cluster becomes a member by itself, and its coordinator.
    """
    known = state.nodes.get(report.node)
    ready = n.NodeReady(
        node=report.node,
        memory_mib=report.memory_mib,
        vcpus=report.vcpus,
        accelerator=report.accelerator,
        hypervisor=report.hypervisor,
        version=report.version,
        boot=report.boot,
        address=report.address,
        self_fence_s=report.self_fence_s,
        level=report.level,
    )
    if known is None and not state.nodes:
        return Decision(events=(n.NodeJoined(node=report.node, coordinator=True), ready))
    if known is None:
        raise Rejected(
            f"{report.node} is no node of this cluster",
            code="node.not_a_member",
            hint=f"make it one: pvc node add {report.node}",
        )
    if known.state is NodeState.FENCED:
        # Nothing ran on it when it was fenced; what no other node could take comes up here.
        events, left_mib = _starts_after_fence(state, report)
    else:
        events, left_mib = [], report.memory_mib - state.load_of(report.node).memory_mib
    if known.boot != report.boot and known.flush not in (FlushState.FLUSHING, FlushState.FLUSHED):
        events += _autostarts(state, report, left_mib)[: max(MAX_AUTOSTARTS - len(events), 0)]
    return Decision(events=(ready, *events))


def running(state: ClusterState, report: ReportRunning, context: Context) -> Decision:
    """The run is up, if that is what is being waited for."""
    vm = _concerned(state, report, e.VmStarted.TYPE)
    if vm is None or (vm.state, e.VmStarted.TYPE) not in TRANSITIONS:
        return NOTHING
    return Decision(events=(e.VmStarted(vm=vm.id, node=report.node, epoch=report.epoch),))


def run_ended(state: ClusterState, report: ReportEnded, context: Context) -> Decision:
    """The run is over: as asked, by the guest's own wish, or by accident; the VM's policy says what follows."""
    vm = _concerned(state, report, e.VmStopped.TYPE)
    if vm is None or vm.state in AT_REST:
        return NOTHING
    about: dict[str, Any] = {"vm": vm.id, "node": report.node, "epoch": report.epoch}
    if vm.migration is not None and vm.state is VmState.MIGRATING and _goes_on(vm.migration, report.ending):
        if vm.migration.live or _takes_over(state, vm.migration.target):
            return Decision(events=(handover(vm, live=vm.migration.live),))
        return Decision(events=(target_lost(state, vm), e.VmStopped(**about, how="guest"), _start_here(state, vm)))
    was_up: tuple[Event, ...] = (e.VmStarted(**about),) if vm.state is VmState.STARTING else ()
    if vm.state in (VmState.SHUTTING_DOWN, VmState.STOPPING, VmState.RESTARTING):
        how = _HOW_ASKED.get(report.ending, "unknown")
        return Decision(events=(e.VmStopped(**about, how=how),))
    if report.ending is Ending.GUEST:
        ended: Event = e.VmStopped(**about, how="guest", requested=False)
        why = "on_poweroff is restart" if vm.on_poweroff is EndPolicy.RESTART else ""
    else:
        how = {Ending.DESTROYED: "killed", Ending.CRASHED: "crashed", Ending.LOST: "lost"}.get(report.ending, "unknown")
        ended = e.VmCrashed(**about, how=how)
        why = _why_start_crashed(vm, report.ending)
    return Decision(events=(*was_up, ended, *_start_again(state, vm, context, why)))


def start_failed(state: ClusterState, report: ReportStartFailed, context: Context) -> Decision:
    """The run did not come to be; an admin has to look, since trying again would fail again.

    Of a guest that has arrived, and cannot be let run on, nothing is left: its policy says what follows.
    """
    vm = _concerned(state, report, e.VmStartFailed.TYPE)
    if vm is not None and vm.state is VmState.ARRIVING:
        ended = e.VmCrashed(vm=vm.id, node=report.node, epoch=report.epoch, how="unknown")
        return Decision(events=(ended, *_start_again(state, vm, context, _why_start_crashed(vm, Ending.UNKNOWN))))
    if vm is None or vm.state is not VmState.STARTING:
        return NOTHING
    failure = e.VmStartFailed(vm=vm.id, node=report.node, epoch=report.epoch, code=report.code, message=report.message)
    return Decision(events=(failure,))


def shutdown_timed_out(state: ClusterState, report: ReportShutdownTimedOut, context: Context) -> Decision:
    """The guest has used up its time; what the request said about that applies."""
    vm = _concerned(state, report, e.VmShutdownTimedOut.TYPE)
    waits = vm is not None and not vm.forced and _is_shutting_down(vm)
    if vm is None or not waits or vm.cause != report.request:
        return NOTHING
    leave = vm.state is VmState.SHUTTING_DOWN and vm.shutdown_action is ShutdownTimeoutAction.LEAVE
    event = e.VmShutdownAbandoned if leave else e.VmShutdownTimedOut
    return Decision(events=(event(vm=vm.id, node=report.node, epoch=report.epoch),))


def was_reset(state: ClusterState, report: ReportReset, context: Context) -> Decision:
    """The button was pressed."""
    vm = _concerned(state, report, e.VmWasReset.TYPE)
    if vm is None or vm.state is not VmState.RESETTING or vm.reset_mark != report.mark:
        return NOTHING
    return Decision(events=(e.VmWasReset(vm=vm.id, node=report.node, epoch=report.epoch, mark=report.mark),))


def _concerned(state: ClusterState, report: VmReport, event_type: str) -> Vm | None:
    vm = state.vms.get(report.vm)
    if vm is None or vm.node != report.node or report.epoch != concerned_epoch(vm, event_type):
        return None
    return vm


_HOW_ASKED = {Ending.GUEST: "guest", Ending.DESTROYED: "forced"}


def _is_shutting_down(vm: Vm) -> bool:
    by_migration = vm.state is VmState.MIGRATING and vm.migration is not None and not vm.migration.live
    return by_migration or vm.state in (VmState.SHUTTING_DOWN, VmState.RESTARTING)


def _goes_on(move: Migration, ending: Ending) -> bool:
    """Whether an end at the source is a step of the migration: by shutdown any is, live only the guest's departure.

    Where nothing tells how it ended, it may have run on here after a copy of it arrived there: that copy is of an
    earlier time than what its disks hold, and must never run.
    """
    return move.prepared and (not move.live or ending is Ending.MIGRATED)


def _takes_over(state: ClusterState, target: str) -> bool:
    """Whether the target of a migration by shutdown can begin the next run: not while it is lost, perhaps for days."""
    return target in state.nodes and state.nodes[target].state is NodeState.READY


def _start_here(state: ClusterState, vm: Vm) -> Event:
    left_mib = free_mib(state, vm)
    return start_of(vm, reason="it could not be moved") if vm.spec.memory_mib <= left_mib else _no_room(vm, left_mib)


def _starts_after_fence(state: ClusterState, report: ReportNodeReady) -> tuple[list[Event], int]:
    """Room was kept for all of them as they ran; they start as they are defined now, which may be more.

    Also gives the memory that is then left, in MiB.
    """
    node = report.node
    left_mib = report.memory_mib - state.load_of(node).memory_mib
    events: list[Event] = []
    vms = (state.vms[vm] for vm in state.placed.ids_on(node))
    for vm in sorted(vms, key=lambda vm: (-vm.priority, vm.name))[:MAX_AUTOSTARTS]:
        if vm.state in WANTED:
            epoch, grown_mib = vm.epoch + 1, vm.spec.memory_mib - held_mib(vm)
            events.append(m.VmRecovered(vm=vm.id, source=node, target=node, epoch=epoch, why=("its node is back",)))
            if grown_mib > max(left_mib, 0):
                message = _no_room(vm, left_mib + held_mib(vm)).reason
                failed = e.VmStartFailed(vm=vm.id, node=node, epoch=epoch, code="node.memory_full", message=message)
                events.append(failed)
                grown_mib = -held_mib(vm)
            left_mib -= grown_mib
        elif vm.state in ACTIVE:
            events.append(e.VmStopped(vm=vm.id, node=node, epoch=vm.epoch, how="fenced"))
            left_mib += held_mib(vm)
    return events, left_mib


def _autostarts(state: ClusterState, report: ReportNodeReady, left_mib: int) -> list[Event]:
    """What becomes of the autostart VMs after a boot, in the order of their names, as long as there is room."""
    here = (vm for vm in state.vms.values() if vm.node == report.node and vm.autostart and vm.state is VmState.STOPPED)
    events: list[Event] = []
    for vm in sorted(here, key=lambda vm: vm.name)[:MAX_AUTOSTARTS]:
        if vm.spec.memory_mib > left_mib:
            events.append(_no_room(vm, left_mib))
        else:
            left_mib -= vm.spec.memory_mib
            events.append(start_of(vm, reason="autostart: the node has booted"))
    return events


def _why_start_crashed(vm: Vm, ending: Ending) -> str:
    if vm.on_crash is EndPolicy.RESTART:
        return "on_crash is restart"
    # A run that is lost without a trace went down with the machine, and autostart is about just that.
    return "autostart" if vm.autostart and ending is Ending.LOST else ""


def _start_again(state: ClusterState, vm: Vm, context: Context, why: str) -> tuple[Event, ...]:
    if not why:
        return ()
    lately = sum(1 for time_us in vm.endings_us if time_us > context.time_us - RESTART_WINDOW_US)
    if lately >= RESTART_LIMIT:
        minutes = RESTART_WINDOW_US // 60_000_000
        return (e.VmFailed(vm=vm.id, reason=f"ended {lately + 1} times within {minutes} minutes"),)
    if vm.spec.memory_mib > free_mib(state, vm):
        return (_no_room(vm, free_mib(state, vm)),)
    return (start_of(vm, reason=f"policy: {why}, {lately + 1} of {RESTART_LIMIT} tries"),)


def _no_room(vm: Vm, left_mib: int) -> e.VmFailed:
    reason = f"no room to start it: it needs {vm.spec.memory_mib} MiB, node {vm.node} has {left_mib} MiB free"
    return e.VmFailed(vm=vm.id, reason=reason)


REPORTS: dict[type[Report], tuple[str, Decide]] = {
    ReportNodeReady: ("node.report_ready", node_ready),
    ReportRunning: ("vm.report_running", running),
    ReportEnded: ("vm.report_ended", run_ended),
    ReportStartFailed: ("vm.report_start_failed", start_failed),
    ReportShutdownTimedOut: ("vm.report_shutdown_timed_out", shutdown_timed_out),
    ReportReset: ("vm.report_reset", was_reset),
    ReportPrepared: ("vm.report_prepared", prepared),
    ReportMigrationFailed: ("vm.report_migration_failed", migration_failed),
    ReportArrived: ("vm.report_arrived", arrived),
    ReportPrimary: ("cluster.report_primary", primary_elected),
    ReportNodeLost: ("node.report_lost", node_lost),
    ReportNodeFenced: ("node.report_fenced", node_fenced),
    ReportFenceFailed: ("node.report_fence_failed", fence_failed),
    ReportRecovery: ("node.report_recovery", recovery),
    ReportFlushStep: ("node.report_flush_step", flush_step),
    ReportDiverged: ("node.report_diverged", node_diverged),
    ReportLevel: ("cluster.report_level", raise_level),
    ReportSigningKey: ("log.report_signing_key", signing_key),
    ReportCheckpoint: ("log.report_checkpoint", checkpoint),
    ReportAnchor: ("log.report_anchor", anchor),
    ReportLogDiffers: ("log.report_differs", log_differs),
    ReportPersonErased: ("access.report_erased", person_erased),
    **WEBHOOK_REPORTS,
}
"""Report -> (its name in records, its decide)."""

FORWARDABLE: dict[str, tuple[type[VmReport | MoveReport], Decide]] = {
    REPORTS[report][0]: (report, REPORTS[report][1]) for report in (*get_args(VmReport), *get_args(MoveReport))
}
"""Name -> report and decide, of those that another node may append: what nodes learn of VMs. Never what is needed to
have a primary, nor what the primary itself says."""
