"""A backlog of 10,000 events from a replica on the disk to a receiver over HTTP: all of them, in order, each once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from pvc.log.history import HistoryIndex
from pvc.webhooks.course import Answer
from pvc.webhooks.guard import Guard
from pvc.webhooks.post import HttpPost, Outgoing
from tests.support.deliveries import World
from tests.support.receiver import a_receiver

EVENTS = 10_000
BATCH = 100


class RealWorld(World):
    """The same with a real way to a real receiver, and a real replica."""

    def __init__(self, post: HttpPost, **settings: Any) -> None:
        super().__init__(lambda ids: Answer(), **settings)
        self.post = post

    async def __call__(self, outgoing: Outgoing) -> Answer:
        return await self.post(outgoing)


async def test_a_backlog_of_ten_thousand_events_is_delivered_in_order(tmp_path: Path) -> None:
    post = HttpPost(Guard(list))
    history = await HistoryIndex.open(tmp_path / "history.db")
    with a_receiver() as receiver:
        world = RealWorld(
            post, url=receiver.url, allow_private=tuple(receiver.allowed), types=("vm.*",), batch=BATCH, rate=1000
        )
        await world.begin()
        world.happen(EVENTS)
        entries = world.cluster.entries
        await history.index(entries)
        world.replica = history
        world.elect()
        async with asyncio.timeout(60):
            while len(receiver.ids) < EVENTS:
                await asyncio.sleep(0.05)
        _, task, _ = world.nodes[0]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert receiver.ids == world.wanted()
        # It may have been stopped before it had read the answer to the last request.
        assert (await world.cursor()).delivered >= EVENTS - BATCH
    await post.close()
    await history.close()
