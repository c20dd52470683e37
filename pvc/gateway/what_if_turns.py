"""One what-if after the other, and few that wait: each may be seconds of work, and has a state of its own meanwhile.

They have a thread to themselves. In those that the process shares, a few of them would hold up webhooks, snapshots,
archives and signatures; and several threads that calculate would hold up the event loop, where the leases are kept.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from pvc.errors import Unavailable
from pvc.thread_pool import DaemonPool

T = TypeVar("T")

MAX_WHAT_IFS, MAX_WHAT_IFS_EACH = 8, 2
"""Under way or waiting at one gateway, and of one principal: nobody alone has all of them."""

WAIT_S = 20.0
"""So long one may wait for those before it; each is a few seconds in a large cluster."""


class WhatIfTurns:
    """Lives in one event loop."""

    def __init__(self, *, most: int = MAX_WHAT_IFS, each: int = MAX_WHAT_IFS_EACH, wait_s: float = WAIT_S) -> None:
        self._most = most
        self._each = each
        self._wait_s = wait_s
        self._here: Counter[str] = Counter()
        self._turn = asyncio.Lock()
        self._pool = DaemonPool("what-if", 1)

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return max(0, self._here.total() - 1)

    async def run(self, whose: str, begin: Callable[[], Callable[[], T]]) -> T:
        """What comes of it. `begin` is called when it is its turn, in the loop; what that gives is called in a thread.
        Raises Unavailable where there are too many, or the turn does not come; and what the two raise."""
        if self._here[whose] >= self._each:
            raise _busy(f"{self._each} what-ifs of yours are under way at this gateway already")
        if self._here.total() >= self._most:
            raise _busy(f"{self._most} what-ifs are under way at this gateway already")
        self._here[whose] += 1
        try:
            await self._my_turn()
            try:
                return await self._pool.run(begin())
            finally:
                self._turn.release()
        finally:
            self._here[whose] -= 1
            if not self._here[whose]:
                del self._here[whose]

    async def _my_turn(self) -> None:
        try:
            async with asyncio.timeout(self._wait_s):
                await self._turn.acquire()
        except TimeoutError:
            raise _busy(f"the what-ifs before this one took longer than {self._wait_s:g} s") from None


def _busy(why: str) -> Unavailable:
    return Unavailable(why, code="whatif.busy", hint="try again in a moment, or ask another node")
