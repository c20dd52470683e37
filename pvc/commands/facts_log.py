"""What nodes report about the log itself: their signing keys, its checkpoints, and where those are kept outside.

A checkpoint is signed in the shell, where the key is; here it is decided whether it may stand in the log: only from who
acts for the cluster now, only for records that there are, only with that node's own key, and only if it verifies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar

from msgspec import Struct

from pvc.commands.base import Context, Decision, require_cluster
from pvc.commands.log import retirements
from pvc.commands.vm_ref import NOTHING
from pvc.errors import Rejected
from pvc.events import cluster as e
from pvc.events.node import NodeLogDiffers
from pvc.events.registry import Event
from pvc.events.types import NodeName
from pvc.projections.evolve_log import anchor_fault_id
from pvc.projections.evolve_node import LOG_DIFFERS, fault_id
from pvc.projections.state import Cluster, ClusterState
from pvc.proof.findings import Unproven
from pvc.proof.note import check_signature, origin_of, parse_checkpoint, parse_key

MAX_REASON = 300
"""Characters of why an anchor fails: it may quote what a server answered."""


class ReportSigningKey(Struct, frozen=True, kw_only=True):
    """The node has a key of its own and signs with it from now on."""

    node: NodeName
    key: str


class ReportCheckpoint(Struct, frozen=True, kw_only=True):
    """The primary vouches for the log's first records."""

    primary: NodeName
    epoch: int
    note: str
    anchored: dict[str, int] = {}


class ReportAnchor(Struct, frozen=True, kw_only=True):
    """How an anchor is, as the primary sees it."""

    primary: NodeName
    epoch: int
    anchor: str
    message: str
    """Why it fails; empty: it works, or is not wanted any more."""


class ReportLogDiffers(Struct, frozen=True, kw_only=True):
    """The node's own records are not those that a checkpoint vouches for."""

    node: NodeName
    size: int
    root: str
    expected: str
    agreed: int = 0


T = TypeVar("T")

LogReport: TypeAlias = ReportSigningKey | ReportCheckpoint | ReportAnchor | ReportLogDiffers


def signing_key(state: ClusterState, report: ReportSigningKey, context: Context) -> Decision:
    """A coordinator's, and a new one. Whatever it signed with before ends in the same record."""
    cluster = require_cluster(state)
    node = state.nodes.get(report.node)
    key = _understood(lambda: parse_key(report.key))
    if node is None or not node.coordinator or key.name != origin_of(cluster.id):
        raise Rejected(
            f"the key {key.id} is not one that node {report.node} could sign this log with",
            code="log.key_refused",
            hint="only coordinators sign, each with a key for this cluster",
        )
    known = next((known for known in cluster.log.keys if known.id == key.id), None)
    if known is not None and (known.node != report.node or known.retired_at):
        raise Rejected(
            f"the key {key.id} of node {known.node} was used before and does not come back",
            code="log.key_retired",
            hint="the node makes a new one by itself when it finds this one retired",
        )
    if known is not None:
        return NOTHING
    before = cluster.log.key_of(report.node)
    reason = "rotated" if before is not None and before.rotate else "replaced"
    added = e.SigningKeyAdded(node=report.node, key_id=key.id, key=str(key))
    return Decision(events=(added, *retirements(state, report.node, reason)))


def checkpoint(state: ClusterState, report: ReportCheckpoint, context: Context) -> Decision:
    """One that is newer, true as far as it can be told here, and signed by who acts for the cluster."""
    cluster = _require_signer(state, report.primary, report.epoch)
    signed = _understood(lambda: parse_checkpoint(report.note))
    own = cluster.log.key_of(report.primary)
    if own is None:
        raise Rejected(
            f"node {report.primary} has no signing key yet", code="log.no_key", hint="it announces one by itself"
        )
    _understood(lambda: check_signature(signed, [parse_key(own.key)]))
    found = signed.checkpoint
    if found.origin != origin_of(cluster.id) or not 0 < found.size <= state.position:
        raise Rejected(
            f"a checkpoint of {found.size} records of {found.origin} is none of this log's {state.position}",
            code="log.bad_checkpoint",
            hint="this is a defect in PVC, please report it",
        )
    if cluster.log.checkpoint is not None and found.size <= cluster.log.checkpoint.size:
        return NOTHING
    made = e.LogCheckpointed(
        node=report.primary,
        epoch=report.epoch,
        size=found.size,
        root=found.root.hex(),
        key_id=own.id,
        note=report.note,
        anchored=report.anchored,
    )
    return Decision(events=(made,))


def anchor(state: ClusterState, report: ReportAnchor, context: Context) -> Decision:
    """Said once when it begins to fail, and once when that is over."""
    _require_signer(state, report.primary, report.epoch)
    failing = anchor_fault_id(report.anchor) in state.faults
    if failing == bool(report.message):
        return NOTHING
    told: Event = e.AnchorRecovered(node=report.primary, anchor=report.anchor)
    if report.message:
        told = e.AnchorFailed(node=report.primary, anchor=report.anchor, message=report.message[:MAX_REASON])
    return Decision(events=(told,))


def log_differs(state: ClusterState, report: ReportLogDiffers, context: Context) -> Decision:
    """Said once, until the node is started anew."""
    if report.node not in state.nodes or fault_id(LOG_DIFFERS, report.node) in state.faults:
        return NOTHING
    differs = NodeLogDiffers(
        node=report.node, size=report.size, root=report.root, expected=report.expected, agreed=report.agreed
    )
    return Decision(events=(differs,))


def may_sign(state: ClusterState, node: str, epoch: int) -> bool:
    """Whether this node acts for the cluster: as its primary, or as the only coordinator, which nobody elects."""
    cluster = state.cluster
    if cluster is None:
        return False
    if cluster.primary:
        return (cluster.primary, cluster.primary_epoch) == (node, epoch)
    return epoch == 0 and [name for name, known in state.nodes.items() if known.coordinator] == [node]


def _require_signer(state: ClusterState, node: str, epoch: int) -> Cluster:
    cluster = require_cluster(state)
    if not may_sign(state, node, epoch):
        now = f"{cluster.primary} with epoch {cluster.primary_epoch}" if cluster.primary else "nobody"
        raise Rejected(
            f"{node} with epoch {epoch} does not act for the cluster: that is {now}",
            code="cluster.stale_primary",
            hint="another coordinator has taken over; nothing needs to be done",
        )
    return cluster


def _understood(read: Callable[[], T]) -> T:
    try:
        return read()
    except Unproven as error:
        raise Rejected(error.message, code="log.bad_checkpoint", hint=error.hint) from error
