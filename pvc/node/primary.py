"""The coordinator's part: to stand for election, and while it is primary to act for the whole cluster.

The election only suggests. Who was elected appends that it is primary, with the next epoch; every act carries it, and
one whose epoch is over is refused by the log. So a primary that was frozen and thaws can do no harm with what it still
believes: the worst it can do is to cut the power of a node that the log had already declared lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from pvc import __version__
from pvc.clock import Clock
from pvc.commands import facts_cluster as f
from pvc.commands.facts import Report
from pvc.drivers.fence import Fence
from pvc.errors import DriverError, PvcError, Rejected
from pvc.events.cluster import PrimaryElected
from pvc.events.fence import FenceSettings
from pvc.handlers import cluster_plan as plan
from pvc.node.fence_watch import FenceWatch
from pvc.node.outage import Outage
from pvc.presence.base import Member, Presence
from pvc.presence.hello import read_hello, why_unready
from pvc.projections.state import NodeState
from pvc.runtime.appender import Outcome
from pvc.runtime.world import World

logger = logging.getLogger(__name__)

TICK_S = 0.5
"""Between two looks at the nodes, where no hint comes first."""

CLAIM_S = 2.0
"""Between two claims of a coordinator that is not primary; the end of one gives a hint besides."""

Submit = Callable[[Report, str], Awaitable[Outcome]]
"""Appends a report with its cause. Raises what the appender does."""


class Primary:
    """Stands for election wherever the node is a coordinator; `run` until cancelled."""

    def __init__(
        self,
        node: str,
        world: World,
        presence: Presence,
        fence: Fence,
        submit: Submit,
        clock: Clock,
        *,
        may_act: Callable[[], bool],
    ) -> None:
        self._node = node
        self._world = world
        self._presence = presence
        self._fence = fence
        self._submit = submit
        self._clock = clock
        self._may_act = may_act
        self._fence_watch = FenceWatch(node, world, fence, clock, may_act=may_act)
        self._outage = Outage(presence.session_timeout_s)
        self._epoch = 0
        """Of the present term; 0 outside of one."""
        self._watch = plan.Watch(since_s=clock.monotonic())
        self._tried = plan.Tried()
        self._fencing: set[asyncio.Task[None]] = set()
        self._under_way: dict[tuple[str, int], asyncio.Task[None]] = {}
        """Node and loss -> what switches it off."""
        self._hinted = asyncio.Event()
        self._claimed_s = float("-inf")
        self._stood_back = False

    @property
    def epoch(self) -> int | None:
        """Of the present term; None outside of one."""
        return self._epoch or None

    def hint(self) -> None:
        """Something may have changed that concerns the cluster."""
        self._hinted.set()

    async def run(self) -> None:
        """Look, act, wait."""
        beside = [asyncio.create_task(self._listen()), asyncio.create_task(self._fence_watch.run())]
        try:
            while True:
                self._hinted.clear()
                try:
                    await self._look()
                except PvcError as error:
                    logger.debug("primary: cannot look error=%s", error)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S):
                        await self._hinted.wait()
        finally:
            for task in (*beside, *self._fencing):
                task.cancel()
            await asyncio.gather(*beside, *self._fencing, return_exceptions=True)

    async def _listen(self) -> None:
        while True:
            try:
                async for _ in self._presence.changes():
                    self._claimed_s = float("-inf")
                    self._hinted.set()
            except PvcError as error:
                logger.debug("primary: no hints error=%s", error)
            await asyncio.sleep(TICK_S)

    async def _look(self) -> None:
        if self._world.fault is not None:
            await self._stand_back()
            return
        await self._end_needless_fencing()
        state, now_s = self._world.state, self._clock.monotonic()
        self._outage.note(self._presence.lease_left_s(), now_s, self._known_epoch)
        own = state.nodes.get(self._node)
        if own is None or not own.coordinator or not self._may_act():
            await self._end_term()
            return
        ready_at = {node.name: node.ready_at for node in state.nodes.values()}
        members = await self._presence.members()
        self._watch.note(frozenset(members), now_s, self._clock.monotonic(), ready_at)
        self._watch.note_unready({name: why_unready(member.hello) for name, member in members.items()}, now_s)
        if not await self._is_primary(now_s):
            await self._end_term()
            return
        if not self._epoch:
            await self._begin_term()
        for duty in plan.plan_cluster(self._world.state, self._watch, self._tried, self._clock.monotonic()):
            if self._epoch:
                await self._do(duty)
        await self._compare(members)

    async def _is_primary(self, now_s: float) -> bool:
        if not self._epoch and now_s - self._claimed_s < CLAIM_S:
            return False
        self._claimed_s = now_s
        return await self._presence.claim_primary(self._node)

    async def _begin_term(self) -> None:
        silent_s = round(self._outage.take(self._clock.monotonic(), self._known_epoch))
        outcome = await self._submit(f.ReportPrimary(node=self._node, silent_s=silent_s), "")
        elected = [event for event in outcome.decision.events if isinstance(event, PrimaryElected)]
        if elected:
            self._epoch = elected[0].epoch
            self._tried = plan.Tried()
            logger.info("primary: elected node=%s epoch=%d", self._node, self._epoch)

    @property
    def _known_epoch(self) -> int:
        cluster = self._world.state.cluster
        return cluster.primary_epoch if cluster is not None else 0

    async def _stand_back(self) -> None:
        """The fold has stopped: by what it last knew this node must not act, nor keep others from it."""
        if self._stood_back:
            return
        await self._end_term()
        while self._under_way:
            _, task = self._under_way.popitem()
            # The node may be back by now, and only not be known to be.
            task.cancel()
        await self._presence.resign_primary()
        self._stood_back = True

    async def _end_term(self) -> None:
        if self._epoch:
            logger.warning("primary: no longer node=%s epoch=%d", self._node, self._epoch)
        self._epoch = 0
        # What fences goes on: it is of no use to stop between switching off and on, and what it reports is refused.
        self._tried = plan.Tried()

    async def _do(self, duty: plan.Duty) -> None:
        act: dict[str, Any] = {"primary": self._node, "epoch": self._epoch}
        match duty:
            case plan.DeclareLost(node=node, reason=reason, ready_at=ready_at):
                logger.warning("primary: node lost node=%s reason=%s", node, reason)
                await self._report(f.ReportNodeLost(**act, node=node, reason=reason, ready_at=ready_at))
            case plan.Fence(node=node, lost_at=lost_at):
                self._begin_fencing(node, lost_at)
            case plan.BelieveSelfFence(node=node, lost_at=lost_at, waited_s=waited_s):
                evidence = f"it promised to have ended its VMs by now: gone for {waited_s:.0f} s"
                report = f.ReportNodeFenced(**act, node=node, lost_at=lost_at, method="self", evidence=evidence)
                await self._report(report)
            case plan.GiveUpFencing(node=node, lost_at=lost_at, why=why):
                await self._report(f.ReportFenceFailed(**act, node=node, lost_at=lost_at, message=why))
            case plan.PowerOn(node=node, lost_at=lost_at):
                self._tried.powered_on.add((node, lost_at))
                self._in_background(self._power_on(node, lost_at, self._fence_of(node)))
            case plan.Recover(node=node):
                await self._report(f.ReportRecovery(**act, node=node))
            case plan.FlushStep(node=node):
                flushed = self._world.state.nodes.get(node)
                if flushed is not None:  # what the duties before it waited for may have taken long
                    await self._report(f.ReportFlushStep(**act, node=node), flushed.cause)
            case plan.RaiseLevel():
                await self._report(f.ReportLevel(**act))

    async def _compare(self, members: Mapping[str, Member]) -> None:
        """Two folds of one log that differ are a defect; it is told while it is small."""
        state = self._world.state
        for name, member in members.items():
            hello = read_hello(member.hello)
            if hello is None or hello.position != state.position or hello.version != __version__:
                continue
            if hello.state_hash != state.state_hash() and self._epoch and name in state.nodes:
                logger.error("primary: states differ node=%s position=%d", name, hello.position)
                report = f.ReportDiverged(
                    primary=self._node,
                    epoch=self._epoch,
                    node=name,
                    position=hello.position,
                    state_hash=hello.state_hash,
                    expected=state.state_hash(),
                )
                await self._report(report)

    async def _report(self, report: Report, cause: str = "") -> bool:
        """Have it recorded; whether it was, and not refused or passed over because it comes too late."""
        try:
            outcome = await self._submit(report, cause)
        except Rejected as refusal:
            if refusal.code != "cluster.stale_primary":
                raise
            logger.warning("primary: %s", refusal.message)
            if self._epoch == getattr(report, "epoch", self._epoch):  # a fencing may be of an earlier term
                self._epoch = 0
                await self._presence.resign_primary()
            return False
        return bool(outcome.decision.events)

    def _begin_fencing(self, node: str, lost_at: int) -> None:
        settings = self._fence_of(node)
        # Duties are planned together and carried out one by one: what came before this one may have waited for the log.
        if settings is None or not self._is_lost(node, lost_at) or self._in_maintenance():
            return
        self._tried.fencing.add((node, lost_at))
        task = self._in_background(self._run_fence(node, lost_at, settings, self._epoch))
        self._under_way[node, lost_at] = task

    async def _end_needless_fencing(self) -> None:
        """A node that is back, or of which an admin has said that it is off, must not be switched off any more.

        An agent may be at it for a minute, until its device answers again; by then the node may run VMs. In maintenance
        it is broken off as well, and tried anew after it; until then nobody's hands are to meet a machine that starts.
        """
        maintenance = self._in_maintenance()
        for (node, lost_at), task in list(self._under_way.items()):
            if self._is_lost(node, lost_at) and not maintenance:
                continue
            logger.warning("primary: fencing is no longer needed node=%s", node)
            del self._under_way[node, lost_at]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if maintenance:
                continue
            # It may have been switched off already, and only not been looked at.
            self._in_background(self._power_on(node, lost_at, self._fence_of(node)))

    async def _run_fence(self, node: str, lost_at: int, settings: FenceSettings, epoch: int) -> None:
        """Switch the node off and report it. Whatever becomes of it, it is no longer under way then."""
        loss = (node, lost_at)
        act: dict[str, Any] = {"primary": self._node, "epoch": epoch, "node": node, "lost_at": lost_at}
        report: Report
        is_off = False
        try:
            logger.warning("primary: fencing node=%s agent=%s", node, settings.agent)
            try:
                evidence = await self._fence.off(node, settings)
                is_off = True
                report = f.ReportNodeFenced(**act, method="agent", evidence=evidence)
            except Exception as error:  # noqa: BLE001 - logged as a defect by _why_failed
                # Also what nobody expected: a loss that is forgotten here would never be fenced again.
                self._tried.failed_s[loss] = self._clock.monotonic()
                report = f.ReportFenceFailed(**act, message=_why_failed(error, node))
            self._under_way.pop(loss, None)
            try:
                reported = await self._report(report)
            except PvcError as error:
                logger.warning("primary: fencing not reported node=%s error=%s", node, error)
                # The node's server may be the one that a majority lacks now; nobody else could switch it on again.
                is_off, reported = True, False
        finally:
            self._tried.fencing.discard(loss)
            self._hinted.set()
        if not reported and (is_off or not self._is_lost(node, lost_at)):
            # That is no risk: a machine that has just booted runs nothing before it has said that it is ready. But a
            # node that is still lost, and whose device could not do it, stays off if it is: it would be switched on
            # and off again at each try, and perhaps while somebody pulls its plug.
            await self._power_on(node, lost_at, settings)

    def _is_lost(self, node: str, lost_at: int) -> bool:
        known = self._world.state.nodes.get(node)
        return known is not None and known.state is NodeState.LOST and known.lost_at == lost_at

    def _in_maintenance(self) -> bool:
        cluster = self._world.state.cluster
        return cluster is not None and cluster.maintenance

    def _fence_of(self, node: str) -> FenceSettings | None:
        known = self._world.state.nodes.get(node)
        return known.fence if known is not None else None

    async def _power_on(self, node: str, lost_at: int, settings: FenceSettings | None) -> None:
        if settings is None:
            return
        try:
            await self._fence.on(node, settings)
        except Exception as error:  # noqa: BLE001 - logged as a defect by _why_failed
            self._tried.power_failed_s[node, lost_at] = self._clock.monotonic()
            self._tried.powered_on.discard((node, lost_at))
            logger.warning("primary: cannot switch on again node=%s error=%s", node, _why_failed(error, node))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._fencing.add(task)
        task.add_done_callback(self._fencing.discard)
        return task


def _why_failed(error: Exception, node: str) -> str:
    """A device's failure in its own words; anything else is a defect of PVC, told with its kind."""
    if isinstance(error, DriverError):
        return error.message
    logger.error("primary: the fence of node %s failed unexpectedly", node, exc_info=error)
    return f"unexpected {type(error).__name__}: {error}"
