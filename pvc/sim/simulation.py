"""One simulated run: a node with a log and a hypervisor, an admin who asks for things, guests with a will of their own,
and faults from a seed; in the end everything is healed, and what must hold is checked.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import msgspec

from pvc.commands.base import CommandSpec
from pvc.commands.registry import BY_NAME
from pvc.drivers.hypervisor import OffReason
from pvc.drivers.simulated import SimulatedHypervisor
from pvc.drivers.simulated_guest import Behaviour
from pvc.errors import PvcError, Rejected
from pvc.events.record import Actor
from pvc.log.memory import MemoryLog
from pvc.node.node import Node, Services
from pvc.presence.alone import AlonePresence
from pvc.projections.snapshot import restore, snapshot
from pvc.projections.state import ClusterState
from pvc.projections.vm_machine import AT_REST, VmState
from pvc.runtime.appender import Appender, Request
from pvc.runtime.world import World
from pvc.sim import checks
from pvc.sim.loop import VirtualClock, run_virtual
from pvc.sim.mortal import Killed, Life, LogFaults, MortalHypervisor, MortalLog

ADMIN = Actor(principal="admin", method="token", source="sim")
NAMES = ("web01", "web02", "db01")
SETTLE_S = 600.0
"""Virtual seconds that a healed node gets to come to rest: several periodic passes and the longest time-out."""


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """How likely things go wrong, per occasion."""

    kill: float = 0.03
    log: float = 0.08
    slow_s: float = 0.5


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to."""

    seed: int
    position: int
    state_hash: str
    acknowledged: int
    refused: int
    lives: int
    effects: int
    virtual_s: float
    trace: list[str]

    @property
    def account(self) -> str:
        """What happened, in numbers."""
        return f"{self.effects} effects, {self.lives} lives"


