"""An archive in a directory: one file for each blob, whole or not there at all, whatever happens to the machine."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pvc.archive.base import (
    DAMAGED_SUFFIX,
    MAX_BLOB_BYTES,
    check_put,
    closed,
    damaged,
    is_content_of,
    not_found,
    parse_blob_name,
)
from pvc.errors import Unavailable
from pvc.files import flush_directory, replace_file
from pvc.thread_pool import DaemonPool

T = TypeVar("T")

DEADLINE_S = 30.0
"""For any call: a blob of some hundred KB takes milliseconds, also on a disk with much to do."""

READERS = 2
"""Threads that read. One more writes, so that somebody's long reading does not hold the archiving up."""

LEFTOVER_S = 3600.0
"""A half-written file so old is nobody's any more. Younger ones may be another node's, in a shared directory."""

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DirectoryArchive:
    """Files in `path`, which is made when the first blob comes."""

    def __init__(self, path: Path, *, deadline_s: float = DEADLINE_S) -> None:
        self.title = f"directory {path}"
        self._path = path
        self._deadline_s = deadline_s
        self._reading = DaemonPool("archive-read", READERS)
        self._writing = DaemonPool("archive-write", 1)
        self._swept = False
        self._closed = False

    async def put(self, name: str, data: bytes) -> None:
        """Keep the blob."""
        check_put(name, data)
        await self._run(self._writing, lambda: self._put(name, data))

    async def get(self, name: str) -> bytes:
        """The blob."""
        if parse_blob_name(name) is None:
            raise not_found(self.title, name)
        return await self._run(self._reading, lambda: self._get(name))

    async def names(self) -> list[str]:
        """All names."""
        return await self._run(self._reading, self._names)

    async def remove(self, name: str) -> None:
        """Take a damaged copy away."""
        if parse_blob_name(name) is not None:
            await self._run(self._writing, lambda: self._remove(name))

    async def close(self) -> None:
        """Let the threads end."""
        if not self._closed:
            self._closed = True
            self._reading.end()
            self._writing.end()

    def _put(self, name: str, data: bytes) -> None:
        self._sweep()
        file = self._path / name
        try:
            there: bytes | None = file.read_bytes()
        except FileNotFoundError:
            there = None
        if there is None:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(file, data, mode=0o600)
        elif there != data:
            raise damaged(self.title, name, "other bytes are kept under this name")
        # Also for what was there: whoever put it may have died before this.
        flush_directory(self._path)
        if there is None:
            flush_directory(self._path.parent)  # the directory itself may be new

    def _get(self, name: str) -> bytes:
        try:
            with (self._path / name).open("rb") as file:
                data = file.read(MAX_BLOB_BYTES + 1)
        except FileNotFoundError:
            raise not_found(self.title, name) from None
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EISDIR):
                raise
            raise damaged(self.title, name, f"the disk cannot read it: {error.strerror}") from error
        if not is_content_of(name, data):
            raise damaged(self.title, name, "its bytes are not the ones that its name says")
        return data

    def _names(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self._path) if parse_blob_name(name) is not None)  # noqa: PTH208
        except FileNotFoundError:
            return []

    def _remove(self, name: str) -> None:
        try:
            (self._path / name).replace(self._path / f"{name}{DAMAGED_SUFFIX}")
        except FileNotFoundError:
            return
        flush_directory(self._path)

    def _sweep(self) -> None:
        """Delete what a process left that died in the middle of a `put`."""
        if self._swept or not self._path.is_dir():
            return
        self._swept = True
        for path in self._path.glob(".log-*.pvclog.*"):
            try:
                if path.stat().st_mtime < time.time() - LEFTOVER_S:
                    path.unlink()
            except FileNotFoundError:
                continue

    async def _run(self, pool: DaemonPool, work: Callable[[], T]) -> T:
        if self._closed:
            raise closed(self.title)
        try:
            async with asyncio.timeout(self._deadline_s):
                return await pool.run(work)
        except TimeoutError as error:
            raise Unavailable(
                f"the disk under the {self.title} did not answer within {self._deadline_s:g} s",
                code="archive.unreachable",
                hint="check the disk, or the mount, and the kernel's log",
            ) from error
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise Unavailable(
                    f"the {self.title} is full: {error.strerror}",
                    code="archive.disk_full",
                    hint="nothing was lost; free some space in its file system, or set archive.dir to a larger one",
                ) from error
            raise Unavailable(
                f"the {self.title} cannot be used: {error.strerror or error}",
                code="archive.io_error",
                hint="see that it is mounted, writable for pvcd, and the kernel's log free of disk errors",
            ) from error
