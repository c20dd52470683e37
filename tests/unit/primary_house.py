"""A cluster of three nodes in one process on virtual time: machines, daemons, fences and a network."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from pvc.commands.registry import BY_NAME
from pvc.drivers.fence_simulated import SimulatedFence
from pvc.drivers.hypervisor import DomainState
from pvc.drivers.simulated import SimulatedHypervisor
from pvc.drivers.simulated_guest import Behaviour
from pvc.drivers.simulated_network import SimulatedNetwork
from pvc.drivers.watchdog import SimulatedWatchdog
from pvc.events.cluster import PrimaryElected
from pvc.events.record import unseal
from pvc.events.registry import decode_event
from pvc.log.memory import MemoryLog
from pvc.node.node import Node, Services
from pvc.presence.memory import MemoryPresence
from pvc.presence.memory_server import PresenceServer
from pvc.projections.state import ClusterState, Vm
from pvc.projections.state import Node as NodeInfo
from pvc.projections.vm_machine import VmState
from pvc.runtime.appender import Appender, Request
from pvc.runtime.world import World
from pvc.sim.loop import VirtualClock, run_virtual
from tests.support.core import ADMIN, command

NODES = ("hv1", "hv2", "hv3")
COORDINATORS = ("hv1", "hv2", "hv3")
SESSION_S = 10.0
WATCHDOG_S = 10
PATIENCE_S = 300.0


class Host:
    """A machine, and its daemon while it runs."""

    def __init__(self, house: House, name: str, number: int, *, watchdog: bool) -> None:
        self.house = house
        self.name = name
        self.address = f"10.0.0.{number}"
        self.boots = 0
        self.machine = SimulatedHypervisor(network=house.network, address=self.address)
        self.machine.default_behaviour = Behaviour(heartbeat=False)
        self.watchdog = SimulatedWatchdog(lambda: self.power(False)) if watchdog else None
        self.daemon: asyncio.Task[None] | None = None
        self.power(True)

    def power(self, on: bool) -> None:
        """As by its button."""
        if on:
            self.boots += 1
            self.machine.regain_power()
            self.start()
        else:
            self.kill()
            self.machine.lose_power()
            if self.watchdog is not None:
                self.watchdog.disarm()

    def start(self) -> None:
        """The daemon."""
        house, clock, rng = self.house, VirtualClock(), random.Random(self.name)
        self.world = World()
        self.presence = MemoryPresence(house.server, self.name)
        self.appender = Appender(self.world, house.log, origin=self.name, clock=clock, rng=rng)
        services = Services(
            name=self.name,
            boot=f"boot-{self.boots}",
            world=self.world,
            log=house.log,
            appender=self.appender,
            hypervisor=self.machine,
            clock=clock,
            rng=rng,
            presence=self.presence,
            fence=house.fence,
            watchdog=self.watchdog,
            watchdog_timeout_s=WATCHDOG_S,
            address=self.address,
        )
        self.node = Node(services)
        self.daemon = asyncio.create_task(self.node.run())

    def kill(self) -> None:
        """The daemon, as by SIGKILL: its session dies of silence."""
        if self.daemon is not None:
            self.daemon.cancel()
            self.daemon = None
            self.house.closing.append(asyncio.create_task(self.presence.close()))


class House:
    """The cluster, its fences and its network."""

    def __init__(self, *, watchdogs: bool = False) -> None:
        self.log = MemoryLog()
        self.network = SimulatedNetwork()
        self.server = PresenceServer(VirtualClock(), session_timeout_s=SESSION_S)
        self.fence = SimulatedFence(delay_s=1.0, switched=lambda node, on: self.hosts[node].power(on))
        self.closing: list[asyncio.Task[None]] = []
        self.hosts: dict[str, Host] = {}
        for number, name in enumerate(NODES, 1):
            self.hosts[name] = Host(self, name, number, watchdog=watchdogs)

    async def begin(self, *, agents: bool) -> None:
        await asyncio.sleep(0.1)
        await self.do("cluster.init", name="main", coordinators=list(COORDINATORS))
        if agents:
            for name in NODES:
                await self.do("node.set_fence", node=name, agent="fence_ipmilan", option=["ip=10.0.1.2"])
        await self.until(lambda: all(node.ready for node in self.state.nodes.values()) and bool(self.primary))
        await self.until(lambda: len(self.state.nodes) == len(NODES))

    async def run_a_vm(self, name: str = "web01", node: str = "hv3", **fields: Any) -> None:
        await self.do("vm.define", name=name, memory_mib=512, node=node, **fields)
        await self.do("vm.start", vm=name)
        await self.until(lambda: self.vm(name).state is VmState.RUNNING)

    def alive(self) -> Host:
        return next(host for host in self.hosts.values() if host.daemon is not None and host.presence.joined)

    @property
    def state(self) -> ClusterState:
        """As the one that has folded most knows it."""
        return max((host.world.state for host in self.hosts.values()), key=lambda state: state.position)

    @property
    def primary(self) -> str:
        assert self.state.cluster is not None
        return self.state.cluster.primary

    @property
    def epoch(self) -> int:
        assert self.state.cluster is not None
        return self.state.cluster.primary_epoch

    def vm(self, name: str = "web01") -> Vm:
        return self.state.vms[self.state.vm_names[name]]

    def node(self, name: str) -> NodeInfo:
        return self.state.nodes[name]

    async def do(self, name: str, /, **fields: Any) -> None:
        host = next(host for host in self.hosts.values() if host.daemon is not None)
        decide = BY_NAME[name].decide
        await host.appender.submit(Request(name=name, command=command(name, **fields), decide=decide, actor=ADMIN))

    async def until(self, holds: Callable[[], bool], patience_s: float = PATIENCE_S) -> float:
        """Wait for it; returns how long it took."""
        begin = asyncio.get_running_loop().time()
        while not holds():
            await asyncio.sleep(0.1)
            assert asyncio.get_running_loop().time() - begin < patience_s, "it does not happen"
            assert self.runs_on() is not None
        return asyncio.get_running_loop().time() - begin

    def switched(self, node: str) -> list[str]:
        """What was done to a node's power."""
        return [action for action, of in self.fence.calls if of == node and action != "status"]

    def runs_on(self, name: str = "web01") -> list[str]:
        """The machines where the VM runs: never two."""
        vm_id = self.state.vm_names.get(name, "")
        found = []
        for host in self.hosts.values():
            domain = host.machine.snapshot().get(vm_id)
            if domain is not None and domain.state is DomainState.RUNNING:
                found.append(host.name)
        assert len(found) <= 1, f"{name} runs on {found}"
        return found

    async def elections(self) -> list[PrimaryElected]:
        events = [decode_event(raw) for data in await self.log.read(1, 10_000) for raw in unseal(data).record.events]
        return [event for event in events if isinstance(event, PrimaryElected)]

    async def told(self) -> list[str]:
        head = await self.log.head()
        records = await self.log.read(1, head.position)
        return [raw.type for data in records for raw in unseal(data).record.events]


def live(story: Callable[[House], Awaitable[None]], *, agents: bool = True, watchdogs: bool = False) -> None:
    async def main() -> None:
        house = House(watchdogs=watchdogs)
        await house.begin(agents=agents)
        await story(house)
        for host in house.hosts.values():
            host.kill()
            if host.watchdog is not None:
                host.watchdog.disarm()
        await asyncio.gather(*house.closing)

    run_virtual(main())


def other_than(*names: str) -> str:
    return next(name for name in NODES if name not in names)
