"""One simulated run of a whole cluster: three to five machines with real daemons, one log, admins, and a nemesis.

Every seed makes another cluster: which machines have a fence agent, a watchdog or neither, how much room there is. In
the end everything is healed, and what must hold is checked; some of it is checked at every instant, see `Watcher`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import msgspec

from pvc.drivers.fence_simulated import SimulatedFence
from pvc.sim import checks
from pvc.sim.cluster_admin import Admin
from pvc.sim.cluster_checks import Watcher
from pvc.sim.cluster_commons import Commons, MemoryCommons, ZookeeperCommons
from pvc.sim.cluster_machine import Machine, Site
from pvc.sim.cluster_nemesis import ClusterNetwork, Faults, Nemesis
from pvc.sim.cluster_ports import LogLink, NodeClock, SharedLog
from pvc.sim.cluster_presence import WorldPresence
from pvc.sim.cluster_process import run_processes

SETTLE_S = 400.0
"""Virtual seconds in which a healed cluster comes to rest: a boot, a loss, a fence, a recovery, a back-off."""

QUIET_S = 35.0
"""One more periodic pass, so that what looks settled has been looked at."""

BEGIN_S = 300.0

MEMORY_MIB = (4096, 4096, 2048)
"""Of each machine: room for everything, or not quite."""


class ClusterResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to."""

    seed: int
    nodes: int
    position: int
    state_hash: str
    acknowledged: int
    refused: int
    lives: int
    fenced: int
    recovered: int
    migrated: int
    virtual_s: float
    trace: list[str]

    @property
    def account(self) -> str:
        """What happened, in numbers."""
        return (
            f"{self.nodes} nodes, {self.lives} lives, {self.migrated} migrated live, {self.fenced} fenced, "
            f"{self.recovered} recovered"
        )


