"""The simulated twin: domains that run in the mind only, on whatever event loop (and so on whatever time) there is.

The object stands for the machine, not for a connection to it: it is handed to one node after another, and its
domains live on between them, as they do when a real daemon restarts. `close` ends only what that node had open.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from pvc.clock import Rng
from pvc.drivers.hypervisor import Domain, DomainState, HypervisorInfo, OffReason
from pvc.drivers.simulated_guest import Behaviour, SimulatedConsole, SimulatedGuest
from pvc.errors import DriverError, NotFound, Unavailable
from pvc.events.vm import VmSpec

EFFECTS = ("define", "start", "shutdown", "destroy", "reset", "forget")
"""What `after_effect` is called with, once the effect has taken hold."""
_VERSION = "simulated"


class _Kept(msgspec.Struct):
    """A domain as it is kept, in memory and in the state file."""

    vm: str
    name: str
    epoch: int
    spec: VmSpec
    running: bool = False
    started: bool = False
    reason: OffReason | None = None
    reset_mark: str = ""
    beats: int = 0
    uptime_s: float = 0.0


class SimulatedHypervisor:
    """A machine with simulated domains.

    `behaviours` says how the guest of a VM behaves, by VM id (`default_behaviour` for all others); tests change it at
    any time. `delay_s` makes every call slow, `jitter_s` adds a random part drawn from `rng`. `unavailable = True`
    makes every call raise Unavailable. `after_effect` is called with the effect's name right after it took hold,
    and may raise, as a killed daemon would see nothing of what followed. Guests write their console to files in
    `console_dir` if there is one; `state_file` keeps the domains over the end of this process.
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
    ) -> None:
        self.behaviours: dict[str, Behaviour] = {}
        self.default_behaviour = Behaviour()
        self.delay_s = delay_s
        self.jitter_s = jitter_s
        self.unavailable = False
        self.after_effect = after_effect
        self.effects: list[tuple[str, str]] = []
        """Every (effect, VM id) that took hold, in order."""
        self._memory_mib = memory_mib
        self._vcpus = vcpus
        self._rng = rng
        self._console_dir = console_dir
        self._state_file = state_file
        self._domains: dict[str, _Kept] = {}
        self._guests: dict[str, SimulatedGuest] = {}
        self._listeners: set[asyncio.Queue[str]] = set()
        self._restored = state_file is None

    async def info(self) -> HypervisorInfo:
        """The capacity it was made with."""
        await self._reach()
        return HypervisorInfo(memory_mib=self._memory_mib, vcpus=self._vcpus, accelerator="simulated", version=_VERSION)

    async def list_domains(self) -> list[Domain]:
        """All domains."""
        await self._reach()
        return [_domain(kept) for kept in self._domains.values()]

    async def get_domain(self, vm: str) -> Domain | None:
        """One domain."""
        await self._reach()
        kept = self._domains.get(vm)
        return _domain(kept) if kept else None

    async def define(self, vm: str, name: str, spec: VmSpec, *, epoch: int) -> None:
        """Make the domain known, off."""
        await self._reach()
        kept = self._domains.get(vm)
        if kept and kept.running:
            return
        if refusal := self._behaviour(vm).refuses_define:
            raise DriverError(refusal, code="hypervisor.define_failed")
        self._domains[vm] = _Kept(vm=vm, name=name, epoch=epoch, spec=spec)
        self._done("define", vm)

    async def start(self, vm: str) -> None:
        """Start a defined domain."""
        await self._reach()
        kept = self._domains.get(vm)
        if kept is None:
            raise DriverError(f"there is no domain of VM {vm}", code="hypervisor.no_domain", hint="define it first")
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
        if vm in self._guests:
            self._end(vm, OffReason.DESTROYED)
            self._done("destroy", vm)

    async def reset(self, vm: str, *, mark: str) -> None:
        """Press the reset button, once per mark."""
        await self._reach()
        kept = self._domains.get(vm)
        if kept is None or not kept.running or kept.reset_mark == mark:
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
            for guest in self._guests.values():
                guest.stop()
            self._save()
            self._guests.clear()
            self._restored = False

    # What only tests and the simulator do.

    def end_behind_our_back(self, vm: str, reason: OffReason) -> None:
        """The guest ends as if by its own doing, a crash or somebody's `virsh destroy`. Quiet when it is off."""
        if vm in self._guests:
            self._end(vm, reason)

    def lose_connection(self) -> None:
        """From now on every call raises Unavailable."""
        self.unavailable = True

    def regain_connection(self) -> None:
        """Calls work again; listeners are told to look at everything."""
        self.unavailable = False
        self._tell("")

    def snapshot(self) -> dict[str, Domain]:
        """All domains by VM id, at once and even while unavailable: the truth, for assertions."""
        return {vm: _domain(kept) for vm, kept in self._domains.items()}

    def spec(self, vm: str) -> VmSpec:
        """The spec a domain was defined with."""
        return self._domains[vm].spec

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

    def _behaviour(self, vm: str) -> Behaviour:
        return self.behaviours.get(vm, self.default_behaviour)

    def _breathe(self, kept: _Kept) -> None:
        vm = kept.vm
        log = self.console_log(vm) if self._console_dir else None
        self._guests[vm] = SimulatedGuest(
            name=kept.name,
            behaviour=lambda: self._behaviour(vm),
            ended=lambda reason: self._end(vm, reason),
            log=log,
            beats=kept.beats,
            uptime_s=kept.uptime_s,
        )

    def _end(self, vm: str, reason: OffReason) -> None:
        guest = self._guests.pop(vm)
        guest.stop()
        kept = self._domains[vm]
        kept.running, kept.reason = False, reason
        self._save()
        self._tell(vm)

    def _done(self, effect: str, vm: str) -> None:
        """An effect has taken hold: keep it, tell of it, and only then give the simulator its chance to strike."""
        self.effects.append((effect, vm))
        self._save()
        self._tell(vm)
        if self.after_effect is not None:
            self.after_effect(effect)

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
            domains = msgspec.json.decode(self._state_file.read_bytes(), type=list[_Kept])
        except msgspec.MsgspecError as error:
            raise DriverError(
                f"{self._state_file} does not hold simulated domains: {error}",
                code="hypervisor.bad_state_file",
                hint="remove the file; the simulated domains are gone then",
            ) from error
        self._domains = {kept.vm: kept for kept in domains}
        for kept in domains:
            if kept.running:
                self._breathe(kept)


def _domain(kept: _Kept) -> Domain:
    reason = None
    if not kept.running:
        reason = (kept.reason or OffReason.UNKNOWN) if kept.started else OffReason.NEVER_RAN
    return Domain(
        vm=kept.vm,
        name=kept.name,
        epoch=kept.epoch,
        state=DomainState.RUNNING if kept.running else DomainState.OFF,
        reason=reason,
        reset_mark=kept.reset_mark,
    )
