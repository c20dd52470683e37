"""Waiting, with an end, for what another process or thread brings about."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PATIENCE_S = 30.0
PAUSE_S = 0.05


def wait_until(holds: Callable[[], object], what: Callable[[], str] | str, patience_s: float = PATIENCE_S) -> None:
    """Return once `holds()`; fail when it does not in time, saying `what` was waited for, or was found instead."""
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {patience_s:g} s: {what if isinstance(what, str) else what()}"
        time.sleep(PAUSE_S)


async def until(holds: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """`wait_until` where what is waited for happens in this very event loop."""
    async with asyncio.timeout(patience_s):
        while not holds():
            await asyncio.sleep(PAUSE_S / 10)
