"""A world, a log that makes trouble, and the appender between them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from pvc.commands.registry import BY_NAME
from pvc.events import vm as e
from pvc.events.record import EMPTY, Actor, CommandRef, Head, Record, check_follows, seal, unseal
from pvc.events.registry import encode_event
from pvc.runtime.appender import Appender, Outcome, Request
from pvc.runtime.world import World
from pvc.sim.loop import VirtualClock
from tests.support.core import ADMIN, command, node_ready, replayed
from tests.support.fake_log import TroubledLog


class Desk:
    """A world, its log, and an appender that is running."""

    def __init__(self) -> None:
        self.log = TroubledLog()
        self.world = World()
        self.appender = self.another_appender(self.world, seed=1)

    def another_appender(self, world: World, seed: int = 2) -> Appender:
        """As another process on the same log would have it."""
        return Appender(world, self.log, origin="hv1", clock=VirtualClock(), rng=random.Random(seed))

    async def do(self, name: str, /, key: str = "", audit: bool = False, **fields: Any) -> Outcome:
        return await self.appender.submit(request(name, key=key, audit=audit, **fields))

    async def names(self) -> list[str]:
        """Names of all commands in the log; checks that its records make one dense chain."""
        head = EMPTY
        names = []
        for data in await self.log.read(1, 10_000):
            entry = unseal(data)
            check_follows(entry, head)
            head = entry.head
            names.append(entry.record.command.name)
        return names


def request(name: str, /, key: str = "", audit: bool = False, **fields: Any) -> Request:
    return Request(
        name=name,
        command=command(name, **fields),
        decide=BY_NAME[name].decide,
        actor=ADMIN,
        command_id=key,
        audit_refusal=audit,
    )


@contextlib.asynccontextmanager
async def a_desk(initialised: bool = True) -> AsyncIterator[Desk]:
    desk = Desk()
    running = asyncio.create_task(desk.appender.run())
    if initialised:
        from pvc.commands.facts import REPORTS, ReportNodeReady

        await desk.do("cluster.init", name="main")
        name, decide = REPORTS[ReportNodeReady]
        await desk.appender.submit(Request(name=name, command=node_ready(), decide=decide, actor=ADMIN))
    try:
        yield desk
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def gathered(*waiting: Awaitable[Outcome]) -> list[Outcome | BaseException]:
    return await asyncio.gather(*waiting, return_exceptions=True)


def foreign(after: Head) -> Any:
    return seal(
        Record(
            position=after.position + 1,
            prev=after.hash,
            id="FOREIGN",
            time_us=1,
            actor=Actor(principal="node/hv2", method="node"),
            origin="hv2",
            command=CommandRef(id="FOREIGN", name="test.foreign"),
            events=(encode_event(e.VmEnabled(vm="nobody")),),
        )
    )


async def replayed_hash(desk: Desk) -> str:
    return replayed([unseal(data) for data in await desk.log.read(1, 10_000)]).state_hash()
