"""Commands about the log itself: new signing keys."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from pvc.commands.access_table import Action
from pvc.commands.base import CommandSpec, Context, Decision, find_node, require_cluster
from pvc.errors import Rejected
from pvc.events.cluster import KeyRotationRequested, SigningKeyAdded, SigningKeyRetired
from pvc.events.types import END
from pvc.projections.state import ClusterState


class RotateKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Have a coordinator sign the log's checkpoints with a new key.

    The node makes the key and announces it; the old one is retired in the same record. Checkpoints that the old one
    signed before stay valid; what it signs from there on does not count.
    """

    node: Annotated[
        str,
        Meta(
            pattern="^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?" + END,
            description="The coordinator; all of them if none is named.",
            examples=["hv1"],
        ),
    ] = ""


def rotate_key(state: ClusterState, command: RotateKey, context: Context) -> Decision:
    """Of nodes that have a key. Asking again while a node is at it changes nothing."""
    cluster = require_cluster(state)
    if command.node:
        find_node(state, command.node)
    keys = [key for key in cluster.log.keys if not key.retired_at and (not command.node or key.node == command.node)]
    if not keys:
        who = f"node {command.node} has no" if command.node else "no node has a"
        raise Rejected(
            f"{who} signing key",
            code="log.no_key",
            hint="only coordinators have one, and announce it when they are ready: `pvc log keys`",
            field="node",
        )
    events = tuple(KeyRotationRequested(node=key.node, key_id=key.id) for key in keys if not key.rotate)
    return Decision(events=events)


def retirements(state: ClusterState, node: str, reason: str) -> tuple[SigningKeyRetired, ...]:
    """The events that end all that a node signs with."""
    keys = state.cluster.log.keys if state.cluster is not None else ()
    in_use = (key for key in keys if key.node == node and not key.retired_at)
    return tuple(SigningKeyRetired(node=node, key_id=key.id, reason=reason) for key in in_use)


SPECS = (
    CommandSpec(
        name="log.rotate_key",
        struct=RotateKey,
        decide=rotate_key,
        action=Action.LOG_MANAGE,
        path="/log/rotate-key",
        cli=("log", "rotate-key"),
        args=("node",),
        example={"node": "hv1"},
        outcomes={SigningKeyAdded.TYPE: True},
    ),
)
