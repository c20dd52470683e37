"""The log in memory: for tests, the simulator, and as the plainest statement of what a log does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from pvc.events.record import EMPTY, Entry, Head
from pvc.log.base import check_batch, closed, conflict
from pvc.log.tail import Tail

_READ_BATCH = 1_000


class MemoryLog:
    """Records in a list. Several clients in one event loop may share one instance."""

    def __init__(self) -> None:
        self._records: list[bytes] = []
        self._head = EMPTY
        self._tail = Tail()
        self._closed = False

    async def head(self) -> Head:
        """The last committed position."""
        self._check_open()
        return self._head

    async def append(self, entries: Sequence[Entry], *, after: Head) -> Head:
        """Commit all entries, or raise Conflict."""
        check_batch(entries, after)
        self._check_open()
        if after != self._head:
            raise conflict(self._head, after)
        self._records.extend(entry.data for entry in entries)
        self._head = entries[-1].head
        self._tail.advance(self._head.position)
        return self._head

    async def read(self, first: int, limit: int) -> list[bytes]:
        """Up to `limit` records from `first` on."""
        assert first >= 1 and limit >= 1, "positions and limits start at 1"
        self._check_open()
        return self._records[first - 1 : first - 1 + limit]

    async def follow(self, after: int) -> AsyncIterator[list[bytes]]:
        """Batches from `after + 1` on, for ever."""
        while True:
            await self._tail.beyond(after)
            batch = await self.read(after + 1, _READ_BATCH)
            after += len(batch)
            yield batch

    async def close(self) -> None:
        """Later calls raise Unavailable."""
        self._closed = True
        self._tail.fail(closed())

    def _check_open(self) -> None:
        if self._closed:
            raise closed()
