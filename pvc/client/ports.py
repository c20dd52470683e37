"""What the client needs of the world, so that its logic is written once for blocking and for asyncio programs.

All of the client's logic is `async def` over these two ports. A program of asyncio gives ports that suspend. A blocking
program gives ports that block inside: then a coroutine never suspends, and `finish` runs it to its end in one step.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from pvc.client.connections import Connection

T = TypeVar("T")


class Line(Protocol):
    """A connection to a gateway, as bytes. Raises OSError where it breaks, TimeoutError where the time is over."""

    async def send(self, data: bytes, timeout_s: float) -> None:
        """Send all of it."""

    async def receive(self, timeout_s: float | None) -> bytes:
        """Some of what came, as soon as there is any; nothing at the end. None waits for ever."""

    def close(self) -> None:
        """End it: who waits for what it receives is told so, also in another thread. Harmless where it has ended."""


class Io(Protocol):
    """The network and the time."""

    async def connect(self, connection: Connection, timeout_s: float) -> Line:
        """Connect to the first gateway of a connection. Raises OSError, ConfigError."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def now(self) -> float:
        """Seconds of a clock that only goes forward."""


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine over ports that block."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise AssertionError("a port that blocks never suspends")
