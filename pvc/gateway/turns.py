"""Whose request is next: a few at each turn of the event loop, one of each principal after the other.

The node that keeps the VMs lives in the same loop, and so do its leases. A long list takes some tens of milliseconds;
of a thousand of them that come at once, the first few go, then all else that is due, then the next few. And who asks
for little is not made to wait behind who asks for much.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

AT_ONCE = 4
"""Requests begun at one turn of the loop: 0.1 s where each is the longest list there is."""


class Turns:
    """Lives in one event loop."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._at_once = at_once
        self._left = at_once
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._due = False

    async def take(self, whose: str) -> None:
        """Return when it is this principal's turn."""
        if self._left and not self._waiting:
            self._left -= 1
            self._next_turn_soon()
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(whose, deque()).append(turn)
        self._next_turn_soon()
        await turn

    def _next_turn_soon(self) -> None:
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._due = False
        self._left = self._at_once
        while self._left and self._waiting:
            whose, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[whose] = turns
            if not turn.done():  # else its caller has gone
                self._left -= 1
                turn.set_result(None)
        if self._left < self._at_once or self._waiting:
            self._next_turn_soon()
