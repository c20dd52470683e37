"""Delivers every signed checkpoint to the places outside, at least once each, without ever holding up the log.

How far each place has them stands in the next checkpoint itself, so a new primary goes on where the last one was. A
place that fails for a while is a fault of the cluster until it works again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from pvc.clock import Clock, Rng
from pvc.commands.facts_log import ReportAnchor
from pvc.drivers.anchors import Anchor
from pvc.errors import LogDamaged, PvcError, Unavailable
from pvc.events.cluster import LogCheckpointed
from pvc.events.record import unseal
from pvc.events.registry import decode_event
from pvc.log.history import HistoryIndex, HistoryQuery
from pvc.node.primary import Submit
from pvc.projections.evolve_log import ANCHOR_FAILING
from pvc.runtime.world import World

logger = logging.getLogger(__name__)

TICK_S = 1.0
"""Between two looks for new checkpoints: they come once a minute."""

PAUSE_S = 1.0
MAX_PAUSE_S = 60.0
"""Between two tries of a place that fails: doubled up to this, and drawn at random below."""

MAX_DOUBLINGS = 6

PATIENCE_S = 30.0
"""A place may be away for so long, for a restart say, before it is a fault."""

PORTION = 64
"""Checkpoints looked up at once."""


class Anchoring:
    """One node's deliveries, while it acts for the cluster; `run` until cancelled."""

    def __init__(
        self,
        node: str,
        world: World,
        history: HistoryIndex,
        anchors: Sequence[Anchor],
        submit: Submit,
        clock: Clock,
        rng: Rng,
        *,
        epoch: Callable[[], int | None],
    ) -> None:
        self._node = node
        self._world = world
        self._history = history
        self._anchors = anchors
        self._submit = submit
        self._clock = clock
        self._rng = rng
        self._epoch = epoch
        self._delivered: dict[str, int] = {}

    def delivered(self) -> dict[str, int]:
        """Anchor -> size of the newest checkpoint that it has, as far as this node knows."""
        return dict(self._delivered)

    async def run(self) -> None:
        """Deliver to all places side by side."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._forget_unwanted())
            for anchor in self._anchors:
                group.create_task(self._keep(anchor))

    async def _keep(self, anchor: Anchor) -> None:
        """One place's deliveries; nothing that it does holds up another one."""
        tries, failing_s = 0, 0.0
        while True:
            epoch = self._epoch()
            if epoch is None:
                self._delivered.pop(anchor.name, None)  # the next primary knows better
                tries = 0
                await asyncio.sleep(TICK_S)
                continue
            try:
                await self._deliver_new(anchor)
            except PvcError as error:
                if not tries:
                    failing_s = self._clock.monotonic()
                    logger.warning("anchor: failing name=%s error=%s", anchor.name, error.message)
                tries += 1
                if self._clock.monotonic() - failing_s >= PATIENCE_S:
                    await self._report(anchor.name, error.message, epoch)
                await asyncio.sleep(
                    min(PAUSE_S * 2 ** min(tries, MAX_DOUBLINGS), MAX_PAUSE_S) * (0.5 + self._rng.random() / 2)
                )
                continue
            if tries:
                logger.info("anchor: works again name=%s tries=%d", anchor.name, tries)
            tries = 0
            await self._report(anchor.name, "", epoch)
            await asyncio.sleep(TICK_S)

    async def _deliver_new(self, anchor: Anchor) -> None:
        cluster = self._world.state.cluster
        newest = cluster.log.checkpoint if cluster is not None else None
        if newest is None:
            return
        known = self._delivered.get(anchor.name, newest.anchored.get(anchor.name))
        if known is None:  # a place that is new begins with the newest: it covers all before it
            await anchor.deliver(newest.note)
            self._delivered[anchor.name] = newest.size
            return
        while known < newest.size:
            missing = await self._checkpoints_after(known)
            if not missing:
                return  # the index has not come so far yet
            for checkpoint in missing:
                await anchor.deliver(checkpoint.note)
                self._delivered[anchor.name] = known = checkpoint.size

    async def _checkpoints_after(self, size: int) -> list[LogCheckpointed]:
        query = HistoryQuery(types=(LogCheckpointed.TYPE,), after=size, limit=PORTION, ascending=True)
        found: list[LogCheckpointed] = []
        for one in await self._history.query(query):
            try:
                events = unseal(one.data).record.events
            except LogDamaged as error:
                self._history.begin_anew()
                raise Unavailable(
                    f"the history index has a record that cannot be read: {error.message}",
                    code="history.behind",
                    hint="it is filled again from the log by itself",
                ) from error
            for raw in events:
                event = decode_event(raw)
                if isinstance(event, LogCheckpointed) and event.size > size:
                    found.append(event)
        return sorted(found, key=lambda event: event.size)

    async def _forget_unwanted(self) -> None:
        """A place that is no longer configured is no longer a fault."""
        wanted = {anchor.name for anchor in self._anchors}
        while True:
            epoch = self._epoch()
            for fault in list(self._world.state.faults.values()) if epoch is not None else ():
                name = fault.id.partition("/")[2]
                if fault.code == ANCHOR_FAILING and name not in wanted and epoch is not None:
                    await self._report(name, "", epoch)
            await asyncio.sleep(TICK_S)

    async def _report(self, anchor: str, message: str, epoch: int) -> None:
        failing = f"{ANCHOR_FAILING}/{anchor}" in self._world.state.faults
        if failing == bool(message):
            return
        report = ReportAnchor(primary=self._node, epoch=epoch, anchor=anchor, message=message)
        try:
            await self._submit(report, "")
        except PvcError as error:  # also where another coordinator has taken over
            logger.warning("anchor: cannot report name=%s error=%s", anchor, error.message)
