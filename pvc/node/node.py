"""One node at work: follower, appender, VM reconciler, and the announcement that it is ready.

The same code runs in the daemon on real ports and in the simulator on virtual time with simulated ones. Stopping it, by
cancellation or by a crash at any point, never touches a domain; starting it again picks up from log and hypervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import msgspec

from pvc import __version__
from pvc.clock import Clock, Rng
from pvc.commands.facts import ReportNodeReady
from pvc.drivers.anchors import Anchor
from pvc.drivers.fence import Fence
from pvc.drivers.hypervisor import Hypervisor
from pvc.drivers.watchdog import Watchdog
from pvc.errors import OutcomeUnknown, PvcError, Unavailable
from pvc.events.node import NodeDiverged
from pvc.events.record import Entry
from pvc.events.registry import FEATURE_LEVEL, Event, subject_of
from pvc.events.vm_moves import VmArrived, VmMigrationFailed
from pvc.handlers.effect_watch import EffectWatch
from pvc.handlers.queue import KeyedQueue
from pvc.handlers.transfers import Transfers
from pvc.handlers.vm_reconciler import Obstacle, VmReconciler, nothing_missing
from pvc.log.base import Log
from pvc.node.anchoring import Anchoring
from pvc.node.archivist import ArchiveParts, Archivist, unsigned
from pvc.node.delivering import DeliveryParts, make_delivering
from pvc.node.erasing import Erasing
from pvc.node.footing import Footing
from pvc.node.primary import Primary
from pvc.node.reports import Reports
from pvc.node.self_fence import SelfFence
from pvc.node.standing import Standing
from pvc.node.telemetry import Publisher
from pvc.node.vouching import Vouching, VouchingParts
from pvc.presence.base import Presence
from pvc.presence.hello import Contact
from pvc.runtime.append_watch import AppendWatch
from pvc.runtime.appender import Appender
from pvc.runtime.past_files import PastFiles
from pvc.runtime.people import People
from pvc.runtime.snapshots import SnapshotFile, check_same_log, keep_snapshots, newest_seen
from pvc.runtime.world import World, catch_up, follow

logger = logging.getLogger(__name__)

PASS_S = 30.0
"""Between two looks at everything: heals what no event announced."""

RETRY_S = 1.0
"""Between two tries to reach a log or hypervisor that does not answer."""

MOVE_ENDED = (VmArrived, VmMigrationFailed)
"""Then a flush may go on with the next VM."""


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """What a node is made of."""

    name: str
    boot: str
    """The kernel's boot id."""
    world: World
    log: Log
    appender: Appender
    hypervisor: Hypervisor
    clock: Clock
    rng: Rng
    snapshots: SnapshotFile | None = None
    """Where the folded state is kept between starts, if anywhere."""
    past_files: PastFiles | None = None
    """Where states of the past are kept, if anywhere."""
    presence: Presence
    fence: Fence | None = None
    """How the primary cuts the power of lost nodes; None in a cluster that will never have a second node."""
    watchdog: Watchdog | None = None
    """Where this node fences itself."""
    watchdog_timeout_s: int = 10
    address: str = ""
    """Where other nodes reach this one's hypervisor."""
    contact: Contact = Contact()
    """How they reach its gateway."""
    obstacle: Obstacle = nothing_missing
    vouching: VouchingParts | None = None
    """The replica and the signing key, where this node may sign checkpoints of the log."""
    anchors: tuple[Anchor, ...] = ()
    """Where checkpoints are kept outside."""
    people: People | None = None
    """Where the keys of people's names are, if anywhere."""
    archive: ArchiveParts | None = None
    """Where sealed segments of the log go, where the log has any."""
    watch: AppendWatch | None = None
    """Where its work is counted and told of."""
    webhooks: DeliveryParts | None = None
    """The way to receivers of webhooks, where this node may deliver."""
    zookeeper: Callable[[], Awaitable[str]] | None = None
    """What this node's ZooKeeper server is, where it runs one."""


