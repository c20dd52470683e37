"""What the machines of a simulated cluster share: log and presence, in memory or over a simulated ZooKeeper.

In memory they are the plainest there can be, with faults of their own: a run is fast, and tries the nodes. Over
ZooKeeper the daemons have the real log and presence, and the servers run on the coordinators and fail with them.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from pvc.errors import Unavailable
from pvc.events.record import Entry
from pvc.log.base import Log
from pvc.log.zookeeper import ZookeeperLog
from pvc.log.zookeeper_layout import SegmentLimits
from pvc.presence.base import Presence
from pvc.presence.memory import MemoryPresence
from pvc.presence.memory_server import PresenceServer
from pvc.presence.zookeeper import ZookeeperPresence
from pvc.sim.cluster_ports import SharedLog
from pvc.sim.log_truth import LogTruth
from pvc.sim.zookeeper_ensemble import Ensemble
from pvc.sim.zookeeper_server import Role, Txn

if TYPE_CHECKING:
    from pvc.sim.cluster_machine import Machine

CLUSTER = "sim"
RETRY_S = 1.0
TEND_S = 0.1
"""How often the servers are told what has become of their machines and of the network."""

MOST_LAG_S = 6.0
"""A server that is further behind would be given up by its leader."""

_PLACE = re.compile(r".*/nodes/([^/]+)")


class Commons(Protocol):
    """Log and presence of a cluster."""

    async def open(self, machine: Machine) -> tuple[Log, Presence]:
        """Both, as one life of a daemon reaches them."""
        ...

    def killed(self, name: str, presence: Presence | None) -> None:
        """A daemon is no more."""
        ...

    def froze(self, name: str) -> None:
        """A daemon stands still."""
        ...

    def thawed(self, name: str) -> None:
        """It goes on."""
        ...

    def records(self) -> list[bytes]:
        """All that is in the log."""
        ...

    async def tend(self, nemesis: Afflictions) -> None:
        """Have the servers suffer what befalls their machines and the network, for ever."""
        ...


class Afflictions(Protocol):
    """What the nemesis does that concerns the servers."""

    isolated: set[str]
    muted: set[str]
    outage: bool
    relented: bool


class MemoryCommons:
    """One list of records, and a server of presence that runs as long as a majority of the coordinators does."""

    def __init__(
        self,
        machines: Mapping[str, Machine],
        log: SharedLog,
        server: PresenceServer,
        note: Callable[[str], object],
        majority: Callable[[], bool],
    ) -> None:
        self._machines = machines
        self._log = log
        self._server = server
        self._note = note
        self._majority = majority

    async def open(self, machine: Machine) -> tuple[Log, Presence]:
        """A view of the log with the machine's own faults."""
        return machine.log_view(self._log), MemoryPresence(self._server, machine.name)

    def killed(self, name: str, presence: Presence | None) -> None:
        """Its session dies of silence."""
        self._server.thaw(name)
        if isinstance(presence, MemoryPresence):
            self._server.listeners.pop(presence, None)

    def froze(self, name: str) -> None:
        """What is on its way waits."""
        self._server.freeze(name)

    def thawed(self, name: str) -> None:
        """It arrives."""
        self._server.thaw(name)

    def records(self) -> list[bytes]:
        """All that is in the log."""
        return self._log.records

    async def tend(self, nemesis: Afflictions) -> None:
        """Tell the presence server what has become of the network."""
        server, had, known = self._server, True, dict.fromkeys(self._machines, "")
        while True:
            has = self._majority()
            if has != had:
                (server.come_up if has else server.go_down)()
                self._note("a majority of servers" if has else "no majority of servers")
                had = has
            for name in self._machines:
                way = "cut" if name in nemesis.isolated else "mute" if name in nemesis.muted else ""
                if way != known[name]:
                    known[name] = way
                    server.restore(name)
                    if way:
                        (server.cut if way == "cut" else server.lose_replies)(name)
            await asyncio.sleep(TEND_S)


