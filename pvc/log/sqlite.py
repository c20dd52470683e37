"""The log in one SQLite file: the embedded log of a single-node cluster, and every node's replica.

One connection in one worker thread does everything, in the order asked; other processes may have the same file open.
An append is one BEGIN IMMEDIATE transaction that compares the head and inserts, so the file decides who was first.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Concatenate, ParamSpec, Self, TypeVar

from pvc.disk_thread import DiskSlow, DiskThread
from pvc.errors import OutcomeUnknown, PvcError, Unavailable
from pvc.events.record import Entry, Head
from pvc.log.base import check_batch, closed
from pvc.log.sqlite_file import LogFile
from pvc.log.tail import Tail

POLL_S = 0.05
"""How often a waiting follower looks for other processes' appends; one lookup is some 30 us."""

_READ_BATCH = 2_000

P = ParamSpec("P")
T = TypeVar("T")


class SqliteLog:
    """A log in the file `path`. Make it with `await SqliteLog.open(path)`."""

    def __init__(self, path: Path, file: LogFile, thread: DiskThread) -> None:
        self.path = path
        self._file = file
        self._thread = thread
        self._tail = Tail()
        self._poller: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open the log, creating an empty one where there is no file.

        Raises Unavailable (`log.cannot_open`, `log.disk_full`, `log.busy`) with what to do about it, and LogDamaged
        (`log.corrupt`, `log.foreign_file`) when the file is no log or its last record does not have its hash.
        """
        where = Path(path)
        thread = DiskThread(f"log-{where.name}")
        try:
            file = await _in_turn(thread, where, functools.partial(LogFile, where))
        except BaseException:
            thread.end()
            raise
        return cls(where, file, thread)

    async def head(self) -> Head:
        """The last committed position."""
        return await self._run(LogFile.head)

    async def append(self, entries: Sequence[Entry], *, after: Head) -> Head:
        """Commit all entries durably, or raise; see `Log.append`.

        A full disk is Unavailable (`log.disk_full`): nothing was written, and the same append succeeds once there
        is room.
        """
        check_batch(entries, after)
        try:
            head = await self._run(LogFile.append, entries, after)
        except _TooSlow as error:
            raise OutcomeUnknown(
                f"the disk under {self.path} did not confirm an append in time",
                hint="check the disk; whether the change was made can be asked by its command id",
            ) from error
        self._tail.advance(head.position)
        return head

    async def read(self, first: int, limit: int) -> list[bytes]:
        """Up to `limit` records from `first` on; stops early after about MAX_READ_BYTES."""
        assert first >= 1 and limit >= 1, "positions and limits start at 1"
        return await self._run(LogFile.read, first, limit)

    async def follow(self, after: int) -> AsyncIterator[list[bytes]]:
        """Batches from `after + 1` on, for ever."""
        while True:
            if self._tail.position <= after:
                self._poll_for_others()
            await self._tail.beyond(after)
            try:
                batch = await self.read(after + 1, _READ_BATCH)
            except Unavailable:
                if self._closed:
                    raise
                await asyncio.sleep(POLL_S)
                continue
            if batch:
                after += len(batch)
                yield batch

    async def close(self) -> None:
        """Let the running call finish, close the file, wake the followers."""
        if self._closed:
            return
        self._closed = True
        self._tail.fail(closed())
        if self._poller is not None:
            self._poller.cancel()
        try:
            await _in_turn(self._thread, self.path, self._file.close, surely=True)
        finally:
            self._thread.end()

    async def _run(self, call: Callable[Concatenate[LogFile, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._closed:
            raise closed()
        return await _in_turn(self._thread, self.path, functools.partial(call, self._file, *args, **kwargs))

    def _poll_for_others(self) -> None:
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll(), name=f"poll {self.path.name}")

    async def _poll(self) -> None:
        """Look at the file while a follower sleeps; one lookup serves them all."""
        while True:
            try:
                self._tail.advance((await self.head()).position)
            except Unavailable:
                if self._closed:
                    return
            except PvcError as error:
                self._tail.fail(error)
            await asyncio.sleep(POLL_S)
            if not self._tail.awaited:
                return


class _TooSlow(Unavailable):
    """The worker did not finish in time; it may still do so."""


async def _in_turn(thread: DiskThread, path: Path, work: Callable[[], T], *, surely: bool = False) -> T:
    try:
        return await thread.run(work, surely=surely)
    except DiskSlow as error:
        raise _TooSlow(f"{path}: {error}", code="log.timeout", hint="check the disk and the kernel's log") from error
