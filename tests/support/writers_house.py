"""Nodes that report of their VMs through one log and one inbox in memory, over links that fail, on virtual time.

A node here is what forwards, takes in and appends, and instead of a hypervisor a set of domains that its machine keeps
when the daemon dies. What a request has set in motion goes on without the daemon that sent it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import TypeVar, cast

import msgspec

from pvc import __version__
from pvc.commands.base import Context, Decision
from pvc.commands.facts import FORWARDABLE, REPORTS, Ending, Report, ReportEnded, ReportRunning
from pvc.commands.facts_cluster import ReportPrimary
from pvc.errors import OutcomeUnknown, PvcError, Unavailable
from pvc.events import vm as e
from pvc.events.cluster import PrimaryElected
from pvc.events.record import Actor, Entry, Head, unseal
from pvc.events.registry import decode_event
from pvc.log.inbox import Forwarded, Found
from pvc.log.inbox_memory import MemoryInbox
from pvc.log.memory import MemoryLog
from pvc.projections.state import ClusterState
from pvc.projections.vm_machine import VmState
from pvc.runtime.appender import Appender, Outcome, Request
from pvc.runtime.drainer import Drainer
from pvc.runtime.forwarder import Forwarder
from pvc.runtime.world import World, catch_up, follow
from pvc.sim.loop import VirtualClock
from tests.support.core import ADMIN, TinyCluster, command

T = TypeVar("T")

SILENCE_S = 1.0
"""After so long a call that gets no answer is given up."""

NOTE = "test.note"


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """A report that says something new whenever it is decided: nothing but the protocol keeps it from being recorded
    twice, where a report about a VM would come to nothing."""

    node: str
    number: int
    vm: str = "none"


def note(state: ClusterState, report: Note, context: Context) -> Decision:
    """Always an event, about a VM that there is not."""
    return Decision(events=(e.VmTagAdded(vm=report.vm, tag=f"{report.node}:{report.number}"),))


@contextlib.contextmanager
def notes_forwardable() -> Iterator[None]:
    """Within the block notes may be forwarded."""
    known = cast("dict[str, object]", FORWARDABLE)
    known[NOTE] = (Note, note)
    try:
        yield
    finally:
        del known[NOTE]


class Link(msgspec.Struct, kw_only=True):
    """The way of one node to the log and the inbox."""

    rng: random.Random
    faults: float = 0.0
    cut: bool = False
    fold_stands: bool = False
    """Nothing that others append is folded, though everything else works."""

    async def over(self, act: Callable[[], Awaitable[T]]) -> T:
        """Have it done there. Whether it was is not always heard, and sometimes it is done later than one waits."""
        fault = self.rng.choice(("refused", "lost", "late", "unheard")) if self.rng.random() < self.faults else ""
        if fault == "refused":
            raise Unavailable("no connection")
        there = asyncio.ensure_future(self._there(act, fault))
        there.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            async with asyncio.timeout(SILENCE_S):
                # The request goes on when its sender is killed.
                return await asyncio.shield(there)
        except TimeoutError:
            raise OutcomeUnknown("no reply") from None

    async def _there(self, act: Callable[[], Awaitable[T]], fault: str) -> T:
        await asyncio.sleep(0.001 + 0.002 * self.rng.random())
        if fault == "late":
            await asyncio.sleep(3 * SILENCE_S * self.rng.random())
        if fault == "lost" or self.cut:
            await asyncio.sleep(10 * SILENCE_S)
            raise Unavailable("nobody hears this")
        done = await act()
        await asyncio.sleep(0.001 + 0.002 * self.rng.random() + (2 * SILENCE_S if fault == "unheard" else 0.0))
        return done


class LinkedLog:
    """The log as one node reaches it."""

    def __init__(self, log: MemoryLog, link: Link) -> None:
        self._log = log
        self._link = link

    async def head(self) -> Head:
        return await self._link.over(self._log.head)

    async def append(self, entries: Sequence[Entry], *, after: Head) -> Head:
        return await self._link.over(lambda: self._log.append(entries, after=after))

    async def read(self, first: int, limit: int) -> list[bytes]:
        return await self._link.over(lambda: self._log.read(first, limit))

    async def follow(self, after: int) -> AsyncIterator[list[bytes]]:
        async for batch in self._log.follow(after):
            await asyncio.sleep(0.001 + 0.01 * self._link.rng.random())
            while self._link.cut or self._link.fold_stands:
                await asyncio.sleep(0.1)
            yield batch

    async def close(self) -> None:
        """The log beneath goes on."""


class LinkedInbox:
    """The inbox as one node reaches it."""

    def __init__(self, inbox: MemoryInbox, link: Link) -> None:
        self._inbox = inbox
        self._link = link

    async def put(self, reports: Sequence[Forwarded]) -> None:
        await self._link.over(lambda: self._inbox.put(reports))

    async def left(self, keys: Sequence[str]) -> list[bool]:
        return await self._link.over(lambda: self._inbox.left(keys))

    async def remove(self, keys: Sequence[str]) -> None:
        await self._link.over(lambda: self._inbox.remove(keys))

    async def keys(self) -> list[str]:
        return await self._link.over(self._inbox.keys)

    async def waiting(self) -> list[Found]:
        return await self._link.over(self._inbox.waiting)

    async def changed(self, timeout_s: float) -> None:
        await self._inbox.changed(timeout_s)

    async def append(self, entries: Sequence[Entry], *, after: Head, taking: Sequence[Forwarded]) -> Head:
        return await self._link.over(lambda: self._inbox.append(entries, after=after, taking=taking))

    async def close(self) -> None:
        """The inbox beneath goes on."""


class Writer:
    """One node; `start` and `kill` are its daemon's, `domains` its machine's."""

    def __init__(self, house: WritersHouse, name: str, seed: int) -> None:
        self.name = name
        self.domains: dict[str, int] = {}
        """VM -> the run that is up."""
        self.link = Link(rng=random.Random(f"{seed} {name}"))
        self.epoch: int | None = None
        """Of the term that this daemon believes in; it is told when that begins, and never that it is over."""
        self.reconciles = True
        """Whether it looks after its VMs by itself."""
        self.notes: dict[int, bool] = {}
        """Number of each note it has begun to report -> whether it was told that it is in the log."""
        self._house = house
        self._tasks: list[asyncio.Task[None]] = []
        self._new_life()

    def _new_life(self) -> None:
        log, rng, clock = LinkedLog(self._house.log, self.link), self.link.rng, VirtualClock()
        self.log, self.epoch, self.world = log, None, World()
        self.inbox = LinkedInbox(self._house.inbox, self.link)
        self.appender = Appender(self.world, log, origin=self.name, clock=clock, rng=rng, inbox=self.inbox)
        common = self.world, self.appender, self.inbox
        self.forwarder = Forwarder(self.name, *common, clock, rng, crowd=self._house.crowd)
        self.drainer = Drainer(*common, epoch=lambda: self.epoch)

    def start(self) -> None:
        """The daemon begins a new life."""
        assert not self._tasks, "it runs"
        self._new_life()
        self._tasks = [asyncio.create_task(self._live(), name=self.name)]

    async def kill(self) -> None:
        """It ends between any two of its steps; what it has asked for may still happen."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def alive(self) -> bool:
        return bool(self._tasks)

    async def be_elected(self) -> None:
        """Have it recorded that this node is the primary, and act as such from then on."""
        outcome = await self.appender.submit(self.request(ReportPrimary(node=self.name)))
        (elected,) = [event for event in outcome.decision.events if isinstance(event, PrimaryElected)]
        self.epoch = elected.epoch

    def request(self, report: Report) -> Request:
        name, decide = REPORTS[type(report)]
        actor = Actor(principal=f"node/{self.name}", method="node")
        return Request(name=name, command=report, decide=decide, actor=actor, cause="C")

    async def report(self, report: Report) -> Outcome:
        """As the node's reconciler does."""
        return await self.forwarder.submit(self.request(report))

    async def report_note(self) -> Outcome:
        """The next note. After a failure it is not repeated: it is in the log once, or never."""
        number = len(self.notes)
        self.notes[number] = False
        actor = Actor(principal=f"node/{self.name}", method="node")
        report = Note(node=self.name, number=number)
        outcome = await self.forwarder.submit(Request(name=NOTE, command=report, decide=note, actor=actor))
        assert outcome.entry is not None, f"note {number} of {self.name} is said to be no news"
        self.notes[number] = True
        return outcome

    async def _live(self) -> None:
        while True:
            with contextlib.suppress(PvcError):
                await self.forwarder.clear()
                await catch_up(self.world, self.log)
                break
            await asyncio.sleep(0.5)
        async with asyncio.TaskGroup() as group:
            for work in (self.appender.run(), follow(self.world, self.log), self.forwarder.run(), self.drainer.run()):
                group.create_task(work)
            for vm in self._house.vms_of(self.name) if self.reconciles else ():
                group.create_task(self._reconcile(vm))
            if self._house.notes_s:
                group.create_task(self._note_on())

    async def _note_on(self) -> None:
        while True:
            await asyncio.sleep(self._house.notes_s * self.link.rng.random())
            with contextlib.suppress(PvcError):
                await self.report_note()

    async def _reconcile(self, vm_id: str) -> None:
        """Start what is to start, let guests end by themselves, and report what is."""
        while True:
            await asyncio.sleep(0.02 + 0.1 * self.link.rng.random())
            vm, up = self.world.state.vms[vm_id], self.domains.get(vm_id, 0)
            report: Report | None = None
            if vm.state is VmState.STARTING:
                self.domains[vm_id] = vm.epoch
                report = ReportRunning(vm=vm_id, node=self.name, epoch=vm.epoch)
            elif vm.state is VmState.RUNNING and up == vm.epoch and self._house.ends_by_itself(self.link.rng):
                del self.domains[vm_id]
                report = ReportEnded(vm=vm_id, node=self.name, epoch=vm.epoch, ending=Ending.GUEST)
            elif vm.state is VmState.RUNNING and not up:
                report = ReportEnded(vm=vm_id, node=self.name, epoch=vm.epoch, ending=Ending.GUEST)
            if report is not None:
                with contextlib.suppress(PvcError):
                    await self.report(report)


