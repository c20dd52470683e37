"""A large cluster on virtual time that loses a rack: each node with its daemon, its own fold, its hypervisor.

The rack's power goes at once, and its management boards with it; so no agent answers, and the others may place the
VMs only after each node's watchdog has surely ended it. Then the power comes back.
"""

from __future__ import annotations

import asyncio
import random
import resource
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from pvc.commands.registry import BY_NAME
from pvc.drivers.fence_simulated import SimulatedFence
from pvc.drivers.hypervisor import DomainState
from pvc.errors import PvcError, Rejected
from pvc.events import vm as e
from pvc.events import vm_moves as m
from pvc.events.cluster import PrimaryElected
from pvc.events.node import NodeFenced, NodeLost
from pvc.events.record import Entry
from pvc.events.registry import decode_event
from pvc.projections.state import NodeState
from pvc.projections.vm_machine import VmState
from pvc.runtime.appender import Outcome, Request
from pvc.sim.cluster_admin import ADMIN
from pvc.sim.cluster_checks import Watcher
from pvc.sim.cluster_commons import MemoryCommons
from pvc.sim.cluster_machine import Machine, Site
from pvc.sim.cluster_nemesis import ClusterNetwork
from pvc.sim.cluster_ports import LogLink, NodeClock, SharedLog
from pvc.sim.cluster_presence import WorldPresence
from pvc.sim.cluster_process import run_processes

VM_MIB = 512
AT_ONCE = 200
"""Commands that the admin has under way together: one append takes as many."""

ANSWER_S = 60.0
TRIES = 20
BEGIN_S = 600.0
RECOVER_S = 900.0
"""Virtual seconds that building the cluster and recovering the rack may take at most; both take far less."""

