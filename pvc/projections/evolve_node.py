"""How nodes follow from events."""

from __future__ import annotations

from msgspec.structs import replace

from pvc.events.node import NodeJoined, NodeReady
from pvc.events.record import Record
from pvc.projections.state import ClusterState, Node


def joined(state: ClusterState, event: NodeJoined, record: Record) -> None:
    """The node is a member; it takes no VMs before it is ready."""
    if event.node not in state.nodes:
        state.put_node(Node(name=event.node, joined_us=record.time_us, position=record.position))


def ready(state: ClusterState, event: NodeReady, record: Record) -> None:
    """The node takes VMs."""
    node = state.nodes.get(event.node)
    if node is None:
        return
    state.put_node(
        replace(
            node,
            ready=True,
            memory_mib=event.memory_mib,
            vcpus=event.vcpus,
            accelerator=event.accelerator,
            hypervisor=event.hypervisor,
            version=event.version,
            boot=event.boot,
            ready_us=record.time_us,
            position=record.position,
        )
    )
