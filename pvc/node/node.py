"""One node at work: follower, appender, VM reconciler, and the announcement that it is ready.

The same code runs in the daemon on real ports and in the simulator on virtual time with simulated ones. Stopping it, by
cancellation or by a crash at any point, never touches a domain; starting it again picks up from log and hypervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

import msgspec

from pvc import __version__
from pvc.clock import Clock, Rng
from pvc.commands.facts import REPORTS, Report, ReportNodeReady
from pvc.drivers.hypervisor import Hypervisor
from pvc.errors import PvcError, Unavailable
from pvc.events.record import Actor, Entry
from pvc.events.registry import Event, subject_of
from pvc.handlers.queue import KeyedQueue
from pvc.handlers.vm_reconciler import VmReconciler
from pvc.log.base import Log
from pvc.runtime.appender import Appender, Request
from pvc.runtime.snapshots import SnapshotFile, check_same_log, keep_snapshots
from pvc.runtime.world import World, catch_up, follow

logger = logging.getLogger(__name__)

PASS_S = 30.0
"""Between two looks at everything: heals what no event announced."""

RETRY_S = 1.0
"""Between two tries to reach a log or hypervisor that does not answer."""


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


class Node:
    """Runs until cancelled."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._world = services.world
        self._hypervisor = services.hypervisor
        self._reconciler = VmReconciler(
            services.name, lambda: self._world.state, services.hypervisor, self._give_report, services.clock
        )
        self.queue = KeyedQueue(self._reconciler.reconcile, clock=services.clock, rng=services.rng)
        self._pass_wanted = asyncio.Event()

    async def run(self) -> None:
        """Catch up, announce the node, and work."""
        await self._catch_up()
        self._world.note_caught_up()
        with self._world.listening(self._wake_concerned):
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow())
                group.create_task(self._services.appender.run())
                group.create_task(self.queue.run())
                group.create_task(self._watch_hypervisor())
                group.create_task(self._announce_and_look())
                if self._services.snapshots is not None:
                    group.create_task(keep_snapshots(self._world, self._services.snapshots))

    async def _catch_up(self) -> None:
        while True:
            try:
                await check_same_log(self._world, self._services.log)
                return await catch_up(self._world, self._services.log)
            except Unavailable as error:
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
        while not await self._announced(cause):  # noqa: ASYNC110 - nothing tells when the hypervisor will answer
            await asyncio.sleep(RETRY_S)
        while True:
            await self._look_at_everything()
            self._pass_wanted.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PASS_S):
                    await self._pass_wanted.wait()

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

    async def _announced(self, cause: str) -> bool:
        try:
            info = await self._hypervisor.info()
            ready = ReportNodeReady(
                node=self._services.name,
                memory_mib=info.memory_mib,
                vcpus=info.vcpus,
                accelerator=info.accelerator,
                hypervisor=info.version,
                version=__version__,
                boot=self._services.boot,
            )
            await self._give_report(ready, cause)
        except PvcError as error:
            logger.warning("node: cannot announce itself yet error=%s", error)
            return False
        logger.info("node: ready name=%s position=%d", self._services.name, self._world.position)
        return True

    async def _look_at_everything(self) -> None:
        try:
            domains = await self._hypervisor.list_domains()
        except PvcError as error:
            logger.warning("hypervisor: cannot list domains error=%s", error)
            return
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
                self.queue.wake(subject.id)

    async def _give_report(self, report: Report, cause: str) -> None:
        name, decide = REPORTS[type(report)]
        actor = Actor(principal=f"node/{self._services.name}", method="node")
        request = Request(name=name, command=report, decide=decide, actor=actor, cause=cause)
        await self._services.appender.submit(request)
