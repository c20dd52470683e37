"""Ports of one life of a node: they do what the ports beneath them do, until the life ends; then nothing at all.

A life can be ended after any effect, as `kill -9` would: the effect has taken hold, and no line of the node's code that
comes after it has any effect any more, whatever its tasks still do while they are being cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from pvc.drivers.hypervisor import Console, Domain, Hypervisor, HypervisorInfo, MachineUsage, Transfer, always
from pvc.errors import OutcomeUnknown, Unavailable
from pvc.events.record import Entry, Head
from pvc.events.vm import VmSpec
from pvc.log.base import Log

MIDST_S = 0.3
"""After this long a migration is well under way, and not yet at its end."""


class Killed(BaseException):
    """The node's process is no more. Not an Exception: no handler of the node may survive it."""


class Life:
    """From a start of the daemon to its end."""

    def __init__(self, strikes: Callable[[str], bool]) -> None:
        self.dead = False
        self._strikes = strikes

    def check(self) -> None:
        """Raise Killed if this life is over."""
        if self.dead:
            raise Killed

    def effect(self, name: str) -> None:
        """An effect has taken hold; this may be the moment."""
        self.check()
        if self._strikes(name):
            self.dead = True
            raise Killed


class LogFaults:
    """Decides what goes wrong with an append; the simulation sets it."""

    def next_fault(self) -> str:
        """`""`, `unavailable`, `lost_request` or `lost_reply`."""
        return ""


class MortalLog:
    """The shared log as one life of the node reaches it."""

    def __init__(self, log: Log, life: Life, faults: LogFaults) -> None:
        self._log = log
        self._life = life
        self._faults = faults

    async def head(self) -> Head:
        """The head."""
        self._life.check()
        return await self._log.head()

    async def append(self, entries: Sequence[Entry], *, after: Head) -> Head:
        """Append, unless a fault comes in between; afterwards the life may end."""
        self._life.check()
        fault = self._faults.next_fault()
        if fault == "unavailable":
            raise Unavailable("the log does not answer")
        if fault == "lost_request":
            raise OutcomeUnknown("no reply")
        head = await self._log.append(entries, after=after)
        self._life.effect("append")
        if fault == "lost_reply":
            raise OutcomeUnknown("no reply")
        return head

    async def read(self, first: int, limit: int) -> list[bytes]:
        """Read."""
        self._life.check()
        return await self._log.read(first, limit)

    async def follow(self, after: int) -> AsyncIterator[list[bytes]]:
        """Follow."""
        async for batch in self._log.follow(after):
            self._life.check()
            yield batch

    async def close(self) -> None:
        """The log beneath goes on."""


class MortalHypervisor:
    """The machine's hypervisor as one life of the node reaches it."""

    def __init__(self, hypervisor: Hypervisor, life: Life) -> None:
        self._hypervisor = hypervisor
        self._life = life

    async def info(self) -> HypervisorInfo:
        """Capacity."""
        self._life.check()
        return await self._hypervisor.info()

    async def list_domains(self) -> list[Domain]:
        """All domains."""
        self._life.check()
        return await self._hypervisor.list_domains()

    async def get_domain(self, vm: str) -> Domain | None:
        """One domain."""
        self._life.check()
        return await self._hypervisor.get_domain(vm)

    async def define(self, vm: str, name: str, spec: VmSpec, *, epoch: int) -> None:
        """Define, then perhaps die."""
        self._life.check()
        await self._hypervisor.define(vm, name, spec, epoch=epoch)
        self._life.effect("define")

    async def start(self, vm: str, *, may_run: Callable[[], bool] = always) -> None:
        """Start, then perhaps die."""
        self._life.check()
        await self._hypervisor.start(vm, may_run=may_run)
        self._life.effect("start")

    async def shutdown(self, vm: str) -> None:
        """Press the power button, then perhaps die."""
        self._life.check()
        await self._hypervisor.shutdown(vm)
        self._life.effect("shutdown")

    async def destroy(self, vm: str) -> None:
        """Force off, then perhaps die."""
        self._life.check()
        await self._hypervisor.destroy(vm)
        self._life.effect("destroy")

    async def reset(self, vm: str, *, mark: str) -> None:
        """Reset, then perhaps die."""
        self._life.check()
        await self._hypervisor.reset(vm, mark=mark)
        self._life.effect("reset")

    async def forget(self, vm: str) -> None:
        """Undefine, then perhaps die."""
        self._life.check()
        await self._hypervisor.forget(vm)
        self._life.effect("forget")

    async def migrate(self, vm: str, *, epoch: int, target: str, max_downtime_ms: int, force: bool) -> None:
        """Migrate; this life may end in the midst of it, or right after it, while the migration goes on."""
        self._life.check()
        migrating = asyncio.ensure_future(
            self._hypervisor.migrate(vm, epoch=epoch, target=target, max_downtime_ms=max_downtime_ms, force=force)
        )
        try:
            await asyncio.wait({migrating}, timeout=MIDST_S)
            if not migrating.done():
                self._life.effect("migrate_begun")
            await migrating
        finally:
            migrating.cancel()
        self._life.effect("migrate")

    async def cancel_migration(self, vm: str) -> None:
        """Cancel, then perhaps die."""
        self._life.check()
        await self._hypervisor.cancel_migration(vm)
        self._life.effect("cancel_migration")

    async def transfer(self, vm: str) -> Transfer | None:
        """Progress."""
        self._life.check()
        return await self._hypervisor.transfer(vm)

    async def usage(self) -> MachineUsage:
        """Usage."""
        self._life.check()
        return await self._hypervisor.usage()

    async def events(self) -> AsyncIterator[str]:
        """Hints."""
        async for vm in self._hypervisor.events():
            self._life.check()
            yield vm

    async def open_console(self, vm: str) -> Console:
        """The console."""
        self._life.check()
        return await self._hypervisor.open_console(vm)

    def console_log(self, vm: str) -> Path:
        """The console's file."""
        return self._hypervisor.console_log(vm)

    async def close(self) -> None:
        """The hypervisor beneath goes on."""
