"""The simulator's twin of `Bridge`: one session after the other with a simulated ensemble, and the same answers.

It does what kazoo and the bridge do together: connects to one server after the other, pings, gives up a connection that
does not answer, loses all watches with the connection (each fires once), and takes a new session when the old one has
expired or must have. Everything happens in the context in which it was made, so it stands still with its process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from pvc.clock import Clock
from pvc.sim.loop import VirtualClock
from pvc.sim.zookeeper_server import Connection, Request, Zxid
from pvc.sim.zookeeper_tree import ANYBODY, Check, Identity
from pvc.zookeeper.bridge import MAX_PACKET_BYTES, OPERATION_TIMEOUT_PART, SESSION_TIMEOUT_S, STOP_TIMEOUT_S
from pvc.zookeeper.kazoo_parts import CONNECTS_PER_SESSION, HINT, MIN_CONNECT_S, digest_of
from pvc.zookeeper.types import Create, Credentials, Delete, Handshake, Lost, NoNode, NoSession, SetData, Tls, Znode

if TYPE_CHECKING:
    from pvc.sim.zookeeper_ensemble import Ensemble

Watch = Callable[[], None]

PING_PART = 1 / 3
"""Of the session's time-out: the pause between two pings."""

RECONNECT_S = (0.05, 1.0)
"""The pause before another server is tried: from the first time on, at most."""

NO_PASSWORD = b"0123456789abcdef"


