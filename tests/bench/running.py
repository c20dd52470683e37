"""A world and an appender at work on a log, and clients of theirs: what several measurements need."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterable

import msgspec

from pvc.clock import SystemClock, SystemRng
from pvc.commands.registry import BY_NAME
from pvc.events.record import Entry
from pvc.log.base import MAX_BATCH_ENTRIES, Log
from pvc.runtime.appender import Appender, Outcome, Request
from pvc.runtime.world import World, catch_up
from tests.bench.records import ADMIN, NODE


@contextlib.asynccontextmanager
async def running(log: Log) -> AsyncIterator[tuple[World, Appender]]:
    """World and appender on `log`, caught up; the appender runs within the block."""
    world = World()
    await catch_up(world, log)
    appender = Appender(world, log, origin=NODE, clock=SystemClock(), rng=SystemRng())
    task = asyncio.create_task(appender.run())
    try:
        yield world, appender
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def fill(log: Log, entries: Iterable[Entry]) -> None:
    """Append many records, in batches."""
    head = await log.head()
    stream = iter(entries)
    while batch := list(itertools.islice(stream, MAX_BATCH_ENTRIES)):
        head = await log.append(batch, after=head)


async def ask(appender: Appender, name: str, command: msgspec.Struct) -> Outcome:
    """Give a command as an admin would."""
    return await appender.submit(Request(name=name, command=command, decide=BY_NAME[name].decide, actor=ADMIN))
