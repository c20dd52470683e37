"""What the log and presence need of a session with ZooKeeper: `Bridge` has it, and so has its simulated twin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from pvc.clock import Clock
from pvc.zookeeper.types import Create, Credentials, Delete, Handshake, SetData, Tls, Znode


class ZookeeperSession(Protocol):
    """A session, renewed for as long as it is open. Every call may raise NoSession (nothing was sent) and Lost."""

    hosts: str
    handshake: Handshake | None

    def start(self) -> None:
        """Begin to connect."""
        ...

    @property
    def connected(self) -> bool:
        """Whether there is a live session as far as this client knows."""
        ...

    @property
    def session(self) -> tuple[int, bytes] | None:
        """Id and password of the session."""
        ...

    async def wait_connected(self) -> None:
        """Return once there is a live session, or this is closed."""
        ...

    async def get(self, path: str, watch: Callable[[], None] | None = None) -> tuple[bytes, int]:
        """Data and version; `watch` is called once, at the next change or lost connection."""
        ...

    async def get_many(self, paths: Sequence[str]) -> list[bytes]:
        """Data of all these znodes."""
        ...

    async def find_many(self, paths: Sequence[str]) -> list[Znode | None]:
        """All these znodes, None for each that does not exist."""
        ...

    async def children(self, path: str, watch: Callable[[], None] | None = None) -> list[str]:
        """Names of the znode's children."""
        ...

    async def exists(self, path: str, watch: Callable[[], None] | None = None) -> bool:
        """Whether the znode is there."""
        ...

    async def sync(self, path: str) -> None:
        """Let this server catch up with the leader."""
        ...

    async def multi(self, operations: Sequence[SetData | Create | Delete]) -> list[int | str]:
        """Do all or nothing."""
        ...

    async def check(self, path: str) -> None:
        """See that the znode exists, by a write."""
        ...

    async def close(self, *, end_session: bool = True) -> None:
        """End the session, or leave it to its expiry."""
        ...


class OpenSession(Protocol):
    """Makes sessions: `Bridge`, or what the simulator has in its place."""

    def __call__(
        self,
        hosts: str,
        *,
        credentials: Credentials | None = None,
        also: Credentials | None = None,
        tls: Tls | None = None,
        session_timeout_s: float = ...,
        on_connected: Callable[[], None] = ...,
        clock: Clock | None = None,
    ) -> ZookeeperSession:
        """A session that is not started yet."""
        ...
