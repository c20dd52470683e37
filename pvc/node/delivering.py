"""The primary's part in webhooks: a deliverer for each endpoint, for as long as this node acts for the cluster.

The election only suggests: each deliverer takes its cursor by compare-and-set, with the term's epoch. One whose term is
over fails at its next writing and stops, however sure it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from pvc.clock import Clock, Rng
from pvc.commands.facts_webhook import WebhookReport
from pvc.errors import PvcError
from pvc.events.record import Entry
from pvc.events.registry import Event, subject_of
from pvc.log.history import HistoryIndex
from pvc.meters import Meters
from pvc.node.primary import Submit
from pvc.runtime.world import World
from pvc.spans import Tracer
from pvc.webhooks.deliverer import PAUSE_S, Deliverer, Parts
from pvc.webhooks.sender import Sender
from pvc.webhooks.store import WebhookStore

logger = logging.getLogger(__name__)

TICK_S = 0.5
"""Until a new term is noticed, or an end of one."""


@dataclass(frozen=True, kw_only=True)
class DeliveryParts:
    """What a node delivers with."""

    history: HistoryIndex
    store: WebhookStore
    sender: Sender
    clock: Clock
    rng: Rng
    meters: Meters
    tracer: Tracer | None = None


class Delivering:
    """One node's part; `run` until cancelled."""

    def __init__(self, world: World, parts: Parts, epoch: Callable[[], int | None]) -> None:
        self._world = world
        self._parts = parts
        self._epoch = epoch
        self._term: int | None = None
        self._running: dict[str, tuple[Deliverer, asyncio.Task[None]]] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Start and stop deliverers as terms and webhooks come and go."""
        with self._world.listening(self._note):
            try:
                while True:
                    self._changed.clear()
                    await self._look()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(TICK_S):
                            await self._changed.wait()
            finally:
                await self._stop(list(self._running))

    async def _look(self) -> None:
        epoch = self._epoch() if self._world.fault is None else None
        if epoch != self._term:
            await self._stop(list(self._running))
            self._term = epoch
            if epoch is not None:
                await self._sweep(epoch)
        wanted = self._world.state.webhooks if self._term is not None else {}
        gone = [hook for hook in self._running if hook not in wanted]
        await self._stop(gone)
        for hook in gone:
            await self._forget(hook)
        for hook in wanted:
            if hook not in self._running and self._term is not None:
                self._start(hook, self._term)

    def _start(self, hook: str, epoch: int) -> None:
        deliverer = Deliverer(hook, epoch, self._parts, lambda: self._epoch() == epoch and self._world.fault is None)
        self._running[hook] = (deliverer, asyncio.create_task(self._keep(deliverer, hook), name=f"webhook {hook}"))

    async def _keep(self, deliverer: Deliverer, hook: str) -> None:
        """Until the deliverer has nothing more to do; after trouble of our own side it begins again from its cursor."""
        while True:
            try:
                await deliverer.run()
                if self._epoch() != self._term or hook not in self._world.state.webhooks:
                    return
            except PvcError as error:
                logger.warning("webhook: cannot deliver hook=%s code=%s error=%s", hook, error.code, error.message)
            except Exception:
                # A defect that one endpoint's events meet must not end the others' deliveries, nor the node.
                logger.exception("webhook: stopped by a defect hook=%s", hook)
            await asyncio.sleep(PAUSE_S * (0.5 + self._parts.rng.random()))

    async def _stop(self, hooks: list[str]) -> None:
        tasks = [self._running.pop(hook)[1] for hook in hooks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for hook in hooks:
            await self._parts.sender.forget(hook)

    async def _sweep(self, epoch: int) -> None:
        """Cursors of webhooks that were removed while nobody acted for the cluster."""
        try:
            left = [hook for hook in await self._parts.store.hooks() if hook not in self._world.state.webhooks]
        except PvcError as error:
            logger.debug("webhook: cursors not listed error=%s", error)
            return
        for hook in left if self._epoch() == epoch else ():
            await self._forget(hook)

    async def _forget(self, hook: str) -> None:
        try:
            await self._parts.store.remove(hook)
        except PvcError as error:  # the next term's sweep finds it
            logger.debug("webhook: cursor not removed hook=%s error=%s", hook, error)

    def _note(self, entry: Entry, events: tuple[Event, ...]) -> None:
        for deliverer, _ in self._running.values():
            deliverer.wake()
        if any(subject_of(event).kind == "webhook" for event in events):
            self._changed.set()


def make_delivering(
    node: str,
    world: World,
    parts: DeliveryParts,
    submit: Submit,
    epoch: Callable[[], int | None],
) -> Delivering:
    """A node's part in webhooks."""

    async def report(report: WebhookReport, cause: str) -> object:
        return await submit(report, cause)

    deliveries = Parts(
        node=node,
        state=lambda: world.state,
        history=parts.history,
        store=parts.store,
        sender=parts.sender,
        report=report,
        clock=parts.clock,
        rng=parts.rng,
        meters=parts.meters,
        tracer=parts.tracer,
    )
    return Delivering(world, deliveries, epoch)
