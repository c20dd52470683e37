"""Keys in ZooKeeper, for all gateways of a cluster. Creating a name decides; what is doubtful is looked at again.

    /pvc/<cluster>/keys/<key id>       the person's name and key; READ-only
    /pvc/<cluster>/people/<SHA-256>    of the person's name: the id of their key; READ-only

Both are created, and deleted, in one transaction. A reply that is lost leaves a doubt: then the name is looked up anew,
after a sync, and only if it is not there the same key is sent again. Only the parents allow deleting.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Collection
from typing import Self, TypeVar

import msgspec

from pvc.keyring.base import DEADLINE_S, IdTaken, PersonKey, closed, unreachable, unreadable
from pvc.zookeeper.bridge import SESSION_TIMEOUT_S, Bridge
from pvc.zookeeper.insist import insist, lay
from pvc.zookeeper.place import ancestors, place_of
from pvc.zookeeper.types import (
    CREATE,
    DELETE,
    READ,
    Create,
    Credentials,
    Delete,
    Tls,
)

T = TypeVar("T")


class _Layout:
    """The paths of one cluster's keys."""

    def __init__(self, cluster: str) -> None:
        place = place_of(cluster)
        self.keys = f"{place}/keys"
        self.people = f"{place}/people"
        self.foundation = [
            *ancestors(cluster),
            *(Create(path, b"", READ | CREATE | DELETE) for path in (self.keys, self.people)),
        ]

    def key(self, key_id: str) -> str:
        """A key."""
        return f"{self.keys}/{key_id}"

    def person(self, principal: str) -> str:
        """What decides that there is only one key for a name. Hashed for its form, not as a secret."""
        return f"{self.people}/{hashlib.sha256(principal.encode()).hexdigest()}"


class ZookeeperKeyring:
    """One daemon's client. Make it with `ZookeeperKeyring.open(hosts, cluster)`; a call waits for the connection."""

    def __init__(self, layout: _Layout, bridge: Bridge, deadline_s: float) -> None:
        self._layout = layout
        self._bridge = bridge
        self._deadline_s = deadline_s
        self._closed = False

    @classmethod
    async def open(
        cls,
        hosts: str,
        cluster: str,
        *,
        credentials: Credentials | None = None,
        tls: Tls | None = None,
        session_timeout_s: float = SESSION_TIMEOUT_S,
        deadline_s: float = DEADLINE_S,
    ) -> Self:
        """Begin to connect; ZooKeeper need not be there yet. Raises InvalidInput (the cluster's name)."""
        bridge = Bridge(hosts, credentials=credentials, tls=tls, session_timeout_s=session_timeout_s)
        keyring = cls(_Layout(cluster), bridge, deadline_s)
        bridge.start()
        return keyring

    async def find(self, principal: str) -> PersonKey | None:
        """The person's key."""
        return await self._insist(lambda: self._find(principal))

    async def make(self, key: PersonKey) -> PersonKey:
        """Keep this key unless there is one."""

        async def make() -> PersonKey:
            present = await self._find(key.principal)
            if present is not None:
                return present
            if await self._bridge.exists(self._layout.key(key.id)):
                raise IdTaken(f"there is another key {key.id}")
            person = Create(self._layout.person(key.principal), key.id.encode(), READ)
            await self._bridge.multi([person, Create(self._layout.key(key.id), msgspec.json.encode(key), READ)])
            return key

        return await self._insist(make)

    async def read(self, ids: Collection[str]) -> dict[str, PersonKey]:
        """Those of these keys that there are."""

        async def read() -> dict[str, PersonKey]:
            await self._bridge.sync(self._layout.keys)
            wanted = list(ids)
            znodes = await self._bridge.find_many([self._layout.key(key_id) for key_id in wanted])
            found = zip(wanted, znodes, strict=True)
            return {key_id: self._decode(key_id, znode.data) for key_id, znode in found if znode is not None}

        return await self._insist(read)

    async def ids(self) -> list[str]:
        """The ids of all keys."""

        async def ids() -> list[str]:
            await self._bridge.sync(self._layout.keys)
            return await self._bridge.children(self._layout.keys)

        return await self._insist(ids)

    async def destroy(self, key_id: str) -> None:
        """Have no such key any more."""

        async def destroy() -> None:
            await self._bridge.sync(self._layout.keys)
            path = self._layout.key(key_id)
            [key] = await self._bridge.find_many([path])
            if key is None:
                return
            person = self._layout.person(self._decode(key_id, key.data).principal)
            [holder] = await self._bridge.find_many([person])
            deletes = [Delete(path, key.version)]
            if holder is not None and holder.data == key_id.encode():
                deletes.append(Delete(person, holder.version))
            await self._bridge.multi(deletes)

        await self._insist(destroy)

    async def close(self) -> None:
        """End the session."""
        self._closed = True
        await self._bridge.close()

    async def _find(self, principal: str) -> PersonKey | None:
        person = self._layout.person(principal)
        await self._bridge.sync(person)
        [holder] = await self._bridge.find_many([person])
        if holder is None:
            return None
        key_id = holder.data.decode(errors="replace")
        [key] = await self._bridge.find_many([self._layout.key(key_id)])
        if key is None:
            # Destroyed between the two looks, or deleted by hand: then nothing may keep the name from a new key.
            await self._bridge.multi([Delete(person, holder.version)])
            return None
        return self._decode(key_id, key.data)

    def _decode(self, key_id: str, data: bytes) -> PersonKey:
        with contextlib.suppress(msgspec.MsgspecError):
            key = msgspec.json.decode(data, type=PersonKey)
            if key.id == key_id:
                return key
        # The decoder's words could quote what it stumbled over.
        raise unreadable(self._layout.key(key_id), "it is no key") from None

    async def _insist(self, act: Callable[[], Awaitable[T]]) -> T:
        """Do `act`, which may be repeated, again after every outage or lost race, until the deadline."""
        try:
            return await insist(
                self._bridge, act, deadline_s=self._deadline_s, check_open=self._check_open, found=self._found
            )
        except TimeoutError:
            raise unreachable(f"ZooKeeper ({self._bridge.hosts})", f"no answer within {self._deadline_s:g} s") from None

    def _check_open(self) -> None:
        if self._closed:
            raise closed()

    async def _found(self) -> None:
        await lay(self._bridge, self._layout.foundation)