def founded(names: Sequence[str], vms: int) -> TinyCluster:
    """A cluster of these nodes, all coordinators and ready, each with so many VMs."""
    cluster = TinyCluster()
    cluster.do("cluster.init", name="main", coordinators=names[:1])
    cluster.says_ready(names[0], version=__version__)
    for name in names[1:]:
        cluster.add_node(name, coordinator=True, version=__version__)
    for name in names:
        for number in range(vms):
            cluster.do("vm.define", name=f"{name}-{number}", memory_mib=64, node=name)
    return cluster


class WatchedInbox(MemoryInbox):
    """Remembers what was laid in, and can hold some of it back from whoever takes it in."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.laid_in: list[Forwarded] = []
        self.held_back: set[int] = set()
        """Which of those laid in are not shown, the first being 0."""

    async def put(self, reports: Sequence[Forwarded]) -> None:
        await super().put(reports)
        self.laid_in += reports

    async def waiting(self) -> list[Found]:
        hidden = {self.laid_in[number].key for number in self.held_back if number < len(self.laid_in)}
        return [found for found in await super().waiting() if found.key not in hidden]


class WritersHouse:
    """The cluster: nodes n1.., each with some VMs that are to run again and again."""

    def __init__(
        self, nodes: int, vms: int = 2, *, crowd: int = 0, seed: int = 0, ending: float = 0.0, notes_s: float = 0.0
    ) -> None:
        self.crowd = crowd
        self.notes_s = notes_s
        """The longest pause between two notes of a node; 0: there are none."""
        self.ending = ending
        """How likely a guest ends at each look."""
        self.log = MemoryLog()
        self.inbox = WatchedInbox(self.log)
        self.names = [f"n{number}" for number in range(1, nodes + 1)]
        self.cluster = founded(self.names, vms)
        self.writers = {name: Writer(self, name, seed) for name in self.names}

    async def open(self) -> None:
        """Write what came before, and start all nodes; the first is elected."""
        entries = self.cluster.entries
        await self.log.append(entries, after=Head())
        for writer in self.writers.values():
            writer.start()
        await asyncio.sleep(1.0)
        await self.writers["n1"].be_elected()
        await asyncio.sleep(0.5)

    def ends_by_itself(self, rng: random.Random) -> bool:
        return rng.random() < self.ending

    def vms_of(self, name: str) -> list[str]:
        return sorted(vm.id for vm in self.cluster.state.vms.values() if vm.node == name)

    async def admin(self, name: str, /, by: str = "", **fields: object) -> None:
        """Give a command by way of this node, or else of some living one, until it is answered."""
        from pvc.commands.registry import BY_NAME

        while True:
            alive = [writer for writer in self.writers.values() if writer.alive]
            if not alive:
                await asyncio.sleep(0.5)
                continue
            writer = self.writers[by] if by else alive[0]
            request = Request(name=name, command=command(name, **fields), decide=BY_NAME[name].decide, actor=ADMIN)
            # A node that is killed before its appender has begun leaves who has asked it without an answer.
            with contextlib.suppress(Unavailable, OutcomeUnknown, TimeoutError):
                async with asyncio.timeout(10.0):
                    await writer.appender.submit(request)
                    return
            await asyncio.sleep(0.5)

    async def records(self) -> list[Entry]:
        return [unseal(data) for data in await self.log.read(1, 100_000)]

    async def facts(self) -> list[tuple[str, str, str, int]]:
        """Of each VM's run that began or ended: origin, type, VM's name, run; in the order of the log."""
        found = []
        for entry in await self.records():
            for event in map(decode_event, entry.record.events):
                if isinstance(event, e.VmStarted | e.VmStopped):
                    vm = self.cluster.state.vms[event.vm]
                    found.append((entry.record.origin, event.TYPE, vm.name, event.epoch))
        return found

    async def noted(self) -> list[tuple[str, int]]:
        """Node and number of each note in the log, which its own node must have made; in the order of the log."""
        found = []
        for entry in await self.records():
            for event in map(decode_event, entry.record.events):
                if isinstance(event, e.VmTagAdded):
                    node, _, number = event.tag.partition(":")
                    assert entry.record.origin == node and entry.record.actor.principal == f"node/{node}"
                    found.append((node, int(number)))
        return found

    async def close(self) -> None:
        for writer in self.writers.values():
            await writer.kill()
