"""Commands that make, change and remove a VM's definition."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from pvc.commands.access_table import Action
from pvc.commands.base import CommandSpec, Context, Decision, find_vm, invalid, require_cluster
from pvc.commands.cluster import derived_id
from pvc.commands.placement import Wish
from pvc.commands.vm_power import STARTS_WELL, restart_of
from pvc.commands.vm_ref import (
    DEFAULT_SHUTDOWN_TIMEOUT_S,
    NOTHING,
    VmRef,
    choose_home,
    require_at_rest,
    require_fits,
    require_room,
    require_room_where_it_goes,
)
from pvc.commands.vm_settings import MAX_TAGS, AffinityTags, AntiAffinityTags, MaxDowntimeMs, Priority
from pvc.commands.vm_xml import parse_domain_xml
from pvc.errors import Rejected
from pvc.events import vm as e
from pvc.events.types import (
    END,
    AbsolutePath,
    Description,
    EndPolicy,
    MemoryMib,
    MigrationMethod,
    NodeName,
    Selector,
    Tag,
    Vcpus,
    VmName,
)
from pvc.projections.state import ClusterState, Vm
from pvc.projections.views import spec_differences
from pvc.projections.vm_machine import VmState

Disks = Annotated[tuple[e.Disk, ...], Meta(max_length=64, description="Disks, in order.")]
Nics = Annotated[tuple[e.Nic, ...], Meta(max_length=32, description="Network interfaces, in order.")]
Cmdline = Annotated[
    str,
    Meta(pattern=r"^[^\x00-\x1f\x7f]*" + END, max_length=2048, description="Kernel command line, with `kernel`."),
]
Kernel = Annotated[AbsolutePath, Meta(description="Boot this kernel file directly instead of from a disk.")]
Initrd = Annotated[AbsolutePath, Meta(description="Initial RAM disk file, with `kernel`.")]
DomainXml = Annotated[str, Meta(description="A libvirt domain XML to take the definition from.")]
OnPoweroff = Annotated[EndPolicy, Meta(description="What follows when the guest powers itself off.")]
OnCrash = Annotated[EndPolicy, Meta(description="What follows when the guest crashes or is killed.")]

_DEVICE_FIELDS = ("disks", "nics", "kernel", "initrd", "cmdline")

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
"""A VM is found by name or id, so no name may be another VM's id."""


class DefineVm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Define a new VM, from options or from a libvirt domain XML.

    It does not run until it is started. With `xml`, its memory, vCPUs and name count unless they are given here too;
    devices then come from the XML alone.
    """

    name: VmName | None = None
    memory_mib: MemoryMib | None = None
    vcpus: Vcpus | None = None
    disks: Disks = ()
    nics: Nics = ()
    kernel: Kernel | None = None
    initrd: Initrd | None = None
    cmdline: Cmdline = ""
    xml: DomainXml | None = None
    node: Annotated[NodeName, Meta(description="The node to run on; chosen by free memory if not given.")] | None = None
    description: Description = ""
    selector: Annotated[Selector, Meta(description="What to look for in a target node.")] = Selector.MEM
    node_limits: Annotated[tuple[NodeName, ...], Meta(description="Nodes the VM may run on; none means all.")] = ()
    migration_method: Annotated[MigrationMethod, Meta(description="How the VM is moved.")] = MigrationMethod.LIVE
    autostart: Annotated[bool, Meta(description="Start the VM when its node has booted.")] = False
    on_poweroff: OnPoweroff = EndPolicy.STOP
    on_crash: OnCrash = EndPolicy.RESTART
    tags: Annotated[tuple[Tag, ...], Meta(max_length=MAX_TAGS, description="Tags to begin with.")] = ()
    max_downtime_ms: MaxDowntimeMs = 300
    priority: Priority = 50
    affinity: AffinityTags = ()
    anti_affinity: AntiAffinityTags = ()


class ModifyVm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Change a VM's definition; what is not given stays.

    Memory, vCPUs and devices of a running VM change at its next start; `restart` does that at once.
    """

    vm: VmRef
    memory_mib: MemoryMib | None = None
    vcpus: Vcpus | None = None
    disks: Disks | None = None
    nics: Nics | None = None
    kernel: Kernel | None = None
    initrd: Initrd | None = None
    cmdline: Cmdline | None = None
    xml: DomainXml | None = None
    description: Description | None = None
    on_poweroff: OnPoweroff | None = None
    on_crash: OnCrash | None = None
    restart: Annotated[bool, Meta(description="Restart the VM if it runs, so that the change takes effect.")] = False


class RenameVm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Give a VM that does not run another name; its id and its history stay."""

    vm: VmRef
    name: Annotated[VmName, Meta(description="The new name.")]


class RemoveVm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Remove the definition of a VM that does not run.

    Its disks' files are not touched, and its history stays readable.
    """

    vm: VmRef


