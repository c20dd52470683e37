"""How the cluster's identity and its access tokens follow from events."""

from __future__ import annotations

from pvc.events.access import TokenCreated
from pvc.events.cluster import ClusterInitialised, CommandRejected
from pvc.events.record import Record
from pvc.projections.state import Cluster, ClusterState, Token


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
