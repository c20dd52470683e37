"""An asyncio client of ZooKeeper with a deadline on every operation.

kazoo lives in threads of its own; every result and state change is handed to the event loop and dealt with there.
What shaped it (kazoo 2.11): a transaction reports failures as values in its result and never raises; operations have
no time-out; a connection that swallows replies is noticed only once nothing more is sent on it; a server that was set
back to an older state refuses the old session for ever. So: results are checked one by one, an operation without an
answer cuts the connection, and a client that stays disconnected for longer than its session lives is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from kazoo import exceptions as kx
from kazoo.client import KazooClient
from kazoo.protocol.states import KazooState
from kazoo.security import ACL, Id

from pvc.clock import BootClock, Clock
from pvc.zookeeper.kazoo_parts import (
    HINT,
    PromptHandler,
    Watcher,
    cut,
    digest_of,
    found,
    plain,
    settle,
    stop_in_background,
    tell_handshakes,
    translate,
    value_of,
)
from pvc.zookeeper.read_many import read_many
from pvc.zookeeper.types import (
    Create,
    Credentials,
    Delete,
    Handshake,
    Lost,
    NoNode,
    NoSession,
    SetData,
    Tls,
    Znode,
)

MAX_PACKET_BYTES = 1_000_000
"""The server cuts the connection at 1,048,575 bytes, for ever if the same is sent again; leave room for framing."""

SESSION_TIMEOUT_S = 10.0
"""Asked of the server, which allows 2 to 20 of its ticks (2 s each by default)."""

OPERATION_TIMEOUT_PART = 2 / 3
"""Of the session's time-out: as long as kazoo itself waits for a sign of life before it reconnects."""

STOP_TIMEOUT_S = 3.0
"""A session is closed in good order only if that is quick; otherwise the server lets it expire."""

_RECONNECT = {"max_tries": -1, "delay": 0.1, "backoff": 2, "max_jitter": 0.4, "max_delay": 1.0}
_log = logging.getLogger(__name__)
_kazoo_log = logging.getLogger("pvc.zookeeper.kazoo")
_kazoo_log.setLevel(logging.ERROR)  # it reports every reconnection several times; the bridge reports it once


