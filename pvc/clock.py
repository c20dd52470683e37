"""Time, ids and randomness as values that are handed in, so that the simulator can own all three.

Durations are measured with `monotonic` (seconds, never stepped); `wall_us` is only ever shown or stored.
Sleeping is `asyncio.sleep`: on virtual time the event loop itself is replaced, see `pvc.sim.loop`.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import Protocol

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _CROCKFORD for low in _CROCKFORD]
"""Two letters for ten bits: every command takes two ids, so making one in half the steps shows."""


class Clock(Protocol):
    """Reads the time."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; only differences mean something."""
        ...

    def wall_us(self) -> int:
        """Microseconds since the Unix epoch, UTC."""
        ...


class Rng(Protocol):
    """The two kinds of randomness that PVC needs."""

    def random(self) -> float:
        """A float in [0, 1), for jitter."""
        ...

    def randbytes(self, n: int) -> bytes:
        """`n` random bytes, for ids."""
        ...


class SystemClock:
    """The machine's clock; monotonic time is the running loop's, so that timers and readings agree."""

    def monotonic(self) -> float:
        """Seconds on the running loop's clock."""
        return asyncio.get_running_loop().time()

    def wall_us(self) -> int:
        """Microseconds since the Unix epoch."""
        return time.time_ns() // 1000


class BootClock:
    """The machine's clock for what others count too: it goes on while the machine sleeps. For any thread."""

    def monotonic(self) -> float:
        """Seconds since the machine was started, asleep or awake."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall_us(self) -> int:
        """Microseconds since the Unix epoch."""
        return time.time_ns() // 1000


class SystemRng:
    """The kernel's randomness."""

    def random(self) -> float:
        """A float in [0, 1)."""
        return random.random()  # noqa: S311 - jitter, not a secret

    def randbytes(self, n: int) -> bytes:
        """`n` bytes fit for ids."""
        return os.urandom(n)


def new_ulid(clock: Clock, rng: Rng) -> str:
    """A ULID (https://github.com/ulid/spec): 48 bits of milliseconds, 80 random bits, 26 Crockford letters."""
    value = (clock.wall_us() // 1000 & (1 << 48) - 1) << 80 | int.from_bytes(rng.randbytes(10), "big")
    return "".join([_PAIRS[value >> shift & 1023] for shift in range(120, -1, -10)])
