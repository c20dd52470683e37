"""The field that names a VM in every command about one, and the pieces that those commands share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

from pvc.commands.base import Decision, Utilisation, find_node, invalid
from pvc.commands.placement import Wish, place
from pvc.errors import Rejected
from pvc.events.vm import VmSpec
from pvc.projections.state import ClusterState, Node, Vm, arrival_mib, held_mib
from pvc.projections.vm_machine import ACTIVE, AT_REST, VmState

VmRef = Annotated[str, Meta(min_length=1, max_length=63, description="Name or id of the VM.", examples=["web01"])]

DEFAULT_SHUTDOWN_TIMEOUT_S = 90
"""As long as systemd gives a unit to stop (DefaultTimeoutStopSec): a guest that takes longer is most likely stuck."""

NOTHING = Decision(events=())

_PHRASES = {
    VmState.STOPPED: "is not running",
    VmState.STARTING: "is starting",
    VmState.RUNNING: "is running",
    VmState.SHUTTING_DOWN: "is shutting down",
    VmState.STOPPING: "is being stopped",
    VmState.RESTARTING: "is restarting",
    VmState.RESETTING: "is being reset",
    VmState.MIGRATING: "is migrating",
    VmState.ARRIVING: "is migrating",
    VmState.FAILED: "has failed and is not running",
    VmState.DISABLED: "is disabled",
}


def wrong_state(vm: Vm, hint: str) -> Rejected:
    """The refusal of a command that the VM's state does not allow; its code names the state."""
    code = f"vm.is_{vm.state.value.replace('-', '_')}"
    return Rejected(f"{vm.name} {_PHRASES[vm.state]}", code=code, hint=hint)


def require_at_rest(vm: Vm, purpose: str) -> None:
    """Raise unless nothing of the VM runs."""
    if vm.state not in AT_REST:
        raise wrong_state(vm, f"shut it down first to {purpose}: pvc vm shutdown {vm.name} --wait")


def require_fits(spec: VmSpec, node: Node) -> None:
    """Raise when the node could not run such a VM even if it ran nothing else."""
    if spec.memory_mib > node.memory_mib:
        raise invalid(
            "memory_mib",
            f"{spec.memory_mib} MiB of memory is more than node {node.name} has ({node.memory_mib} MiB)",
            "give the VM less memory",
            "vm.memory_too_much",
        )
    if spec.vcpus > node.vcpus:
        raise invalid(
            "vcpus",
            f"{spec.vcpus} vCPUs are more than node {node.name} has ({node.vcpus})",
            "give the VM fewer vCPUs",
            "vm.vcpus_too_many",
        )


def require_room(state: ClusterState, vm: Vm, spec: VmSpec) -> None:
    """Raise when the VM's node is not ready or has too little free memory for the VM's next run, with this spec."""
    node = find_node(state, vm.node)
    if not node.ready:
        raise Rejected(f"node {node.name} is not ready", code="node.not_ready", hint="`pvc node list` shows why")
    require_fits(spec, node)
    free = free_mib(state, vm)
    if spec.memory_mib > free:
        raise Rejected(
            f"{vm.name} needs {spec.memory_mib} MiB of memory, node {node.name} has {free} MiB free",
            code="node.memory_full",
            hint="stop another VM on the node, or give this one less memory",
        )


def require_room_where_it_goes(state: ClusterState, vm: Vm, spec: VmSpec) -> None:
    """Raise when the VM is on its way to a node where it may be started anew, and this spec would not fit there."""
    move = vm.migration
    if move is None or vm.node == move.target or (move.live and not move.fallback):
        return
    target = find_node(state, move.target)
    require_fits(spec, target)
    free = target.memory_mib - state.load_of(target.name).memory_mib + arrival_mib(vm, move)
    if spec.memory_mib > free:
        raise Rejected(
            f"{vm.name} needs {spec.memory_mib} MiB of memory, "
            f"node {target.name}, where it is going, has {free} MiB free",
            code="node.memory_full",
            hint="wait until it is there, or give it less memory",
        )


def free_mib(state: ClusterState, vm: Vm) -> int:
    """The memory of the VM's node that no other VM holds."""
    own_mib = held_mib(vm) if vm.state in ACTIVE else 0
    return state.nodes[vm.node].memory_mib - state.load_of(vm.node).memory_mib + own_mib


def choose_home(state: ClusterState, wanted: str | None, wish: Wish, usage: Mapping[str, Utilisation]) -> Node:
    """The node for a new VM: the one asked for, else the best by its selector; room is a matter of its start."""
    for name in wish.limits:
        find_node(state, name, field="node_limits")
    if wanted is None:
        return state.nodes[place(state, wish, usage=usage, needs_room=False).node]
    if wish.limits and wanted not in wish.limits:
        raise invalid(
            "node",
            f"node {wanted!r} is not among the node limits ({', '.join(wish.limits)})",
            "add it to the limits, or name one of them",
            "input.conflict",
        )
    return find_node(state, wanted)
