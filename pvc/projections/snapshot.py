"""ClusterState as bytes and back, so that a start need not fold the whole log. Tagged with the version of the fold."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pvc.errors import PvcError
from pvc.events.record import Head
from pvc.projections.access_state import Erasure, PrincipalState, Token
from pvc.projections.state import Cluster, ClusterState, Fault, Node, Vm
from pvc.projections.webhook_state import Webhook

PROJECTION_VERSION = 11
"""Raised whenever the fold's outcome changes for the same log; snapshots of another version are discarded."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A stored ClusterState."""

    projection_version: int
    head: Head
    cluster: Cluster | None
    nodes: list[Node]
    vms: list[Vm]
    principals: list[PrincipalState]
    tokens: list[Token]
    erasures: list[Erasure]
    webhooks: list[Webhook]
    faults: list[Fault]
    recent: list[tuple[str, int]]


def snapshot(state: ClusterState) -> bytes:
    """The state as bytes."""
    return _encode(state, state.recent)


def snapshot_to_read(state: ClusterState) -> bytes:
    """The same without the ids of recent commands: nothing is decided on a past state, and they are most of a file."""
    return _encode(state, {})


def _encode(state: ClusterState, recent: Mapping[str, int]) -> bytes:
    return msgspec.msgpack.encode(
        Snapshot(
            projection_version=PROJECTION_VERSION,
            head=state.head,
            cluster=state.cluster,
            nodes=list(state.nodes.values()),
            vms=list(state.vms.values()),
            principals=list(state.principals.values()),
            tokens=list(state.tokens.values()),
            erasures=list(state.erasures.values()),
            webhooks=list(state.webhooks.values()),
            faults=list(state.faults.values()),
            recent=list(recent.items()),
        )
    )


class _SnapshotVersion(msgspec.Struct, frozen=True, kw_only=True):
    """The one field that can be read of a snapshot of any version."""

    projection_version: int


class SnapshotHead(msgspec.Struct, frozen=True, kw_only=True):
    """What can be told of a snapshot without making the state."""

    projection_version: int
    head: Head


class StaleSnapshot(PvcError):
    """The snapshot is damaged, or was made by another version of the fold; replay instead."""

    default_code = "snapshot.stale"


def snapshot_head(data: bytes) -> SnapshotHead:
    """Of which position a snapshot is, and which version of the fold made it. Raises StaleSnapshot."""
    try:
        return msgspec.msgpack.decode(data, type=SnapshotHead)
    except msgspec.MsgspecError as error:
        raise StaleSnapshot(f"the snapshot cannot be read: {error}") from error


def restore(data: bytes) -> ClusterState:
    """The state that `snapshot` stored. Raises StaleSnapshot when another version of the fold made it."""
    try:
        version = msgspec.msgpack.decode(data, type=_SnapshotVersion).projection_version
        if version != PROJECTION_VERSION:
            raise StaleSnapshot(f"the snapshot is of fold version {version}, not {PROJECTION_VERSION}")
        stored = msgspec.msgpack.decode(data, type=Snapshot)
    except msgspec.MsgspecError as error:
        raise StaleSnapshot(f"the snapshot cannot be read: {error}") from error
    state = ClusterState()
    state.head = stored.head
    if stored.cluster is not None:
        state.put_cluster(stored.cluster)
    for node in stored.nodes:
        state.put_node(node)
    for vm in stored.vms:
        state.put_vm(vm)
    for principal in stored.principals:
        state.put_principal(principal)
    for token in stored.tokens:
        state.put_token(token)
    for erasure in stored.erasures:
        state.put_erasure(erasure)
    for hook in stored.webhooks:
        state.put_webhook(hook)
    for fault in stored.faults:
        state.put_fault(fault)
    state.recent = dict(stored.recent)
    return state
