"""Cursors and their key in ZooKeeper, for all coordinators of a cluster.

    /pvc/<cluster>/cursors/<hook>   how far an endpoint is; its version is what a writer must have seen
    /pvc/<cluster>/webhooks/key     256 random bits that signing secrets are sealed with; READ-only

A lost reply leaves a doubt. Then the cursor is read again: what a deliverer writes names it and its term, so whether
it was written is seen.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Self, TypeVar

from pvc.clock import Rng
from pvc.webhooks.signing import KEY_BYTES
from pvc.webhooks.store import ABSENT, DEADLINE_S, Stored, taken, unreachable
from pvc.zookeeper.bridge import SESSION_TIMEOUT_S, Bridge
from pvc.zookeeper.insist import insist, lay
from pvc.zookeeper.place import ancestors, place_of
from pvc.zookeeper.types import (
    CREATE,
    DELETE,
    READ,
    WRITE,
    Create,
    Credentials,
    Delete,
    SetData,
    Tls,
)

T = TypeVar("T")


class ZookeeperStore:
    """One daemon's client. Make it with `await ZookeeperStore.open(...)`; a call waits for the connection."""

    def __init__(self, cluster: str, bridge: Bridge, rng: Rng) -> None:
        self._cursors = f"{place_of(cluster)}/cursors"
        self._folder = f"{place_of(cluster)}/webhooks"
        parents = (self._cursors, self._folder)
        self._foundation = [*ancestors(cluster), *(Create(path, b"", READ | CREATE | DELETE) for path in parents)]
        self._bridge = bridge
        self._rng = rng
        self._key = b""
        self._closed = False

    @classmethod
    async def open(
        cls,
        hosts: str,
        cluster: str,
        rng: Rng,
        *,
        credentials: Credentials | None = None,
        tls: Tls | None = None,
        session_timeout_s: float = SESSION_TIMEOUT_S,
    ) -> Self:
        """Begin to connect; ZooKeeper need not be there yet. Raises InvalidInput (the cluster's name)."""
        bridge = Bridge(hosts, credentials=credentials, tls=tls, session_timeout_s=session_timeout_s)
        store = cls(cluster, bridge, rng)
        bridge.start()
        return store

    async def key(self) -> bytes:
        """The key."""
        if not self._key:
            self._key = await self._insist(self._find_or_make_key)
        return self._key

    async def read(self, hook: str) -> Stored | None:
        """The cursor."""
        return await self._insist(lambda: self._read(hook))

    async def write(self, hook: str, data: bytes, version: int) -> int:
        """Replace it."""
        path = f"{self._cursors}/{hook}"
        doubtful = False

        async def write() -> int:
            nonlocal doubtful
            if doubtful:
                present = await self._read(hook)
                if present is not None and present.data == data:
                    return present.version
                if (present.version if present else ABSENT) != version:
                    raise taken(hook)
            doubtful = True  # until an answer comes
            if version != ABSENT:
                await self._bridge.multi([SetData(path, data, version)])
                return version + 1
            await self._bridge.multi([Create(path, data, READ | WRITE)])
            return 0

        return await self._insist(write)

    async def hooks(self) -> list[str]:
        """Those that have one."""

        async def hooks() -> list[str]:
            await self._bridge.sync(self._cursors)
            return await self._bridge.children(self._cursors)

        return await self._insist(hooks)

    async def remove(self, hook: str) -> None:
        """Have none."""

        async def remove() -> None:
            present = await self._read(hook)
            if present is not None:
                await self._bridge.multi([Delete(f"{self._cursors}/{hook}", present.version)])

        await self._insist(remove)

    async def close(self) -> None:
        """End the session."""
        self._closed = True
        await self._bridge.close()

    async def _read(self, hook: str) -> Stored | None:
        await self._bridge.sync(self._cursors)
        [found] = await self._bridge.find_many([f"{self._cursors}/{hook}"])
        return Stored(found.data, found.version) if found is not None else None

    async def _find_or_make_key(self) -> bytes:
        path = f"{self._folder}/key"
        await self._bridge.sync(self._folder)
        [found] = await self._bridge.find_many([path])
        if found is None:
            key = self._rng.randbytes(KEY_BYTES)
            # By its exact name: of two nodes that make one at once, the second is refused and reads the first one's.
            await self._bridge.multi([Create(path, key, READ)])
            return key
        if len(found.data) != KEY_BYTES:
            raise unreachable(path, f"{len(found.data)} bytes are no key; delete it, and rotate all secrets")
        return found.data

    async def _insist(self, act: Callable[[], Awaitable[T]]) -> T:
        """Do `act`, which may be repeated, again after every outage or lost race, until the deadline."""
        try:
            return await insist(
                self._bridge, act, deadline_s=DEADLINE_S, check_open=self._check_open, found=self._found
            )
        except TimeoutError:
            raise unreachable(f"ZooKeeper ({self._bridge.hosts})", f"no answer within {DEADLINE_S:g} s") from None

    def _check_open(self) -> None:
        if self._closed:
            raise unreachable(f"ZooKeeper ({self._bridge.hosts})", "the daemon is stopping")

    async def _found(self) -> None:
        await lay(self._bridge, self._foundation)
