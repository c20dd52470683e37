"""The fold: one record after another into ClusterState. One visible table says which function takes which event.

Deterministic: time comes from the record, ids from the events; no clock, no randomness, no I/O. Total: an event that
makes no sense in the present state (a fact that came too late) changes nothing but the position.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pvc.events import access, cluster, node, vm
from pvc.events.record import Entry, Record, check_follows
from pvc.events.registry import Event, decode_event
from pvc.projections import evolve_cluster, evolve_node, evolve_vm
from pvc.projections.state import ClusterState

Evolve = Callable[[ClusterState, Any, Record], None]

EVOLVE: dict[type[Event], Evolve] = {
    cluster.ClusterInitialised: evolve_cluster.initialised,
    cluster.CommandRejected: evolve_cluster.command_rejected,
    access.TokenCreated: evolve_cluster.token_created,
    node.NodeJoined: evolve_node.joined,
    node.NodeReady: evolve_node.ready,
    vm.VmDefined: evolve_vm.defined,
    vm.VmModified: evolve_vm.modified,
    vm.VmRenamed: evolve_vm.renamed,
    vm.VmRemoved: evolve_vm.removed,
    vm.VmAutostartSet: evolve_vm.setting_changed,
    vm.VmSelectorSet: evolve_vm.setting_changed,
    vm.VmNodeLimitsSet: evolve_vm.setting_changed,
    vm.VmMigrationMethodSet: evolve_vm.setting_changed,
    vm.VmTagAdded: evolve_vm.tag_added,
    vm.VmTagRemoved: evolve_vm.tag_removed,
    vm.VmStartRequested: evolve_vm.start_requested,
    vm.VmShutdownRequested: evolve_vm.shutdown_requested,
    vm.VmStopRequested: evolve_vm.request,
    vm.VmRestartRequested: evolve_vm.restart_requested,
    vm.VmResetRequested: evolve_vm.reset_requested,
    vm.VmDisabled: evolve_vm.request,
    vm.VmEnabled: evolve_vm.request,
    vm.VmStarted: evolve_vm.started,
    vm.VmStartFailed: evolve_vm.start_failed,
    vm.VmStopped: evolve_vm.ended,
    vm.VmCrashed: evolve_vm.crashed,
    vm.VmFailed: evolve_vm.failed,
    vm.VmShutdownTimedOut: evolve_vm.shutdown_timed_out,
    vm.VmShutdownAbandoned: evolve_vm.fact,
    vm.VmWasReset: evolve_vm.fact,
}


def fold(state: ClusterState, entry: Entry) -> tuple[Event, ...]:
    """Fold the next record into `state` and return its events, decoded.

    Raises LogDamaged when the record does not continue the chain, UnknownEvent when it is from a newer version;
    in both cases `state` is unchanged.
    """
    check_follows(entry, state.head)
    return fold_trusted(state, entry)


def fold_trusted(state: ClusterState, entry: Entry) -> tuple[Event, ...]:
    """`fold` without the check of the chain, for records that were just made or verified."""
    record = entry.record
    events = tuple([decode_event(raw) for raw in record.events])
    state.head = entry.head
    if record.command.id:
        state.remember_command(record.command.id)
    for event in events:
        EVOLVE[type(event)](state, event, record)
    return events
