"""How nodes, and the faults about them, follow from events."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from pvc.events import node as e
from pvc.events.cluster import LogRestored
from pvc.events.record import Record
from pvc.projections.state import ClusterState, Fault, FlushState, Node, NodeState

LOST = "node.lost"
UNFENCED = "node.unfenced"
FLUSH_INCOMPLETE = "node.flush_incomplete"
DIVERGED = "node.diverged"
LOG_DIFFERS = "node.log_differs"
UNHEARD = "node.unheard"


def joined(state: ClusterState, event: e.NodeJoined, record: Record) -> None:
    """The node is a member; it takes no VMs before it is ready."""
    if event.node not in state.nodes:
        state.put_node(
            Node(
                name=event.node,
                coordinator=event.coordinator,
                joined_us=record.time_us,
                changed_us=record.time_us,
                position=record.position,
            )
        )


def ready(state: ClusterState, event: e.NodeReady, record: Record) -> None:
    """The node takes VMs, unless it is flushed."""
    _change(
        state,
        event.node,
        record,
        state=NodeState.READY,
        memory_mib=event.memory_mib,
        vcpus=event.vcpus,
        accelerator=event.accelerator,
        hypervisor=event.hypervisor,
        version=event.version,
        boot=event.boot,
        address=event.address,
        self_fence_s=event.self_fence_s,
        level=event.level,
        ready_us=record.time_us,
        ready_at=record.position,
        lost_at=0,
        unfenced="",
        evidence="",
        unheard=False,
    )
    state.drop_fault(fault_id(UNHEARD, event.node))
    state.drop_fault(fault_id(LOST, event.node))
    state.drop_fault(fault_id(UNFENCED, event.node))
    state.drop_fault(fault_id(DIVERGED, event.node))
    state.drop_fault(fault_id(LOG_DIFFERS, event.node))


def fence_set(state: ClusterState, event: e.NodeFenceSet, record: Record) -> None:
    """Another way to cut its power, to be tried if the last one failed."""
    _change(state, event.node, record, fence=event.settings, unfenced="")


def lost(state: ClusterState, event: e.NodeLost, record: Record) -> None:
    """Nobody knows what the node does."""
    _change(state, event.node, record, state=NodeState.LOST, lost_at=record.position, unfenced="", evidence="")
    _raise(state, LOST, event.node, f"node {event.node} is lost: {event.reason}", record)


def fenced(state: ClusterState, event: e.NodeFenced, record: Record) -> None:
    """Nothing runs on the node; it is still missing."""
    _change(state, event.node, record, state=NodeState.FENCED, evidence=event.evidence, unfenced="", unheard=False)
    state.drop_fault(fault_id(UNHEARD, event.node))
    state.drop_fault(fault_id(UNFENCED, event.node))


def fence_failed(state: ClusterState, event: e.NodeFenceFailed, record: Record) -> None:
    """Its VMs stay where they are, running or not."""
    _change(state, event.node, record, unfenced=event.message)
    message = f"node {event.node} is lost and cannot be fenced, so its VMs are not recovered: {event.message}"
    _raise(state, UNFENCED, event.node, message, record)


def flush_requested(state: ClusterState, event: e.NodeFlushRequested, record: Record) -> None:
    """The node takes no more VMs."""
    _change(state, event.node, record, flush=FlushState.FLUSHING, cause=record.id)
    state.drop_fault(fault_id(FLUSH_INCOMPLETE, event.node))
    _forgive(state, state.placed.ids_on(event.node))


def flushed(state: ClusterState, event: e.NodeFlushed, record: Record) -> None:
    """The node is free of running VMs."""
    _change(state, event.node, record, flush=FlushState.FLUSHED)


def flush_incomplete(state: ClusterState, event: e.NodeFlushIncomplete, record: Record) -> None:
    """The node takes no more VMs, but is not free of them."""
    _change(state, event.node, record, flush=FlushState.FLUSHED)
    message = f"node {event.node} is flushed, but VMs still run on it: {'; '.join(event.left[:5])}"
    _raise(state, FLUSH_INCOMPLETE, event.node, message, record)


def return_requested(state: ClusterState, event: e.NodeReturnRequested, record: Record) -> None:
    """The node takes VMs again."""
    _change(state, event.node, record, flush=FlushState.RETURNING, cause=record.id)
    state.drop_fault(fault_id(FLUSH_INCOMPLETE, event.node))
    _forgive(state, tuple(state.placed.away_from.get(event.node, ())))


def returned(state: ClusterState, event: e.NodeReturned, record: Record) -> None:
    """Nothing more is to come home."""
    _change(state, event.node, record, flush=FlushState.NONE)


def diverged(state: ClusterState, event: e.NodeDiverged, record: Record) -> None:
    """One of the two has a defect, or a damaged disk; the node's next start folds anew."""
    message = f"node {event.node} has another state than the primary at position {event.position}"
    _raise(state, DIVERGED, event.node, message, record)


def log_differs(state: ClusterState, event: e.NodeLogDiffers, record: Record) -> None:
    """Its copy is damaged, or somebody has rewritten one of the two; the node's next start looks again."""
    between = f"records {event.agreed + 1} to {event.size}"
    message = f"node {event.node} has other records than the checkpoint of size {event.size} vouches for, in {between}"
    _raise(state, LOG_DIFFERS, event.node, message, record)


def log_restored(state: ClusterState, event: LogRestored, record: Record) -> None:
    """What the nodes run is not known before each has come, or is known to be off: they may have been told otherwise
    by records that are no more."""
    for name in list(state.nodes):
        for code in (LOST, UNFENCED, FLUSH_INCOMPLETE, DIVERGED, LOG_DIFFERS):
            state.drop_fault(fault_id(code, name))
        _change(
            state, name, record, state=NodeState.JOINING, unheard=True, lost_at=0, ready_at=0, unfenced="", evidence=""
        )
        message = f"node {name} has not been heard of since the log was restored; until then no VM is started anywhere"
        _raise(state, UNHEARD, name, message, record)


def removed(state: ClusterState, event: e.NodeRemoved, record: Record) -> None:
    """The node is gone, with its faults."""
    if event.node in state.nodes:
        state.drop_node(event.node)
        for code in (LOST, UNFENCED, FLUSH_INCOMPLETE, DIVERGED, LOG_DIFFERS, UNHEARD):
            state.drop_fault(fault_id(code, event.node))


def fault_id(code: str, node: str) -> str:
    """The id of a fault about a node."""
    return f"{code}/{node}"


def _forgive(state: ClusterState, vms: tuple[str, ...]) -> None:
    """Migrations that failed before an admin asked again do not count."""
    for vm in (state.vms[vm_id] for vm_id in vms):
        if vm.failed_moves:
            state.put_vm(replace(vm, failed_moves=0))


def _raise(state: ClusterState, code: str, node: str, message: str, record: Record) -> None:
    """Where the fault stands already it only says something else now: it is as old, and as well known, as before."""
    if node in state.nodes:
        fault_name = fault_id(code, node)
        fault = state.faults.get(fault_name) or Fault(
            id=fault_name, code=code, subject=f"node/{node}", message=message, since_us=record.time_us
        )
        state.put_fault(replace(fault, message=message))


def _change(cluster: ClusterState, name: str, record: Record, **changes: Any) -> None:
    node = cluster.nodes.get(name)
    if node is not None:
        if changes.get("state", node.state) is not node.state:
            changes["changed_us"] = record.time_us
        cluster.put_node(replace(node, position=record.position, **changes))
