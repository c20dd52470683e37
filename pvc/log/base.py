"""The Log protocol: append at an expected position, read, follow. Every backend passes tests/contract/log.

An append names the head it was decided against; the backend commits all of its entries or none, and only if
that head is still the log's. So a command is always validated against exactly the state it is appended to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from pvc.errors import Conflict, TooLarge, Unavailable
from pvc.events.record import MAX_RECORD_BYTES, Entry, Head

MAX_BATCH_ENTRIES = 200
"""Entries in one append; with MAX_BATCH_BYTES this keeps a ZooKeeper multi under its packet size."""

MAX_BATCH_BYTES = 768 * 1024
"""Bytes of all records of one append together; three records of the largest size always fit."""

MAX_READ_BYTES = 4 * 1024 * 1024
"""A read stops after about so many bytes, so that no caller's `limit` can fill the memory."""


class Log(Protocol):
    """A totally ordered, dense, hash-chained sequence of records, positions from 1."""

    async def head(self) -> Head:
        """The last committed position. Raises Unavailable."""
        ...

    async def append(self, entries: Sequence[Entry], *, after: Head) -> Head:
        """Commit `entries` (chained, dense, starting at `after.position + 1`) atomically, durably, once.

        Returns the new head. Raises Conflict when the head is not `after` (nothing was written), Unavailable
        when it is certain that nothing was written (unreachable, disk full), OutcomeUnknown when the deadline
        passed before the outcome could be learned, LogDamaged when the log is not the one seen before, TooLarge
        over MAX_BATCH_ENTRIES entries, MAX_RECORD_BYTES in one or MAX_BATCH_BYTES together. Entries that do not
        continue `after`, or no entries at all, are a fault of the caller: AssertionError.

        A cancelled append may or may not take place; ask `head` afterwards.
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

        Outages are waited out; the iterator raises only LogDamaged, or Unavailable (`log.closed`) after `close`.
        The batches are as committed: whether they continue the chain is for the reader (`check_follows`).
        """
        ...

    async def close(self) -> None:
        """Release everything; later calls raise Unavailable."""
        ...


def check_batch(entries: Sequence[Entry], after: Head) -> None:
    """What every backend demands of an append before it does anything (see `Log.append`)."""
    assert entries, "an append has at least one entry"
    head = after
    for entry in entries:
        assert entry.position == head.position + 1, f"record {entry.position} cannot follow {head.position}"
        assert entry.record.prev == head.hash, f"record {entry.position} does not continue the chain"
        if len(entry.data) > MAX_RECORD_BYTES:
            raise TooLarge(
                f"record {entry.position} has {len(entry.data):,} bytes; the limit is {MAX_RECORD_BYTES:,}",
                code="log.record_too_large",
                hint="split the change into smaller ones",
            )
        head = entry.head
    total = sum(len(entry.data) for entry in entries)
    if len(entries) > MAX_BATCH_ENTRIES or total > MAX_BATCH_BYTES:
        raise TooLarge(
            f"an append of {len(entries)} records and {total:,} bytes; the limits are {MAX_BATCH_ENTRIES} records "
            f"and {MAX_BATCH_BYTES:,} bytes",
            code="log.batch_too_large",
            hint="append in smaller batches",
        )


def conflict(found: Head, after: Head) -> Conflict:
    """The refusal of an append that was decided against `after` when the head is `found`."""
    return Conflict(
        f"the log's head is at {found.position}, the append expected {after.position}",
        hint="fold what came between and decide again",
    )


def closed() -> Unavailable:
    """What every call gets after `close`."""
    return Unavailable("the log is closed", code="log.closed", hint="open it again")
