"""Commands about the cluster itself: its beginning, maintenance, faults and balance."""

from __future__ import annotations

import uuid
from typing import Annotated

from msgspec import Meta, Struct

from pvc.commands.access_table import Action
from pvc.commands.base import CommandSpec, Context, Decision, invalid, near_names, quoted, require_cluster
from pvc.commands.vm_ref import NOTHING
from pvc.errors import NotFound, Rejected
from pvc.events.access import TokenCreated
from pvc.events.cluster import ClusterInitialised, FaultAcknowledged, MaintenanceSet
from pvc.events.node import NodeJoined, NodeReady
from pvc.events.registry import Event
from pvc.events.types import END, ClusterName, Description, NodeName, Principal, Role
from pvc.projections.state import ClusterState

_IDS = uuid.UUID("6f7a4a0e-3f0b-4d0f-9d52-0f0b7c1f6a01")
"""Namespace of the ids derived from command ids."""


class InitCluster(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Initialise the cluster and make the first admin token.

    Done once, as root on the first node. The token is shown in the reply and never again; the log keeps its hash.
    """

    name: ClusterName
    coordinators: Annotated[
        tuple[NodeName, ...],
        Meta(description="The coordinators: 1, 3 or 5 nodes; if none are given, the first node to join is the one."),
    ] = ()
    admin: Annotated[Principal, Meta(description="Whose the first admin token is.")] = "admin"
    token_id: Annotated[str, Meta(pattern="^([0-9a-z]{8,32})?" + END, description="Set by the gateway.")] = ""
    token_sha256: Annotated[str, Meta(pattern="^([0-9a-f]{64})?" + END, description="Set by the gateway.")] = ""


class SetMaintenance(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Set whether the cluster is in maintenance: then no node is declared lost, fenced or recovered from.

    For work on the network or on ZooKeeper that would look like the loss of nodes.
    """

    maintenance: Annotated[bool, Meta(description="Whether the cluster is in maintenance.")]
    reason: Description = ""


class AcknowledgeFault(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Note that a fault has been seen; it stays in the list until its cause is gone."""

    fault: Annotated[
        str, Meta(min_length=1, max_length=200, description="Id of the fault.", examples=["node.lost/hv2"])
    ]


def set_maintenance(state: ClusterState, command: SetMaintenance, context: Context) -> Decision:
    """Always allowed."""
    cluster = require_cluster(state)
    if (cluster.maintenance, cluster.maintenance_reason) == (command.maintenance, command.reason):
        return NOTHING
    return Decision(events=(MaintenanceSet(on=command.maintenance, reason=command.reason),))


def acknowledge_fault(state: ClusterState, command: AcknowledgeFault, context: Context) -> Decision:
    """A fault that there is."""
    fault = state.faults.get(command.fault)
    if fault is None:
        near = near_names(command.fault, state.faults)
        hint = f"did you mean {' or '.join(near)}?" if near else "`pvc fault list` shows the faults there are"
        raise NotFound(f"there is no fault {quoted(command.fault)}", code="fault.not_found", hint=hint, field="fault")
    if fault.acknowledged_by:
        return NOTHING
    return Decision(events=(FaultAcknowledged(fault=fault.id),))


def init_cluster(state: ClusterState, command: InitCluster, context: Context) -> Decision:
    """The first record of every cluster."""
    if state.cluster is not None:
        raise Rejected(
            f"the cluster {state.cluster.name!r} is initialised already",
            code="cluster.already_initialised",
            hint="`pvc cluster status` shows it",
        )
    coordinators = tuple(dict.fromkeys(command.coordinators))
    if len(coordinators) not in (0, 1, 3, 5):
        raise invalid(
            "coordinators",
            f"{len(coordinators)} coordinators",
            "name 1, 3 or 5: an even number stands no more failures than the odd one below it",
            "cluster.bad_coordinators",
        )
    initialised: tuple[Event, ...] = (
        ClusterInitialised(cluster=derived_id(context.command_id), name=command.name),
        *(NodeJoined(node=node, coordinator=True) for node in coordinators),
    )
    if not command.token_id:
        return Decision(events=initialised)
    token = TokenCreated(
        token=command.token_id, principal=command.admin, role=Role.ADMIN, secret_sha256=command.token_sha256
    )
    return Decision(events=(*initialised, token))


def derived_id(command_id: str) -> str:
    """The UUID of the thing that a command makes: the same for every decision of the same command."""
    return str(uuid.uuid5(_IDS, command_id))


SPECS = (
    CommandSpec(
        name="cluster.init",
        struct=InitCluster,
        decide=init_cluster,
        action=Action.CLUSTER_MANAGE,
        path="/cluster/init",
        cli=("cluster", "init"),
        args=("name",),
        internal=("token_id", "token_sha256"),
        personal=("admin",),
        example={"name": "main"},
        outcomes={NodeReady.TYPE: True},
        # Its first node is not known before, and one whose daemon was restarted meanwhile does not know the cause.
        anywhere=True,
    ),
    CommandSpec(
        name="cluster.set_maintenance",
        struct=SetMaintenance,
        decide=set_maintenance,
        action=Action.CLUSTER_MANAGE,
        path="/cluster/maintenance",
        cli=("cluster", "maintenance"),
        args=("maintenance",),
        example={"maintenance": True, "reason": "new switches"},
    ),
    CommandSpec(
        name="fault.acknowledge",
        struct=AcknowledgeFault,
        decide=acknowledge_fault,
        action=Action.FAULT_ACKNOWLEDGE,
        path="/faults/acknowledge",
        cli=("fault", "ack"),
        args=("fault",),
        example={"fault": "node.lost/hv2"},
    ),
)
