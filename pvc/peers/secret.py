"""The secret that the nodes of a cluster share: made once, kept in ZooKeeper, never shown and never logged.

    /pvc/<cluster>/peers/secret   256 random bits

Whoever can read it could append to the log as well, so it gives nobody more than they have. To replace it, delete the
znode and restart a node, which makes another one; the others read it when they first refuse, or are refused, something.
Until then the old one is good for them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from pvc.clock import Clock, Rng
from pvc.errors import PvcError, Unavailable
from pvc.zookeeper.bridge import SESSION_TIMEOUT_S, Bridge
from pvc.zookeeper.place import ancestors, place_of
from pvc.zookeeper.types import (
    CREATE,
    DELETE,
    READ,
    BadVersion,
    Create,
    Credentials,
    Lost,
    NodeExists,
    NoNode,
    NoSession,
    Tls,
)

logger = logging.getLogger(__name__)

SECRET_BYTES = 32

DEADLINE_S = 15.0
"""For reading it once, connecting included: an election in the ensemble fits in."""

AGAIN_S = 10.0
"""Between two readings, however many doubts there are: strangers may cause them."""

PAUSE_S = 0.1


class PeerSecret:
    """The secret as known here, and read again when there is reason to doubt it."""

    def __init__(self, read: Callable[[], Awaitable[bytes]], clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._value = b""
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._told: list[Callable[[], None]] = []

    async def load(self) -> None:
        """Read it. Raises Unavailable."""
        self._read_at = self._clock.monotonic()
        before, self._value = self._value, await self._read()
        if self._value != before:
            for tell in self._told:
                tell()

    def on_change(self, tell: Callable[[], None]) -> None:
        """Have this called whenever it is another one than before."""
        self._told.append(tell)

    @property
    def value(self) -> bytes:
        """The secret; empty while it is not known, and nobody is a peer then."""
        return self._value

    def doubt(self) -> None:
        """Something that should have been signed with it was not: read it again, soon and in the background."""
        if self._clock.monotonic() - self._read_at < AGAIN_S or (self._reading and not self._reading.done()):
            return
        self._reading = asyncio.get_running_loop().create_task(self._read_again(), name="read the peers' secret")

    async def close(self) -> None:
        """Read no more."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read_again(self) -> None:
        before = self._value
        try:
            await self.load()
        except PvcError as error:
            logger.warning("peers: the secret cannot be read again error=%s", error.message)
        else:
            if self._value != before:
                logger.info("peers: the secret was replaced")


async def read_secret(
    hosts: str,
    cluster: str,
    *,
    rng: Rng,
    credentials: Credentials | None = None,
    tls: Tls | None = None,
    session_timeout_s: float = SESSION_TIMEOUT_S,
    deadline_s: float = DEADLINE_S,
) -> bytes:
    """The secret, made if there is none. In a session of its own, for it is read twice a year.

    Raises Unavailable after `deadline_s`, or when this identity may not.
    """
    bridge = Bridge(hosts, credentials=credentials, tls=tls, session_timeout_s=session_timeout_s)
    bridge.start()
    try:
        async with asyncio.timeout(deadline_s):
            while True:
                await bridge.wait_connected()
                try:
                    return await _find_or_make(bridge, cluster, rng)
                except (Lost, NoSession, NodeExists, NoNode, BadVersion):
                    await asyncio.sleep(PAUSE_S)
    except TimeoutError as error:
        raise Unavailable(
            f"ZooKeeper at {hosts} did not answer within {deadline_s:g} s",
            code="log.unreachable",
            hint="see that a majority of the coordinators runs and can be reached",
        ) from error
    finally:
        await bridge.close()


async def _find_or_make(bridge: Bridge, cluster: str, rng: Rng) -> bytes:
    folder = f"{place_of(cluster)}/peers"
    path = f"{folder}/secret"
    await bridge.sync("/")  # another node may just have made it
    [found] = await bridge.find_many([path])
    if found is not None and len(found.data) == SECRET_BYTES:
        return found.data
    if found is not None:
        raise Unavailable(
            f"{path} in ZooKeeper has {len(found.data)} bytes and is no secret of PVC",
            code="peers.bad_secret",
            hint=f"delete it; the nodes make another one: zkCli.sh delete {path}",
        )
    above = [*ancestors(cluster), Create(folder, b"", READ | CREATE | DELETE)]
    missing = [create for create in above if not await bridge.exists(create.path)]
    secret = rng.randbytes(SECRET_BYTES)
    # By its exact name: of two nodes that make one at the same time, the second is refused and reads the first one's.
    await bridge.multi([*missing, Create(path, secret, READ)])
    return secret
