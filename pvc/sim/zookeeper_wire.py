"""Connections of the simulated ZooKeeper: bytes in order, late, stuck behind a partition, or lost without a word."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any

WORLD = Context()
"""Timers of servers and wires belong to no process of the simulation: what is done to those does not stop them."""

POLL_S = 0.1
"""How often what is stuck looks whether the way is free."""


def later(delay_s: float, act: Callable[..., None], *args: Any) -> asyncio.TimerHandle:
    """Do it in the world, after so long."""
    return asyncio.get_running_loop().call_later(delay_s, act, *args, context=WORLD)


class Pace:
    """How long things take, by a seed; the nemesis may slow it down."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.wire_s = 0.002
        """The longest way of a message between machines at rest, one way."""

    def wire(self) -> float:
        """The way of one message."""
        return self.wire_s * (0.1 + 0.9 * self.rng.random())


class Pipe:
    """One direction of a connection. What is sent arrives once, in order, or from some point on not at all."""

    def __init__(
        self,
        pace: Pace,
        *,
        blocked: Callable[[], bool],
        lag: Callable[[], float] = lambda: 0.0,
        swallowed: Callable[[], bool] = lambda: False,
        context: Context = WORLD,
    ) -> None:
        self._pace = pace
        self._blocked = blocked
        self._lag = lag
        self._swallowed = swallowed
        self._context = context
        self._last_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._stuck: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.lost = False
        """A byte is gone, so nothing that comes after it arrives either."""

    def send(self, act: Callable[..., None], *args: Any) -> None:
        """`act` is called at the other end."""
        # Strictly later than what was sent before: timers of the same instant keep no order.
        self._last_s = max(self._last_s + 1e-6, self._loop.time() + self._pace.wire() + self._lag())
        self._loop.call_at(self._last_s, self._arrive, act, args, context=self._context)

    def close(self) -> None:
        """Nothing more arrives."""
        self.lost = True
        self._stuck.clear()

    def _arrive(self, act: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.lost = self.lost or self._swallowed()
        if self.lost:
            return
        if self._stuck or self._blocked():
            self._stuck.append((act, args))
            if len(self._stuck) == 1:
                self._wait()
            return
        act(*args)

    def _wait(self) -> None:
        self._loop.call_later(POLL_S * (0.5 + self._pace.rng.random()), self._go_on, context=self._context)

    def _go_on(self) -> None:
        if self._stuck and self._blocked():
            self._wait()
            return
        while self._stuck and not self.lost:
            act, args = self._stuck.popleft()
            act(*args)
