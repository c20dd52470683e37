"""How the keys that vouch for the log, its checkpoints and the faults about both follow from events."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from pvc.events import cluster as e
from pvc.events.record import Record
from pvc.projections.log_state import LogCheckpoint, SigningKey
from pvc.projections.state import Cluster, ClusterState, Fault

ANCHOR_FAILING = "log.anchor_failing"


def key_added(state: ClusterState, event: e.SigningKeyAdded, record: Record) -> None:
    """The node signs with it from here on."""
    cluster = state.cluster
    if cluster is None or any(key.id == event.key_id for key in cluster.log.keys):
        return
    key = SigningKey(id=event.key_id, node=event.node, key=event.key, added_at=record.position, added_us=record.time_us)
    state.put_cluster(_with(cluster, keys=(*cluster.log.keys, key)))


def key_retired(state: ClusterState, event: e.SigningKeyRetired, record: Record) -> None:
    """What it signs from here on does not count."""
    for key in _in_use(state, event.key_id):
        _put(state, replace(key, retired_at=record.position, retired_us=record.time_us, rotate=""))


def rotation_requested(state: ClusterState, event: e.KeyRotationRequested, record: Record) -> None:
    """The node will see it."""
    for key in _in_use(state, event.key_id):
        _put(state, replace(key, rotate=record.id))


def checkpointed(state: ClusterState, event: e.LogCheckpointed, record: Record) -> None:
    """The log up to there is vouched for."""
    cluster = state.cluster
    if event.size >= record.position:
        return  # nobody can vouch for what comes later; were it believed, no true one could follow
    if cluster is None or (cluster.log.checkpoint is not None and cluster.log.checkpoint.size >= event.size):
        return
    checkpoint = LogCheckpoint(
        size=event.size,
        root=event.root,
        note=event.note,
        position=record.position,
        time_us=record.time_us,
        node=event.node,
        key_id=event.key_id,
        anchored=event.anchored,
    )
    state.put_cluster(_with(cluster, checkpoint=checkpoint))


def anchor_failed(state: ClusterState, event: e.AnchorFailed, record: Record) -> None:
    """The proof against whoever holds all coordinators is missing from here on."""
    state.put_fault(
        Fault(
            id=anchor_fault_id(event.anchor),
            code=ANCHOR_FAILING,
            subject="cluster",
            message=f"checkpoints cannot be delivered to the anchor {event.anchor} from {event.node}: {event.message}",
            since_us=record.time_us,
        )
    )


def anchor_recovered(state: ClusterState, event: e.AnchorRecovered, record: Record) -> None:
    """All checkpoints are there again."""
    state.drop_fault(anchor_fault_id(event.anchor))


def anchor_fault_id(anchor: str) -> str:
    """The id of the fault about an anchor."""
    return f"{ANCHOR_FAILING}/{anchor}"


def _in_use(state: ClusterState, key_id: str) -> list[SigningKey]:
    keys = state.cluster.log.keys if state.cluster is not None else ()
    return [key for key in keys if key.id == key_id and not key.retired_at]


def _put(state: ClusterState, changed: SigningKey) -> None:
    cluster = state.cluster
    assert cluster is not None, "its keys were looked at"
    keys = tuple(changed if key.id == changed.id else key for key in cluster.log.keys)
    state.put_cluster(_with(cluster, keys=keys))


def _with(cluster: Cluster, **changes: Any) -> Cluster:
    return replace(cluster, log=replace(cluster.log, **changes))
