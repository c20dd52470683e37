"""The history index, this node's replica of the log: a SQLite file that answers who did what to which, and when.

It keeps the records' bytes: an answer is one read of one file, whatever the log's backend and however old the record.
When it is damaged or of another version it is filled again from the log. When the log is another or shorter than it,
it stays as it is: the log may have to be restored from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Concatenate, ParamSpec, Self, TypeVar

from pvc.disk_thread import DiskThread
from pvc.errors import LogDamaged, Unavailable
from pvc.events.record import EMPTY, Entry, Head, unseal
from pvc.log.base import MAX_READ_BYTES, Log, closed
from pvc.log.history_file import Found, FoundEvents, HistoryFile
from pvc.log.history_search import HistoryQuery
from pvc.log.sqlite_common import means_damage, remove_database
from pvc.log.tree_file import RangeLook
from pvc.proof.merkle import Frontier

__all__ = ["Found", "FoundEvents", "HistoryIndex", "HistoryQuery"]

logger = logging.getLogger(__name__)

PAUSE_S = 1.0
"""Between tries while the disk is full or does not answer."""

ROOT_DEADLINE_S = 10.0
"""How long a root or proof waits for the index to have the records; it is some milliseconds behind."""

FEW = 8
"""Records that are unpacked at once without another thread: some 100 us."""

_BATCH = 500
"""Records of one transaction: some 20 ms, so that who waits for the index at its end does not wait long."""

P = ParamSpec("P")
T = TypeVar("T")

Listener = Callable[[Sequence[FoundEvents], int], None]
"""Told of each batch: the new records, as far as they are known (another batch may have brought them already), and the
position that was reached. It must not block."""


class HistoryIndex:
    """An index in the file `path`. Make it with `await HistoryIndex.open(path)`; `run` keeps it up to date."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Two connections, each in its own thread: a search never waits for a transaction, nor the other way round.
        self._writing = _Lane("history-write")
        self._reading = _Lane("history-read")
        self._position = 0
        self._moved = asyncio.Event()
        self._damaged = asyncio.Event()
        self._listeners: list[Listener] = []

    @classmethod
    async def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open the index, or begin a new one where there is none or it is damaged. Raises Unavailable."""
        index = cls(Path(path))
        try:
            await index._open()
        except BaseException:
            await index.close()
            raise
        return index

    @property
    def position(self) -> int:
        """The last position indexed."""
        return self._position

    async def index(self, entries: Sequence[Entry]) -> None:
        """Add records, in order, in one transaction. Raises Unavailable (`history.disk`): nothing was added then."""
        if not entries:
            return
        found = await self._run(self._writing, HistoryFile.index, entries, tell=bool(self._listeners))
        self._reached(max(self._position, entries[-1].position))
        for listener in self._listeners:
            listener(found, self._position)

    async def run(self, log: Log) -> None:
        """Follow the log from the own position, for ever; begin anew when damage is found, by whomever.

        Outages of the log and of the disk are waited out. Ends only by cancellation, or with what the log's `follow`
        raises.
        """
        while True:
            following = asyncio.create_task(self._follow(log), name="history follow")
            damaged = asyncio.create_task(self._damaged.wait(), name="history damage")
            try:
                await asyncio.wait((following, damaged), return_when=asyncio.FIRST_COMPLETED)
                if not self._damaged.is_set():
                    await following
            finally:
                following.cancel()
                damaged.cancel()
                await asyncio.gather(following, damaged, return_exceptions=True)
            await self._until_done(self._begin_anew, "found damaged")

    async def head(self) -> Head:
        """The last record. Raises Unavailable."""
        data = await self._run(self._reading, HistoryFile.data, self._position) if self._position else None
        return unseal(data).head if data is not None else EMPTY

    async def reach(self, position: int, timeout_s: float) -> None:
        """Return when everything up to `position` is indexed. Raises Unavailable after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._position < position:
                    await self._moved.wait()
        except TimeoutError:
            raise Unavailable(
                f"the history index has reached {self._position}, not yet {position}",
                code="history.behind",
                hint="try again in a moment; after damage it is built anew from the log",
            ) from None

    async def beyond(self, position: int) -> None:
        """Return when there is more than this."""
        while self._position <= position:
            await self._moved.wait()

    @contextlib.contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Call `listener` after each batch, within the block."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    async def subjects(self, subject: str) -> tuple[str, ...]:
        """The exact subjects that `subject` stands for and of which there is any history; see `HistoryQuery`."""
        return await self._run(self._reading, HistoryFile.subjects, subject)

    async def actors(self, beginning: str) -> dict[str, int]:
        """The actors, as records name them, that begin like this, and how many records each has."""
        return await self._run(self._reading, HistoryFile.actors, beginning)

    async def types(self) -> frozenset[str]:
        """The event types that occur in the log, also those that this version does not know."""
        return await self._run(self._reading, HistoryFile.types)

    async def find_command(self, command_id: str) -> bytes | None:
        """The bytes of the record that a command led to, however long ago; None when there is none."""
        return await self._run(self._reading, HistoryFile.command, command_id)

    async def data(self, position: int) -> bytes | None:
        """The bytes of one record; None where it is not indexed (yet)."""
        return await self._run(self._reading, HistoryFile.data, position)

    async def position_at(self, time_us: int) -> int:
        """The last position whose record says that it was written by then, 0 where none does.

        Clocks of nodes differ, so records before it may bear later times; those after it all do.
        """
        return await self._run(self._reading, HistoryFile.position_at, time_us)

    async def query(self, query: HistoryQuery) -> list[Found]:
        """The records that match. Raises Unavailable (`history.too_slow`, `history.disk`)."""
        return await self._run(self._reading, HistoryFile.query, query)

    async def events(self, query: HistoryQuery) -> list[FoundEvents]:
        """The records that match, each with what it is found by. Raises as `query` does."""
        return await self._run(self._reading, HistoryFile.events, query)

    async def correlation(self, record_id: str) -> str:
        """The id of the record that the chain of this one began with; empty where there is no such record (yet)."""
        return await self._run(self._reading, HistoryFile.correlation, record_id)

    async def read(self, first: int, limit: int) -> list[bytes]:
        """The bytes of up to `limit` records from position `first` on, in order; fewer where they are large (some 4 MB
        in all, and one at least) or not indexed."""
        assert first >= 1 and limit >= 1, "positions and limits start at 1"
        return await self._run(self._reading, HistoryFile.read, first, limit, MAX_READ_BYTES)

    async def mend(self, first: int, records: Sequence[bytes]) -> list[int]:
        """Put good bytes in the place of bad ones, from `first` on; returns the positions that were mended. Where whole
        rows are missing the index begins anew. Raises Unavailable."""
        return await self._run(self._writing, HistoryFile.mend, first, records)

    def begin_anew(self) -> None:
        """Throw the file away and fill it again from the log: for who has found out that it is damaged."""
        self._damaged.set()

    async def root(self, size: int) -> bytes:
        """The root of the tree (RFC 6962) over the first `size` records. Raises Unavailable (`history.behind`) when
        they are not all there yet."""
        await self.reach(size, ROOT_DEADLINE_S)
        return await self._run(self._reading, HistoryFile.root, size)

    async def frontier(self, size: int) -> Frontier:
        """What the tree over the first `size` records has to remember to grow. Raises as `root` does."""
        await self.reach(size, ROOT_DEADLINE_S)
        return await self._run(self._reading, HistoryFile.frontier, size)

    async def inclusion(self, position: int, size: int) -> list[bytes]:
        """The proof that the record at `position` is among the first `size`. Raises Unproven, Unavailable."""
        await self.reach(size, ROOT_DEADLINE_S)
        return await self._run(self._reading, HistoryFile.inclusion, position, size)

    async def consistency(self, old: int, new: int) -> list[bytes]:
        """The proof that the first `old` records are the beginning of the first `new`. Raises Unproven, Unavailable."""
        await self.reach(new, ROOT_DEADLINE_S)
        return await self._run(self._reading, HistoryFile.consistency, old, new)

    async def look(self, first: int, limit: int) -> RangeLook:
        """Hash up to `limit` records from `first` on (1 more than a multiple of 256) anew, and compare with all that is
        stored. Raises Unavailable."""
        return await self._run(self._reading, HistoryFile.look, first, limit)

    async def close(self) -> None:
        """Let running calls finish, close the file."""
        try:
            try:
                await self._reading.close()
            finally:
                await self._writing.close()
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(error) from error

    async def _open(self) -> None:
        try:
            await self._attach()
        except (sqlite3.Error, OSError) as error:
            if not means_damage(error):
                raise self._unavailable(error) from error
            await self._begin_anew(str(error))

    async def _attach(self) -> None:
        await self._writing.open(self._path)
        await self._reading.open(self._path)
        self._position = await self._writing.run(HistoryFile.position)

    async def _run(
        self, lane: _Lane, call: Callable[Concatenate[HistoryFile, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        try:
            return await lane.run(call, *args, **kwargs)
        except (sqlite3.Error, OSError) as error:
            if means_damage(error):
                self._damaged.set()
            raise self._unavailable(error) from error

    async def _follow(self, log: Log) -> None:
        await self._until_done(self._check_same_log, log)
        async for batch in log.follow(self._position):
            for first in range(0, len(batch), _BATCH):
                part = batch[first : first + _BATCH]
                entries = _unseal_all(part) if len(part) <= FEW else await asyncio.to_thread(_unseal_all, part)
                await self._until_done(self.index, entries)

    async def _until_done(self, work: Callable[P, Awaitable[None]], *args: P.args, **kwargs: P.kwargs) -> None:
        """Try again while the disk or the log does not answer."""
        while True:
            try:
                return await work(*args, **kwargs)
            except Unavailable as error:
                if error.code == closed().code:
                    raise
                logger.warning("history: waiting path=%s error=%s", self._path, error.message)
                await asyncio.sleep(PAUSE_S)

    async def _check_same_log(self, log: Log) -> None:
        """See that the log goes on where the replica ends. Otherwise it is the log that was set back or exchanged, and
        the replica may be what it is restored from."""
        if self._position == 0:
            return
        stored = await log.read(self._position, 1)
        if stored != [await self._run(self._reading, HistoryFile.data, self._position)]:
            raise LogDamaged(
                f"this node's replica has a record {self._position} that the log has not, or not like that",
                code="log.rewritten" if stored else "log.rewound",
                hint="it was set back, restored or exchanged; `pvc log repair --dry-run` says what can be done",
            )

    async def _begin_anew(self, reason: str) -> None:
        logger.warning("history: building the index anew path=%s reason=%s", self._path, reason)
        try:
            await self._reading.detach()
            await self._writing.detach()
            await asyncio.to_thread(remove_database, self._path)
            await self._attach()
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(error) from error
        self._damaged.clear()

    def _reached(self, position: int) -> None:
        self._position = position
        self._moved.set()
        self._moved = asyncio.Event()

    def _unavailable(self, error: Exception) -> Unavailable:
        return Unavailable(
            f"the history index {self._path} cannot be used: {error}",
            code="history.disk",
            hint="see that its disk has room and no errors; deleting the file is safe, it is filled again",
        )


class _Lane:
    """One thread with one connection."""

    def __init__(self, name: str) -> None:
        self._thread = DiskThread(name)
        self._file: HistoryFile | None = None

    async def open(self, path: Path) -> None:
        self._file = await self._thread.run(functools.partial(HistoryFile, path))

    async def run(self, call: Callable[Concatenate[HistoryFile, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._file is None:
            raise Unavailable("the history index is not open", code="history.closed", hint="try again in a moment")
        return await self._thread.run(functools.partial(call, self._file, *args, **kwargs))

    async def detach(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            await self._thread.run(file.close, surely=True)

    async def close(self) -> None:
        try:
            await self.detach()
        finally:
            self._thread.end()


def _unseal_all(batch: Sequence[bytes]) -> list[Entry]:
    return [unseal(data) for data in batch]
