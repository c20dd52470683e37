"""What a reader is shown of VMs: flat structs, made one object at a time. Nodes and the cluster: `cluster_views`.

What is measured and not folded (`usage`, `progress`) is left empty here, for whoever has it to fill in.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from pvc.events.types import EndPolicy, MigrationMethod, Selector
from pvc.events.vm import VmSpec
from pvc.projections.state import Migration, Vm
from pvc.projections.vm_machine import VmState


class TagView(msgspec.Struct, frozen=True, kw_only=True):
    """A tag of a VM."""

    tag: str
    protected: bool


class VmUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What a VM was measured to use, some seconds ago."""

    cpu_per_cent: Annotated[float, Meta(description="Of one processor.")]
    memory_used_mib: Annotated[int, Meta(description="Of its node's memory.")]


class MigrationProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a live migration has come, a second ago."""

    per_cent: float
    total_bytes: int
    remaining_bytes: int
    seconds: float


class MigrationView(msgspec.Struct, frozen=True, kw_only=True):
    """A VM's way to another node, under way."""

    source: str
    target: str
    live: Annotated[bool, Meta(description="Without a stop of the guest; else it is shut down and started there.")]
    permanent: Annotated[bool, Meta(description="The target becomes its home.")]
    prepared: Annotated[bool, Meta(description="The target expects it.")]
    cancel: Annotated[bool, Meta(description="It is being given up.")]
    reason: Annotated[str, Meta(description="Why, where it was not a command about this VM.")]
    why: Annotated[list[str], Meta(description="What the choice of the target rested on.")]
    since_us: int
    progress: Annotated[
        MigrationProgress | None, Meta(description="Null before the transfer has begun, and where nothing is heard.")
    ] = None


class VmRow(msgspec.Struct, frozen=True, kw_only=True):
    """A VM in a list."""

    name: str
    id: str
    state: VmState
    node: str
    home: str
    away: Annotated[str, Meta(description="Why it is not at home: `migrate`, `flush` or `recovery`; empty if it is.")]
    target: Annotated[str, Meta(description="The node it migrates to; empty when it does not.")]
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
    away: Annotated[str, Meta(description="Why it is not at home: `migrate`, `flush` or `recovery`; empty if it is.")]
    why: Annotated[list[str], Meta(description="What the choice of its present node rested on.")]
    migration: Annotated[MigrationView | None, Meta(description="Null when it does not migrate.")]
    description: str
    spec: VmSpec
    restart_required: Annotated[
        list[str], Meta(description="Fields of the spec that the running VM gets only with its next start.")
    ]
    selector: Selector
    node_limits: list[str]
    affinity: list[str]
    anti_affinity: list[str]
    priority: int
    migration_method: MigrationMethod
    max_downtime_ms: int
    autostart: bool
    on_poweroff: EndPolicy
    on_crash: EndPolicy
    tags: list[TagView]
    epoch: Annotated[int, Meta(description="Number of the present or last run.")]
    defined_us: int
    changed_us: Annotated[int, Meta(description="When the state last changed.")]
    position: Annotated[int, Meta(description="The last record that touched the VM.")]
    usage: Annotated[VmUsage | None, Meta(description="Null when it does not run, or nothing is heard of its node.")]


def vm_row(vm: Vm) -> VmRow:
    """A VM for a list."""
    return VmRow(
        name=vm.name,
        id=vm.id,
        state=vm.state,
        node=vm.node,
        home=vm.home,
        away=vm.away,
        target=vm.migration.target if vm.migration is not None else "",
        memory_mib=vm.spec.memory_mib,
        vcpus=vm.spec.vcpus,
        tags=sorted(vm.tags),
        autostart=vm.autostart,
        restart_required=vm.running_spec is not None and vm.running_spec != vm.spec,
        description=vm.description,
    )


def vm_info(vm: Vm, *, usage: VmUsage | None = None, progress: MigrationProgress | None = None) -> VmInfo:
    """A VM in full."""
    return VmInfo(
        name=vm.name,
        id=vm.id,
        state=vm.state,
        error=vm.error,
        node=vm.node,
        home=vm.home,
        away=vm.away,
        why=list(vm.why),
        migration=_migration(vm.migration, progress) if vm.migration is not None else None,
        description=vm.description,
        spec=vm.spec,
        restart_required=list(spec_differences(vm.running_spec, vm.spec)),
        selector=vm.selector,
        node_limits=list(vm.node_limits),
        affinity=list(vm.affinity),
        anti_affinity=list(vm.anti_affinity),
        priority=vm.priority,
        migration_method=vm.migration_method,
        max_downtime_ms=vm.max_downtime_ms,
        autostart=vm.autostart,
        on_poweroff=vm.on_poweroff,
        on_crash=vm.on_crash,
        tags=[TagView(tag=tag, protected=held) for tag, held in sorted(vm.tags.items())],
        epoch=vm.epoch,
        defined_us=vm.defined_us,
        changed_us=vm.changed_us,
        position=vm.position,
        usage=usage,
    )


def spec_differences(running: VmSpec | None, wanted: VmSpec) -> tuple[str, ...]:
    """The names of the spec's fields that a running VM will only get with its next start."""
    if running is None or running == wanted:
        return ()
    fields = VmSpec.__struct_fields__
    return tuple(field for field in fields if getattr(running, field) != getattr(wanted, field))


def _migration(move: Migration, progress: MigrationProgress | None) -> MigrationView:
    return MigrationView(
        source=move.source,
        target=move.target,
        live=move.live,
        permanent=move.permanent,
        prepared=move.prepared,
        cancel=move.cancel,
        reason=move.reason,
        why=list(move.why),
        since_us=move.since_us,
        progress=progress,
    )