class Bridge:
    """A session with the ensemble `hosts` ("host:port,host:port"), renewed for as long as it is open."""

    def __init__(
        self,
        hosts: str,
        *,
        credentials: Credentials | None = None,
        also: Credentials | None = None,
        tls: Tls | None = None,
        session_timeout_s: float = SESSION_TIMEOUT_S,
        on_connected: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
    ) -> None:
        self.hosts = hosts
        self._credentials = credentials
        self._also = also
        """A second identity of this client, to which no znode is given by default."""
        self._tls = tls
        self._session_timeout_s = session_timeout_s
        self._operation_timeout_s = session_timeout_s * OPERATION_TIMEOUT_PART
        self._on_connected = on_connected
        self._clock = clock or BootClock()
        self.handshake: Handshake | None = None
        """The last one."""
        self._loop = asyncio.get_running_loop()
        self._posting = threading.Lock()
        self._posted: list[tuple[Callable[..., None], tuple[object, ...]]] = []
        self._connected = asyncio.Event()
        self._connection = 0
        """Counts connections, so that what is overdue in one does not cut the next."""
        self._client: KazooClient | None = None
        self._renewer: asyncio.TimerHandle | None = None
        self._closed = False

    def start(self) -> None:
        """Begin to connect; `wait_connected` says when that is done."""
        self._renew()

    @property
    def connected(self) -> bool:
        """Whether there is a live session as far as this client knows."""
        return self._connected.is_set() and not self._closed

    @property
    def session(self) -> tuple[int, bytes] | None:
        """Id and password of the session, None without a connection."""
        return self._client.client_id if self._client is not None else None

    async def wait_connected(self) -> None:
        """Return once there is a live session, or this is closed; the caller sets the deadline."""
        await self._connected.wait()

    async def get(self, path: str, watch: Callable[[], None] | None = None) -> tuple[bytes, int]:
        """Data and version; `watch` is called in the loop once, at the next change or lost connection."""
        client = self._live_client()
        data, stat = await self._result(client.get_async(path, watch=self._watcher(watch) if watch else None))
        return data, stat.version

    async def get_many(self, paths: Sequence[str]) -> list[bytes]:
        """Data of all these znodes, read in one request."""
        assert paths, "nothing to wait for"
        return [value_of(read)[0] for read in await self._result(read_many(self._live_client(), paths))]

    async def find_many(self, paths: Sequence[str]) -> list[Znode | None]:
        """All these znodes, None for each that does not exist."""
        client = self._live_client()
        if not paths:
            return []
        znodes: list[Znode | None] = []
        for read in await self._result(read_many(client, paths)):
            try:
                znodes.append(found(*value_of(read)))
            except NoNode:
                znodes.append(None)
        return znodes

    async def children(self, path: str, watch: Callable[[], None] | None = None) -> list[str]:
        """Names of the znode's children; `watch` as for `get`, when one is created or deleted."""
        client = self._live_client()
        names = await self._result(client.get_children_async(path, watch=self._watcher(watch) if watch else None))
        return list(names)

    async def exists(self, path: str, watch: Callable[[], None] | None = None) -> bool:
        """Whether the znode is there; `watch` as for `get`, also when it is created."""
        client = self._live_client()
        return await self._result(client.exists_async(path, watch=self._watcher(watch) if watch else None)) is not None

    async def sync(self, path: str) -> None:
        """Let this server catch up with the leader, so that the next read is not behind what others were told."""
        await self._result(self._live_client().sync_async(path))

    async def multi(self, operations: Sequence[SetData | Create | Delete]) -> list[int | str]:
        """Do all or nothing, in one round trip; returns each operation's new version or created path, in order."""
        size = sum(len(getattr(operation, "data", b"")) + len(operation.path) + 150 for operation in operations)
        assert size <= MAX_PACKET_BYTES, f"a request of {size} bytes would look like a lost connection"
        transaction = self._live_client().transaction()
        for operation in operations:
            if isinstance(operation, SetData):
                transaction.set_data(operation.path, operation.data, version=operation.version)
            elif isinstance(operation, Delete):
                transaction.delete(operation.path, version=operation.version)
            else:
                acl, sequence, ephemeral = self._acl(operation), operation.sequence, operation.ephemeral
                transaction.create(operation.path, operation.data, acl=acl, sequence=sequence, ephemeral=ephemeral)
        return await self._commit(transaction)

    async def check(self, path: str) -> None:
        """See that the znode exists, by a write: answered by the leader with a majority behind it, changing nothing."""
        transaction = self._live_client().transaction()
        transaction.check(path, -1)
        await self._commit(transaction)

    async def close(self, *, end_session: bool = True) -> None:
        """End the session, so that the server need not wait for its expiry; or leave it to that."""
        if self._closed:
            return
        self._closed = True
        if self._renewer is not None:
            self._renewer.cancel()
        client, self._client = self._client, None
        self._connected.set()  # wakes those who wait; they find nothing to talk to
        if client is not None:
            done = asyncio.Event()
            stop_in_background(client, lambda: self._post(done.set), end_session=end_session)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await done.wait()

    async def _commit(self, transaction: Any) -> list[int | str]:
        results = await self._result(transaction.commit_async())
        for result in results:
            # The culprit; what was rolled back with it says only that it was.
            if isinstance(result, Exception) and not isinstance(result, kx.RolledBackError | kx.RuntimeInconsistency):
                raise translate(result) from result
        asked = len(transaction.operations)
        assert len(results) == asked, f"{len(results)} results for {asked} operations"
        return [plain(result) for result in results]

    def _live_client(self) -> KazooClient:
        # kazoo would queue the request and send it whenever, perhaps in another session.
        if self._client is None or not self._connected.is_set():
            raise NoSession(f"no connection to ZooKeeper at {self.hosts}", code="log.unreachable", hint=HINT)
        return self._client

    def _result(self, pending: Any) -> asyncio.Future[Any]:
        """The result of a kazoo operation that was just begun, or Lost when none comes in time.

        The timer runs on when the caller has gone: a connection that never answers must be noticed by somebody.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        timer = self._loop.call_later(self._operation_timeout_s, self._overdue, future, self._client, self._connection)
        pending.rawlink(lambda result: self._post(settle, future, timer, result))
        return future

    def _overdue(self, future: asyncio.Future[Any], client: KazooClient, connection: int) -> None:
        if client is self._client and connection == self._connection and self.connected:
            _log.warning(
                "zookeeper connection cut, no answer in %.1f s hosts=%s", self._operation_timeout_s, self.hosts
            )
            self._connection += 1  # once is enough for all that are overdue
            cut(client)
        if not future.done():
            text = f"ZooKeeper at {self.hosts} did not answer within {self._operation_timeout_s:g} s"
            future.set_exception(Lost(text, code="log.no_answer", hint=HINT))

    def _watcher(self, watch: Callable[[], None]) -> Callable[[object], None]:
        # kazoo keeps watchers in a set: equal ones must be one, or a poll adds one each time. Bound methods are equal.
        return Watcher(self._post, watch)

    def _acl(self, create: Create) -> list[ACL]:
        own = Id("world", "anyone") if self._credentials is None else Id("digest", digest_of(self._credentials))
        return [ACL(create.permissions, own), *(ACL(may, Id("digest", who)) for who, may in create.others)]

    def _renew(self) -> None:
        """A new client with a new session: at the start, and when the old session must have expired unseen."""
        old, self._client = self._client, self._new_client()
        if old is not None:
            _log.warning("zookeeper session renewed hosts=%s", self.hosts)
            stop_in_background(old, lambda: None)
        client = self._client
        # kazoo calls itself connected before it has proved who it is; the end of the handshake comes after that.
        tell_handshakes(client, self._clock, lambda handshake: self._post(self._begin, client, handshake))
        client.add_listener(lambda state: self._post(self._end, client) if state != KazooState.CONNECTED else None)
        client.start_async()
        self._schedule_renewal()

    def _new_client(self) -> KazooClient:
        auth = [("digest", f"{c.user}:{c.password}") for c in (self._credentials, self._also) if c] or None
        tls: dict[str, Any] = {}
        if self._tls is not None:
            # kazoo also believes the system's authorities, who vouch for anybody: so the name must be right.
            tls = {"use_ssl": True, "check_hostname": True}
            tls |= {"ca": self._tls.ca, "certfile": self._tls.certificate, "keyfile": self._tls.key}
        return KazooClient(
            hosts=self.hosts,
            timeout=self._session_timeout_s,
            handler=PromptHandler(),
            auth_data=auth,
            connection_retry=dict(_RECONNECT),
            logger=_kazoo_log,
            **tls,
        )

    def _begin(self, client: KazooClient, handshake: Handshake) -> None:
        if client is not self._client or self._closed:
            return  # the last words of a client that was replaced
        if self._renewer is not None:
            self._renewer.cancel()
        self.handshake = handshake
        self._connected.set()
        self._connection += 1
        self._on_connected()

    def _end(self, client: KazooClient) -> None:
        if client is self._client and self.connected:
            self._connected.clear()
            self._schedule_renewal()

    def _schedule_renewal(self) -> None:
        # Twice the time-out, so that the server has surely expired what this throws away.
        if not self._closed:
            self._renewer = self._loop.call_later(2 * self._session_timeout_s, self._renew)

    def _post(self, call: Callable[..., None], *args: object) -> None:
        """From any thread into the loop, waking it once for all that comes before it looks.

        A loop that is closed has nobody left to tell.
        """
        with self._posting:
            self._posted.append((call, args))
            first = len(self._posted) == 1
        if first:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._take_post)

    def _take_post(self) -> None:
        with self._posting:
            posted, self._posted = self._posted, []
        for call, args in posted:
            self._loop.call_soon(call, *args)  # not called here, so that none can fail for the rest
