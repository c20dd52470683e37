"""The Log protocol: append at an expected position, read, follow. Every backend passes tests/contract/log.

An append names the head it was decided against; the backend commits all of its entries or none, and only if
that head is still the log's. So a command is always validated against exactly the state it is appended to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from pvc.events.record import Entry, Head

MAX_BATCH_ENTRIES = 200
"""Entries in one append; with MAX_BATCH_BYTES this keeps a ZooKeeper multi under its packet size."""

MAX_BATCH_BYTES = 768 * 1024


class Log(Protocol):
    """A totally ordered, dense, hash-chained sequence of records, positions from 1."""

    async def head(self) -> Head:
        """The last committed position. Raises Unavailable."""
        ...

    async def append(self, entries: Sequence[Entry], *, after: Head) -> Head:
        """Commit `entries` (chained, dense, starting at `after.position + 1`) atomically, durably, once.

        Returns the new head. Raises Conflict when the head is not `after` (nothing was written), Unavailable
        when it is certain that nothing was written (unreachable, disk full), OutcomeUnknown when the deadline
        passed before the outcome could be learned, LogDamaged when the log is not the one seen before.
        Between 1 and MAX_BATCH_ENTRIES entries of at most MAX_BATCH_BYTES together.
        """
        ...

    async def read(self, first: int, limit: int) -> list[bytes]:
        """The stored bytes of up to `limit` records from position `first` on; empty past the head.

        `limit` is an upper bound, a backend may return fewer (but at least one when there is one).
        Raises Unavailable.
        """
        ...

    def follow(self, after: int) -> AsyncIterator[list[bytes]]:
        """Batches of stored bytes from position `after + 1` on, in order, without gap or duplicate, for ever.

        Outages are waited out; the iterator raises only LogDamaged (or is cancelled).
        """
        ...

    async def close(self) -> None:
        """Release everything; later calls raise Unavailable."""
        ...
