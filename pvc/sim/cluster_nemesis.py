"""What befalls the simulated cluster: each fault comes at any time, lasts for a while, and goes again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import msgspec

from pvc.drivers.fence_simulated import SimulatedFence
from pvc.drivers.hypervisor import OffReason
from pvc.drivers.simulated_guest import Behaviour
from pvc.drivers.simulated_network import MigrationPhase, SimulatedNetwork
from pvc.projections.state import ClusterState, NodeState
from pvc.sim.cluster_machine import Machine
from pvc.sim.cluster_process import in_world

LONG_S = 70.0
"""Long enough for a node to be lost, fenced and recovered from."""


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """How likely things go wrong, per occasion; what befalls nodes by its weight."""

    kill: float = 0.012
    freeze: float = 0.008
    log: float = 0.03
    migration: float = 0.15
    befalls: tuple[tuple[str, int], ...] = (
        ("kill", 3),
        ("power", 3),
        ("freeze_daemon", 4),
        ("freeze_machine", 3),
        ("freeze_primary", 2),
        ("isolate", 4),
        ("lag", 2),
        ("cut_migrations", 2),
        ("hypervisor", 2),
        ("slow", 2),
        ("bmc", 3),
        ("mute", 2),
        ("clock", 1),
        ("guest", 5),
        ("outage", 1),
        ("remember", 3),
    )


class ClusterNetwork(SimulatedNetwork):
    """Nodes in different parts of the network, and frozen ones, do not reach each other."""

    def __init__(self, parted: Callable[[str, str], bool]) -> None:
        super().__init__(setup_s=0.2, mib_per_s=256.0)
        self._parted = parted

    def reachable(self, one: object, other: object) -> bool:
        """Whether packets go between the two."""
        assert isinstance(one, Machine) and isinstance(other, Machine)
        if one.process.frozen or other.process.frozen or self._parted(one.name, other.name):
            return False
        return super().reachable(one, other)


class Nemesis:
    """Strikes; `relent` ends everything that it has done."""

    def __init__(
        self,
        machines: Mapping[str, Machine],
        fence: SimulatedFence,
        network: SimulatedNetwork,
        rng: random.Random,
        faults: Faults,
        note: Callable[[str], object],
        truth: Callable[[], ClusterState],
    ) -> None:
        self.isolated: set[str] = set()
        """Nodes that the majority does not reach."""
        self.muted: set[str] = set()
        self.outage = False
        self.relented = False
        self._machines = machines
        self._fence = fence
        self._network = network
        self._rng = rng
        self._faults = faults
        self._note = note
        self._truth = truth
        self._under_way: set[asyncio.Task[None]] = set()

    def strike(self) -> None:
        """Something befalls somebody."""
        kinds, weights = zip(*self._faults.befalls, strict=True)
        kind = self._rng.choices(kinds, weights=weights)[0]
        machine = self._rng.choice(list(self._machines.values()))
        self._begin(getattr(self, f"_{kind}")(machine, self._rng.random() ** 2 * LONG_S))

    def freeze_now(self, machine: Machine) -> None:
        """Right after an effect, and long enough for the others to go on without it."""
        if machine.well:
            in_world(self._begin, self._freeze_daemon(machine, 5 + self._rng.random() * 30))
            machine.freeze_daemon()

    def cut_power(self, name: str) -> None:
        """Somebody pulls the plug, and puts it in again some time."""
        self._fence.press(name, on=False)
        self._machines[name].power_down()
        self._begin(self._plug_in(self._machines[name], 30 + self._rng.random() * 90))

    async def relent(self) -> None:
        """Everything works again."""
        self.relented = True
        for task in list(self._under_way):
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)
        self.isolated.clear()
        self.muted.clear()
        self.outage = False
        self._fence.fails.clear()
        self._fence.stuck.clear()
        self._fence.delay_s = 0.5
        self._network.fails = lambda vm, phase: False
        names = list(self._machines)
        for machine in self._machines.values():
            machine.thaw_machine()
            machine.thaw_daemon()
            machine.link.lag_s = machine.link.faults = 0.0
            machine.calm_down()
            machine.jitter_s = 0.01
            for other in names:
                self._network.heal(machine.name, other)
            self._fence.press(machine.name, on=True)
            machine.power_up()
            if machine.powered:
                machine.regain_connection()

    def migration_fails(self, vm: str, phase: MigrationPhase) -> bool:
        """Whether this one breaks here."""
        return not self.relented and self._rng.random() < self._faults.migration

    def _begin(self, fault: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(fault)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _kill(self, machine: Machine, lasts_s: float) -> None:
        machine.kill()

    async def _power(self, machine: Machine, lasts_s: float) -> None:
        if self._rng.random() < 0.5:
            machine.reset_machine()
            return
        self._fence.press(machine.name, on=False)
        machine.power_down()
        await self._plug_in(machine, lasts_s)

    async def _plug_in(self, machine: Machine, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self._fence.press(machine.name, on=True)
        machine.power_up()

    async def _freeze_daemon(self, machine: Machine, lasts_s: float) -> None:
        life = machine.life
        self._note(f"{machine.name} daemon stands still")
        machine.freeze_daemon()
        await asyncio.sleep(lasts_s)
        if life is machine.life:
            machine.thaw_daemon()
        self._note(f"{machine.name} daemon goes on")

    async def _freeze_primary(self, machine: Machine, lasts_s: float) -> None:
        """In the midst of its work for a lost node, so that another takes over and it comes too late."""
        until = asyncio.get_running_loop().time() + lasts_s
        while not any(node.state is NodeState.LOST for node in self._truth().nodes.values()):
            if asyncio.get_running_loop().time() > until:
                return
            await asyncio.sleep(0.1)
        cluster = self._truth().cluster
        assert cluster is not None
        await self._freeze_daemon(self._machines[cluster.primary], 12 + lasts_s / 2)

    async def _freeze_machine(self, machine: Machine, lasts_s: float) -> None:
        self._note(f"{machine.name} stands still")
        machine.freeze_machine()
        self._network.changed()
        await asyncio.sleep(lasts_s)
        self._note(f"{machine.name} goes on")
        machine.thaw_machine()
        self._network.changed()

    async def _isolate(self, machine: Machine, lasts_s: float) -> None:
        names = {machine.name}
        if self._rng.random() < 0.3:
            names.add(self._rng.choice(list(self._machines)))
        self._note(f"{', '.join(sorted(names))} cut off")
        self.isolated |= names
        self._network.changed()
        await asyncio.sleep(lasts_s)
        self.isolated -= names
        self._network.changed()
        self._note(f"{', '.join(sorted(names))} back on the network")

    async def _mute(self, machine: Machine, lasts_s: float) -> None:
        self._note(f"{machine.name} hears nothing of presence")
        self.muted.add(machine.name)
        await asyncio.sleep(lasts_s)
        self.muted.discard(machine.name)

    async def _outage(self, machine: Machine, lasts_s: float) -> None:
        self._note("no majority of servers")
        self.outage = True
        await asyncio.sleep(lasts_s)
        self.outage = False
        self._note("a majority of servers again")

    async def _lag(self, machine: Machine, lasts_s: float) -> None:
        machine.link.lag_s = self._rng.random() * 10
        await asyncio.sleep(lasts_s)
        machine.link.lag_s = 0.0

    async def _cut_migrations(self, machine: Machine, lasts_s: float) -> None:
        other = self._rng.choice(list(self._machines))
        self._network.cut(machine.name, other)
        await asyncio.sleep(lasts_s / 3)
        self._network.heal(machine.name, other)

    async def _hypervisor(self, machine: Machine, lasts_s: float) -> None:
        self._note(f"{machine.name} hypervisor away")
        machine.lose_connection()
        await asyncio.sleep(lasts_s / 2)
        if machine.powered:
            machine.regain_connection()

    async def _slow(self, machine: Machine, lasts_s: float) -> None:
        """Its hypervisor takes its time for everything, so that what was right when asked for is done too late."""
        machine.jitter_s = self._rng.random() ** 2 * 25
        await asyncio.sleep(lasts_s)
        machine.jitter_s = 0.05

    async def _bmc(self, machine: Machine, lasts_s: float) -> None:
        broken = self._rng.choice((self._fence.fails, self._fence.stuck))
        broken.add(machine.name)
        self._fence.delay_s = self._rng.random() ** 2 * 30
        await asyncio.sleep(lasts_s)
        broken.discard(machine.name)
        self._fence.delay_s = 0.5

    async def _clock(self, machine: Machine, lasts_s: float) -> None:
        machine.clock.off_us = self._rng.randrange(-3_600, 3_600) * 1_000_000

    async def _remember(self, machine: Machine, lasts_s: float) -> None:
        machine.remember()

    async def _guest(self, machine: Machine, lasts_s: float) -> None:
        running = sorted(machine.executing())
        if not running or machine.process.frozen:
            return
        vm = self._rng.choice(running)
        if self._rng.random() < 0.5:
            reason = self._rng.choice((OffReason.GUEST, OffReason.CRASHED, OffReason.DESTROYED))
            machine.end_behind_our_back(vm, reason)
            self._note(f"guest {vm[:8]} ends on {machine.name}: {reason}")
            return
        restless = self._rng.random() < 0.3
        patience = self._rng.choice((None, 0.2, 30.0))
        refuses = "a local disk" if self._rng.random() < 0.1 else ""
        machine.behaviours[vm] = Behaviour(
            heartbeat=False, obeys_acpi_after_s=patience, restless=restless, refuses_migration=refuses
        )
