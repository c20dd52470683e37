"""The fold: one record after another into ClusterState. One visible table says which function takes which event.

Deterministic: time comes from the record, ids from the events; no clock, no randomness, no I/O. Total: an event that
makes no sense in the present state (a fact that came too late) changes nothing but the position.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pvc.events import access, cluster, node, vm, vm_moves, webhook
from pvc.events.record import Entry, Record, check_follows
from pvc.events.registry import Event, decode_event
from pvc.projections import (
    evolve_access,
    evolve_cluster,
    evolve_log,
    evolve_moves,
    evolve_node,
    evolve_vm,
    evolve_webhook,
)
from pvc.projections.state import ClusterState

Evolve = Callable[[ClusterState, Any, Record], None]

EVOLVE: dict[type[Event], Evolve] = {
    cluster.ClusterInitialised: evolve_cluster.initialised,
    cluster.PrimaryElected: evolve_cluster.primary_elected,
    cluster.MaintenanceSet: evolve_cluster.maintenance_set,
    cluster.FeatureLevelRaised: evolve_cluster.level_raised,
    cluster.FaultAcknowledged: evolve_cluster.fault_acknowledged,
    cluster.SigningKeyAdded: evolve_log.key_added,
    cluster.SigningKeyRetired: evolve_log.key_retired,
    cluster.KeyRotationRequested: evolve_log.rotation_requested,
    cluster.LogRestored: evolve_node.log_restored,
    cluster.LogCheckpointed: evolve_log.checkpointed,
    cluster.AnchorFailed: evolve_log.anchor_failed,
    cluster.AnchorRecovered: evolve_log.anchor_recovered,
    cluster.CommandRejected: evolve_cluster.command_rejected,
    access.PrincipalAdded: evolve_access.principal_added,
    access.PrincipalModified: evolve_access.principal_modified,
    access.PrincipalRemoved: evolve_access.principal_removed,
    access.TokenCreated: evolve_access.token_created,
    access.TokenRotated: evolve_access.token_rotated,
    access.TokenRevoked: evolve_access.token_revoked,
    access.TokenUsed: evolve_access.token_used,
    access.LoggedIn: evolve_access.noted,
    access.LoginRefused: evolve_access.noted,
    access.AccessRefused: evolve_access.noted,
    access.SecretRead: evolve_access.noted,
    access.ErasureRequested: evolve_access.erasure_requested,
    access.PersonErased: evolve_access.person_erased,
    node.NodeJoined: evolve_node.joined,
    node.NodeReady: evolve_node.ready,
    node.NodeFenceSet: evolve_node.fence_set,
    node.NodeFlushRequested: evolve_node.flush_requested,
    node.NodeFlushed: evolve_node.flushed,
    node.NodeFlushIncomplete: evolve_node.flush_incomplete,
    node.NodeReturnRequested: evolve_node.return_requested,
    node.NodeReturned: evolve_node.returned,
    node.NodeLost: evolve_node.lost,
    node.NodeFenced: evolve_node.fenced,
    node.NodeFenceFailed: evolve_node.fence_failed,
    node.NodeDiverged: evolve_node.diverged,
    node.NodeLogDiffers: evolve_node.log_differs,
    node.NodeRemoved: evolve_node.removed,
    vm.VmDefined: evolve_vm.defined,
    vm.VmModified: evolve_vm.modified,
    vm.VmRenamed: evolve_vm.renamed,
    vm.VmRemoved: evolve_vm.removed,
    vm.VmAutostartSet: evolve_vm.setting_changed,
    vm.VmSelectorSet: evolve_vm.setting_changed,
    vm.VmNodeLimitsSet: evolve_vm.setting_changed,
    vm.VmMigrationMethodSet: evolve_vm.setting_changed,
    vm.VmMaxDowntimeSet: evolve_vm.setting_changed,
    vm.VmPrioritySet: evolve_vm.setting_changed,
    vm.VmAffinitySet: evolve_vm.setting_changed,
    vm.VmAntiAffinitySet: evolve_vm.setting_changed,
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
    vm_moves.VmMigrationRequested: evolve_moves.migration_requested,
    vm_moves.VmMigrationPrepared: evolve_moves.prepared,
    vm_moves.VmMigrationCancelRequested: evolve_moves.cancel_requested,
    vm_moves.VmMigrationFailed: evolve_moves.migration_failed,
    vm_moves.VmMigrated: evolve_moves.migrated,
    vm_moves.VmArrived: evolve_moves.arrived,
    vm_moves.VmRelocated: evolve_moves.relocated,
    vm_moves.VmMoved: evolve_moves.moved,
    vm_moves.VmRecovered: evolve_moves.recovered,
    vm_moves.VmRecoveryDelayed: evolve_moves.recovery_delayed,
    webhook.WebhookAdded: evolve_webhook.added,
    webhook.WebhookModified: evolve_webhook.modified,
    webhook.WebhookRemoved: evolve_webhook.removed,
    webhook.WebhookPaused: evolve_webhook.paused,
    webhook.WebhookResumed: evolve_webhook.resumed,
    webhook.WebhookSecretRotated: evolve_webhook.secret_rotated,
    webhook.WebhookReplayRequested: evolve_webhook.replay_requested,
    webhook.WebhookVerified: evolve_webhook.verified,
    webhook.WebhookDisabled: evolve_webhook.disabled,
    webhook.WebhookParked: evolve_webhook.parked,
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
