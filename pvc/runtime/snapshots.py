"""Keeps the folded state in a file, so that a daemon need not fold the whole log again when it starts.

The file is disposable: a damaged one, or one of another version of the fold, is passed over and the log folded from its
beginning. What it is not allowed to be is ahead of the log, or of another log: then it is the log that was set back or
exchanged since this node last saw it, and the node must not write on (`check_same_log`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from pathlib import Path

from pvc.errors import LogDamaged, PvcError
from pvc.events.record import Head, unseal
from pvc.events.registry import knows_level
from pvc.files import replace_file
from pvc.log.base import Log
from pvc.log.history import HistoryIndex
from pvc.projections.snapshot import StaleSnapshot, restore, snapshot, snapshot_to_read
from pvc.projections.state import ClusterState
from pvc.runtime.past_files import PastFiles
from pvc.runtime.world import World

logger = logging.getLogger(__name__)

EVERY_RECORDS = 4_096
"""A segment's worth: the tail that a start has to fold is no longer than this, some 30 ms of work."""

AT_LEAST_EVERY_S = 3600.0
"""On a quiet cluster too, so that the file is no older than an hour."""

_DIGEST_BYTES = 32


class SnapshotFile:
    """The newest snapshot of one node, in one file. Its methods block; the node calls `save` in a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._barred = False

    def load(self) -> ClusterState | None:
        """The stored state; None when there is none that can be used."""
        try:
            state = restore(self.read())
            if state.cluster is not None and not knows_level(state.cluster.level):
                raise StaleSnapshot(f"it is of feature level {state.cluster.level}")
            return state
        except FileNotFoundError:
            return None
        except (OSError, PvcError) as error:
            logger.warning("snapshot: not usable, folding the whole log file=%s error=%s", self._path, error)
            return None

    def read(self) -> bytes:
        """What was saved last. Raises StaleSnapshot when it is damaged, FileNotFoundError, OSError."""
        content = self._path.read_bytes()
        digest, data = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(data).digest() != digest:
            raise StaleSnapshot("its checksum is wrong")
        return data

    def save(self, data: bytes) -> None:
        """Store what `snapshot` made. Raises OSError; the old file is untouched then."""
        if self._barred:
            return
        replace_file(self._path, hashlib.sha256(data).digest() + data, mode=0o600)
        if self._barred:  # meanwhile
            self._path.unlink(missing_ok=True)

    @property
    def discarded(self) -> bool:
        """Whether the state of this process is not to be trusted."""
        return self._barred

    def discard(self) -> None:
        """The state is not to be trusted: delete the file and store no other; the next start folds the log anew."""
        self._barred = True
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            logger.error("snapshot: delete it by hand before the next start file=%s error=%s", self._path, error)


async def newest_seen(world: World, replica: HistoryIndex | None) -> Head:
    """The last record that this node has of the log: folded, or in its replica. Raises Unavailable."""
    folded = world.state.head
    stored = await replica.head() if replica is not None else folded
    return max(folded, stored, key=lambda head: head.position)


async def check_same_log(seen: Head, log: Log) -> None:
    """Make sure that the log is the one whose end this node has `seen`, and has not lost anything of it since.

    Raises LogDamaged when it is not, Unavailable when the log cannot be reached.
    """
    if seen.position == 0:
        return
    head = await log.head()
    if head.position < seen.position:
        raise LogDamaged(
            f"the log ends at position {head.position}, but this node has it up to {seen.position}",
            code="log.rewound",
            hint="it was set back, restored or exchanged; `pvc log repair --dry-run` says what can be done",
        )
    stored = unseal((await log.read(seen.position, 1))[0])
    if stored.hash != seen.hash:
        raise LogDamaged(
            f"the log's record {seen.position} is not the one that this node has",
            code="log.rewritten",
            hint="it was set back and written to, or exchanged; `pvc log repair --dry-run` says what can be done",
        )


async def keep_snapshots(world: World, file: SnapshotFile, past: PastFiles | None = None) -> None:
    """Store a snapshot now and then, until cancelled. A disk that is full or broken is tried again the next time.

    With `past`, a state stays there for every so many records, so that the past can be read without a long replay.
    """
    while True:
        stored = world.position
        with contextlib.suppress(PvcError):  # only the time was up
            await world.reach(stored + EVERY_RECORDS, AT_LEAST_EVERY_S)
        if world.position > stored and world.fault is None:
            await store_snapshot(world, file)
            if past is not None and not file.discarded:
                await _store_for_later(world, past)


async def store_snapshot(world: World, file: SnapshotFile) -> None:
    """Store the present state. Encoding happens at once, so the snapshot is of one position; writing in a thread."""
    data, position = snapshot(world.state), world.position
    try:
        await asyncio.to_thread(file.save, data)
    except OSError as error:
        logger.warning("snapshot: not stored position=%d error=%s", position, error)


async def _store_for_later(world: World, past: PastFiles) -> None:
    if await asyncio.to_thread(past.wants, world.position) and world.fault is None:
        data, position = snapshot_to_read(world.state), world.position
        await asyncio.to_thread(past.save, position, data)
