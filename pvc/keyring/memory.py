"""Keys in memory: for tests, and for a daemon whose log is in memory too."""

from __future__ import annotations

from collections.abc import Collection

from pvc.keyring.base import IdTaken, PersonKey, closed


class MemoryKeyring:
    """Two of them can share the dict of another, as two gateways share ZooKeeper."""

    def __init__(self, shared: MemoryKeyring | None = None) -> None:
        self._keys: dict[str, PersonKey] = shared._keys if shared is not None else {}
        self._closed = False

    async def find(self, principal: str) -> PersonKey | None:
        """The person's key."""
        return self._of(principal)

    async def make(self, key: PersonKey) -> PersonKey:
        """Keep this key unless there is one."""
        present = self._of(key.principal)
        if present is not None:
            return present
        if key.id in self._keys:
            raise IdTaken(f"there is another key {key.id}")
        self._keys[key.id] = key
        return key

    async def read(self, ids: Collection[str]) -> dict[str, PersonKey]:
        """Those of these keys that there are."""
        return {key_id: key for key_id, key in self._open().items() if key_id in ids}

    async def ids(self) -> list[str]:
        """The ids of all keys."""
        return list(self._open())

    async def destroy(self, key_id: str) -> None:
        """Have no such key any more."""
        self._open().pop(key_id, None)

    async def close(self) -> None:
        """Refuse all further calls."""
        self._closed = True

    def _of(self, principal: str) -> PersonKey | None:
        return next((key for key in self._open().values() if key.principal == principal), None)

    def _open(self) -> dict[str, PersonKey]:
        if self._closed:
            raise closed()
        return self._keys
