"""What a reader is shown of the state: flat structs, made one object at a time."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from pvc.events.types import EndPolicy, MigrationMethod, Selector
from pvc.events.vm import VmSpec
from pvc.projections.state import ClusterState, Node, Vm
from pvc.projections.vm_machine import VmState


class TagView(msgspec.Struct, frozen=True, kw_only=True):
    """A tag of a VM."""

    tag: str
    protected: bool


class VmRow(msgspec.Struct, frozen=True, kw_only=True):
    """A VM in a list."""

    name: str
    id: str
    state: VmState
    node: str
    memory_mib: int
    vcpus: int
    tags: list[str]
    autostart: bool
    restart_required: Annotated[bool, Meta(description="The definition was changed since the VM was started.")]
    description: str


class VmInfo(msgspec.Struct, frozen=True, kw_only=True):
    """All about a VM."""

    name: str
    id: str
    state: VmState
    error: str
    node: str
    home: str
    description: str
    spec: VmSpec
    restart_required: Annotated[
        list[str], Meta(description="Fields of the spec that the running VM gets only with its next start.")
    ]
    selector: Selector
    node_limits: list[str]
    migration_method: MigrationMethod
    autostart: bool
    on_poweroff: EndPolicy
    on_crash: EndPolicy
    tags: list[TagView]
    epoch: Annotated[int, Meta(description="Number of the present or last run.")]
    defined_us: int
    changed_us: Annotated[int, Meta(description="When the state last changed.")]
    position: Annotated[int, Meta(description="The last record that touched the VM.")]


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """All about a node, and a node in a list."""

    name: str
    ready: bool
    memory_mib: int
    memory_used_mib: int
    vcpus: int
    vcpus_used: int
    vms: int
    vms_running: int
    accelerator: str
    hypervisor: str
    version: str
    joined_us: int
    ready_us: int


class ClusterInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster at one look."""

    name: str
    id: str
    initialised: bool
    position: int
    state_hash: str
    nodes: int
    nodes_ready: int
    vms: int
    vms_by_state: dict[str, int]


def vm_row(vm: Vm) -> VmRow:
    """A VM for a list."""
    return VmRow(
        name=vm.name,
        id=vm.id,
        state=vm.state,
        node=vm.node,
        memory_mib=vm.spec.memory_mib,
        vcpus=vm.spec.vcpus,
        tags=sorted(vm.tags),
        autostart=vm.autostart,
        restart_required=vm.running_spec is not None and vm.running_spec != vm.spec,
        description=vm.description,
    )


def vm_info(vm: Vm) -> VmInfo:
    """A VM in full."""
    return VmInfo(
        name=vm.name,
        id=vm.id,
        state=vm.state,
        error=vm.error,
        node=vm.node,
        home=vm.home,
        description=vm.description,
        spec=vm.spec,
        restart_required=list(spec_differences(vm.running_spec, vm.spec)),
        selector=vm.selector,
        node_limits=list(vm.node_limits),
        migration_method=vm.migration_method,
        autostart=vm.autostart,
        on_poweroff=vm.on_poweroff,
        on_crash=vm.on_crash,
        tags=[TagView(tag=tag, protected=held) for tag, held in sorted(vm.tags.items())],
        epoch=vm.epoch,
        defined_us=vm.defined_us,
        changed_us=vm.changed_us,
        position=vm.position,
    )


def node_info(state: ClusterState, node: Node) -> NodeInfo:
    """A node with what its VMs take."""
    load = state.load_of(node.name)
    return NodeInfo(
        name=node.name,
        ready=node.ready,
        memory_mib=node.memory_mib,
        memory_used_mib=load.memory_mib,
        vcpus=node.vcpus,
        vcpus_used=load.vcpus,
        vms=load.vms,
        vms_running=load.running,
        accelerator=node.accelerator,
        hypervisor=node.hypervisor,
        version=node.version,
        joined_us=node.joined_us,
        ready_us=node.ready_us,
    )


def cluster_info(state: ClusterState) -> ClusterInfo:
    """The cluster at one look; counts all VMs, so not for hot paths."""
    by_state: dict[str, int] = {}
    for vm in state.vms.values():
        by_state[vm.state.value] = by_state.get(vm.state.value, 0) + 1
    return ClusterInfo(
        name=state.cluster.name if state.cluster else "",
        id=state.cluster.id if state.cluster else "",
        initialised=state.cluster is not None,
        position=state.position,
        state_hash=state.state_hash(),
        nodes=len(state.nodes),
        nodes_ready=sum(node.ready for node in state.nodes.values()),
        vms=len(state.vms),
        vms_by_state=dict(sorted(by_state.items())),
    )


def spec_differences(running: VmSpec | None, wanted: VmSpec) -> tuple[str, ...]:
    """The names of the spec's fields that a running VM will only get with its next start."""
    if running is None or running == wanted:
        return ()
    fields = VmSpec.__struct_fields__
    return tuple(field for field in fields if getattr(running, field) != getattr(wanted, field))