class SimBridge:
    """A session with a simulated ensemble, renewed for as long as it is open."""

    def __init__(
        self,
        hosts: str,
        *,
        ensemble: Ensemble,
        name: str,
        credentials: Credentials | None = None,
        also: Credentials | None = None,
        tls: Tls | None = None,
        session_timeout_s: float = SESSION_TIMEOUT_S,
        on_connected: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
    ) -> None:
        self.hosts = hosts
        self.handshake: Handshake | None = None
        self.context = copy_context()
        self._ensemble = ensemble
        self._name = name
        self._identity = Identity(
            digest_of(credentials) if credentials is not None else ANYBODY,
            (digest_of(also),) if also is not None else (),
        )
        self._session_timeout_s = session_timeout_s
        self._operation_timeout_s = session_timeout_s * OPERATION_TIMEOUT_PART
        self._on_connected = on_connected
        self._clock = clock or VirtualClock()
        self._loop = asyncio.get_running_loop()
        self._connected = asyncio.Event()
        self._servers = ensemble.rng.sample(list(ensemble.servers), len(ensemble.servers))
        self._connection: Connection | None = None
        self._session = 0
        self._seen: Zxid = (0, 0)
        """The last transaction that this session knows of; a server that is behind it does not take the session."""
        self._began = 0.0
        self._tries = 0
        self._timer: asyncio.TimerHandle | None = None
        self._pinger: asyncio.TimerHandle | None = None
        self._renewer: asyncio.TimerHandle | None = None
        self._in_flight: dict[Request, tuple[asyncio.Future[Any], float, Watch | None]] = {}
        """What was asked in this connection, in order: who waits, how long at most, and the watch to be set."""
        self._patience: asyncio.TimerHandle | None = None
        self._data_watches: dict[str, dict[Watch, None]] = {}
        self._child_watches: dict[str, dict[Watch, None]] = {}
        self._closed = False

    # -- What Bridge has -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect."""
        self._schedule_renewal()
        self._connect()

    @property
    def connected(self) -> bool:
        """Whether there is a live session as far as this client knows."""
        return self._connected.is_set() and not self._closed

    @property
    def session(self) -> tuple[int, bytes] | None:
        """Id and password of the session."""
        return (self._session, NO_PASSWORD) if self._session and not self._closed else None

    async def wait_connected(self) -> None:
        """Return once there is a live session, or this is closed."""
        await self._connected.wait()

    async def get(self, path: str, watch: Watch | None = None) -> tuple[bytes, int]:
        """Data and version."""
        znode: Znode = await self._ask("get", paths=(path,), watch=watch)
        return znode.data, znode.version

    async def get_many(self, paths: Sequence[str]) -> list[bytes]:
        """Data of all these znodes, read in one request."""
        assert paths, "nothing to wait for"
        found: list[bytes] = []
        for read in await self._ask("many", paths=paths):
            if isinstance(read, NoNode):
                raise read
            found.append(read.data)
        return found

    async def find_many(self, paths: Sequence[str]) -> list[Znode | None]:
        """All these znodes, None for each that does not exist."""
        self._live_connection()
        if not paths:
            return []
        return [None if isinstance(read, NoNode) else read for read in await self._ask("many", paths=paths)]

    async def children(self, path: str, watch: Watch | None = None) -> list[str]:
        """Names of the znode's children."""
        names: list[str] = await self._ask("children", paths=(path,), watch=watch)
        return names

    async def exists(self, path: str, watch: Watch | None = None) -> bool:
        """Whether the znode is there."""
        return bool(await self._ask("exists", paths=(path,), watch=watch))

    async def sync(self, path: str) -> None:
        """Let this server catch up with the leader."""
        await self._ask("sync", paths=(path,))

    async def multi(self, operations: Sequence[SetData | Create | Delete]) -> list[int | str]:
        """Do all or nothing."""
        size = sum(len(getattr(operation, "data", b"")) + len(operation.path) + 150 for operation in operations)
        assert size <= MAX_PACKET_BYTES, f"a request of {size} bytes would look like a lost connection"
        results: list[int | str] = await self._ask("multi", operations=tuple(operations))
        return results

    async def check(self, path: str) -> None:
        """See that the znode exists, by a write."""
        await self._ask("multi", operations=(Check(path),))

    async def close(self, *, end_session: bool = True) -> None:
        """End the session, or leave it to its expiry."""
        if self._closed:
            return
        if end_session and self.connected:
            with contextlib.suppress(TimeoutError, Lost):
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    closing = self._ask("close")
                    self._closed = True
                    await closing
        self._closed = True
        for timer in (self._renewer, self._timer, self._pinger):
            if timer is not None:
                timer.cancel()
        self._drop("ConnectionClosedError")
        self._connected.set()

    # -- Requests --------------------------------------------------------------------------------------------------

    def _live_connection(self) -> Connection:
        if self._connection is None or not self.connected:
            raise NoSession(f"no connection to ZooKeeper at {self.hosts}", code="log.unreachable", hint=HINT)
        return self._connection

    def _ask(self, kind: str, *, watch: Watch | None = None, **what: Any) -> asyncio.Future[Any]:
        connection = self._live_connection()
        request = Request(connection, kind, watch=watch is not None, **what)
        future: asyncio.Future[Any] = self._loop.create_future()
        until = self._loop.time() + self._operation_timeout_s
        self._in_flight[request] = future, until, watch
        if self._patience is None:
            self._patience = self._loop.call_at(until, self._lose_patience)
        connection.up.send(connection.server.receive, request)
        return future

    def _lose_patience(self) -> None:
        """The oldest request in flight may be overdue; answers come in order, so the others are younger."""
        self._patience = None
        for future, until, _ in self._in_flight.values():
            if until > self._loop.time():
                self._patience = self._loop.call_at(until, self._lose_patience)
                return
            if not future.done():
                text = f"ZooKeeper at {self.hosts} did not answer within {self._operation_timeout_s:g} s"
                future.set_exception(Lost(text, code="log.no_answer", hint=HINT))
                future.exception()  # who asked may have gone
            self._drop("ConnectionLoss")
            return

    def answered(self, request: Request) -> None:
        """A request has its result."""
        waiting = self._in_flight.pop(request, None)
        if waiting is None or request.connection is not self._connection:
            return
        future, _, watch = waiting
        self._seen = max(self._seen, request.zxid)
        if watch is not None and (request.kind == "exists" or not isinstance(request.result, Exception)):
            watches = self._child_watches if request.kind == "children" else self._data_watches
            watches.setdefault(request.paths[0], {})[watch] = None
        if future.done():
            return
        if isinstance(request.result, Exception):
            # Of its own: what is raised twice would drag the first one's traceback along.
            future.set_exception(request.result.with_traceback(None))
        else:
            future.set_result(request.result)

    def changed(self, connection: Connection, kind: str, path: str) -> None:
        """A watch has fired."""
        if connection is not self._connection:
            return
        watches: dict[Watch, None] = {}
        if kind in ("data", "deleted"):
            watches |= self._data_watches.pop(path, {})
        if kind in ("child", "deleted"):
            watches |= self._child_watches.pop(path, {})
        for watch in watches:
            self._loop.call_soon(watch)

    # -- Connections -----------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        """Try the next server."""
        if self._closed:
            return
        server = self._ensemble.servers[self._servers[self._tries % len(self._servers)]]
        self._tries += 1
        self._began = self._clock.monotonic()
        connection = self._connection = self._ensemble.connect(self, self._name, server, self._identity)
        connection.up.send(server.greet, connection, self._session, self._seen, self._session_timeout_s)
        patience_s = max(self._session_timeout_s / CONNECTS_PER_SESSION, MIN_CONNECT_S)
        self._timer = self._loop.call_later(patience_s, self.hung_up, connection)

    def greeted(self, connection: Connection, session: int, timeout_s: float) -> None:
        """The handshake is done."""
        if connection is not self._connection or self._closed:
            return
        if self._timer is not None:
            self._timer.cancel()
        if not session:  # expired: the next try is for a new one
            self._session, self._seen = 0, (0, 0)
            self.hung_up(connection)
            return
        self._session = session
        if self._renewer is not None:
            self._renewer.cancel()
        self.handshake = Handshake(session=session, timeout_s=timeout_s, began=self._began)
        self._connected.set()
        self._ping(connection, timeout_s)
        self._on_connected()

    def hung_up(self, connection: Connection) -> None:
        """The server has closed the connection, refused it, or never answered."""
        if connection is self._connection and not self._closed:
            self._drop("ConnectionLoss")

    def break_off(self) -> None:
        """The connection breaks, for no reason of anybody's."""
        if self._connection is not None:
            self.hung_up(self._connection)

    def _drop(self, why: str) -> None:
        """There is no connection any more."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.up.send(connection.server.hang_up, connection)
        connection.down.close()
        for timer in (self._timer, self._pinger, self._patience):
            if timer is not None:
                timer.cancel()
        self._patience = None
        in_flight, self._in_flight = self._in_flight, {}
        for future, _, _ in in_flight.values():
            if not future.done():
                future.set_exception(Lost(f"the connection to ZooKeeper was lost: {why}", code="log.lost", hint=HINT))
                future.exception()  # who asked may have gone
        watches = [
            watch for table in (self._data_watches, self._child_watches) for one in table.values() for watch in one
        ]
        self._data_watches, self._child_watches = {}, {}
        for watch in dict.fromkeys(watches):
            self._loop.call_soon(watch)
        if self._closed:
            return
        if self._connected.is_set():
            self._connected.clear()
            self._schedule_renewal()
        first_s, most_s = RECONNECT_S
        self._timer = self._loop.call_later(
            first_s + (most_s - first_s) * self._ensemble.rng.random() ** 2, self._connect
        )

    def _ping(self, connection: Connection, timeout_s: float) -> None:
        if connection is self._connection and self.connected:
            self._pinger = self._loop.call_later(timeout_s * PING_PART, self._ping, connection, timeout_s)
            self._ask("ping")

    def _schedule_renewal(self) -> None:
        if not self._closed:
            if self._renewer is not None:
                self._renewer.cancel()
            self._renewer = self._loop.call_later(2 * self._session_timeout_s, self._renew)

    def _renew(self) -> None:
        """The old session must have expired unseen, or no server takes it any more: a new one."""
        self._session, self._seen = 0, (0, 0)
        self._schedule_renewal()
        if self._connection is not None:
            self._drop("SessionExpiredError")
