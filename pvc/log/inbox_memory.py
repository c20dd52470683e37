"""The inbox in memory, beside a log in memory: for tests, and as the plainest statement of what an inbox does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from pvc.events.record import Entry, Head
from pvc.log.base import closed
from pvc.log.inbox import MAX_PUT, MAX_WAITING, Forwarded, Found, decode, encode, overtaken
from pvc.log.memory import MemoryLog


class MemoryInbox:
    """Reports in a dict. Several clients in one event loop share one instance."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._reports: dict[str, bytes] = {}
        self._changed = asyncio.Event()
        self._closed = False

    async def put(self, reports: Sequence[Forwarded]) -> None:
        """Lay reports in."""
        assert len(reports) <= MAX_PUT, "too many for one request"
        self._check_open()
        for report in reports:
            self._reports.setdefault(report.key, encode(report))
        self._changed.set()

    async def left(self, keys: Sequence[str]) -> list[bool]:
        """Whether they are still there."""
        self._check_open()
        return [key in self._reports for key in keys]

    async def remove(self, keys: Sequence[str]) -> None:
        """Take them out."""
        self._check_open()
        for key in keys:
            self._reports.pop(key, None)

    async def keys(self) -> list[str]:
        """All keys."""
        self._check_open()
        return list(self._reports)

    async def waiting(self) -> list[Found]:
        """What is in it."""
        self._check_open()
        self._changed.clear()
        return [decode(key, data) for key, data in list(self._reports.items())[:MAX_WAITING]]

    async def changed(self, timeout_s: float) -> None:
        """Wait for the next that is laid in."""
        self._check_open()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()

    async def append(self, entries: Sequence[Entry], *, after: Head, taking: Sequence[Forwarded]) -> Head:
        """Append and take out, in one step: nothing in here waits for anything."""
        self._check_open()
        if after == await self._log.head() and not all(report.key in self._reports for report in taking):
            raise overtaken()
        head = await self._log.append(entries, after=after)
        for report in taking:
            del self._reports[report.key]
        return head

    async def close(self) -> None:
        """Later calls raise Unavailable."""
        self._closed = True
        self._changed.set()

    def _check_open(self) -> None:
        if self._closed:
            raise closed()
