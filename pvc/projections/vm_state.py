"""A VM as the state has it, and what it takes of nodes."""

from __future__ import annotations

import msgspec

from pvc.events.types import EndPolicy, MigrationMethod, Selector, ShutdownTimeoutAction
from pvc.events.vm import VmSpec
from pvc.projections.placed import Load
from pvc.projections.vm_machine import ACTIVE, VmState


class Migration(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A VM's way from one node to another, under way."""

    id: str
    source: str
    target: str
    live: bool
    fallback: bool
    permanent: bool
    max_downtime_ms: int
    force_live: bool
    timeout_s: int
    away: str
    reason: str
    why: tuple[str, ...]
    prepared: bool = False
    """The target expects it."""
    cancel: bool = False
    since_us: int = 0
    """When it was asked for."""


class Vm(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A VM: what it is, what is wanted of it, and what was last heard of it."""

    id: str
    name: str
    spec: VmSpec
    node: str
    """The node that runs it."""
    home: str
    """The node it belongs to when nothing forces it elsewhere."""
    description: str
    selector: Selector
    node_limits: tuple[str, ...]
    migration_method: MigrationMethod
    autostart: bool
    on_poweroff: EndPolicy
    on_crash: EndPolicy
    tags: dict[str, bool]
    """Tag -> whether it is protected. Never changed in place."""
    max_downtime_ms: int = 300
    priority: int = 50
    affinity: tuple[str, ...] = ()
    anti_affinity: tuple[str, ...] = ()
    state: VmState = VmState.STOPPED
    epoch: int = 0
    """Number of the present (or last) run; 0 before the first."""
    running_spec: VmSpec | None = None
    """The spec the present run was started with."""
    shutdown_timeout_s: int = 0
    shutdown_action: ShutdownTimeoutAction = ShutdownTimeoutAction.FORCE
    forced: bool = False
    """The present request's shutdown timed out; the run is to be forced off."""
    reset_mark: str = ""
    cause: str = ""
    """Id of the record with the latest request; the facts that answer it name it as their cause."""
    error: str = ""
    """Why it failed, while it is failed."""
    migration: Migration | None = None
    """While it migrates, and until it has arrived."""
    away: str = ""
    """Why it is not at home: `migrate`, `flush` or `recovery`."""
    failed_moves: int = 0
    """Migrations that failed since the last one that did not, or that an admin asked for."""
    why: tuple[str, ...] = ()
    """What the choice of its present node rested on."""
    endings_us: tuple[int, ...] = ()
    """When it ended lately against its policy: the budget of starts that nobody asked for."""
    defined_us: int = 0
    changed_us: int = 0
    """When its state last changed."""
    position: int = 0  # the last record that touched it


def held_mib(vm: Vm) -> int:
    """The memory that an active VM takes of its node; a restart keeps room for the run to come as well."""
    running_mib = (vm.running_spec or vm.spec).memory_mib
    return max(running_mib, vm.spec.memory_mib) if vm.state is VmState.RESTARTING else running_mib


def arrival_mib(vm: Vm, move: Migration) -> int:
    """The memory that the target keeps for a VM; one that may be shut down would start with its newest spec."""
    return held_mib(vm) if move.live and not move.fallback else max(held_mib(vm), vm.spec.memory_mib)


def takes_the_same(old: Vm, new: Vm) -> bool:
    """Whether the change is none to where the VM is and what it takes there, which it is for most."""
    if (old.node, old.home) != (new.node, new.home):
        return False
    if old.migration is not new.migration or old.tags is not new.tags:
        return False
    if old.spec is not new.spec:
        return False
    if old.state not in ACTIVE:
        return new.state not in ACTIVE
    if old.state is VmState.RESTARTING or new.state is VmState.RESTARTING:
        return False
    return new.state in ACTIVE and (old.running_spec or old.spec) is (new.running_spec or new.spec)


def shares_of(vm: Vm) -> list[tuple[str, Load]]:
    """What the VM takes of which node."""
    provisioned_mib = vm.spec.memory_mib
    if vm.state not in ACTIVE:
        return [(vm.node, Load(vms=1, provisioned_mib=provisioned_mib))]
    vcpus = (vm.running_spec or vm.spec).vcpus
    own = Load(memory_mib=held_mib(vm), vcpus=vcpus, running=1, vms=1, provisioned_mib=provisioned_mib)
    move = vm.migration
    if move is None or move.target == vm.node:
        return [(vm.node, own)]
    return [(vm.node, own), (move.target, Load(memory_mib=arrival_mib(vm, move), vcpus=vcpus))]
