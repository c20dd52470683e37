"""A machine of the simulated cluster: power, hypervisor, watchdog, and the daemon that is started again and again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import msgspec

from pvc.drivers.fence import Fence
from pvc.drivers.simulated import SimulatedHypervisor
from pvc.drivers.simulated_domains import Kept
from pvc.drivers.simulated_guest import Behaviour
from pvc.drivers.simulated_network import SimulatedNetwork
from pvc.drivers.watchdog import SimulatedWatchdog
from pvc.node.node import Node, Services
from pvc.presence.base import Presence
from pvc.projections.snapshot import restore, snapshot
from pvc.runtime.appender import Request
from pvc.runtime.world import World
from pvc.sim.cluster_commons import Commons
from pvc.sim.cluster_ports import (
    FencePort,
    HypervisorPort,
    LogLink,
    LogView,
    NodeClock,
    NotingAppender,
    SharedLog,
    WatchdogPort,
)
from pvc.sim.cluster_process import Process, in_world

RESTART_S = 6.0
"""Within so long a daemon that was killed is started again."""

BOOT_S = (15.0, 45.0)
"""From power to a running daemon."""

WATCHDOG_S = 10


class Site(msgspec.Struct, kw_only=True):
    """What all machines of a cluster share."""

    commons: Commons
    network: SimulatedNetwork
    fence: Fence
    rng: random.Random
    note: Callable[[str], object]
    strikes: Callable[[str, str], bool]
    """Whether this node's daemon dies after this effect."""
    asked: Callable[[Request], None]
    """A daemon asks for a record."""
    looks: Callable[[str, str], None]
    """Something changed with this VM on this machine."""
    crashed: Callable[[str], None]
    """A daemon ended by itself, which it never may."""


