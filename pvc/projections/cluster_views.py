"""What a reader is shown of nodes, faults and the cluster: flat structs, made from indexes and never from all VMs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from pvc.events.fence import FenceSettings
from pvc.projections.fault_hints import hint_of
from pvc.projections.state import ClusterState, Fault, FlushState, Node, NodeState


class Health(StrEnum):
    """How the cluster is."""

    OK = "ok"
    DEGRADED = "degraded"
    """It works, but something is missing that the next failure may need."""
    CRITICAL = "critical"
    """Something does not work, or nobody can tell whether it does."""


class HealthProblem(msgspec.Struct, frozen=True, kw_only=True):
    """A reason why the cluster's health is not `ok`."""

    code: Annotated[str, Meta(description="Stable; docs/reference/health.md lists them.", examples=["node.lost"])]
    health: Annotated[Health, Meta(description="How bad it makes the cluster's health.")]
    message: str
    hint: Annotated[str, Meta(description="What to do about it.")]


class NodeUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What a node was measured to use, some seconds ago."""

    cpu_per_cent: Annotated[float, Meta(description="Of all its processors.")]
    load1: float
    memory_used_mib: Annotated[int, Meta(description="By everything on it.")]
    memory_free_mib: int
    zookeeper: Annotated[
        str, Meta(description="`leader`, `follower`, `standalone`, `no_quorum` or `down`; empty where it runs none.")
    ]
    position: Annotated[int, Meta(description="How far it has folded the log.")]
    time_us: Annotated[int, Meta(description="When, by its own clock.")]


class FenceCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's fence agent answered when it was last asked, some minutes ago."""

    asked_by: Annotated[str, Meta(description="The coordinator that asked it.")]
    trouble: Annotated[
        str,
        Meta(
            description="Why it could not be relied on; empty: it answers as it should.",
            examples=["does not answer hv1: the device cannot be reached"],
        ),
    ]


class FaultInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Something is wrong that an admin should know of; it goes when its cause does."""

    id: str
    code: str
    subject: str
    message: str
    hint: Annotated[str, Meta(description="What to do about it.")]
    since_us: int
    acknowledged_by: Annotated[str, Meta(description="Who has taken notice of it; empty: nobody.")]
    acknowledged_us: int


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """All about a node, and a node in a list."""

    name: str
    state: NodeState
    flush: FlushState
    ready: Annotated[bool, Meta(description="VMs may be placed on it and started.")]
    present: Annotated[bool | None, Meta(description="It has a session; null where that is not known just now.")]
    coordinator: bool
    primary: Annotated[bool, Meta(description="It acts for the whole cluster.")]
    memory_mib: int
    memory_allocated_mib: Annotated[int, Meta(description="Held by running VMs, or kept for those on their way to it.")]
    memory_provisioned_mib: Annotated[int, Meta(description="Of all VMs assigned to it, were they all to run.")]
    vcpus: int
    vcpus_allocated: int
    vms: Annotated[int, Meta(description="Assigned to it, running or not.")]
    vms_running: int
    vms_away: Annotated[int, Meta(description="At home on it, but elsewhere for now.")]
    usage: Annotated[NodeUsage | None, Meta(description="Null when it was not heard of lately.")]
    fence: Annotated[FenceSettings | None, Meta(description="How its power is cut; null: it cannot be.")]
    fence_check: Annotated[
        FenceCheck | None, Meta(description="What its agent answered lately; null: it has none, or nobody has asked.")
    ]
    self_fence_s: Annotated[
        int, Meta(description="Within so many seconds after it lost its session, it ends its VMs; 0: it does not.")
    ]
    faults: Annotated[list[FaultInfo], Meta(description="What is wrong with it, the newest first.")]
    reasons: Annotated[list[str], Meta(description="Why the cluster's health is not `ok`, as far as it is about it.")]
    unfenced: Annotated[str, Meta(description="Why it could not be fenced, while that is so.")]
    evidence: Annotated[str, Meta(description="What proves that it is fenced, while it is.")]
    address: str
    accelerator: str
    hypervisor: str
    version: str
    level: Annotated[int, Meta(description="The highest feature level that it knows.")]
    joined_us: int
    ready_us: int
    changed_us: Annotated[int, Meta(description="When its state last changed: since when it is lost, say.")]
    lost_at: Annotated[int, Meta(description="Position of the record that it was lost with; 0 while it is not.")]
    position: Annotated[int, Meta(description="The last record that touched the node.")]


class ClusterInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster at one look."""

    name: str
    id: str
    initialised: bool
    health: Health
    reasons: Annotated[list[str], Meta(description="Why it is not `ok`, the worst first.")]
    hints: Annotated[dict[str, str], Meta(description="Reason -> what to do about it.")]
    problems: Annotated[list[HealthProblem], Meta(description="The reasons with their codes, the worst first.")]
    position: int
    state_hash: str
    primary: Annotated[str, Meta(description="The node that acts for the whole cluster; empty: none yet.")]
    primary_epoch: int
    maintenance: bool
    maintenance_reason: str
    level: Annotated[int, Meta(description="The feature level that records may be of.")]
    nodes: int
    nodes_ready: int
    coordinators: int
    coordinators_ready: int
    zookeeper: Annotated[dict[str, str], Meta(description="What each coordinator's ZooKeeper server is, where heard.")]
    vms: int
    vms_by_state: dict[str, int]
    faults: int
    faults_acknowledged: int


