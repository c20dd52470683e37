"""Commands that set one thing about a VM: autostart, placement, migration method, tags."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from pvc.commands.access_table import Action
from pvc.commands.base import CommandSpec, Context, Decision, find_node, find_vm
from pvc.commands.vm_ref import NOTHING, VmRef
from pvc.errors import NotFound, Rejected
from pvc.events import vm as e
from pvc.events.types import MigrationMethod, NodeName, Selector, Tag
from pvc.projections.state import ClusterState

MAX_TAGS = 64
"""Tags per VM; keeps one VM's record and listing small."""


MaxDowntimeMs = Annotated[
    int,
    Meta(ge=1, le=60_000, description="How long the guest may stand still at the end of a live migration, in ms."),
]
Priority = Annotated[int, Meta(ge=0, le=100, description="The highest is recovered first when its node is lost.")]
AffinityTags = Annotated[
    tuple[Tag, ...], Meta(max_length=16, description="Rather be on a node with VMs of these tags.")
]
AntiAffinityTags = Annotated[
    tuple[Tag, ...], Meta(max_length=16, description="Rather not be on a node with VMs of these tags.")
]


class SetVmAutostart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Set whether a VM is started when its node has booted."""

    vm: VmRef
    autostart: Annotated[bool, Meta(description="Start the VM when its node has booted.")]


class SetVmSelector(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Set how a target node is chosen for a VM."""

    vm: VmRef
    selector: Annotated[Selector, Meta(description="What to look for in a target node.")]


class SetVmNodeLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Set the nodes a VM may run on; none means all."""

    vm: VmRef
    node_limits: Annotated[tuple[NodeName, ...], Meta(description="Nodes the VM may run on.")] = ()


class SetVmMigrationMethod(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Set how a VM is moved to another node."""

    vm: VmRef
    migration_method: Annotated[MigrationMethod, Meta(description="How the VM is moved.")]


