"""The lists of VMs, nodes and faults: what may be asked of them, and what comes."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from pvc.gateway.lists import ListArguments, ListOf, Next, by_attributes
from pvc.gateway.moments import At
from pvc.projections.cluster_views import FaultInfo, NodeInfo
from pvc.projections.state import FlushState, NodeState, Vm
from pvc.projections.views import VmRow
from pvc.projections.vm_machine import VmState

Glob = Annotated[
    str, Meta(max_length=100, description="Names that match, with `*`, `?` and `[...]`.", examples=["web*"])
]


class VmListArguments(ListArguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which VMs are listed: those that match everything given."""

    state: Annotated[tuple[VmState, ...], Meta(description="Only VMs in one of these states.")] = ()
    tag: Annotated[str, Meta(max_length=63, description="Only VMs with this tag.", examples=["production"])] = ""
    node: Annotated[str, Meta(max_length=63, description="Only VMs on this node.", examples=["hv1"])] = ""
    name: Glob = ""
    at: At = ""


class NodeListArguments(ListArguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which nodes are listed: those that match everything given."""

    name: Glob = ""
    state: Annotated[tuple[NodeState, ...], Meta(description="Only nodes in one of these states.")] = ()
    flush: Annotated[tuple[FlushState, ...], Meta(description="Only nodes with one of these.")] = ()
    at: At = ""


class FaultListArguments(ListArguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which faults are listed: those that match everything given."""

    code: Annotated[str, Meta(max_length=100, description="Only those with this code.", examples=["node.lost"])] = ""
    subject: Annotated[str, Meta(max_length=100, description="Only those about this.", examples=["node/hv2"])] = ""
    acknowledged: Annotated[
        bool | None, Meta(description="Only those that somebody has taken notice of, or only the others.")
    ] = None
    at: At = ""


class VmList(msgspec.Struct, frozen=True, kw_only=True):
    """VMs by name."""

    position: int
    items: list[VmRow]
    next: Next


class NodeList(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes by name."""

    position: int
    items: list[NodeInfo]
    next: Next


class FaultList(msgspec.Struct, frozen=True, kw_only=True):
    """Faults, the newest first."""

    position: int
    items: list[FaultInfo]
    next: Next


VMS: ListOf[Vm] = ListOf(
    item=VmRow,
    sorts={
        "name": lambda vm: vm.name,
        "state": lambda vm: vm.state,
        "node": lambda vm: vm.node,
        "home": lambda vm: vm.home,
        "memory_mib": lambda vm: vm.spec.memory_mib,
        "vcpus": lambda vm: vm.spec.vcpus,
        "autostart": lambda vm: vm.autostart,
    },
    order="name",
    key=lambda vm: vm.id,
)
NODES: ListOf[NodeInfo] = ListOf(
    item=NodeInfo,
    sorts=by_attributes(
        "name", "state", "flush", "memory_mib", "memory_allocated_mib", "vcpus", "vms", "vms_running", "joined_us"
    ),
    order="name",
    key=lambda node: node.name,
)
FAULTS: ListOf[FaultInfo] = ListOf(
    item=FaultInfo,
    sorts=by_attributes("since_us", "id", "code", "subject", "acknowledged_us"),
    order="-since_us",
    key=lambda fault: fault.id,
)
