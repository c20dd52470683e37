"""The Hypervisor protocol: what the VM handler needs of a machine that runs VMs. Twins: libvirt and simulated.

Every call is idempotent. A domain is PVC's only if it carries PVC's metadata (VM id and epoch); all others are
invisible here and never touched. A domain that ended stays listed as `off`, with the reason, until `forget`:
so the fact how it ended survives a restart of the daemon.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import msgspec

from pvc.errors import Unavailable
from pvc.events.vm import VmSpec


class DomainState(StrEnum):
    """What the hypervisor says of a domain."""

    RUNNING = "running"
    PAUSED = "paused"
    """Somebody, or a full disk beneath it, stopped the guest for the time being; or it has arrived from another
    hypervisor and waits for `start`."""
    INCOMING = "incoming"
    """A guest is arriving here from another hypervisor; it does not run yet, and may never."""
    OFF = "off"


class OffReason(StrEnum):
    """Why a domain is off."""

    GUEST = "guest"
    """The guest powered itself off (by itself, or because it was asked to)."""
    DESTROYED = "destroyed"
    """It was forced off, by PVC or behind its back."""
    CRASHED = "crashed"
    """The guest panicked, or its QEMU process died."""
    NEVER_RAN = "never_ran"
    """It was defined but not started (the daemon died between the two steps)."""
    MIGRATED = "migrated"
    """The guest has gone to another hypervisor; this is the end of the source's copy."""
    UNKNOWN = "unknown"
    """The hypervisor cannot tell (the machine itself went down meanwhile, or nothing kept the reason)."""


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    """One of PVC's domains as the hypervisor has it."""

    vm: str
    """The VM's id (a UUID), also the domain's UUID."""
    name: str
    epoch: int
    """The run of the VM that this domain is; counted up by every start in the log."""
    state: DomainState
    reason: OffReason | None = None
    """Set when `state` is off."""
    reset_mark: str = ""
    """The mark given to the last completed `reset`."""
    migrating: bool = False
    """It runs here and is on its way to another hypervisor."""


class HypervisorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine can run."""

    memory_mib: int
    vcpus: int
    accelerator: str
    """`kvm`, `tcg` or `simulated`."""
    version: str


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """How far the migration of a guest has come. A busy guest writes to its memory, and what it writes is to be sent
    once more: so what remains may grow again."""

    total_bytes: int
    """The guest's memory; 0 when it is not known yet."""
    remaining_bytes: int
    seconds: float
    """Since it began."""

    @property
    def per_cent(self) -> float:
        """0 to 100."""
        return 100.0 * (1 - self.remaining_bytes / self.total_bytes) if self.total_bytes else 0.0


class GuestUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What one guest uses."""

    vm: str
    cpu_seconds: float
    """Of all its CPUs together, since it started on this machine; only differences mean something."""
    memory_used_mib: int
    """What it takes of the machine's memory now, which is less than it was given until it has touched it all."""
    disk_read_bytes: int = 0
    """Of all its disks together; these four since it started on this machine, like `cpu_seconds`."""
    disk_written_bytes: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0


class MachineUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What is used of the machine, and by whom."""

    cpu_per_cent: float
    """Of all CPUs together, 0 to 100, since `usage` was last asked (the first time: since the machine came up)."""
    memory_used_mib: int
    memory_free_mib: int
    """What could still be given to guests: what caches hold counts as free."""
    load1: float
    """The load average over one minute."""
    guests: tuple[GuestUsage, ...]
    """PVC's guests that have a process here, paused and arriving ones too."""


def always() -> bool:
    """The permission of a guest to run where there is nobody to ask for it."""
    return True


def too_late(vm: str) -> Unavailable:
    """What a start gets whose permission has ended before the guest ran."""
    return Unavailable(
        f"VM {vm} may not be started here any more",
        code="hypervisor.too_late",
        hint="it is tried again as soon as this node is sure of its place in the cluster",
    )


class Console(Protocol):
    """A live serial console: bytes in, bytes out."""

    async def read(self) -> bytes:
        """The next bytes the guest wrote; empty when the console is gone."""
        ...

    async def write(self, data: bytes) -> None:
        """Type `data`."""
        ...

    async def close(self) -> None:
        """Detach; the guest goes on."""
        ...


