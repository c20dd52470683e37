"""Does something at ZooKeeper until it is done: again after each outage and lost race, and with what was missing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from pvc.zookeeper.port import ZookeeperSession
from pvc.zookeeper.types import BadVersion, Create, Lost, NodeExists, NoNode, NoSession

PAUSE_S = 0.05
"""After a lost connection or a lost race, so that what fails at once is not tried in a tight loop."""

LOST_RACE: tuple[type[Exception], ...] = (NoNode, NodeExists, BadVersion)
"""What a second look may find otherwise."""

T = TypeVar("T")


async def insist(
    bridge: ZookeeperSession,
    act: Callable[[], Awaitable[T]],
    *,
    deadline_s: float,
    check_open: Callable[[], None],
    found: Callable[[], Awaitable[None]],
    lost_race: tuple[type[Exception], ...] = LOST_RACE,
) -> T:
    """What `act` returns, which may be done any number of times. Raises TimeoutError after `deadline_s`, and whatever
    else `act` raises.

    `check_open` raises once nothing more is to be done; `found` makes what `act` did not find, or finds it there.
    """
    async with asyncio.timeout(deadline_s):
        while True:
            await bridge.wait_connected()
            check_open()
            with contextlib.suppress(Lost, NoSession, *lost_race):
                try:
                    return await act()
                except NoNode:  # just deleted by another, or never founded
                    await found()
            await asyncio.sleep(PAUSE_S)


async def lay(bridge: ZookeeperSession, foundation: Sequence[Create]) -> None:
    """Create the znodes that are not there yet, from the top; whoever else does so at the same time is welcome."""
    for create in foundation:
        if not await bridge.exists(create.path):
            with contextlib.suppress(NodeExists):
                await bridge.multi([create])
