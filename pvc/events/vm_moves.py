"""How VMs come from one node to another: migrations, moves at rest, and recoveries from a node that is lost."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct


class VmMigrationRequested(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The running VM is to go from `source` to `target`; the target has room reserved from here on."""

    TYPE: ClassVar[str] = "vm.migration_requested"
    vm: str
    migration: str
    """Names this attempt, so that a late report of an earlier one is known as such."""
    source: str
    target: str
    live: bool = True
    """Without a stop of the guest; else it is shut down at the source and started at the target."""
    fallback: bool = False
    """If it cannot be done live, shut down and start."""
    permanent: bool = False
    """The target becomes the VM's home."""
    max_downtime_ms: int = 300
    force_live: bool = False
    timeout_s: int = 90
    """For a shutdown: then the guest is forced off."""
    away: str = ""
    """Why it leaves its home: `migrate`, `flush` or `recovery`; empty when it comes home or the move is permanent."""
    reason: str = ""
    """Why, where it was not an admin's command about this VM."""
    why: tuple[str, ...] = ()
    """What the choice of the target rested on."""


class VmMigrationPrepared(Struct, frozen=True, kw_only=True, gc=False):
    """Fact: the target can take the VM, and expects it."""

    TYPE: ClassVar[str] = "vm.migration_prepared"
    vm: str
    node: str
    migration: str


class VmMigrationCancelRequested(Struct, frozen=True, kw_only=True, gc=False):
    """The migration under way is to be given up, if it is not too late."""

    TYPE: ClassVar[str] = "vm.migration_cancel_requested"
    vm: str
    migration: str


class VmMigrationFailed(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Fact: the VM did not go, and runs on at the source."""

    TYPE: ClassVar[str] = "vm.migration_failed"
    vm: str
    node: str
    migration: str
    code: str
    message: str


class VmMigrated(Struct, frozen=True, kw_only=True, gc=False):
    """Fact: the guest has left the source and stands still at the target, which may now let it run."""

    TYPE: ClassVar[str] = "vm.migrated"
    vm: str
    migration: str
    source: str
    target: str
    epoch: int


class VmArrived(Struct, frozen=True, kw_only=True, gc=False):
    """Fact: the guest runs on at the target."""

    TYPE: ClassVar[str] = "vm.arrived"
    vm: str
    node: str
    epoch: int


class VmRelocated(Struct, frozen=True, kw_only=True, gc=False):
    """The VM, shut down at the source, is to start at the target; `epoch` numbers that run."""

    TYPE: ClassVar[str] = "vm.relocated"
    vm: str
    migration: str
    source: str
    target: str
    epoch: int


class VmMoved(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A VM at rest belongs to another node."""

    TYPE: ClassVar[str] = "vm.moved"
    vm: str
    source: str
    target: str
    permanent: bool = False
    away: str = ""
    why: tuple[str, ...] = ()


class VmRecovered(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The VM's node is fenced, so it is to start elsewhere; `epoch` numbers that run."""

    TYPE: ClassVar[str] = "vm.recovered"
    vm: str
    source: str
    target: str
    epoch: int
    why: tuple[str, ...] = ()


class VmRecoveryDelayed(Struct, frozen=True, kw_only=True, gc=False):
    """The VM's node is fenced, but no other can take it; it is tried again when that changes."""

    TYPE: ClassVar[str] = "vm.recovery_delayed"
    vm: str
    reason: str