class Hypervisor(Protocol):
    """Runs domains. Raises Unavailable when the hypervisor does not answer (try again later), DriverError when a
    call failed for good. Calls about a domain that does not exist, or is already so, succeed quietly."""

    async def info(self) -> HypervisorInfo:
        """The machine's capacity and accelerator."""
        ...

    async def list_domains(self) -> list[Domain]:
        """All of PVC's domains, off ones too."""
        ...

    async def get_domain(self, vm: str) -> Domain | None:
        """One domain; None when there is none, or it is not PVC's."""
        ...

    async def define(self, vm: str, name: str, spec: VmSpec, *, epoch: int) -> None:
        """Make the domain known, off, never ran. Replaces an off domain of the same VM and its past; leaves a running,
        paused or incoming one alone. Raises DriverError when the hypervisor refuses the definition."""
        ...

    async def start(self, vm: str, *, may_run: Callable[[], bool] = always) -> None:
        """Start a defined domain; let a paused one run on. Raises DriverError with the hypervisor's reason when it
        cannot (the domain then still counts as one that never ran), and `hypervisor.no_domain` when there is none;
        Unavailable while the guest is still arriving.

        `may_run` is asked last of all, in whatever thread, right before the guest begins to run: a start may hang for
        long, and its permission end meanwhile. Then Unavailable (`hypervisor.too_late`), and the guest does not run.
        """
        ...

    async def shutdown(self, vm: str) -> None:
        """Ask the guest to power off (ACPI). Returns at once; the guest may ignore it."""
        ...

    async def destroy(self, vm: str) -> None:
        """Force the domain off, now. An incoming one vanishes, and the guest goes on where it comes from."""
        ...

    async def reset(self, vm: str, *, mark: str) -> None:
        """Press the reset button, then remember `mark` in the domain; nothing happens if the mark is there already."""
        ...

    async def forget(self, vm: str) -> None:
        """Undefine a domain that is off; any other is left alone."""
        ...

    async def migrate(self, vm: str, *, epoch: int, target: str, max_downtime_ms: int, force: bool) -> None:
        """Move the running guest, if it is of this run, to the hypervisor on the host `target` (its address), where it
        is left PAUSED with the same name, epoch and mark, until `start` there; return when that is complete. The domain
        here is then OFF with reason MIGRATED, and stays until `forget`.

        The guest stands still for about `max_downtime_ms`. One that changes its memory faster than it can be sent
        never gets there, unless with `force`: then it is slowed down, and at last may stand still for longer.

        A migration goes on without who asked for it, also when this daemon dies: if one is under way for this VM,
        this call waits for its end, whatever the arguments. One that waits for its turn is given up for one with other
        arguments. A domain of this run that is OFF and MIGRATED already is a success; another run is never moved.
        Raises DriverError: the guest is still here, and runs (unless it has ended meanwhile, as `get_domain` tells):
        - `hypervisor.migration_refused`: it cannot be moved live (local disks, a CPU the target lacks, a PCI device);
        - `hypervisor.migration_cancelled`: by `cancel_migration`;
        - `hypervisor.migration_failed`: all else. The target may then hold a complete copy, PAUSED: it must be
          destroyed, never started, for only this side tells whether the guest has moved;
        - `hypervisor.no_domain`: there is none here.
        Raises Unavailable when it cannot be told how it ended, or whether it has: ask again."""
        ...

    async def cancel_migration(self, vm: str) -> None:
        """Give up the migration under way from here, or waiting for its turn; quietly nothing when there is none, or it
        is too late. Returns when the guest certainly stays, or has gone."""
        ...

    async def transfer(self, vm: str) -> Transfer | None:
        """How far the migration under way from here has come; None when there is none."""
        ...

    async def usage(self) -> MachineUsage:
        """What the machine and its guests use now; cheap, whatever their number."""
        ...

    def events(self) -> AsyncIterator[str]:
        """Ids of VMs whose domain changed, as hints that may be late, doubled or missing; "" means "look at all"."""
        ...

    async def open_console(self, vm: str) -> Console:
        """Attach to the serial console; who attached before may lose it. Raises NotFound when the domain is off."""
        ...

    def console_log(self, vm: str) -> Path:
        """The file that keeps what the guest wrote to its serial console (it may not exist yet)."""
        ...

    async def close(self) -> None:
        """Release the connection; domains go on."""
        ...
