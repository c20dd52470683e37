"""How the cluster's identity, its primary and its access tokens follow from events."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from pvc.events import cluster as e
from pvc.events.access import ErasureRequested, PersonErased, TokenCreated
from pvc.events.cluster import ClusterInitialised, CommandRejected
from pvc.events.record import Record
from pvc.projections.access_state import Erasure, Token
from pvc.projections.state import Cluster, ClusterState


def initialised(state: ClusterState, event: ClusterInitialised, record: Record) -> None:
    """The cluster has an identity now."""
    if state.cluster is None:
        state.put_cluster(Cluster(id=event.cluster, name=event.name, initialised_us=record.time_us))


def command_rejected(state: ClusterState, event: CommandRejected, record: Record) -> None:
    """A refusal changes nothing, and does not use up its idempotency key: the next try may be allowed."""
    state.recent.pop(record.command.id, None)


def token_created(state: ClusterState, event: TokenCreated, record: Record) -> None:
    """The token may be used from here on."""
    state.put_token(
        Token(
            id=event.token,
            principal=event.principal,
            role=event.role,
            secret_sha256=event.secret_sha256,
            created_us=record.time_us,
        )
    )


def erasure_requested(state: ClusterState, event: ErasureRequested, record: Record) -> None:
    """What was sealed with the key is shown to nobody from here on."""
    if event.key not in state.erasures:
        state.put_erasure(Erasure(key=event.key, cause=record.id, requested_us=record.time_us))


def person_erased(state: ClusterState, event: PersonErased, record: Record) -> None:
    """And there is nothing left to show it with."""
    erasure = state.erasures.get(event.key)
    if erasure is not None and not erasure.erased_us:
        state.put_erasure(replace(erasure, erased_us=record.time_us))


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