class ClusterSimulation:
    """One run."""

    def __init__(
        self, seed: int, *, faults: Faults | None = None, operations: int = 50, zookeeper: bool = False
    ) -> None:
        self.seed = seed
        self.trace: list[str] = []
        self._rng = random.Random(seed)  # noqa: S311 - a simulation, not a secret
        self._faults = faults or Faults()
        self._operations = operations
        self._zookeeper = zookeeper

    def run(self) -> ClusterResult:
        """Run to the end on virtual time. Raises AssertionError when something does not hold."""
        return run_processes(self._main())

    async def _main(self) -> ClusterResult:
        self._build()
        watching = asyncio.create_task(self._commons.tend(self._nemesis))
        life = asyncio.create_task(self._live())
        while not life.done():
            await asyncio.sleep(0.25)
            if self.watcher.broken:
                raise AssertionError(self.watcher.broken)
        watching.cancel()
        return life.result()

    def _build(self) -> None:
        rng = self._rng
        names = [f"hv{number}" for number in range(1, rng.choice((3, 3, 4, 5)) + 1)]
        self._machines: dict[str, Machine] = {}
        self.watcher = Watcher(self._machines, self._note)
        self._fence = SimulatedFence(delay_s=0.5, switched=self._switched)
        self._network = ClusterNetwork(self._parted)
        self._commons = self._zookeeper_commons(names) if self._zookeeper else self._memory_commons()
        site = Site(
            commons=self._commons,
            network=self._network,
            fence=self._fence,
            rng=rng,
            note=self._note,
            strikes=self._strikes,
            asked=self.watcher.asked,
            looks=self.watcher.looks,
            crashed=self.watcher.breaks,
        )
        self._nemesis = Nemesis(
            self._machines, self._fence, self._network, rng, self._faults, self._note, lambda: self.watcher.truth
        )
        self._network.fails = self._nemesis.migration_fails
        memory_mib = rng.choice(MEMORY_MIB)
        fenced = []
        for name in names:
            guard = rng.choice(("agent", "agent", "watchdog", "both", "neither"))
            link = LogLink(reachable=self._reachable(name), faults=self._faults.log)
            self._machines[name] = Machine(
                name,
                site,
                coordinator=len(self._machines) < 3,
                watched=guard in ("watchdog", "both"),
                memory_mib=memory_mib,
                link=link,
            )
            if guard in ("agent", "both"):
                fenced.append(name)
            self._note(f"{name}: {guard}, {memory_mib} MiB")
        self._fenced = tuple(fenced)
        self._admin = Admin(self._machines, rng, self._note, lambda: self.watcher.truth, fenced=self._fenced)

    def _memory_commons(self) -> Commons:
        log, presence = SharedLog(self.watcher.committed), WorldPresence(NodeClock())
        return MemoryCommons(self._machines, log, presence, self._note, self._majority)

    def _zookeeper_commons(self, names: list[str]) -> Commons:
        return ZookeeperCommons(
            self._machines,
            names[:3],
            self._rng,
            committed=self.watcher.committed,
            breaks=self.watcher.breaks,
            note=self._note,
            reaches=lambda one, other: not self._parted(one, other),
        )

    async def _live(self) -> ClusterResult:
        await self._begin()
        for _ in range(self._operations):
            await asyncio.sleep(self._rng.random() ** 3 * 15)
            dice = self._rng.random()
            if dice < 0.6:
                await self._admin.something()
            elif dice < 0.63:
                await self._admin.confirm_fenced(self._nemesis.cut_power)
            else:
                self._nemesis.strike()
        await self._nemesis.relent()
        self._note("healed")
        await self._admin.ask("cluster.set_maintenance", maintenance=False)
        await self._settle()
        return await self._result()

    async def _begin(self) -> None:
        for machine in self._machines.values():
            machine.power_up()
        coordinators = [machine.name for machine in self._machines.values() if machine.coordinator]
        await self._admin.ask("cluster.init", name="sim", coordinators=coordinators)
        for machine in self._machines.values():
            if not machine.coordinator:
                await self._admin.ask("node.add", node=machine.name)
        for name in self._fenced:
            await self._admin.ask("node.set_fence", node=name, agent="fence_ipmilan")
        async with asyncio.timeout(BEGIN_S):
            while not any(node.ready for node in self.watcher.truth.nodes.values()):  # noqa: ASYNC110
                await asyncio.sleep(1)
        for name in self._admin.vms:
            if await self._admin.ask("vm.define", name=name, memory_mib=512, autostart=self._rng.random() < 0.5):
                await self._admin.ask("vm.start", vm=name)

    async def _settle(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + SETTLE_S
        quiet_since = None
        while True:
            why = self.watcher.unsettled()
            quiet_since = None if why else quiet_since or loop.time()
            if quiet_since is not None and loop.time() - quiet_since >= QUIET_S:
                return
            assert loop.time() < until or quiet_since is not None, f"not settled after {SETTLE_S:.0f} s: {why}"
            await asyncio.sleep(1)

    async def _result(self) -> ClusterResult:
        records = self._commons.records()
        state = checks.refold(records)
        assert state.state_hash() == self.watcher.truth.state_hash(), "replay and watcher differ"
        checks.check_commands(records, self._admin.acknowledged, self._admin.refused)
        return ClusterResult(
            seed=self.seed,
            nodes=len(self._machines),
            position=state.position,
            state_hash=state.state_hash(),
            acknowledged=len(self._admin.acknowledged),
            refused=len(self._admin.refused),
            lives=sum(machine.lives for machine in self._machines.values()),
            fenced=self._count("node.fenced"),
            recovered=self._count("vm.recovered"),
            migrated=self._count("vm.migrated"),
            virtual_s=asyncio.get_running_loop().time(),
            trace=self.trace,
        )

    def _count(self, event: str) -> int:
        return sum(line.count(f"{event}(") for line in self.trace)

    # -- The world between the machines ----------------------------------------------------------------------------

    def _majority(self) -> bool:
        """Whether the servers, which run on the coordinators, have one."""
        coordinators = [machine for machine in self._machines.values() if machine.coordinator]
        up = sum(m.powered and not m.process.frozen and m.name not in self._nemesis.isolated for m in coordinators)
        return up > len(coordinators) // 2 and not self._nemesis.outage

    def _reachable(self, name: str) -> Callable[[], bool]:
        return lambda: name not in self._nemesis.isolated and self._majority()

    def _parted(self, one: str, other: str) -> bool:
        return (one in self._nemesis.isolated) != (other in self._nemesis.isolated)

    def _switched(self, name: str, on: bool) -> None:
        machine = self._machines[name]
        self._note(f"{name} is switched {'on' if on else 'off'}")
        (machine.power_up if on else machine.power_down)()

    def _strikes(self, name: str, effect: str) -> bool:
        if self._nemesis.relented:
            return False
        dice = self._rng.random()
        if self._faults.kill <= dice < self._faults.kill + self._faults.freeze:
            self._nemesis.freeze_now(self._machines[name])
        return dice < self._faults.kill

    def _note(self, what: str) -> str:
        self.trace.append(f"{asyncio.get_running_loop().time():9.3f} {what}")
        return what
