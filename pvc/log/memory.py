"""The log in memory: for tests, the simulator, and as the plainest statement of what a log does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from pvc.errors import Conflict, Unavailable
from pvc.events.record import EMPTY, Entry, Head

_READ_BATCH = 1_000


class MemoryLog:
    """Records in a list. Several clients in one event loop may share one instance."""

    def __init__(self) -> None:
        self._records: list[bytes] = []
        self._head = EMPTY
        self._grown = asyncio.Condition()
        self._closed = False

    async def head(self) -> Head:
        """The last committed position."""
        self._check_open()
        return self._head

    async def append(self, entries: Sequence[Entry], *, after: Head) -> Head:
        """Commit all entries, or raise Conflict."""
        assert entries, "an append has at least one entry"
        self._check_open()
        if after != self._head:
            raise Conflict(f"the log's head is at {self._head.position}, the append expected {after.position}")
        async with self._grown:
            # The lock may have yielded: whoever came first has moved the head.
            if after != self._head:
                raise Conflict(f"the log's head moved to {self._head.position} meanwhile")
            self._records.extend(entry.data for entry in entries)
            self._head = entries[-1].head
            self._grown.notify_all()
        return self._head

    async def read(self, first: int, limit: int) -> list[bytes]:
        """Up to `limit` records from `first` on."""
        assert first >= 1, "positions start at 1"
        self._check_open()
        return self._records[first - 1 : first - 1 + limit]

    async def follow(self, after: int) -> AsyncIterator[list[bytes]]:
        """Batches from `after + 1` on, for ever."""
        while True:
            async with self._grown:
                while len(self._records) <= after and not self._closed:
                    await self._grown.wait()
            batch = await self.read(after + 1, _READ_BATCH)
            after += len(batch)
            yield batch

    async def close(self) -> None:
        """Later calls raise Unavailable."""
        self._closed = True
        async with self._grown:
            self._grown.notify_all()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the log is closed", code="log.closed")
