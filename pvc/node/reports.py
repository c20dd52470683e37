"""The way of a node's reports into the log, and for the primary that of the others' reports too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pvc.clock import Clock, Rng
from pvc.commands.facts import REPORTS, Report
from pvc.events.record import Actor
from pvc.runtime.appender import Appender, Outcome, Request
from pvc.runtime.drainer import Drainer
from pvc.runtime.forwarder import Forwarder
from pvc.runtime.world import World


class Reports:
    """Makes requests of reports, and hands them to this node's appender or, in a crowd, to the primary's."""

    def __init__(
        self,
        node: str,
        world: World,
        appender: Appender,
        clock: Clock,
        rng: Rng,
        *,
        epoch: Callable[[], int | None],
    ) -> None:
        self._actor = Actor(principal=f"node/{node}", method="node")
        self._appender = appender
        self._forwarder: Forwarder | None = None
        self._drainer: Drainer | None = None
        if appender.inbox is not None:
            self._forwarder = Forwarder(node, world, appender, appender.inbox, clock, rng)
            self._drainer = Drainer(world, appender, appender.inbox, epoch=epoch)

    async def clear(self) -> None:
        """Before anything is done: take back what an earlier life of this node has left to others."""
        if self._forwarder is not None:
            await self._forwarder.clear()

    async def run(self) -> None:
        """Forward, and take in what is forwarded, until cancelled. Nothing to do where there is only one node."""
        if self._forwarder is None or self._drainer is None:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._forwarder.run())
            group.create_task(self._drainer.run())

    async def give(self, report: Report, cause: str) -> None:
        """Have a report recorded, by whoever does that best. Raises what the appender does."""
        await (self._forwarder or self._appender).submit(self._request(report, cause))

    async def append(self, report: Report, cause: str) -> Outcome:
        """Have it recorded by this node itself: for what the primary says, which nobody else may take over."""
        return await self._appender.submit(self._request(report, cause))

    def _request(self, report: Report, cause: str) -> Request:
        name, decide = REPORTS[type(report)]
        return Request(name=name, command=report, decide=decide, actor=self._actor, cause=cause)
