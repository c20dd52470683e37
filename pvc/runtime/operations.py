"""The operations of this node: a projection of the whole log in a file beside the history index, from which it is made.

Reads and the fold take turns in one thread: a batch of the fold is some milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Concatenate, ParamSpec, Self, TypeVar

import msgspec

from pvc.commands.registry import COMMANDS
from pvc.disk_thread import DiskThread
from pvc.errors import LogDamaged, Unavailable
from pvc.events.record import unseal
from pvc.log.history import HistoryIndex
from pvc.log.sqlite_common import means_damage, remove_database
from pvc.projections.operations import Member, Operation
from pvc.runtime.operation_file import OperationFile, OperationQuery

__all__ = ["Operations"]

logger = logging.getLogger(__name__)

PAUSE_S = 1.0
"""Between tries while the disk or the history index does not answer."""

MAX_WATCHED = 10_000
"""Requests that wait for an operation at a time, some 1 kB each; the next ones are answered at once."""

_BATCH = 500
"""Records of one transaction: some 20 ms."""

P = ParamSpec("P")
T = TypeVar("T")

KINDS = {spec.name: kind for spec in COMMANDS if (kind := spec.operation) is not None}
"""The commands that begin operations."""


class Operations:
    """The operations in the file `path`. Make it with `await Operations.open(path)`; `run` keeps it up to date."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = DiskThread("operations")
        self._file: OperationFile | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        self._position = 0
        self._doubted = 0
        """For this record's sake the history index was last filled anew: it helps once, or not at all."""
        self._moved = asyncio.Event()
        self._watched: dict[str, set[asyncio.Event]] = {}
        self._watching = 0

    @classmethod
    async def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open the file, or begin a new one where there is none or it is of no use. Raises Unavailable."""
        operations = cls(Path(path))
        try:
            await operations._opened()
        except BaseException:
            operations._thread.end()
            raise
        return operations

    @property
    def position(self) -> int:
        """The last position that was looked at."""
        return self._position

    async def run(self, history: HistoryIndex) -> None:
        """Follow the history index for ever; where it has a bad record, have it filled anew. Ends only by cancellation;
        outages are waited out."""
        checked = False
        while True:
            try:
                if not checked:
                    await self._check_same_log(history)
                    checked = True
                if not await self._is_more(history):
                    continue
                first = self._position + 1
                batch = await history.read(first, _BATCH)
                if batch:
                    await self._fold(batch)
                    if self._position >= first:
                        continue
                    self._check_record(history, first, batch[0])
                # The index began anew, perhaps as another log's; or the file did.
                checked = False
                await asyncio.sleep(PAUSE_S)
            except Unavailable as error:
                logger.warning("operations: waiting path=%s error=%s", self._path, error.message)
                checked = False
                await asyncio.sleep(PAUSE_S)

    async def reach(self, position: int, timeout_s: float) -> None:
        """Return when everything up to `position` is in it. Raises Unavailable after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._position < position:
                    await self._moved.wait()
        except TimeoutError:
            raise Unavailable(
                f"the operations are known up to position {self._position}, not yet {position}",
                code="operation.behind",
                hint="try again in a moment; after an update they are read from the log anew",
            ) from None

    async def get(self, operation_id: str) -> Operation | None:
        """One operation; None where there is none of this id. Raises Unavailable, as all that follow."""
        return await self._run(OperationFile.get, operation_id)

    async def members(self, position: int, limit: int) -> list[Member]:
        """The VMs of an operation that is about many, where the record at `position` began it."""
        return await self._run(OperationFile.members, position, limit)

    async def find(self, query: OperationQuery) -> list[Operation]:
        """The operations that match."""
        return await self._run(OperationFile.find, query)

    async def names(self, subjects: Sequence[str]) -> dict[str, str]:
        """The names of the VMs among these subjects, also of removed ones."""
        return await self._run(OperationFile.names, subjects)

    @contextlib.contextmanager
    def watching(self, operation_id: str) -> Iterator[asyncio.Event | None]:
        """An event that is set whenever the operation changes, within the block; None where too many watch already."""
        if self._watching >= MAX_WATCHED:
            yield None
            return
        changed = asyncio.Event()
        self._watching += 1
        self._watched.setdefault(operation_id, set()).add(changed)
        try:
            yield changed
        finally:
            self._watching -= 1
            watchers = self._watched[operation_id]
            watchers.discard(changed)
            if not watchers:
                del self._watched[operation_id]

    async def close(self) -> None:
        """Let a running call finish, close the file."""
        try:
            async with self._opening:
                self._closed = True
                file, self._file = self._file, None
                if file is not None:
                    await self._thread.run(file.close, surely=True)
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(error) from error
        finally:
            self._thread.end()

    async def _fold(self, batch: Sequence[bytes]) -> None:
        changed = await self._run(OperationFile.fold, batch)
        self._position = (await self._run(OperationFile.reached)).position
        self._moved.set()
        self._moved = asyncio.Event()
        for operation_id in changed & self._watched.keys():
            for event in self._watched[operation_id]:
                event.set()

    async def _is_more(self, history: HistoryIndex) -> bool:
        """Wait for more than was looked at; not for long, as the file may have been lost meanwhile, and all is more."""
        try:
            async with asyncio.timeout(PAUSE_S):
                await history.beyond(self._position)
        except TimeoutError:
            return False
        return True

    async def _check_same_log(self, history: HistoryIndex) -> None:
        """Begin anew where the index holds another log, or a shorter one."""
        reached = await self._run(OperationFile.reached)
        if not reached.position:
            return
        data = await history.read(reached.position, 1) if history.position >= reached.position else []
        if data:
            self._check_record(history, reached.position, data[0])
        if (not data or unseal(data[0]).record.id != reached.record) and self._file is not None:
            await self._throw_away(self._file, "it is not of the log that the history index has")

    def _check_record(self, history: HistoryIndex, position: int, data: bytes) -> None:
        """See that the index has this record. Raises Unavailable where it has other bytes, or the next one, there."""
        with contextlib.suppress(LogDamaged):
            if unseal(data).position == position:
                return
        if self._doubted != position:
            self._doubted = position
            logger.error("operations: a record is damaged, the history index is filled anew position=%d", position)
            history.begin_anew()
        raise Unavailable(
            f"the history index has no good record {position}",
            code="history.behind",
            hint="it is filled again from the log by itself",
        )

    async def _opened(self) -> OperationFile:
        """The open file; opened, or made, where it is not. Raises Unavailable."""
        async with self._opening:
            if self._file is not None:
                return self._file
            if self._closed:
                raise Unavailable("the operations are closed", code="operation.closed", hint="ask another node")
            try:
                try:
                    file, self._position = await self._thread.run(self._open)
                except (sqlite3.Error, OSError) as error:
                    if not means_damage(error):
                        raise
                    await self._remove(str(error))
                    file, self._position = await self._thread.run(self._open)
            except (sqlite3.Error, OSError) as error:
                raise self._unavailable(error) from error
            self._file = file
            return file

    def _open(self) -> tuple[OperationFile, int]:
        """The file, and how far it goes. Blocks; raises sqlite3.Error, OSError."""
        file = OperationFile(self._path, KINDS)
        try:
            return file, file.reached().position
        except BaseException:
            file.close()
            raise

    async def _throw_away(self, file: OperationFile, reason: str) -> None:
        """Have no such file any more, unless that was done already; whoever asks next begins another one."""
        async with self._opening:
            if self._file is not file:
                return
            self._file, self._position = None, 0
            try:
                await self._thread.run(file.close, surely=True)
                await self._remove(reason)
            except OSError as error:
                raise self._unavailable(error) from error

    async def _remove(self, reason: str) -> None:
        logger.warning("operations: reading the log anew path=%s reason=%s", self._path, reason)
        await self._thread.run(functools.partial(remove_database, self._path))

    async def _run(self, call: Callable[Concatenate[OperationFile, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        file = await self._opened()
        try:
            return await self._thread.run(functools.partial(call, file, *args, **kwargs))
        except (sqlite3.Error, OSError, msgspec.MsgspecError) as error:
            if isinstance(error, msgspec.MsgspecError) or means_damage(error):
                await self._throw_away(file, str(error))
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> Unavailable:
        return Unavailable(
            f"the operations in {self._path} cannot be read: {error}",
            code="operation.disk",
            hint="see that its disk has room and no errors; deleting the file is safe, it is made again",
        )