def node_info(
    state: ClusterState,
    node: Node,
    *,
    usage: NodeUsage | None = None,
    present: bool | None = None,
    fence_check: FenceCheck | None = None,
    reasons: Sequence[str] = (),
) -> NodeInfo:
    """A node with what its VMs take, and what is wrong with it; `reasons` are those of the cluster's health."""
    load = state.load_of(node.name)
    named = re.compile(rf"(?<![\w-]){re.escape(node.name)}(?![\w-])")
    return NodeInfo(
        name=node.name,
        state=node.state,
        flush=node.flush,
        ready=node.ready,
        present=present,
        coordinator=node.coordinator,
        primary=state.cluster is not None and state.cluster.primary == node.name,
        memory_mib=node.memory_mib,
        memory_allocated_mib=load.memory_mib,
        memory_provisioned_mib=load.provisioned_mib,
        vcpus=node.vcpus,
        vcpus_allocated=load.vcpus,
        vms=load.vms,
        vms_running=load.running,
        vms_away=len(state.placed.away_from.get(node.name, ())),
        usage=usage,
        fence=node.fence,
        fence_check=fence_check,
        self_fence_s=node.self_fence_s,
        faults=[fault_info(state, fault) for fault in faults_in_order(state) if fault.subject == f"node/{node.name}"],
        reasons=[reason for reason in reasons if named.search(reason)],
        unfenced=node.unfenced,
        evidence=node.evidence,
        address=node.address,
        accelerator=node.accelerator,
        hypervisor=node.hypervisor,
        version=node.version,
        level=node.level,
        joined_us=node.joined_us,
        ready_us=node.ready_us,
        changed_us=node.changed_us,
        lost_at=node.lost_at,
        position=node.position,
    )


def faults_in_order(state: ClusterState) -> list[Fault]:
    """All faults, the newest first."""
    return sorted(state.faults.values(), key=lambda fault: (-fault.since_us, fault.id))


def fault_info(state: ClusterState, fault: Fault) -> FaultInfo:
    """A fault for a list."""
    fields = {field: getattr(fault, field) for field in FaultInfo.__struct_fields__ if field != "hint"}
    return FaultInfo(**fields, hint=hint_of(state, fault))


def cluster_info(
    state: ClusterState,
    *,
    health: Health = Health.OK,
    problems: Sequence[HealthProblem] = (),
    zookeeper: Mapping[str, str] | None = None,
) -> ClusterInfo:
    """The cluster at one look."""
    by_state: dict[str, int] = {}
    for (_, vm_state), count in state.placed.counts.items():
        by_state[vm_state] = by_state.get(vm_state, 0) + count
    cluster = state.cluster
    coordinators = [node for node in state.nodes.values() if node.coordinator]
    return ClusterInfo(
        name=cluster.name if cluster else "",
        id=cluster.id if cluster else "",
        initialised=cluster is not None,
        health=health,
        reasons=[problem.message for problem in problems],
        hints={problem.message: problem.hint for problem in problems},
        problems=list(problems),
        position=state.position,
        state_hash=state.state_hash(),
        primary=cluster.primary if cluster else "",
        primary_epoch=cluster.primary_epoch if cluster else 0,
        maintenance=cluster is not None and cluster.maintenance,
        maintenance_reason=cluster.maintenance_reason if cluster else "",
        level=cluster.level if cluster else 1,
        nodes=len(state.nodes),
        nodes_ready=sum(node.ready for node in state.nodes.values()),
        coordinators=len(coordinators),
        coordinators_ready=sum(node.state is NodeState.READY for node in coordinators),
        zookeeper=dict(zookeeper or {}),
        vms=len(state.vms),
        vms_by_state=dict(sorted(by_state.items())),
        faults=len(state.faults),
        faults_acknowledged=sum(bool(fault.acknowledged_by) for fault in state.faults.values()),
    )