class Node:
    """Runs until cancelled."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._world = services.world
        self._hypervisor = services.hypervisor
        self._footing = Footing(services.world, services.log)
        self._pass_wanted = asyncio.Event()
        self.standing = Standing(
            services.name,
            services.world,
            services.presence,
            self._pass_wanted,
            archived=lambda: self.archivist.archived if self.archivist else 0,
            contact=services.contact,
        )
        self._reports = Reports(
            services.name, services.world, services.appender, services.clock, services.rng, epoch=self._epoch
        )
        self._transfers = Transfers(services.hypervisor, lambda vm_id: self.queue.wake(vm_id))
        watch = services.watch or AppendWatch(services.clock)
        self._reconciler = VmReconciler(
            services.name,
            self._footing.state,
            services.hypervisor,
            self._reports.give,
            services.clock,
            transfers=self._transfers,
            obstacle=services.obstacle,
            may_start=lambda: self.standing.may_start() and not self._promised_too_much(),
            watch=EffectWatch(services.name, services.clock, watch.meters, watch.tracer, watch.chains.of),
        )
        reconcile = self._reconciler.reconcile_in_task
        self.queue = KeyedQueue(reconcile, clock=services.clock, rng=services.rng, meters=watch.meters)
        self._self_fence = (
            SelfFence(
                services.presence,
                services.hypervisor,
                services.watchdog,
                services.watchdog_timeout_s,
                changed=self._pass_wanted.set,
            )
            if services.watchdog is not None
            else None
        )
        self._primary = (
            Primary(
                services.name,
                services.world,
                services.presence,
                services.fence,
                self._reports.append,
                services.clock,
                may_act=lambda: self.standing.joined and services.presence.lease_left_s() > 0,
            )
            if services.fence is not None
            else None
        )
        self._vouching = self._make_vouching(services.vouching) if services.vouching is not None else ()
        sign = self._vouching[1].sign if self._vouching else unsigned
        people, hooks, report = services.people, services.webhooks, self._reports.append
        self._erasing = people and Erasing(services.name, self._world, people, report, self._epoch)
        self._delivering = hooks and make_delivering(services.name, self._world, hooks, report, self._epoch)
        self.archivist = services.archive and Archivist(
            services.name, self._world, services.archive, services.presence, epoch=self._epoch, sign=sign
        )

    async def run(self) -> None:
        """Catch up, announce the node, and work."""
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            stack.push_async_callback(self._transfers.close)
            # A long log takes longer to fold than the others wait for a node that they do not hear of, with its VMs.
            group.create_task(self.standing.run())
            if self._self_fence is not None:
                group.create_task(self._self_fence.run())
            await self._catch_up()
            self._world.note_caught_up()
            stack.enter_context(self._world.listening(self._wake_concerned))
            group.create_task(self._follow())
            group.create_task(self._services.appender.run())
            group.create_task(self.queue.run())
            group.create_task(self._watch_hypervisor())
            group.create_task(self._announce_and_look())
            group.create_task(self._publisher().run())
            group.create_task(self._reports.run())
            if self._primary is not None:
                group.create_task(self._primary.run())
            for part in filter(None, (*self._vouching, self._erasing, self._delivering, self.archivist)):
                group.create_task(part.run())
            if self._services.snapshots is not None:
                group.create_task(keep_snapshots(self._world, self._services.snapshots, self._services.past_files))

    async def _catch_up(self) -> None:
        replica = self._services.vouching.history if self._services.vouching is not None else None
        while True:
            try:
                await check_same_log(await newest_seen(self._world, replica), self._services.log)
                await self._reports.clear()
                return await catch_up(self._world, self._services.log)
            except (Unavailable, OutcomeUnknown) as error:
                logger.warning("log: not available yet error=%s", error)
                await asyncio.sleep(RETRY_S)
            except PvcError as fault:
                self._world.fault = fault
                logger.error("fold: stopped position=%d code=%s error=%s", self._world.position, fault.code, fault)
                return None

    async def _follow(self) -> None:
        if self._world.fault is not None:
            return
        try:
            await follow(self._world, self._services.log)
        except PvcError as fault:
            # VMs go on; reads are served from the last good state; writes are refused with this reason.
            self._world.fault = fault
            logger.error("fold: stopped position=%d code=%s error=%s", self._world.position, fault.code, fault)

    async def _announce_and_look(self) -> None:
        cause = await self._until_initialised()
        while True:
            self._pass_wanted.clear()
            if not self._all_told():
                await self._announce(cause)
                cause = ""
            await self._look_at_everything()
            pause_s = PASS_S if self._all_told() else RETRY_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._pass_wanted.wait()

    async def _announce(self, cause: str) -> None:
        """Say that this node is ready, again after each loss; first what is no longer its own is cleared away."""
        session = self.standing.session
        # Without a lease the session may be over, and the primary know it: it would contradict each time, at once.
        if not self.standing.joined or self._services.presence.lease_left_s() <= 0:
            return
        if self._world.fault is not None:
            return  # which has been told
        if self._self_fence is not None and not self._self_fence.known:
            self.standing.note_unready("its watchdog has not been tried yet")
            return  # what it cannot keep it must not promise
        try:
            # What looks like a stray to a fold that is behind may have been given to this node meanwhile.
            await catch_up(self._world, self._services.log)
            self._footing.state()
            await self._clear_strays()
            await self._announced(cause)
        except PvcError as error:
            logger.warning("node: cannot announce itself yet error=%s", error)
            self.standing.note_unready(error.message)
            return
        self.standing.note_announced(session)
        logger.info("node: ready name=%s position=%d", self._services.name, self._world.position)

    @property
    def _promise_s(self) -> int:
        return self._self_fence.promise_s if self._self_fence is not None else 0

    @property
    def _promised_s(self) -> int:
        own = self._world.state.nodes.get(self._services.name)
        return own.self_fence_s if own is not None else 0

    def _all_told(self) -> bool:
        return self.standing.announced and self._promised_s == self._promise_s

    def _promised_too_much(self) -> bool:
        """The watchdog does not do any more what the others count on, and the log does not know it yet."""
        return self._promised_s > 0 and self._promise_s == 0

    async def _clear_strays(self) -> None:
        state, name = self._world.state, self._services.name
        own = {*state.placed.ids_on(name), *state.placed.incoming.get(name, ())}
        for domain in await self._hypervisor.list_domains():
            if domain.vm not in own:
                await self._reconciler.reconcile(domain.vm)

    async def _until_initialised(self) -> str:
        """Wait for a cluster to belong to; returns the id of the record that made it, if that was just now."""
        made_by: list[str] = []

        def note(entry: Entry, events: tuple[Event, ...]) -> None:
            if self._world.state.cluster is not None and not made_by:
                made_by.append(entry.record.id)

        if self._world.state.cluster is not None:
            return ""
        with self._world.listening(note):
            while not made_by:
                with contextlib.suppress(Unavailable):
                    await self._world.reach(self._world.position + 1, PASS_S)
        return made_by[0]

    async def _announced(self, cause: str) -> None:
        info = await self._hypervisor.info()
        ready = ReportNodeReady(
            node=self._services.name,
            memory_mib=info.memory_mib,
            vcpus=info.vcpus,
            accelerator=info.accelerator,
            hypervisor=info.version,
            version=__version__,
            boot=self._services.boot,
            address=self._services.address,
            self_fence_s=self._promise_s,
            level=FEATURE_LEVEL,
        )
        await self._reports.give(ready, cause)

    async def _look_at_everything(self) -> None:
        try:
            domains = await self._hypervisor.list_domains()
        except PvcError as error:
            logger.warning("hypervisor: cannot list domains error=%s", error)
            return
        if self._footing.firm:
            for vm_id in self._reconciler.unsettled(domains):
                self.queue.wake(vm_id)

    async def _watch_hypervisor(self) -> None:
        while True:
            try:
                async for vm_id in self._hypervisor.events():
                    if vm_id:
                        self.queue.wake(vm_id)
                    else:
                        self._pass_wanted.set()
            except PvcError as error:
                logger.warning("hypervisor: events stopped error=%s", error)
            await asyncio.sleep(RETRY_S)

    def _wake_concerned(self, entry: Entry, events: tuple[Event, ...]) -> None:
        for event in events:
            subject = subject_of(event)
            if subject.kind == "vm":
                if self._concerns(subject.id, event):
                    self.queue.wake(subject.id)
            elif subject.kind == "node" and subject.id == self._services.name:
                if not self.standing.announced:
                    self._pass_wanted.set()
                if isinstance(event, NodeDiverged) and self._services.snapshots is not None:
                    self._services.snapshots.discard()
                    if self._services.past_files is not None:
                        self._services.past_files.discard()
            if self._primary is not None and (subject.kind != "vm" or isinstance(event, MOVE_ENDED)):
                self._primary.hint()

    def _concerns(self, vm_id: str, event: Event) -> bool:
        """Whether a VM is, was or will be this node's: in a large cluster most are none of these."""
        vm, name = self._world.state.vms.get(vm_id), self._services.name
        if vm is None or vm.node == name or getattr(event, "source", "") == name:
            return True
        return vm.migration is not None and vm.migration.target == name

    def _make_vouching(self, parts: VouchingParts) -> tuple[Anchoring, Vouching]:
        services = self._services
        common = services.name, services.world
        anchoring = Anchoring(
            *common,
            parts.history,
            services.anchors,
            self._reports.append,
            services.clock,
            services.rng,
            epoch=self._epoch,
        )
        vouching = Vouching(
            *common,
            parts,
            self._reports.append,
            services.clock,
            epoch=self._epoch,
            may_speak=lambda: self.standing.announced,
            anchored=anchoring.delivered,
        )
        return anchoring, vouching

    def _epoch(self) -> int | None:
        """Of the term in which this node acts for the cluster; 0 where nobody else could, None outside of a term."""
        return self._primary.epoch if self._primary is not None else 0

    def _publisher(self) -> Publisher:
        services = self._services
        common = services.name, services.world, services.presence, services.hypervisor
        return Publisher(*common, self._transfers, services.clock, services.zookeeper)
