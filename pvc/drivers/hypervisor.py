"""The Hypervisor protocol: what the VM handler needs of a machine that runs VMs. Twins: libvirt and simulated.

Every call is idempotent. A domain is PVC's only if it carries PVC's metadata (VM id and epoch); all others are
invisible here and never touched. A domain that ended stays listed as `off`, with the reason, until `forget`:
so the fact how it ended survives a restart of the daemon.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import msgspec

from pvc.events.vm import VmSpec


class DomainState(StrEnum):
    """What the hypervisor says of a domain."""

    RUNNING = "running"
    PAUSED = "paused"
    """Somebody, or a full disk beneath it, stopped the guest for the time being."""
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


class HypervisorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine can run."""

    memory_mib: int
    vcpus: int
    accelerator: str
    """`kvm`, `tcg` or `simulated`."""
    version: str


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
        """Make the domain known, off, never ran. Replaces an off domain of the same VM and its past; leaves a running
        one alone. Raises DriverError when the hypervisor refuses the definition."""
        ...

    async def start(self, vm: str) -> None:
        """Start a defined domain; let a paused one run on. Raises DriverError with the hypervisor's reason when it
        cannot (the domain then still counts as one that never ran), and `hypervisor.no_domain` when there is none."""
        ...

    async def shutdown(self, vm: str) -> None:
        """Ask the guest to power off (ACPI). Returns at once; the guest may ignore it."""
        ...

    async def destroy(self, vm: str) -> None:
        """Force the domain off, now."""
        ...

    async def reset(self, vm: str, *, mark: str) -> None:
        """Press the reset button, then remember `mark` in the domain; nothing happens if the mark is there already."""
        ...

    async def forget(self, vm: str) -> None:
        """Undefine a domain that is off; a running one is left alone."""
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