SPARE = 1.25
"""Room in the cluster, for what runs in it: so that all fits when a tenth of the nodes is gone."""


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How large."""

    nodes: int = 100
    vms: int = 10_000
    rack: int = 10
    seed: int = 1


class ScaleResult(msgspec.Struct, frozen=True, kw_only=True):
    """What it came to. Times are virtual, and from the loss of the power on, unless it says otherwise."""

    scale: Scale
    lost: int
    """VMs that ran in the rack."""
    noticed_s: float
    """Until the first node was known to be lost,"""
    fenced_s: float
    """until the last one was fenced,"""
    placed_s: float
    """until the last VM was placed,"""
    running_s: float
    """and until the last one ran."""
    records: int
    recovery_records: int
    built_s: float
    """Until all VMs ran the first time, virtual."""
    real_s: float
    processor_s: float
    recovery_processor_s: float
    peak_mib: int

    def table(self) -> str:
        """For a person."""
        rows = (
            ("nodes, VMs", f"{self.scale.nodes}, {self.scale.vms:,}"),
            ("lost at once", f"{self.scale.rack} nodes with {self.lost:,} VMs"),
            ("first node known to be lost", f"after {self.noticed_s:.1f} s"),
            ("last node fenced, by its own watchdog", f"after {self.fenced_s:.1f} s"),
            ("last VM placed", f"after {self.placed_s:.1f} s"),
            ("last VM running", f"after {self.running_s:.1f} s"),
            ("records in all, and for the recovery", f"{self.records:,}, {self.recovery_records:,}"),
            ("building it, virtual", f"{self.built_s:.0f} s"),
            ("real time in all", f"{self.real_s:.0f} s"),
            ("processor in all, and for the recovery", f"{self.processor_s:.0f} s, {self.recovery_processor_s:.0f} s"),
            ("memory at most", f"{self.peak_mib:,} MiB"),
        )
        lines = [f"{what:40} {figure}" for what, figure in rows]
        return "\n".join([*lines, "nothing ran twice; all that was to run runs, also after the rack came back"])


class ScaleSimulation:
    """One run."""

    def __init__(self, scale: Scale, *, say: Callable[[str], object] = lambda what: None) -> None:
        self.scale = scale
        self._say = say
        self._rng = random.Random(scale.seed)  # noqa: S311 - a simulation, not a secret
        self._machines: dict[str, Machine] = {}
        self._dark: set[str] = set()
        self._moments: dict[str, float] = {}
        self._left: set[str] = set()
        """VMs of the rack that do not run yet."""

    def run(self) -> ScaleResult:
        """Run to the end on virtual time. Raises AssertionError when something does not hold."""
        self._began, self._began_processor_s = time.monotonic(), time.process_time()
        return run_processes(self._main())

    async def _main(self) -> ScaleResult:
        self._build()
        tending = asyncio.create_task(self._commons.tend(_Nothing()))
        story = asyncio.create_task(self._story())
        while not story.done():
            await asyncio.sleep(0.5)
            assert not self._watcher.broken, self._watcher.broken
        tending.cancel()
        return story.result()

    def _build(self) -> None:
        scale = self.scale
        self._watcher = Watcher(self._machines, self._note)
        self._fence = SimulatedFence(delay_s=0.5, switched=self._switched)
        self._commons = MemoryCommons(
            self._machines, SharedLog(self._committed), WorldPresence(NodeClock()), self._note, lambda: True
        )
        site = Site(
            commons=self._commons,
            network=ClusterNetwork(lambda one, other: False),
            fence=self._fence,
            rng=self._rng,
            note=self._note,
            strikes=lambda name, effect: False,
            asked=self._watcher.asked,
            looks=self._watcher.looks,
            crashed=self._watcher.breaks,
        )
        names = [f"hv{number}" for number in range(1, scale.nodes + 1)]
        # In different racks, the first of them in the one that is lost.
        coordinators = names[:: max(1, -(-scale.nodes // 3))][:3]
        per_node_mib = -(-scale.vms // scale.nodes) * VM_MIB
        for name in names:
            self._machines[name] = Machine(
                name,
                site,
                coordinator=name in coordinators,
                watched=True,
                memory_mib=round(per_node_mib * SPARE) + 1024,
                link=LogLink(reachable=lambda: True),
            )
        self._rack = names[: scale.rack]

    async def _story(self) -> ScaleResult:
        scale, loop = self.scale, asyncio.get_running_loop()
        await self._found()
        built_s, built_at = loop.time(), self._watcher.truth.position
        self._say(
            f"{scale.vms:,} VMs run on {scale.nodes} nodes; {self._real_s():.0f} s so far, at record {built_at:,}"
        )
        state = self._watcher.truth
        self._left = {vm for name in self._rack for vm in state.placed.ids_on(name)}
        lost, dark_s, processor_s = len(self._left), loop.time(), time.process_time()
        self._moments.clear()
        for name in self._rack:
            self._dark.add(name)
            self._fence.fails.add(name)
            self._machines[name].power_down()
        await self._until("all that ran in the rack runs elsewhere", lambda: not self._left, RECOVER_S)
        moments = {what: moment - dark_s for what, moment in self._moments.items()}
        recovery_records, recovery_processor_s = state.position - built_at, time.process_time() - processor_s
        self._say(f"recovered; {self._real_s():.0f} s so far, at record {state.position:,}")
        self._check_all_run()
        for name in self._rack:
            self._dark.discard(name)
            self._fence.fails.discard(name)
            self._machines[name].power_up()
        await self._until("the rack is back", self._all_ready, RECOVER_S)
        await self._until("every node is at the log's end", self._all_agree, RECOVER_S)
        self._check_all_run()
        return ScaleResult(
            scale=scale,
            lost=lost,
            noticed_s=moments["noticed"],
            fenced_s=moments["fenced"],
            placed_s=moments["placed"],
            running_s=moments["running"],
            records=state.position,
            recovery_records=recovery_records,
            built_s=built_s,
            real_s=self._real_s(),
            processor_s=time.process_time() - self._began_processor_s,
            recovery_processor_s=recovery_processor_s,
            peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        )

    # -- What the admin does ---------------------------------------------------------------------------------------

    async def _found(self) -> None:
        coordinators = [machine.name for machine in self._machines.values() if machine.coordinator]
        for machine in self._machines.values():
            machine.power_up()
        first = self._machines[coordinators[0]]
        await self._until("the first daemon runs", lambda: first.node is not None, BEGIN_S)
        await self._ask("cluster.init", name="scale", coordinators=coordinators)
        rest = [machine.name for machine in self._machines.values() if not machine.coordinator]
        await self._ask_all([self._ask("node.add", node=name) for name in rest])
        await self._ask_all([self._ask("node.set_fence", node=name, agent="fence_ipmilan") for name in self._machines])
        await self._until("all nodes are ready", self._all_ready, BEGIN_S)
        self._say(f"{len(self._machines)} nodes are ready; {self._real_s():.0f} s so far")
        names = [f"vm{number:05}" for number in range(self.scale.vms)]
        await self._ask_all([self._ask("vm.define", name=name, memory_mib=VM_MIB) for name in names])
        self._say(f"{len(names):,} VMs are defined; {self._real_s():.0f} s so far")
        await self._ask_all([self._ask("vm.start", vm=name) for name in names])
        await self._until("all VMs run", self._all_run, BEGIN_S)

    async def _ask_all(self, commands: list[Coroutine[Any, Any, Outcome]]) -> None:
        for first in range(0, len(commands), AT_ONCE):
            await asyncio.gather(*commands[first : first + AT_ONCE])

    async def _ask(self, command: str, /, **fields: Any) -> Outcome:
        """Of the first node that runs, again until the answer is definite."""
        spec = BY_NAME[command]
        request = Request(
            name=command,
            command=msgspec.convert(fields, spec.struct),
            decide=spec.decide,
            actor=ADMIN,
            command_id=f"c-{self._rng.getrandbits(64):016x}",
        )
        for _ in range(TRIES):
            appender = next(machine.appender for machine in self._machines.values() if machine.appender is not None)
            try:
                async with asyncio.timeout(ANSWER_S):
                    return await appender.submit(request)
            except Rejected as refusal:
                raise AssertionError(f"{command} {fields} is refused: {refusal}") from None
            except (PvcError, TimeoutError):
                await asyncio.sleep(1)
        raise AssertionError(f"no answer to {command} in {TRIES} tries")

    # -- What is looked at -----------------------------------------------------------------------------------------

    async def _until(self, what: str, holds: Callable[[], bool], patience_s: float) -> None:
        until = asyncio.get_running_loop().time() + patience_s
        while not holds():
            assert asyncio.get_running_loop().time() < until, f"not within {patience_s:.0f} s: {what}"
            await asyncio.sleep(0.25)

    def _all_ready(self) -> bool:
        nodes = self._watcher.truth.nodes
        return len(nodes) == len(self._machines) and all(node.state is NodeState.READY for node in nodes.values())

    def _all_run(self) -> bool:
        vms = self._watcher.truth.vms
        return len(vms) == self.scale.vms and all(vm.state is VmState.RUNNING for vm in vms.values())

    def _all_agree(self) -> bool:
        truth = self._watcher.truth
        if any(machine.world.state.head != truth.head for machine in self._machines.values()):
            return False
        wrong = [one.name for one in self._machines.values() if one.world.state.state_hash() != truth.state_hash()]
        assert not wrong, f"another state than the replay: {', '.join(wrong)}"
        return True

    def _check_all_run(self) -> None:
        """Every VM runs, in its place, once."""
        places: dict[str, list[str]] = {}
        for name, machine in self._machines.items():
            if machine.on:
                for vm_id in machine.executing():
                    places.setdefault(vm_id, []).append(name)
        for vm in self._watcher.truth.vms.values():
            assert vm.state is VmState.RUNNING, f"{vm.name} is {vm.state}"
            assert places.get(vm.id) == [vm.node], f"{vm.name} should run on {vm.node}: {places.get(vm.id)}"
            domain = self._machines[vm.node].snapshot()[vm.id]
            assert (domain.state, domain.epoch) == (DomainState.RUNNING, vm.epoch), f"{vm.name}: {domain}"

    def _committed(self, entry: Entry) -> None:
        self._watcher.committed(entry)
        now = asyncio.get_running_loop().time()
        for raw in entry.record.events:
            match decode_event(raw):
                case NodeLost():
                    self._moments.setdefault("noticed", now)
                case NodeFenced():
                    self._moments["fenced"] = now
                case m.VmRecovered():
                    self._moments["placed"] = now
                case e.VmStarted(vm=started) if started in self._left:
                    self._left.discard(started)
                    self._moments["running"] = now
                case PrimaryElected(node=name, epoch=epoch):
                    self._say(f"{now:8.1f} s: {name} is primary, epoch {epoch}")

    def _switched(self, name: str, on: bool) -> None:
        if name not in self._dark:
            machine = self._machines[name]
            (machine.power_up if on else machine.power_down)()

    def _note(self, what: str) -> str:
        return what

    def _real_s(self) -> float:
        return time.monotonic() - self._began


class _Nothing:
    """What the nemesis does here."""

    def __init__(self) -> None:
        self.isolated: set[str] = set()
        self.muted: set[str] = set()
        self.outage = False
        self.relented = True