class Machine(SimulatedHypervisor):
    """One machine; as a hypervisor it is what its daemon talks to."""

    def __init__(
        self, name: str, site: Site, *, coordinator: bool, watched: bool, memory_mib: int, link: LogLink
    ) -> None:
        super().__init__(
            memory_mib=memory_mib,
            vcpus=32,
            rng=site.rng,
            jitter_s=0.05,
            network=site.network,
            address=name,
            after_effect=self._struck,
        )
        self.default_behaviour = Behaviour(heartbeat=False)
        self.name = name
        self.coordinator = coordinator
        self.link = link
        self.clock = NodeClock()
        self.process = Process(name)
        self.life: Process | None = None
        self._agents = Process(f"{name} agents", self.process)
        self.node: Node | None = None
        self.world = World()
        self.appender: NotingAppender | None = None
        self.boots = 1
        self.thawing = False
        """What executes now is no beginning."""
        self.lives = 0
        self._site = site
        self._presence: Presence | None = None
        self._watchdog = SimulatedWatchdog(self._bitten) if watched else None
        self._stored = b""
        self._keeper: asyncio.Task[None] | None = None

    # -- What the world does to it ---------------------------------------------------------------------------------

    def power_up(self) -> None:
        """Power is there: it boots."""
        if self._keeper is None:
            self._keeper = in_world(lambda: asyncio.get_running_loop().create_task(self._run(), name=self.name))

    def power_down(self) -> None:
        """Power is gone, at once."""
        if self._keeper is None:
            return
        self._keeper.cancel()
        self._keeper = None
        self._site.note(f"{self.name} is off")
        if self._watchdog is not None:
            in_world(self._watchdog.disarm)
        self.kill()
        self._agents.kill()
        self._agents = Process(f"{self.name} agents", self.process)
        in_world(self.lose_power)
        self.thaw_machine()

    def reset_machine(self) -> None:
        """The reset button."""
        if self._keeper is not None:
            self.power_down()
            self.power_up()

    def kill(self) -> None:
        """`kill -9` of the daemon."""
        if self.life is not None and not self.life.dead:
            self.life.kill()
            self._site.note(f"{self.name} daemon dies")
            self._site.commons.killed(self.name, self._presence)

    def freeze_daemon(self) -> None:
        """SIGSTOP."""
        if self.alive and self.life is not None:
            self.life.freeze()
            self._site.commons.froze(self.name)

    def thaw_daemon(self) -> None:
        """SIGCONT."""
        if self.life is not None:
            self.life.thaw()
        if not self.process.frozen:
            self._site.commons.thawed(self.name)

    def freeze_machine(self) -> None:
        """Everything on it stands still, but not its watchdog."""
        if self._keeper is not None:
            self.process.freeze()
            self._site.commons.froze(self.name)
            for vm in list(self._domains):
                self._site.looks(self.name, vm)

    def thaw_machine(self) -> None:
        """It goes on as if nothing had been."""
        self.process.thaw()
        if self.life is None or not self.life.frozen:
            self._site.commons.thawed(self.name)
        self.thawing = True
        for vm in list(self._domains):
            self._site.looks(self.name, vm)
        self.thawing = False

    def calm_down(self) -> None:
        """Every guest becomes quiet, so that also what is under way comes to its end."""
        self.behaviours.clear()
        for migration in self._migrations.values():
            migration._converges = True
            migration.network_changed()

    def remember(self) -> None:
        """The daemon writes its state to its disk."""
        if self.world.fault is None and self.world.state.cluster is not None:
            self._stored = snapshot(self.world.state)

    # -- What can be seen of it ------------------------------------------------------------------------------------

    @property
    def on(self) -> bool:
        """Whether it has power."""
        return self._keeper is not None

    @property
    def alive(self) -> bool:
        """Whether there is a daemon, frozen or not."""
        return self.life is not None and not self.life.dead

    @property
    def well(self) -> bool:
        """Whether there is a daemon at work."""
        return self.life is not None and not self.life.dead and not self.life.frozen

    @property
    def may_start(self) -> bool:
        """Whether its daemon holds that it may start VMs."""
        return self.alive and self.on and self.node is not None and self.node.standing.may_start()

    def executes(self, vm: str) -> bool:
        """Whether the guest's CPUs run here now, or would if the machine did."""
        return _executes(self._domains.get(vm))

    def holds_copy(self, vm: str) -> bool:
        """Whether the guest stands still here, complete."""
        kept = self._domains.get(vm)
        return kept is not None and kept.running and kept.paused and not kept.incoming

    def epoch_of(self, vm: str) -> int:
        """Of the run that is here."""
        return self._domains[vm].epoch

    def executing(self) -> list[str]:
        """The VMs that run here now, or would if the machine did."""
        return [vm for vm, kept in self._domains.items() if _executes(kept)]

    def lease_left_s(self) -> float:
        """Of the daemon's lease, as it would say itself."""
        return self._presence.lease_left_s() if self.alive and self._presence is not None else 0.0

    # -- For what it shares with others ----------------------------------------------------------------------------

    def log_view(self, log: SharedLog) -> LogView:
        """The log as its daemon reaches it."""
        return LogView(log, self.link, self._site.rng, self._struck)

    def appended(self) -> None:
        """A record of its daemon is in the log now."""
        self._struck("append")

    # -- Within ----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        site = self._site
        if self.boots > 1 or not self.powered:
            await asyncio.sleep(site.rng.uniform(*BOOT_S))
        self.boots += 1
        in_world(self.regain_power)
        while True:
            self.lives += 1
            life = self.life = Process(f"{self.name}.{self.lives}", self.process)
            state = restore(self._stored) if self._stored and site.rng.random() < 0.5 else None
            self.world, self.appender, self._presence, self.node = World(state), None, None, None
            task = life.run(self._live(), life.name)
            task.add_done_callback(self._ended)
            while not life.dead:  # noqa: ASYNC110 - whoever kills it has no time to tell
                await asyncio.sleep(0.5)
            await asyncio.sleep(site.rng.random() * RESTART_S)

    async def _live(self) -> None:
        site = self._site
        log, self._presence = await site.commons.open(self)
        self.appender = NotingAppender(
            self.world, log, origin=self.name, clock=self.clock, rng=site.rng, note=site.asked
        )
        self.node = Node(
            Services(
                name=self.name,
                boot=f"{self.name}-{self.boots}",
                world=self.world,
                log=log,
                appender=self.appender,
                hypervisor=HypervisorPort(self, self.process),
                clock=self.clock,
                rng=site.rng,
                presence=self._presence,
                fence=FencePort(site.fence, self._agents),
                watchdog=WatchdogPort(self._watchdog) if self._watchdog is not None else None,
                watchdog_timeout_s=WATCHDOG_S,
                address=self.name,
            )
        )
        await self.node.run()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._site.crashed(f"the daemon of {self.name} ended by itself: {task.exception()!r}")

    def _struck(self, effect: str) -> None:
        if self.alive and self._site.strikes(self.name, effect):
            self.kill()

    def _bitten(self) -> None:
        self._site.note(f"{self.name} watchdog bites")
        self.reset_machine()

    def _tell(self, vm: str) -> None:
        super()._tell(vm)
        if vm:
            self._site.looks(self.name, vm)

    def hold(self, vm: str) -> None:
        """Also what stands still is looked at."""
        super().hold(vm)
        self._site.looks(self.name, vm)


def _executes(kept: Kept | None) -> bool:
    return kept is not None and kept.running and not kept.incoming and not kept.paused