class SetVmMaxDowntime(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Set how long a VM's guest may stand still at the end of a live migration."""

    vm: VmRef
    max_downtime_ms: MaxDowntimeMs


class SetVmPriority(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Set how early a VM is recovered when its node is lost."""

    vm: VmRef
    priority: Priority


class SetVmAffinity(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Set the tags of VMs that a VM would rather be together with; none clears them.

    It is a preference: where only one node has room, the VM goes there.
    """

    vm: VmRef
    affinity: AffinityTags = ()


class SetVmAntiAffinity(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Set the tags of VMs that a VM would rather be apart from; none clears them.

    It is a preference: where only one node has room, the VM goes there.
    """

    vm: VmRef
    anti_affinity: AntiAffinityTags = ()


class AddVmTag(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Put a tag on a VM; a protected tag cannot be removed unless its protection is lifted first."""

    vm: VmRef
    tag: Tag
    protected: Annotated[bool, Meta(description="Guard the tag against removal.")] = False


class RemoveVmTag(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Take a tag off a VM."""

    vm: VmRef
    tag: Tag


def set_vm_autostart(state: ClusterState, command: SetVmAutostart, context: Context) -> Decision:
    """Always allowed."""
    vm = find_vm(state, command.vm)
    if vm.autostart == command.autostart:
        return NOTHING
    return Decision(events=(e.VmAutostartSet(vm=vm.id, autostart=command.autostart),))


def set_vm_selector(state: ClusterState, command: SetVmSelector, context: Context) -> Decision:
    """Always allowed."""
    vm = find_vm(state, command.vm)
    if vm.selector is command.selector:
        return NOTHING
    return Decision(events=(e.VmSelectorSet(vm=vm.id, selector=command.selector),))


def set_vm_node_limits(state: ClusterState, command: SetVmNodeLimits, context: Context) -> Decision:
    """The nodes must exist, and the VM's present one be among them."""
    vm = find_vm(state, command.vm)
    limits = tuple(dict.fromkeys(command.node_limits))
    for name in limits:
        find_node(state, name, field="node_limits")
    if limits and vm.node not in limits:
        raise Rejected(
            f"{vm.name} is on node {vm.node}, which is not among the limits ({', '.join(limits)})",
            code="vm.outside_limits",
            hint=f"add {vm.node} to the limits",
        )
    if limits == vm.node_limits:
        return NOTHING
    return Decision(events=(e.VmNodeLimitsSet(vm=vm.id, node_limits=limits),))


def set_vm_migration_method(state: ClusterState, command: SetVmMigrationMethod, context: Context) -> Decision:
    """Always allowed."""
    vm = find_vm(state, command.vm)
    if vm.migration_method is command.migration_method:
        return NOTHING
    return Decision(events=(e.VmMigrationMethodSet(vm=vm.id, migration_method=command.migration_method),))


def set_vm_max_downtime(state: ClusterState, command: SetVmMaxDowntime, context: Context) -> Decision:
    """Always allowed."""
    vm = find_vm(state, command.vm)
    if vm.max_downtime_ms == command.max_downtime_ms:
        return NOTHING
    return Decision(events=(e.VmMaxDowntimeSet(vm=vm.id, max_downtime_ms=command.max_downtime_ms),))


def set_vm_priority(state: ClusterState, command: SetVmPriority, context: Context) -> Decision:
    """Always allowed."""
    vm = find_vm(state, command.vm)
    if vm.priority == command.priority:
        return NOTHING
    return Decision(events=(e.VmPrioritySet(vm=vm.id, priority=command.priority),))


def set_vm_affinity(state: ClusterState, command: SetVmAffinity, context: Context) -> Decision:
    """Always allowed; the VM stays where it is until it is placed again."""
    vm = find_vm(state, command.vm)
    tags = tuple(dict.fromkeys(command.affinity))
    if vm.affinity == tags:
        return NOTHING
    return Decision(events=(e.VmAffinitySet(vm=vm.id, affinity=tags),))


def set_vm_anti_affinity(state: ClusterState, command: SetVmAntiAffinity, context: Context) -> Decision:
    """Always allowed; the VM stays where it is until it is placed again."""
    vm = find_vm(state, command.vm)
    tags = tuple(dict.fromkeys(command.anti_affinity))
    if vm.anti_affinity == tags:
        return NOTHING
    return Decision(events=(e.VmAntiAffinitySet(vm=vm.id, anti_affinity=tags),))


def add_vm_tag(state: ClusterState, command: AddVmTag, context: Context) -> Decision:
    """A new tag, or another protection for one that is there."""
    vm = find_vm(state, command.vm)
    if vm.tags.get(command.tag) is command.protected:
        return NOTHING
    if command.tag not in vm.tags and len(vm.tags) >= MAX_TAGS:
        raise Rejected(
            f"{vm.name} has {MAX_TAGS} tags already", code="vm.tags_full", hint="remove one that is no longer used"
        )
    return Decision(events=(e.VmTagAdded(vm=vm.id, tag=command.tag, protected=command.protected),))


def remove_vm_tag(state: ClusterState, command: RemoveVmTag, context: Context) -> Decision:
    """A tag that is there and not protected."""
    vm = find_vm(state, command.vm)
    if command.tag not in vm.tags:
        shown = ", ".join(sorted(vm.tags)) or "none"
        raise NotFound(
            f"{vm.name} has no tag {command.tag!r}", code="vm.tag_not_found", hint=f"its tags: {shown}", field="tag"
        )
    if vm.tags[command.tag]:
        raise Rejected(
            f"the tag {command.tag!r} of {vm.name} is protected",
            code="vm.tag_protected",
            hint=f"lift the protection first: pvc vm tag add {vm.name} {command.tag} --no-protected",
        )
    return Decision(events=(e.VmTagRemoved(vm=vm.id, tag=command.tag),))


SPECS = (
    CommandSpec(
        name="vm.set_autostart",
        struct=SetVmAutostart,
        decide=set_vm_autostart,
        action=Action.VM_CONFIGURE,
        path="/vms/{vm}/autostart",
        cli=("vm", "autostart"),
        args=("vm", "autostart"),
        example={"vm": "web01", "autostart": True},
    ),
    CommandSpec(
        name="vm.set_selector",
        struct=SetVmSelector,
        decide=set_vm_selector,
        action=Action.VM_CONFIGURE,
        path="/vms/{vm}/selector",
        cli=("vm", "selector"),
        args=("vm", "selector"),
        example={"vm": "web01", "selector": "vms"},
    ),
    CommandSpec(
        name="vm.set_node_limits",
        struct=SetVmNodeLimits,
        decide=set_vm_node_limits,
        action=Action.VM_CONFIGURE,
        path="/vms/{vm}/node-limits",
        cli=("vm", "node-limits"),
        args=("vm", "node_limits"),
        example={"vm": "web01", "node_limits": ["hv1"]},
    ),
    CommandSpec(
        name="vm.set_migration_method",
        struct=SetVmMigrationMethod,
        decide=set_vm_migration_method,
        action=Action.VM_CONFIGURE,
        path="/vms/{vm}/migration-method",
        cli=("vm", "migration-method"),
        args=("vm", "migration_method"),
        example={"vm": "web01", "migration_method": "live"},
    ),
    CommandSpec(
        name="vm.set_max_downtime",
        struct=SetVmMaxDowntime,
        decide=set_vm_max_downtime,
        action=Action.VM_CONFIGURE,
        path="/vms/{vm}/max-downtime",
        cli=("vm", "max-downtime"),
        args=("vm", "max_downtime_ms"),
        example={"vm": "web01", "max_downtime_ms": 500},
    ),
    CommandSpec(
        name="vm.set_priority",
        struct=SetVmPriority,
        decide=set_vm_priority,
        action=Action.VM_CONFIGURE,
        path="/vms/{vm}/priority",
        cli=("vm", "priority"),
        args=("vm", "priority"),
        example={"vm": "web01", "priority": 90},
    ),
    CommandSpec(
        name="vm.set_affinity",
        struct=SetVmAffinity,
        decide=set_vm_affinity,
        action=Action.VM_CONFIGURE,
        path="/vms/{vm}/affinity",
        cli=("vm", "affinity"),
        args=("vm", "affinity"),
        example={"vm": "web01", "affinity": ["shop"]},
    ),
    CommandSpec(
        name="vm.set_anti_affinity",
        struct=SetVmAntiAffinity,
        decide=set_vm_anti_affinity,
        action=Action.VM_CONFIGURE,
        path="/vms/{vm}/anti-affinity",
        cli=("vm", "anti-affinity"),
        args=("vm", "anti_affinity"),
        example={"vm": "web01", "anti_affinity": ["web"]},
    ),
    CommandSpec(
        name="vm.add_tag",
        struct=AddVmTag,
        decide=add_vm_tag,
        action=Action.VM_CONFIGURE,
        path="/vms/{vm}/tags",
        cli=("vm", "tag", "add"),
        args=("vm", "tag"),
        example={"vm": "web01", "tag": "production", "protected": True},
    ),
    CommandSpec(
        name="vm.remove_tag",
        struct=RemoveVmTag,
        decide=remove_vm_tag,
        action=Action.VM_CONFIGURE,
        method="DELETE",
        path="/vms/{vm}/tags/{tag}",
        cli=("vm", "tag", "remove"),
        args=("vm", "tag"),
        example={"vm": "web01", "tag": "production"},
    ),
)
