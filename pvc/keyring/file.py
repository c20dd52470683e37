"""Keys in a private file of a single node's data directory, replaced as a whole at each change.

The file is never begun anew by itself when it cannot be read: every name in the log would stay unreadable for good.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

import msgspec

from pvc.disk_thread import DiskSlow, DiskThread
from pvc.errors import PvcError
from pvc.files import replace_file
from pvc.keyring.base import DEADLINE_S, IdTaken, PersonKey, closed, unreachable, unreadable

FORMAT = 1

T = TypeVar("T")


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    keys: list[PersonKey]


class FileKeyring:
    """The file `path`; there is only one daemon on a data directory, so nobody else writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # One thread, so that a change which nobody waits for any more is still over before the next one begins.
        self._thread = DiskThread("keyring")
        self._closed = False

    async def find(self, principal: str) -> PersonKey | None:
        """The person's key."""
        keys = await self._in_turn(self._load)
        return next((key for key in keys if key.principal == principal), None)

    async def make(self, key: PersonKey) -> PersonKey:
        """Keep this key unless there is one."""
        return await self._in_turn(lambda: self._keep(key))

    async def read(self, ids: Collection[str]) -> dict[str, PersonKey]:
        """Those of these keys that there are."""
        return {key.id: key for key in await self._in_turn(self._load) if key.id in ids}

    async def ids(self) -> list[str]:
        """The ids of all keys."""
        return [key.id for key in await self._in_turn(self._load)]

    async def destroy(self, key_id: str) -> None:
        """Have no such key any more."""
        await self._in_turn(lambda: self._drop(key_id))

    async def close(self) -> None:
        """Refuse all further calls."""
        self._closed = True
        self._thread.end()

    async def _in_turn(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise closed()
        try:
            return await self._thread.run(work, deadline_s=DEADLINE_S)
        except DiskSlow as error:
            raise unreachable(str(self._path), str(error)) from None

    def _keep(self, key: PersonKey) -> PersonKey:
        keys = self._load()
        present = next((one for one in keys if one.principal == key.principal), None)
        if present is not None:
            return present
        if any(one.id == key.id for one in keys):
            raise IdTaken(f"there is another key {key.id}")
        self._store([*keys, key])
        return key

    def _drop(self, key_id: str) -> None:
        keys = self._load()
        if any(key.id == key_id for key in keys):
            self._store([key for key in keys if key.id != key_id])

    def _load(self) -> list[PersonKey]:
        try:
            stored = msgspec.json.decode(self._path.read_bytes(), type=_Stored)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._failed(error) from error
        except msgspec.MsgspecError:
            # The decoder's words could quote what it stumbled over.
            raise unreadable(str(self._path), "it is no keyring") from None
        if stored.format != FORMAT:
            raise unreadable(str(self._path), f"its format is {stored.format}, not {FORMAT}")
        return stored.keys

    def _store(self, keys: list[PersonKey]) -> None:
        content = msgspec.json.encode(_Stored(format=FORMAT, keys=keys))
        try:
            replace_file(self._path, content, mode=0o600)
            # A power cut must not take back the replacement: records sealed with the key may be on the disk already.
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> PvcError:
        return unreachable(str(self._path), error.strerror or type(error).__name__)