class ZookeeperCommons:
    """The real log and presence, over an ensemble that runs on the coordinators."""

    def __init__(
        self,
        machines: Mapping[str, Machine],
        coordinators: list[str],
        rng: random.Random,
        *,
        committed: Callable[[Entry], None],
        breaks: Callable[[str], None],
        note: Callable[[str], object],
        reaches: Callable[[str, str], bool],
    ) -> None:
        self._machines = machines
        self._rng = rng
        self._breaks = breaks
        self._note = note
        self._told = committed
        self._limits = SegmentLimits(records=rng.choice((4_096, 25)))
        self.truth = LogTruth(breaks, self._appended)
        self.ensemble = Ensemble(rng, coordinators, reaches=reaches, committed=self._committed, note=note)

    async def open(self, machine: Machine) -> tuple[Log, Presence]:
        """As the daemon does it, again until somebody answers."""
        bridge = self.ensemble.client(machine.name)
        while True:
            try:
                log = await ZookeeperLog.open("simulated", CLUSTER, limits=self._limits, bridge=bridge)
                break
            except Unavailable:
                await asyncio.sleep(RETRY_S)
        while True:
            try:
                return log, await ZookeeperPresence.open(
                    "simulated", CLUSTER, machine=machine.name, clock=machine.clock, bridge=bridge
                )
            except Unavailable:
                await asyncio.sleep(RETRY_S)

    def killed(self, name: str, presence: Presence | None) -> None:
        """Its sessions die of silence, by themselves."""

    def froze(self, name: str) -> None:
        """So they do."""

    def thawed(self, name: str) -> None:
        """Perhaps they still live."""

    def records(self) -> list[bytes]:
        """All that a majority has."""
        return [entry.data for entry in self.truth.entries]

    async def tend(self, nemesis: Afflictions) -> None:
        """Each server shares its machine's fate, and now and then a client's connection has one of its own."""
        ensemble, swallowed = self.ensemble, dict[str, float]()
        while True:
            for number, (name, server) in enumerate(ensemble.servers.items()):
                machine = self._machines[name]
                wanted = machine.powered and not (nemesis.outage and number)
                if wanted != (server.role is not Role.DOWN):
                    ensemble.start(name) if wanted else ensemble.stop(name, silently=not machine.powered)
                server.frozen = machine.process.frozen
                ensemble.lag_s[name] = min(machine.link.lag_s, MOST_LAG_S)
            for name, machine in self._machines.items():
                self._trouble(nemesis, swallowed, name, machine.link.faults)
            await asyncio.sleep(TEND_S)

    def _trouble(self, nemesis: Afflictions, swallowed: dict[str, float], name: str, faults: float) -> None:
        rng, now = self._rng, self.ensemble.now()
        if name in nemesis.muted:
            self.ensemble.swallow(name, "replies")
            swallowed[name] = now + TEND_S
        elif swallowed.get(name, 0.0) < now and name in swallowed:
            del swallowed[name]
            self.ensemble.restore(name)
        if faults and rng.random() < faults * TEND_S:
            what = rng.choice(("", "requests", "replies", "replies", "both"))
            self._note(f"{name}'s connections lose {what}" if what else f"{name}'s connections break")
            if what:
                self.ensemble.swallow(name, what)
                swallowed[name] = now + rng.random() ** 2 * 12
            else:
                for connection in self.ensemble.wires.get(name, [])[-2:]:
                    connection.client.hung_up(connection)

    def _committed(self, txn: Txn) -> None:
        self.truth.committed(txn)
        gone = {path: None for path, node in txn.steps if node is None}
        for path, node in txn.steps:
            if node is not None:
                gone.pop(path, None)
        for path in gone:
            match = _PLACE.fullmatch(path)
            machine = self._machines.get(match[1]) if match else None
            if machine is not None and machine.lease_left_s() > 0:
                self._breaks(f"{machine.name}'s place is gone, and its lease has {machine.lease_left_s():.2f} s left")

    def _appended(self, entry: Entry) -> None:
        self._told(entry)
        machine = self._machines.get(entry.record.origin)
        if machine is not None:
            machine.appended()
