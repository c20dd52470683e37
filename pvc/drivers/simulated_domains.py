"""The machine beneath the simulated hypervisor: its domains and their guests, kept in memory or in a file, and what
happens to them from outside: they end, they arrive from another machine, the power fails.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec

from pvc.drivers.hypervisor import Domain, DomainState, OffReason
from pvc.drivers.simulated_guest import Behaviour, SimulatedGuest
from pvc.drivers.simulated_network import Side, SimulatedMigration, SimulatedNetwork
from pvc.errors import DriverError
from pvc.events.vm import VmSpec


class Kept(msgspec.Struct):
    """A domain as it is kept, in memory and in the state file."""

    vm: str
    name: str
    epoch: int
    spec: VmSpec
    running: bool = False
    """It has a process, so to speak: it runs, or is paused, or is arriving."""
    paused: bool = False
    incoming: bool = False
    leaving: bool = False
    """A migration from here has begun, and its end was not heard of."""
    started: bool = False
    reason: OffReason | None = None
    reset_mark: str = ""
    beats: int = 0
    uptime_s: float = 0.0


class SimulatedDomains:
    """What a machine holds. The public methods are what only tests, the simulator and other machines do to it."""

    def __init__(
        self, *, console_dir: Path | None, state_file: Path | None, network: SimulatedNetwork, address: str
    ) -> None:
        self.behaviours: dict[str, Behaviour] = {}
        self.default_behaviour = Behaviour()
        self.unavailable = False
        self.address = address
        self.powered = True
        self._console_dir = console_dir
        self._state_file = state_file
        self._restored = state_file is None
        self._domains: dict[str, Kept] = {}
        self._guests: dict[str, SimulatedGuest] = {}
        """The guests of the domains that are running or paused; one that is arriving is none yet."""
        self._migrations: dict[str, SimulatedMigration] = {}
        """Those under way from here."""
        self._listeners: set[asyncio.Queue[str]] = set()
        self._network = network
        network.join(self)

    def end_behind_our_back(self, vm: str, reason: OffReason) -> None:
        """The guest ends as if by its own doing, a crash or somebody's `virsh destroy`. Quiet when it is off."""
        if vm in self._guests:
            self._end(vm, reason)

    def lose_connection(self) -> None:
        """From now on every call raises Unavailable; guests go on."""
        self.unavailable = True

    def regain_connection(self) -> None:
        """Calls work again; listeners are told to look at everything."""
        self.unavailable = False
        self._tell("")

    def lose_power(self) -> None:
        """The machine goes down: no guest survives, nothing answers, and nothing is left that knows how they ended."""
        self.powered, self.unavailable = False, True
        for vm in list(self._guests):
            self._end(vm, OffReason.UNKNOWN)
        for vm in list(self._domains):
            self.give_up(vm)
        self._network.changed()

    def regain_power(self) -> None:
        """The machine is up again, its domains are off."""
        self.powered = True
        self.regain_connection()

    def snapshot(self) -> dict[str, Domain]:
        """All domains by VM id, at once and even while unavailable: the truth, for assertions."""
        return {vm: self._domain(kept) for vm, kept in self._domains.items()}

    def spec(self, vm: str) -> VmSpec:
        """The spec a domain was defined with."""
        return self._domains[vm].spec

    # What a migration does, see `simulated_network.Side`.

    def take_in(self, vm: str, source: Side) -> None:
        """The target's domain is incoming now; it replaces one that is off."""
        assert isinstance(source, SimulatedDomains)
        old = self._domains.get(vm)
        if old and old.running:
            raise DriverError(
                f"VM {vm} could not be migrated: {self.address} has a domain of it already",
                code="hypervisor.migration_failed",
            )
        coming = source._domains[vm]
        self._domains[vm] = msgspec.structs.replace(coming, incoming=True, leaving=False, paused=True)
        self._save()
        self._tell(vm)

    def give_up(self, vm: str) -> None:
        """What has come so far vanishes."""
        kept = self._domains.get(vm)
        if kept and kept.incoming:
            del self._domains[vm]
            self._save()
            self._tell(vm)

    def arrive(self, vm: str, source: Side) -> None:
        """All of the guest is here, paused."""
        assert isinstance(source, SimulatedDomains)
        kept, guest = self._domains.get(vm), source._guests[vm]
        if kept is None or not kept.incoming:
            raise DriverError(
                f"VM {vm} could not be migrated: {self.address} has lost it", code="hypervisor.migration_failed"
            )
        if vm in source.behaviours:
            self.behaviours[vm] = source.behaviours[vm]
        kept.incoming = False
        kept.beats, kept.uptime_s = guest.beats, guest.uptime_s
        self._breathe(kept)
        self._save()
        self._tell(vm)

    def hold(self, vm: str) -> None:
        """Stop the guest for the last part."""
        self._guests[vm].pause()
        self._domains[vm].paused = True

    def run_on(self, vm: str) -> None:
        """Let it run on. Quiet when it has ended, or never stood still."""
        kept = self._domains.get(vm)
        if kept and vm in self._guests:
            kept.paused = kept.leaving = False
            self._guests[vm].run_on()
            self._save()
            self._tell(vm)

    def depart(self, vm: str) -> None:
        """The guest has moved."""
        self._end(vm, OffReason.MIGRATED)

    # What the port's calls stand on.

    def _behaviour(self, vm: str) -> Behaviour:
        return self.behaviours.get(vm, self.default_behaviour)

    def _breathe(self, kept: Kept) -> None:
        vm = kept.vm
        self._guests[vm] = SimulatedGuest(
            name=kept.name,
            behaviour=lambda: self._behaviour(vm),
            ended=lambda reason: self._end(vm, reason),
            log=self._console_dir / f"{vm}.log" if self._console_dir else None,
            beats=kept.beats,
            uptime_s=kept.uptime_s,
            paused=kept.paused,
        )

    def _end(self, vm: str, reason: OffReason) -> None:
        guest = self._guests.pop(vm)
        guest.stop()
        kept = self._domains[vm]
        kept.running = kept.paused = kept.leaving = False
        kept.reason = reason
        if reason is not OffReason.MIGRATED and (migration := self._migrations.get(vm)):
            migration.interrupt(DriverError(f"VM {vm} ended while it was migrated", code="hypervisor.migration_failed"))
        self._save()
        self._tell(vm)

    def _tell(self, vm: str) -> None:
        for queue in self._listeners:
            queue.put_nowait(vm)

    def _save(self) -> None:
        if self._state_file is None:
            return
        for vm, guest in self._guests.items():
            self._domains[vm].beats, self._domains[vm].uptime_s = guest.beats, guest.uptime_s
        scratch = self._state_file.with_name(f".{self._state_file.name}.{os.getpid()}")
        scratch.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(msgspec.json.format(msgspec.json.encode(list(self._domains.values()))))
        scratch.replace(self._state_file)

    def _restore(self) -> None:
        assert self._state_file is not None
        if not self._state_file.exists():
            return
        try:
            domains = msgspec.json.decode(self._state_file.read_bytes(), type=list[Kept])
        except msgspec.MsgspecError as error:
            raise DriverError(
                f"{self._state_file} does not hold simulated domains: {error}",
                code="hypervisor.bad_state_file",
                hint="remove the file; the simulated domains are gone then",
            ) from error
        # What was arriving came from a process that is as gone as ours was.
        self._domains = {kept.vm: kept for kept in domains if not kept.incoming}
        for kept in self._domains.values():
            if kept.running:
                self._breathe(kept)

    def _domain(self, kept: Kept) -> Domain:
        reason, state = None, DomainState.RUNNING
        migrating = kept.vm in self._migrations and kept.running
        if not kept.running:
            state = DomainState.OFF
            reason = (kept.reason or OffReason.UNKNOWN) if kept.started else OffReason.NEVER_RAN
        elif kept.incoming:
            state = DomainState.INCOMING
        elif kept.paused and not migrating:
            state = DomainState.PAUSED
        return Domain(
            vm=kept.vm,
            name=kept.name,
            epoch=kept.epoch,
            state=state,
            reason=reason,
            reset_mark=kept.reset_mark,
            migrating=migrating,
        )
