"""Compares a log with this node's replica of it, and brings the log to where the replica is: appends what is missing.

What is appended are the very bytes that stood there before, so that afterwards it is the same log: same chain, same
tree, same checkpoints. Whether the replica is to be believed is for an admin to say.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from enum import StrEnum

import msgspec

from pvc.clock import Clock, Rng, new_ulid
from pvc.errors import Conflict, LogDamaged, Unavailable
from pvc.events.cluster import LogRestored
from pvc.events.record import EMPTY, Actor, CommandRef, Entry, Head, Record, check_follows, seal, unseal
from pvc.events.registry import decode_event, encode_event
from pvc.log.base import MAX_BATCH_BYTES, MAX_BATCH_ENTRIES, Log
from pvc.log.history import HistoryIndex

Progress = Callable[[int], Awaitable[None]]
"""Told the position reached, after each append."""


class Verdict(StrEnum):
    """How a log and a replica stand to each other."""

    WHOLE = "whole"
    """The log has all that the replica has, and perhaps more."""
    SHORT = "short"
    """The log ends earlier; the replica continues it."""
    GONE = "gone"
    """There is no log at all."""
    DIVERGED = "diverged"
    """Behind the last common record the two are different."""


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison found."""

    verdict: Verdict
    log_position: int
    replica_position: int
    common: int
    """The last position at which both have the same record."""


async def survey(log: Log | None, replica: HistoryIndex) -> Survey:
    """Compare. `log` is None where there is none. Raises Unavailable, LogDamaged when the log cannot be read."""
    own = await replica.head()
    if log is None:
        return Survey(verdict=Verdict.GONE, log_position=0, replica_position=own.position, common=0)
    head = await log.head()
    shared = min(head.position, own.position)
    if await _same(log, replica, shared, head):
        verdict = Verdict.WHOLE if head.position >= own.position else Verdict.SHORT
        common = shared
    else:
        verdict, common = Verdict.DIVERGED, await _last_common(log, replica, shared, head)
    return Survey(verdict=verdict, log_position=head.position, replica_position=own.position, common=common)


async def _last_common(log: Log, replica: HistoryIndex, differing: int, head: Head) -> int:
    """Each record names the hash of the one before, so what is the same at one position is so at all before it."""
    same = 0
    while differing - same > 1:
        middle = (same + differing) // 2
        if await _same(log, replica, middle, head):
            same = middle
        else:
            differing = middle
    return same


async def _same(log: Log, replica: HistoryIndex, position: int, head: Head) -> bool:
    if position == 0:
        return True
    own = await replica.data(position)
    if own is None:
        raise Unavailable(
            f"this node's replica has no record {position}",
            code="history.behind",
            hint="its replica is not whole: use another node",
        )
    if position == head.position:
        return hashlib.sha256(own).digest() == head.hash
    return (await log.read(position, 1))[:1] == [own]


async def reappend(
    log: Log, records: AsyncIterator[Sequence[bytes]], progress: Progress, *, at_once: int = MAX_BATCH_ENTRIES
) -> Head:
    """Append what `records` has beyond the log's end, after seeing that it continues the log; returns the new head.

    `at_once`: records of one append, no more than of a segment. Batches may overlap what is there; that must be equal.
    Raises Conflict when somebody else appends, LogDamaged when the records do not continue the log, Unavailable,
    OutcomeUnknown: then it can be begun again.
    """
    head = await log.head()
    last_seen = EMPTY
    async for batch in records:
        entries = [unseal(data) for data in batch]
        for entry in entries:
            if last_seen.position or entry.position == 1:
                check_follows(entry, last_seen)
            last_seen = entry.head
            if entry.position == head.position and entry.hash != head.hash:
                raise LogDamaged(f"record {entry.position} is not the one that the log has", code="log.rewritten")
        for part in _portions([entry for entry in entries if entry.position > head.position], at_once):
            if part[0].position != head.position + 1 or part[0].record.prev != head.hash:
                raise LogDamaged(
                    f"record {part[0].position} does not continue the log, which ends at {head.position}",
                    code="log.chain_broken",
                )
            head = await log.append(part, after=head)
            await progress(head.position)
    if 0 < last_seen.position < head.position:
        raise Conflict(f"the log has {head.position} records, more than the {last_seen.position} given")
    return head


def _portions(entries: Sequence[Entry], at_once: int) -> list[list[Entry]]:
    """The entries in batches as large as an append may be."""
    portions: list[list[Entry]] = []
    size_bytes = 0
    for entry in entries:
        size_bytes += len(entry.data)
        if not portions or len(portions[-1]) == at_once or size_bytes > MAX_BATCH_BYTES:
            portions.append([])
            size_bytes = len(entry.data)
        portions[-1].append(entry)
    return portions


async def from_replica(replica: HistoryIndex, after: int) -> AsyncIterator[list[bytes]]:
    """The replica's records behind `after`, in batches."""
    while True:
        batch = await replica.read(after + 1, MAX_BATCH_ENTRIES * 5)
        if not batch:
            return
        yield batch
        after += len(batch)


def restored_entry(newest: bytes, node: str, source: str, clock: Clock, rng: Rng) -> Entry:
    """The record that ends a restore, behind the one with the bytes `newest`."""
    last = unseal(newest)
    record_id = new_ulid(clock, rng)
    event = LogRestored(position=last.position, node=node, source=source)
    return seal(
        Record(
            position=last.position + 1,
            prev=last.hash,
            id=record_id,
            time_us=clock.wall_us(),
            actor=Actor(principal="root", method="socket"),
            origin=node,
            command=CommandRef(id=record_id, name="log.restore"),
            level=last.record.level,
            events=(encode_event(event),),
        )
    )


def end_of_restore(data: bytes) -> LogRestored | None:
    """What such a record says; None for any other."""
    for raw in unseal(data).record.events:
        if raw.type == LogRestored.TYPE and isinstance(event := decode_event(raw), LogRestored):
            return event
    return None