def define_vm(state: ClusterState, command: DefineVm, context: Context) -> Decision:
    """A name that is free, a spec that is complete, and a node that could run it."""
    require_cluster(state)
    name, spec = _new_spec(command)
    _require_free_name(state, name)
    vm_id = derived_id(context.command_id)
    if vm_id in state.vms:
        raise Rejected(
            f"the idempotency key {context.command_id!r} has made the VM {state.vms[vm_id].name!r} already",
            code="idempotency.key_reused",
            hint="use a new key for each new command",
        )
    limits = tuple(dict.fromkeys(command.node_limits))
    wish = Wish(
        name=name,
        memory_mib=spec.memory_mib,
        vcpus=spec.vcpus,
        selector=command.selector,
        limits=limits,
        affinity=tuple(dict.fromkeys(command.affinity)),
        anti_affinity=tuple(dict.fromkeys(command.anti_affinity)),
    )
    node = choose_home(state, command.node, wish, context.usage)
    require_fits(spec, node)
    defined = e.VmDefined(
        vm=vm_id,
        name=name,
        spec=spec,
        node=node.name,
        description=command.description,
        selector=command.selector,
        node_limits=limits,
        migration_method=command.migration_method,
        autostart=command.autostart,
        on_poweroff=command.on_poweroff,
        on_crash=command.on_crash,
        tags=tuple(dict.fromkeys(command.tags)),
        max_downtime_ms=command.max_downtime_ms,
        priority=command.priority,
        affinity=wish.affinity,
        anti_affinity=wish.anti_affinity,
    )
    return Decision(events=(defined,))


def modify_vm(state: ClusterState, command: ModifyVm, context: Context) -> Decision:
    """A change that makes a difference, and that the VM's node could run."""
    vm = find_vm(state, command.vm)
    spec = _changed_spec(vm, command)
    pending = spec_differences(vm.running_spec, spec)
    restart = command.restart and vm.state is VmState.RUNNING and bool(pending)
    if restart or (vm.state is VmState.RESTARTING and spec != vm.spec):
        require_room(state, vm, spec)
    elif spec != vm.spec:
        require_fits(spec, state.nodes[vm.node])
        require_room_where_it_goes(state, vm, spec)
    changes: dict[str, Any] = {
        field: value
        for field in ("description", "on_poweroff", "on_crash")
        if (value := getattr(command, field)) is not None and value != getattr(vm, field)
    }
    if spec != vm.spec:
        changes["spec"] = spec
    modified = (e.VmModified(vm=vm.id, **changes),) if changes else ()
    if restart:
        return Decision(events=(*modified, restart_of(vm, DEFAULT_SHUTDOWN_TIMEOUT_S)))
    return Decision(events=modified, notes=_pending_notes(vm, pending))


def rename_vm(state: ClusterState, command: RenameVm, context: Context) -> Decision:
    """A VM at rest, a name that is free."""
    vm = find_vm(state, command.vm)
    if command.name == vm.name:
        return NOTHING
    _require_free_name(state, command.name)
    require_at_rest(vm, "rename it")
    return Decision(events=(e.VmRenamed(vm=vm.id, name=command.name, old_name=vm.name),))


def remove_vm(state: ClusterState, command: RemoveVm, context: Context) -> Decision:
    """A VM at rest, without protected tags."""
    vm = find_vm(state, command.vm)
    require_at_rest(vm, "remove it")
    held = sorted(tag for tag, protected in vm.tags.items() if protected)
    if held:
        raise Rejected(
            f"{vm.name} has protected tags: {', '.join(held)}",
            code="vm.tag_protected",
            hint=f"lift the protection first: pvc vm tag add {vm.name} {held[0]} --no-protected",
        )
    return Decision(events=(e.VmRemoved(vm=vm.id, name=vm.name),))


def _pending_notes(vm: Vm, pending: tuple[str, ...]) -> tuple[str, ...]:
    if not pending or vm.state is VmState.RESTARTING:
        return ()
    return (f"{vm.name} keeps running as it was started; to apply {', '.join(pending)}: pvc vm restart {vm.name}",)


def _new_spec(command: DefineVm) -> tuple[str, e.VmSpec]:
    if command.xml is not None:
        _refuse_devices_beside_xml(command)
        parsed = parse_domain_xml(command.xml)
        name = command.name or _checked_xml_name(parsed.name)
        memory_mib = command.memory_mib or parsed.spec.memory_mib
        return name, replace(parsed.spec, memory_mib=memory_mib, vcpus=command.vcpus or parsed.spec.vcpus)
    if command.name is None:
        raise invalid("name", "a new VM needs a name", "give one, or an XML that has one", "vm.name_missing")
    if command.memory_mib is None:
        raise invalid("memory_mib", "a new VM needs its memory size", "for example 1024 (MiB)", "vm.memory_missing")
    spec = e.VmSpec(
        memory_mib=command.memory_mib,
        vcpus=command.vcpus or 1,
        disks=command.disks,
        nics=command.nics,
        kernel=command.kernel,
        initrd=command.initrd,
        cmdline=command.cmdline,
    )
    _require_bootable(spec)
    return command.name, spec


