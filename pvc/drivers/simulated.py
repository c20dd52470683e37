"""The simulated twin: domains that run in the mind only, on whatever event loop (and so on whatever time) there is.

The object stands for the machine, not for a connection to it: it is handed to one node after another, and its
domains live on between them, as they do when a real daemon restarts. `close` ends only what that node had open.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from pvc.clock import Rng
from pvc.drivers.hypervisor import (
    Domain,
    GuestUsage,
    HypervisorInfo,
    MachineUsage,
    OffReason,
    Transfer,
    always,
    too_late,
)
from pvc.drivers.simulated_domains import Kept, SimulatedDomains
from pvc.drivers.simulated_guest import SimulatedConsole
from pvc.drivers.simulated_network import SimulatedMigration, SimulatedNetwork
from pvc.errors import DriverError, NotFound, PvcError, Unavailable
from pvc.events.vm import VmSpec

HOST_MEMORY_MIB = 512
"""What the machine itself uses."""
EFFECTS = ("define", "start", "resume", "shutdown", "destroy", "reset", "forget", "migrate", "cancel_migration")
"""What `after_effect` is called with, once the effect has taken hold."""
_VERSION = "simulated"


class SimulatedHypervisor(SimulatedDomains):
    """A machine with simulated domains.

    `behaviours` says how the guest of a VM behaves, by VM id (`default_behaviour` for all others); tests change it at
    any time. `delay_s` makes every call slow, `jitter_s` adds a random part drawn from `rng`. `unavailable = True`
    makes every call raise Unavailable. `after_effect` is called with the effect's name right after it took hold,
    and may raise, as a killed daemon would see nothing of what followed. Guests write their console to files in
    `console_dir` if there is one; `state_file` keeps the domains over the end of this process. Guests migrate to
    the hypervisors of the same `network`, where this one has `address`.
    """

    def __init__(
        self,
        *,
        memory_mib: int = 16_384,
        vcpus: int = 16,
        rng: Rng | None = None,
        delay_s: float = 0.0,
        jitter_s: float = 0.0,
        console_dir: Path | None = None,
        state_file: Path | None = None,
        after_effect: Callable[[str], None] | None = None,
        network: SimulatedNetwork | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        super().__init__(
            console_dir=console_dir,
            state_file=state_file,
            network=network or SimulatedNetwork(),
            address=address,
        )
        self.delay_s = delay_s
        self.jitter_s = jitter_s
        self.after_effect = after_effect
        self.effects: list[tuple[str, str]] = []
        """Every (effect, VM id) that took hold, in order."""
        self._memory_mib = memory_mib
        self._vcpus = vcpus
        self._rng = rng

    async def info(self) -> HypervisorInfo:
        """The capacity it was made with."""
        await self._reach()
        return HypervisorInfo(memory_mib=self._memory_mib, vcpus=self._vcpus, accelerator="simulated", version=_VERSION)

    async def list_domains(self) -> list[Domain]:
        """All domains."""
        await self._reach()
        return [self._domain(kept) for kept in self._domains.values()]

    async def get_domain(self, vm: str) -> Domain | None:
        """One domain."""
        await self._reach()
        kept = self._domains.get(vm)
        return self._domain(kept) if kept else None

    async def define(self, vm: str, name: str, spec: VmSpec, *, epoch: int) -> None:
        """Make the domain known, off."""
        await self._reach()
        kept = self._domains.get(vm)
        if kept and kept.running:
            return
        if refusal := self._behaviour(vm).refuses_define:
            raise DriverError(refusal, code="hypervisor.define_failed")
        self._domains[vm] = Kept(vm=vm, name=name, epoch=epoch, spec=spec)
        self._done("define", vm)

    async def start(self, vm: str, *, may_run: Callable[[], bool] = always) -> None:
        """Start a defined domain."""
        await self._reach()
        if not may_run():
            raise too_late(vm)
        kept = self._domains.get(vm)
        if kept is None:
            raise DriverError(f"there is no domain of VM {vm}", code="hypervisor.no_domain", hint="define it first")
        if kept.incoming:
            raise Unavailable(
                f"VM {vm} is still arriving", code="hypervisor.busy", hint="wait until it is there, or destroy it"
            )
        if kept.paused and vm not in self._migrations:
            self.run_on(vm)
            self._done("resume", vm)
        if kept.running:
            return
        if refusal := self._behaviour(vm).refuses_start:
            raise DriverError(refusal, code="hypervisor.start_failed")
        kept.running, kept.started, kept.reason = True, True, None
        kept.beats, kept.uptime_s = 0, 0.0
        self._breathe(kept)
        self._done("start", vm)

    async def shutdown(self, vm: str) -> None:
        """Press the power button."""
        await self._reach()
        guest = self._guests.get(vm)
        if guest:
            guest.press_power_button()
            self._done("shutdown", vm)

    async def destroy(self, vm: str) -> None:
        """Force the domain off."""
        await self._reach()
        kept = self._domains.get(vm)
        if kept and kept.incoming:
            self.give_up(vm)
            self._network.refused(vm, self)
            self._done("destroy", vm)
        elif vm in self._guests:
            self._end(vm, OffReason.DESTROYED)
            self._done("destroy", vm)

    async def reset(self, vm: str, *, mark: str) -> None:
        """Press the reset button, once per mark."""
        await self._reach()
        kept = self._domains.get(vm)
        if kept is None or vm not in self._guests or kept.reset_mark == mark:
            return
        kept.reset_mark = mark
        self._guests[vm].reboot()
        self._done("reset", vm)

    async def forget(self, vm: str) -> None:
        """Drop a domain that is off."""
        await self._reach()
        kept = self._domains.get(vm)
        if kept and not kept.running:
            del self._domains[vm]
            self._done("forget", vm)

    async def migrate(self, vm: str, *, epoch: int, target: str, max_downtime_ms: int, force: bool) -> None:
        """Send the guest over the network, or join who does."""
        await self._reach()
        migration = self._migrations.get(vm) or self._begin(vm, epoch, target, max_downtime_ms / 1000, force)
        if migration is None:
            return
        await migration.wait()
        self._strike("migrate")

    async def cancel_migration(self, vm: str) -> None:
        """The guest stays, unless it has gone."""
        await self._reach()
        migration = self._migrations.get(vm)
        if migration is None:
            return
        migration.interrupt(
            DriverError(f"the migration of VM {vm} was cancelled", code="hypervisor.migration_cancelled")
        )
        with contextlib.suppress(PvcError):
            await migration.wait()
        self._done("cancel_migration", vm)

    async def transfer(self, vm: str) -> Transfer | None:
        """Computed from the time."""
        await self._reach()
        migration = self._migrations.get(vm)
        return migration.transfer() if migration else None

    async def usage(self) -> MachineUsage:
        """As much as the guests' behaviours say."""
        await self._reach()
        guests, busy, used_mib = [], 0.0, HOST_MEMORY_MIB
        for vm, kept in self._domains.items():
            if not kept.running:
                continue
            load = self._behaviour(vm).cpu_load * kept.spec.vcpus
            guest = self._guests.get(vm)
            seconds = load * guest.uptime_s if guest else 0.0
            guests.append(GuestUsage(vm=vm, cpu_seconds=seconds, memory_used_mib=kept.spec.memory_mib))
            used_mib += kept.spec.memory_mib
            busy += 0.0 if kept.paused else load
        return MachineUsage(
            cpu_per_cent=min(100.0, 100 * busy / self._vcpus),
            memory_used_mib=used_mib,
            memory_free_mib=max(0, self._memory_mib - used_mib),
            load1=busy,
            guests=tuple(guests),
        )

    async def events(self) -> AsyncIterator[str]:
        """Ids of VMs whose domain changed, to every listener."""
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue)

    async def open_console(self, vm: str) -> SimulatedConsole:
        """Attach to a running guest."""
        await self._reach()
        guest = self._guests.get(vm)
        if guest is None:
            raise NotFound(f"VM {vm} is not running here", code="hypervisor.not_running", hint="start it first")
        return guest.attach()

    def console_log(self, vm: str) -> Path:
        """The file of what the guest wrote; never there without a `console_dir`."""
        return (self._console_dir or Path("/nonexistent")) / f"{vm}.log"

    async def close(self) -> None:
        """Detach every console, and let guests rest that only the state file can carry on. Domains go on."""
        for guest in self._guests.values():
            guest.detach_all()
        if self._state_file is not None:
            for vm, migration in list(self._migrations.items()):
                migration.interrupt(
                    DriverError(f"the machine of VM {vm} is put away", code="hypervisor.migration_failed")
                )
                with contextlib.suppress(PvcError):
                    await migration.wait()
            for guest in self._guests.values():
                guest.stop()
            self._save()
            self._guests.clear()
            self._restored = False

    async def _reach(self) -> None:
        """What every call goes through first: the way there takes time and may fail."""
        jitter = self.jitter_s * self._rng.random() if self._rng and self.jitter_s else 0.0
        await asyncio.sleep(self.delay_s + jitter)
        if self.unavailable:
            raise Unavailable(
                "the simulated hypervisor does not answer", code="hypervisor.unavailable", hint="it will be tried again"
            )
        if not self._restored:
            self._restore()
            self._restored = True

    def _begin(self, vm: str, epoch: int, target: str, downtime_s: float, force: bool) -> SimulatedMigration | None:
        """Send the guest on its way; None when it has gone already."""
        kept = self._domains.get(vm)
        if kept is None:
            raise DriverError(f"there is no domain of VM {vm}", code="hypervisor.no_domain")
        if kept.epoch != epoch:
            raise DriverError(f"that run of VM {vm} has ended", code="hypervisor.migration_failed")
        if not kept.running and kept.reason is OffReason.MIGRATED:
            return None
        if vm not in self._guests:
            raise DriverError(f"VM {vm} does not run here", code="hypervisor.migration_failed")
        if kept.leaving:
            # Nobody heard how the last one ended. It did not for us, so the guest has not moved.
            self.run_on(vm)
            raise DriverError(f"the migration of VM {vm} broke off", code="hypervisor.migration_failed")
        behaviour = self._behaviour(vm)
        if behaviour.refuses_migration:
            raise DriverError(behaviour.refuses_migration, code="hypervisor.migration_refused")
        kept.leaving = True
        migration = self._migrations[vm] = SimulatedMigration(
            self._network,
            vm,
            self,
            target,
            memory_mib=kept.spec.memory_mib,
            downtime_s=downtime_s,
            force=force,
            restless=behaviour.restless,
            ended=lambda: self._migration_ended(vm),
        )
        self._save()
        self._tell(vm)
        return migration

    def _migration_ended(self, vm: str) -> None:
        del self._migrations[vm]
        kept = self._domains.get(vm)
        if kept and not kept.running and kept.reason is OffReason.MIGRATED:
            self.effects.append(("migrate", vm))
        self._tell(vm)

    def _done(self, effect: str, vm: str) -> None:
        """An effect has taken hold: keep it, tell of it, and only then give the simulator its chance to strike."""
        self.effects.append((effect, vm))
        self._save()
        self._tell(vm)
        self._strike(effect)

    def _strike(self, effect: str) -> None:
        if self.after_effect is not None:
            self.after_effect(effect)
