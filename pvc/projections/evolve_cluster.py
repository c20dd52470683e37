"""How the cluster's identity and its primary follow from events."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from pvc.events import cluster as e
from pvc.events.cluster import ClusterInitialised, CommandRejected
from pvc.events.record import Record
from pvc.projections.state import Cluster, ClusterState


def initialised(state: ClusterState, event: ClusterInitialised, record: Record) -> None:
    """The cluster has an identity now."""
    if state.cluster is None:
        state.put_cluster(Cluster(id=event.cluster, name=event.name, initialised_us=record.time_us))


def command_rejected(state: ClusterState, event: CommandRejected, record: Record) -> None:
    """A refusal changes nothing, and does not use up its idempotency key: the next try may be allowed."""
    state.recent.pop(record.command.id, None)


def primary_elected(state: ClusterState, event: e.PrimaryElected, record: Record) -> None:
    """Whoever acts for the cluster with an earlier epoch is refused from here on."""
    _change(state, primary=event.node, primary_epoch=event.epoch)


def maintenance_set(state: ClusterState, event: e.MaintenanceSet, record: Record) -> None:
    """No node is declared lost while it is on."""
    _change(state, maintenance=event.on, maintenance_reason=event.reason)


def level_raised(state: ClusterState, event: e.FeatureLevelRaised, record: Record) -> None:
    """Records of this level may be written."""
    _change(state, level=event.level)


def fault_acknowledged(state: ClusterState, event: e.FaultAcknowledged, record: Record) -> None:
    """Somebody knows of it."""
    fault = state.faults.get(event.fault)
    if fault is not None:
        state.put_fault(
            replace(fault, acknowledged_by=record.actor.principal, acknowledged_us=record.time_us),
        )


def _change(state: ClusterState, **changes: Any) -> None:
    if state.cluster is not None:
        state.put_cluster(replace(state.cluster, **changes))
