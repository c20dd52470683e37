"""Waiting for what a session with ZooKeeper must come to: watches that fire, znodes that go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from pvc.zookeeper.port import ZookeeperSession
from pvc.zookeeper.types import Lost, NoSession


class Fired:
    """Counts calls."""

    def __init__(self) -> None:
        self.times = 0

    def note(self) -> None:
        self.times += 1

    async def reach(self, times: int) -> None:
        await until(lambda: self.times >= times, 20)


async def until(holds: Callable[[], bool], patience_s: float) -> None:
    async with asyncio.timeout(patience_s):
        while not holds():
            await asyncio.sleep(patience_s / 400)


async def comes_true(holds: Callable[[], Awaitable[Any]], patience_s: float) -> None:
    async with asyncio.timeout(patience_s):
        while True:
            with contextlib.suppress(Lost, NoSession):
                if await holds():
                    return
            await asyncio.sleep(patience_s / 200)


async def gone(session: ZookeeperSession, path: str) -> bool:
    await session.sync("/")
    return not await session.exists(path)