def _changed_spec(vm: Vm, command: ModifyVm) -> e.VmSpec:
    changes: dict[str, Any] = {
        field: value
        for field in ("memory_mib", "vcpus", *_DEVICE_FIELDS)
        if (value := getattr(command, field)) is not None
    }
    if command.xml is not None:
        _refuse_devices_beside_xml(command)
        parsed = parse_domain_xml(command.xml).spec
        return replace(parsed, **changes)
    if vm.spec.xml and changes.keys() & set(_DEVICE_FIELDS):
        raise invalid(
            min(changes.keys() & set(_DEVICE_FIELDS)),
            f"{vm.name} was defined from an XML, so its devices are changed there",
            "give the whole new XML with `xml`",
            "input.conflict",
        )
    spec = replace(vm.spec, **changes)
    _require_bootable(spec)
    return spec


def _refuse_devices_beside_xml(command: DefineVm | ModifyVm) -> None:
    given = [field for field in _DEVICE_FIELDS if getattr(command, field)]
    if given:
        raise invalid(
            given[0],
            f"`{given[0]}` cannot be given together with `xml`",
            "put the device into the XML, or leave the XML out",
            "input.conflict",
        )


def _require_bootable(spec: e.VmSpec) -> None:
    if spec.kernel is None and (spec.initrd is not None or spec.cmdline):
        field = "initrd" if spec.initrd is not None else "cmdline"
        raise invalid(field, f"`{field}` needs a `kernel`", "give the kernel too, or leave it out", "input.conflict")
    paths = [disk.path for disk in spec.disks if not disk.read_only]
    doubled = next((path for path in paths if paths.count(path) > 1), None)
    if doubled is not None:
        raise invalid("disks", f"the disk {doubled!r} is given twice", "give each disk once", "input.conflict")


def _checked_xml_name(name: str) -> str:
    if not name:
        raise invalid(
            "xml", "the XML has no <name>", "give one with `name`, or put one into the XML", "vm.name_missing"
        )
    try:
        return msgspec.convert(name, VmName)
    except msgspec.ValidationError as error:
        raise invalid(
            "xml",
            f"the XML's name {name[:80]!r} is not a VM name",
            "give another one with `name`: a-z, 0-9 and inner hyphens, at most 63 characters",
            "vm.name_invalid",
        ) from error


def _require_free_name(state: ClusterState, name: str) -> None:
    if _UUID.match(name):
        raise invalid("name", f"{name!r} looks like the id of a VM", "choose a name that is no UUID", "vm.name_invalid")
    if name in state.vm_names:
        raise Rejected(
            f"there is a VM {name!r} already",
            code="vm.name_taken",
            hint=f"choose another name; `pvc vm info {name}` shows that VM",
        )


SPECS = (
    CommandSpec(
        name="vm.define",
        struct=DefineVm,
        decide=define_vm,
        action=Action.VM_DEFINE,
        path="/vms",
        cli=("vm", "define"),
        args=("name",),
        example={
            "name": "web01",
            "memory_mib": 2048,
            "vcpus": 2,
            "disks": [{"path": "/var/lib/libvirt/images/web01.raw"}],
        },
    ),
    CommandSpec(
        name="vm.modify",
        struct=ModifyVm,
        decide=modify_vm,
        action=Action.VM_DEFINE,
        method="PATCH",
        path="/vms/{vm}",
        cli=("vm", "modify"),
        args=("vm",),
        example={"vm": "web01", "memory_mib": 4096, "restart": True},
        outcomes=STARTS_WELL,
        begins=frozenset({e.VmRestartRequested.TYPE}),
    ),
    CommandSpec(
        name="vm.rename",
        struct=RenameVm,
        decide=rename_vm,
        action=Action.VM_CONFIGURE,
        path="/vms/{vm}/rename",
        cli=("vm", "rename"),
        args=("vm", "name"),
        example={"vm": "web01", "name": "web02"},
    ),
    CommandSpec(
        name="vm.remove",
        struct=RemoveVm,
        decide=remove_vm,
        action=Action.VM_CONFIGURE,
        method="DELETE",
        path="/vms/{vm}",
        cli=("vm", "remove"),
        args=("vm",),
        example={"vm": "web01"},
        confirm="Remove the definition of {vm}? Its disks are kept",
    ),
)
