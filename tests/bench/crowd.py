"""Many whole nodes in this process, on one real ZooKeeper; each has its own log, presence, fold and hypervisor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from pvc.clock import SystemClock, SystemRng
from pvc.commands.cluster import InitCluster
from pvc.commands.node import AddNode, SetNodeFence
from pvc.drivers.fence_simulated import SimulatedFence
from pvc.drivers.simulated import SimulatedHypervisor
from pvc.drivers.simulated_guest import Behaviour
from pvc.drivers.simulated_network import SimulatedNetwork
from pvc.events.record import Entry
from pvc.events.registry import Event
from pvc.log.inbox_zookeeper import ZookeeperInbox
from pvc.log.zookeeper import ZookeeperLog
from pvc.node.node import Node, Services
from pvc.presence.zookeeper import ZookeeperPresence
from pvc.projections.state import NodeState
from pvc.runtime.appender import Appender
from pvc.runtime.world import World
from tests.bench.running import ask

COORDINATORS = 3
READY_S = 120.0
"""Until all nodes have said that they are ready; a second each on a machine with nothing else to do."""
PHASE_S = 300.0
"""Until whatever is measured has happened; far more than it takes, so that only a defect ends it."""
NETWORK_MIB_PER_S = 100_000.0
MIGRATION_SETUP_S = 0.05
"""A migration takes next to no time, so that what is left is the cluster's own."""


class Member:
    """One node, from its start until it is killed."""

    def __init__(
        self,
        services: Services,
        log: ZookeeperLog,
        inbox: ZookeeperInbox,
        presence: ZookeeperPresence,
        hypervisor: SimulatedHypervisor,
    ) -> None:
        self.name = services.name
        self.world = services.world
        self.appender = services.appender
        self.hypervisor = hypervisor
        self.inbox = inbox
        self._log = log
        self._presence = presence
        self._task = asyncio.create_task(Node(services).run(), name=services.name)

    async def kill(self) -> None:
        """Everything of it ends at once; its session is left to its expiry."""
        self.hypervisor.lose_power()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._presence.close(expire=True)
        await self.inbox.close()
        await self._log.close()

    async def close(self) -> None:
        """End it in good order; nothing if it was killed."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._presence.close(expire=False)
        await self.inbox.close()
        await self._log.close()


class Crowd:
    """The nodes; `first` takes the commands."""

    def __init__(self, hosts: str, cluster: str) -> None:
        self.hosts = hosts
        self.cluster = cluster
        self.members: list[Member] = []
        self.fence = SimulatedFence()
        self._network = SimulatedNetwork(mib_per_s=NETWORK_MIB_PER_S, setup_s=MIGRATION_SETUP_S)

    @property
    def first(self) -> Member:
        return self.members[0]

    async def ask(self, name: str, command: msgspec.Struct) -> int:
        """Give a command to the first node; returns the position that has its outcome in it."""
        return (await ask(self.first.appender, name, command)).position

    async def until_folded(self, position: int) -> None:
        """Return when every node's fold has come so far."""
        await asyncio.gather(*(member.world.reach(position, PHASE_S) for member in self.members))

    async def until(self, happened: Callable[[], bool]) -> None:
        """Return when this holds of what the first node has folded, and then every node has folded it too."""
        changed = asyncio.Event()

        def note(entry: Entry, events: tuple[Event, ...]) -> None:
            changed.set()

        with self.first.world.listening(note):
            async with asyncio.timeout(PHASE_S):
                while not happened():
                    changed.clear()
                    await changed.wait()
        await self.until_folded(self.first.world.position)

    async def add(self, name: str, *, memory_mib: int) -> Member:
        """Start one more node."""
        clock, rng, world = SystemClock(), SystemRng(), World(behind=True)
        log = await ZookeeperLog.open(self.hosts, self.cluster)
        inbox = await ZookeeperInbox.open(self.hosts, self.cluster, log)
        presence = await ZookeeperPresence.open(self.hosts, self.cluster, machine=name)
        hypervisor = SimulatedHypervisor(memory_mib=memory_mib, vcpus=64, network=self._network, address=name)
        # A timer for each guest would be the machine's work and not the node's.
        hypervisor.default_behaviour = Behaviour(heartbeat=False)
        services = Services(
            name=name,
            boot="one",
            world=world,
            log=log,
            appender=Appender(world, log, origin=name, clock=clock, rng=rng, inbox=inbox),
            hypervisor=hypervisor,
            clock=clock,
            rng=rng,
            presence=presence,
            fence=self.fence,
            address=name,
        )
        member = Member(services, log, inbox, presence, hypervisor)
        self.members.append(member)
        return member


@contextlib.asynccontextmanager
async def crowd(
    hosts: str, cluster: str, nodes: int, *, memory_mib: int, extra: Sequence[str] = ()
) -> AsyncIterator[Crowd]:
    """So many nodes, ready and with fencing; `extra` are names of members that run elsewhere."""
    made = Crowd(hosts, cluster)
    names = [f"hv{number}" for number in range(1, nodes + 1)]
    try:
        await made.add(names[0], memory_mib=memory_mib)
        coordinators = tuple(names[: COORDINATORS if nodes >= COORDINATORS else 1])
        await made.ask("cluster.init", InitCluster(name="bench", coordinators=coordinators))
        for name in (*names[len(coordinators) :], *extra):
            await made.ask("node.add", AddNode(node=name))
        for name in names:
            await made.ask("node.set_fence", SetNodeFence(node=name, agent="fence_ipmilan", option=("ip=192.0.2.1",)))
        await asyncio.gather(*(made.add(name, memory_mib=memory_mib) for name in names[1:]))
        async with asyncio.timeout(READY_S):
            await made.until(lambda: all_ready(made, names))
        yield made
    finally:
        await asyncio.gather(*(member.close() for member in made.members), return_exceptions=True)


def all_ready(made: Crowd, names: Sequence[str]) -> bool:
    """Whether the log has these nodes as ready, and a primary."""
    state = made.first.world.state
    nodes = [state.nodes.get(name) for name in names]
    ready = all(node is not None and node.state is NodeState.READY for node in nodes)
    return ready and state.cluster is not None and bool(state.cluster.primary)


class Cost(msgspec.Struct, kw_only=True):
    """What a part of the run took."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    """Of this process, all threads together."""
    records: int = 0


@contextlib.contextmanager
def measured(made: Crowd) -> Iterator[Cost]:
    """The cost of the block."""
    cost = Cost()
    before, begun, cpu = made.first.world.position, time.perf_counter(), time.process_time()
    yield cost
    cost.seconds = time.perf_counter() - begun
    cost.cpu_s = time.process_time() - cpu
    cost.records = made.first.world.position - before


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a process has used so far."""

    cpu_s: float
    rss_mib: float


def usage_of(pid: int) -> Usage:
    """As the kernel counts."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Usage(cpu_s=ticks / os.sysconf("SC_CLK_TCK"), rss_mib=pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024)
