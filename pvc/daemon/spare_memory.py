"""Gives memory back that thousands of connections have used.

A TLS connection that ends before it was agreed on is garbage that only a full collection finds: its error, its task and
its buffers refer to each other in asyncio. Python sees few objects and no need for one, so a thousand such connections
a second took 50 MB a second. And what is freed the C library keeps for itself, unless it is asked.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging

logger = logging.getLogger(__name__)

SOON_S = 1.0
"""After it was asked for, and so at most so often: a collection takes some tens of milliseconds."""


class SpareMemory:
    """Lives in one event loop."""

    def __init__(self) -> None:
        self._due = False

    def give_back_soon(self) -> None:
        """Collect, and let the C library give back what is free. Where that is not glibc, it keeps it."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(SOON_S, self._give_back)

    def _give_back(self) -> None:
        self._due = False
        gc.collect()
        asyncio.get_running_loop().run_in_executor(None, _trim)


def _trim() -> None:
    """Some 20 ms, without holding anybody up."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError) as error:
        logger.debug("memory cannot be given back error=%s", error)