class Simulation(LogFaults):
    """One run. `kill_at` ends the node's life after exactly that effect (counted from 1), besides the random faults."""

    def __init__(self, seed: int, *, faults: Faults | None = None, kill_at: int = 0, operations: int = 80) -> None:
        self.seed = seed
        self.trace: list[str] = []
        self._rng = random.Random(seed)  # noqa: S311 - a simulation, not a secret
        self._faults = faults or Faults()
        self._kill_at = kill_at
        self._operations = operations
        self._healed = False
        self._effects = 0
        self._lives = 0
        self._acknowledged: dict[str, int] = {}
        self._refused: set[str] = set()
        self._stored = b""
        self._started: Counter[checks.Run] = Counter()

    def run(self) -> Result:
        """Run to the end on virtual time. Raises AssertionError when something does not hold."""
        return run_virtual(self._main())

    def next_fault(self) -> str:
        """What goes wrong with this append."""
        if self._healed or self._rng.random() >= self._faults.log:
            return ""
        return self._note(self._rng.choice(("unavailable", "lost_request", "lost_reply")))

    async def _main(self) -> Result:
        self._log = MemoryLog()
        self._machine = SimulatedHypervisor(
            memory_mib=2048, vcpus=8, rng=self._rng, jitter_s=self._faults.slow_s, after_effect=self._saw_effect
        )
        self._machine.default_behaviour = Behaviour(heartbeat=False)
        keeper = asyncio.create_task(self._keep_alive())
        await asyncio.sleep(0)
        await self._ask("cluster.init", name="sim")
        while not self._world.state.nodes:  # noqa: ASYNC110 - the world is another object after each life
            await asyncio.sleep(1)
        for name in NAMES:
            await self._ask("vm.define", name=name, memory_mib=512)
        for _ in range(self._operations):
            await self._something_happens()
            await asyncio.sleep(self._rng.random() ** 3 * 20)
        await self._heal()
        result = await self._check()
        keeper.cancel()
        return result

    async def _keep_alive(self) -> None:
        """Start the node again whenever its life has ended, as systemd does."""
        while True:
            self._lives += 1
            life = Life(self._strikes)
            world, clock = World(self._remembered()), VirtualClock()
            log = MortalLog(self._log, life, self)
            self._appender = Appender(world, log, origin="hv1", clock=clock, rng=self._rng)
            self._world = world
            node = Node(
                Services(
                    name="hv1",
                    boot="boot-1",
                    world=world,
                    log=log,
                    appender=self._appender,
                    hypervisor=MortalHypervisor(self._machine, life),
                    clock=clock,
                    rng=self._rng,
                    presence=AlonePresence(),
                )
            )
            try:
                await node.run()
            except BaseExceptionGroup as group:
                only_killed, others = group.split(Killed)
                if others is not None or only_killed is None:
                    raise
            except Killed:
                pass
            self._note(f"life {self._lives} ends")
            await asyncio.sleep(self._rng.random() * 5)

    def _remembered(self) -> ClusterState | None:
        """What this life begins with: nothing, or the state as it was stored at some earlier position."""
        return restore(self._stored) if self._stored and self._rng.random() < 0.5 else None

    def _strikes(self, effect: str) -> bool:
        self._effects += 1
        self._note(f"effect {self._effects}: {effect}")
        if self._effects == self._kill_at:
            return True
        return not self._healed and self._rng.random() < self._faults.kill

    def _saw_effect(self, effect: str) -> None:
        if effect == "start":
            _, vm = self._machine.effects[-1]
            self._started[vm, self._machine.snapshot()[vm].epoch] += 1

    async def _something_happens(self) -> None:
        if self._rng.random() < 0.1 and self._world.fault is None:
            self._stored = snapshot(self._world.state)
        dice = self._rng.random()
        if dice < 0.72:
            await self._admin_asks()
        elif dice < 0.92:
            self._guest_ends()
        else:
            self._machine.lose_connection()
            self._note("hypervisor away")
            await asyncio.sleep(self._rng.random() * 40)
            self._machine.regain_connection()

    async def _admin_asks(self) -> None:
        name = self._rng.choice(NAMES)
        kind = self._rng.choices(list(_ASKED), weights=[weight for weight, _ in _ASKED.values()])[0]
        fields = {key: self._rng.choice(values) for key, values in _ASKED[kind][1].items()}
        if kind == "vm.define":
            await self._ask(kind, **{"name": name, **fields})
        elif kind == "vm.rename":
            await self._ask(kind, vm=name, name=self._rng.choice(NAMES))
        else:
            await self._ask(kind, vm=name, **fields)

    def _guest_ends(self) -> None:
        running = sorted(vm for vm, domain in self._machine.snapshot().items() if domain.state.value != "off")
        if not running:
            return
        vm = self._rng.choice(running)
        dice = self._rng.random()
        if dice < 0.6:
            reason = self._rng.choice((OffReason.GUEST, OffReason.CRASHED, OffReason.DESTROYED))
            self._machine.end_behind_our_back(vm, reason)
            self._note(f"guest {vm[:8]} ends: {reason}")
        else:
            patience = self._rng.choice((None, 0.2, 30.0))
            self._machine.behaviours[vm] = Behaviour(heartbeat=False, obeys_acpi_after_s=patience)

    async def _ask(self, command: str, /, **fields: Any) -> None:
        """One command, asked again under the same id until the answer is definite."""
        spec = BY_NAME[command]
        request = Request(
            name=command,
            command=msgspec.convert(fields, spec.struct),
            decide=spec.decide,
            actor=ADMIN,
            command_id=f"c{len(self._acknowledged) + len(self._refused)}-{self._rng.getrandbits(32):08x}",
        )
        for _ in range(100):
            outcome = await self._try(request, spec)
            if outcome is not None:
                return
            await asyncio.sleep(self._rng.random() * 3)
        raise AssertionError(f"no definite answer to {command} in 100 tries")

    async def _try(self, request: Request, spec: CommandSpec) -> bool | None:
        try:
            async with asyncio.timeout(30):
                outcome = await self._appender.submit(request)
        except Rejected as refusal:
            self._refused.add(request.command_id)
            self._note(f"{spec.name} refused: {refusal.code}")
            return False
        except (PvcError, TimeoutError) as error:
            self._note(f"{spec.name} no answer: {type(error).__name__}")
            return None
        if outcome.entry is not None:
            self._acknowledged[request.command_id] = outcome.position
        self._note(f"{spec.name} {request.command} -> {outcome.position}")
        return True

    async def _heal(self) -> None:
        self._note("healed")
        self._healed = True
        self._machine.regain_connection()
        self._machine.jitter_s = 0.01
        self._machine.behaviours.clear()
        deadline = asyncio.get_running_loop().time() + SETTLE_S
        while asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(10)
            if self._settled(self._world.state):
                # One more periodic pass, so that what looks settled has been looked at.
                await asyncio.sleep(40)
                return

    def _settled(self, state: ClusterState) -> bool:
        return all(vm.state in AT_REST or vm.state is VmState.RUNNING for vm in state.vms.values())

    async def _check(self) -> Result:
        head = await self._log.head()
        records = await self._log.read(1, head.position)
        replayed = checks.refold(records)
        live = self._world.state
        assert live.head == head, f"the node is at {live.position}, the log at {head.position}"
        assert replayed.state_hash() == live.state_hash(), "replay and live state differ"
        checks.check_settled(live, self._machine.snapshot())
        checks.check_commands(records, self._acknowledged, self._refused)
        checks.check_facts(records, self._started)
        return Result(
            seed=self.seed,
            position=head.position,
            state_hash=live.state_hash(),
            acknowledged=len(self._acknowledged),
            refused=len(self._refused),
            lives=self._lives,
            effects=self._effects,
            virtual_s=asyncio.get_running_loop().time(),
            trace=self.trace,
        )

    def _note(self, what: str) -> str:
        self.trace.append(f"{asyncio.get_running_loop().time():9.3f} {what}")
        return what


_ASKED: dict[str, tuple[int, dict[str, tuple[Any, ...]]]] = {
    "vm.define": (
        5,
        {"memory_mib": (256, 512, 1024), "on_crash": ("restart", "stop"), "on_poweroff": ("stop", "restart")},
    ),
    "vm.modify": (2, {"memory_mib": (256, 512, 1024), "restart": (True, False)}),
    "vm.rename": (1, {}),
    "vm.remove": (1, {}),
    "vm.start": (8, {}),
    "vm.shutdown": (4, {"timeout_s": (2, 20), "on_timeout": ("force", "leave")}),
    "vm.stop": (3, {}),
    "vm.restart": (4, {"timeout_s": (2, 20)}),
    "vm.reset": (3, {}),
    "vm.disable": (1, {}),
    "vm.enable": (3, {}),
    "vm.add_tag": (1, {"tag": ("a", "b")}),
}
"""Command -> how often it is asked for, relative to the others, and the values its fields are drawn from."""
