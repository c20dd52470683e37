"""One server of the simulated ZooKeeper: its log of transactions, the znodes that it has applied, its clients.

Reads are answered from what this server has applied, which may be behind the others. All of one connection is answered
in order: a read after a write waits until that write has been applied here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from pvc.sim.zookeeper_tree import Identity, Operation, Step, Tree, split
from pvc.sim.zookeeper_wire import Pipe, later
from pvc.zookeeper.types import NoNode, Znode

if TYPE_CHECKING:
    from pvc.sim.zookeeper_ensemble import Ensemble
    from pvc.sim.zookeeper_reign import Reign

Zxid = tuple[int, int]
"""Epoch of the leader that proposed a transaction, and its number in it."""

FSYNC_S = 0.001
"""The longest that a disk takes."""


class Role(StrEnum):
    """What a server is at the moment."""

    DOWN = "down"
    LOOKING = "looking"
    FOLLOWING = "following"
    LEADING = "leading"


class Client(Protocol):
    """The other end of a connection."""

    def answered(self, request: Request) -> None:
        """A request has its result."""
        ...

    def greeted(self, connection: Connection, session: int, timeout_s: float) -> None:
        """The handshake is done; session 0 if the one asked for has expired."""
        ...

    def hung_up(self, connection: Connection) -> None:
        """The server has closed the connection, or refused it."""
        ...

    def changed(self, connection: Connection, kind: str, path: str) -> None:
        """A watch has fired: "data", "child" or "deleted"."""
        ...


class Connection:
    """Between a client and a server; `up` and `down` are its two directions."""

    def __init__(self, client: Client, name: str, server: Server, identity: Identity, up: Pipe, down: Pipe) -> None:
        self.client = client
        self.name = name
        """The client's, as the network knows it."""
        self.server = server
        self.identity = identity
        self.up = up
        self.down = down
        self.session = 0
        self.queue: deque[Request] = deque()
        """What is not answered yet, in order."""


class Request:
    """Something that a client asks for, on its way."""

    __slots__ = ("connection", "done", "kind", "operations", "paths", "result", "session", "watch", "zxid")

    def __init__(
        self,
        connection: Connection,
        kind: str,
        *,
        paths: Sequence[str] = (),
        operations: Sequence[Operation] = (),
        watch: bool = False,
    ) -> None:
        self.connection = connection
        self.kind = kind
        """ping, get, many, children, exists: answered by the server; sync, multi, open, close: by the leader."""
        self.paths = paths
        self.operations = operations
        self.watch = watch
        self.session = connection.session
        self.done = False
        self.result: Any = None
        self.zxid: Zxid = (0, 0)
        """How far the server had applied when it answered."""

    def settle(self, result: Any) -> None:
        """This came of it."""
        self.done, self.result = True, result


class Txn:
    """A transaction in the servers' logs; a failed one has no steps and only its result."""

    __slots__ = ("closes", "opens", "request", "result", "steps", "zxid")

    def __init__(
        self,
        zxid: Zxid,
        steps: Sequence[Step],
        request: Request | None,
        result: Any,
        *,
        opens: tuple[int, float] | None = None,
        closes: int = 0,
    ) -> None:
        self.zxid = zxid
        self.steps = steps
        self.request = request
        self.result = result
        self.opens = opens
        self.closes = closes


WRITES = frozenset({"sync", "multi", "open", "close"})


class Server:
    """A server process and its disk."""

    def __init__(self, name: str, ensemble: Ensemble) -> None:
        self.name = name
        self.role = Role.LOOKING
        self.frozen = False
        self.log: list[Txn] = []
        self.durable = 0
        """So many of the log are surely on the disk."""
        self.tree = Tree()
        self.applied = 0
        self.committed = 0
        """So many are committed, as far as is known here."""
        self.epoch = 0
        """The highest that was promised to a leader."""
        self.reign: Reign | None = None
        self.to_leader: Pipe | None = None
        self.leader_heard_s = 0.0
        self.touched: dict[int, None] = {}
        """Sessions heard of since the leader was last told."""
        self.connections: dict[Connection, None] = {}
        self._ensemble = ensemble
        self._data_watches: dict[str, dict[Connection, None]] = {}
        self._child_watches: dict[str, dict[Connection, None]] = {}

    @property
    def serves(self) -> bool:
        """Whether clients are let in."""
        return self.role in (Role.FOLLOWING, Role.LEADING)

    @property
    def zxid(self) -> Zxid:
        """Of the last transaction in the log."""
        return self.log[-1].zxid if self.log else (0, 0)

    @property
    def applied_zxid(self) -> Zxid:
        """Of the last transaction applied."""
        return self.log[self.applied - 1].zxid if self.applied else (0, 0)

    # -- Clients ---------------------------------------------------------------------------------------------------

    def greet(self, connection: Connection, session: int, seen: Zxid, timeout_s: float) -> None:
        """A client's first message: `session` 0 for a new one, `seen` the last transaction that it knows of."""
        if not self.serves or self.reign is None or seen > self.applied_zxid:
            connection.down.send(connection.client.hung_up, connection)
            return
        self.connections[connection] = None
        if session:
            self._ask_leader(self.reign.validate, connection, session, timeout_s)
            return
        request = Request(connection, "open", paths=(str(timeout_s),))
        connection.queue.append(request)
        self._ask_leader(self.reign.receive, request)

    def welcome(self, connection: Connection, session: int, timeout_s: float) -> None:
        """The leader has answered about a session; 0 if it is over."""
        if connection in self.connections:
            connection.session = session
            connection.down.send(connection.client.greeted, connection, session, timeout_s)

    def receive(self, request: Request) -> None:
        """A request has arrived. If nobody is there any more who would hear of it, it is carried out all the same."""
        connection = request.connection
        if connection not in self.connections or not self.serves or self.reign is None:
            return
        if self.role is Role.LEADING:
            self.reign.touch(connection.session)
        else:
            self.touched[connection.session] = None
        connection.queue.append(request)
        if request.kind in WRITES:
            self._ask_leader(self.reign.receive, request)
        else:
            self.pump(connection)

    def hang_up(self, connection: Connection) -> None:
        """The client has closed the connection."""
        self.connections.pop(connection, None)
        connection.down.close()

    def drop(self, connection: Connection) -> None:
        """Close the connection."""
        if connection in self.connections:
            del self.connections[connection]
            connection.down.send(connection.client.hung_up, connection)

    def pump(self, connection: Connection) -> None:
        """Answer what can be answered."""
        queue = connection.queue
        while queue and (queue[0].done or queue[0].kind not in WRITES):
            request = queue.popleft()
            if not request.done:
                request.settle(self._read(request))
            request.zxid = self.applied_zxid
            if request.kind == "open":
                self.welcome(connection, *request.result)
            else:
                connection.down.send(connection.client.answered, request)

    def settled(self, request: Request, result: Any) -> None:
        """The leader has done with what was asked of it here."""
        request.settle(result)
        if request.connection in self.connections:
            self.pump(request.connection)

    def _ask_leader(self, act: Callable[..., None], *args: Any) -> None:
        if self.role is Role.LEADING:
            act(*args)
        else:
            assert self.to_leader is not None, "a follower has a leader"
            self.to_leader.send(act, *args)

    def _read(self, request: Request) -> Any:
        connection, identity = request.connection, request.connection.identity
        try:
            match request.kind:
                case "get":
                    [path] = request.paths
                    znode = self.tree.read(path, identity)
                    if request.watch:
                        self._data_watches.setdefault(path, {})[connection] = None
                    return znode
                case "children":
                    [path] = request.paths
                    names = self.tree.names(path, identity)
                    if request.watch:
                        self._child_watches.setdefault(path, {})[connection] = None
                    return names
                case "exists":
                    [path] = request.paths
                    if request.watch:
                        self._data_watches.setdefault(path, {})[connection] = None
                    return path in self.tree.nodes
                case "many":
                    return [self._find(path, identity) for path in request.paths]
        except Exception as error:  # noqa: BLE001 - it is the answer
            return error
        return None

    def _find(self, path: str, identity: Identity) -> Znode | NoNode:
        try:
            return self.tree.read(path, identity)
        except NoNode as error:
            return error

    # -- The log ---------------------------------------------------------------------------------------------------

    def propose(self, reign: Reign, txn: Txn) -> None:
        """The leader has a transaction for everyone's disk."""
        if reign is self.reign:
            self.log.append(txn)
            later(FSYNC_S * self._ensemble.rng.random(), self._on_disk, reign, len(self.log))

    def _on_disk(self, reign: Reign, count: int) -> None:
        if reign is self.reign and self.role is Role.FOLLOWING and self.to_leader is not None:
            self.durable = max(self.durable, count)
            self.to_leader.send(reign.acknowledge, self, count)

    def learn(self, reign: Reign, count: int) -> None:
        """So many transactions are committed."""
        if reign is self.reign:
            self.apply_to(count)

    def beat(self, reign: Reign) -> None:
        """The leader lives; it wants to know whom this server has heard of."""
        if reign is self.reign and self.to_leader is not None:
            self.leader_heard_s = self._ensemble.now()
            touched, self.touched = self.touched, {}
            self.to_leader.send(reign.heard, self, touched)

    def apply_to(self, count: int) -> None:
        """Apply all that is committed."""
        self.committed = max(self.committed, count)
        while self.applied < min(self.committed, len(self.log)):
            txn = self.log[self.applied]
            self.applied += 1
            self._apply(txn)

    def _apply(self, txn: Txn) -> None:
        for path, node in txn.steps:
            kind = self.tree.apply(path, node)
            self._tell(self._data_watches, path, "deleted" if kind == "deleted" else "data")
            if kind == "deleted":
                self._tell(self._child_watches, path, "child")
            if kind != "changed":
                self._tell(self._child_watches, split(path)[0], "child")
        if txn.opens is not None:
            session, timeout_s = txn.opens
            self.tree.sessions[session] = timeout_s
        request = txn.request
        if request is not None and request.connection.server is self:
            self.settled(request, txn.result)
        if txn.closes:
            self.tree.sessions.pop(txn.closes, None)
            for connection in [one for one in self.connections if one.session == txn.closes]:
                self.drop(connection)

    def _tell(self, watches: dict[str, dict[Connection, None]], path: str, kind: str) -> None:
        for connection in watches.pop(path, ()):
            if connection in self.connections:
                connection.down.send(connection.client.changed, connection, kind, path)

    # -- Coming and going ------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Without a leader there is nothing to serve."""
        if self.to_leader is not None:
            self.to_leader.close()
            self.to_leader = None
        self.reign, self.role = None, Role.LOOKING
        self.touched.clear()
        self._data_watches.clear()
        self._child_watches.clear()
        for connection in list(self.connections):
            self.drop(connection)

    def cut_log(self, count: int) -> None:
        """Forget what comes after the first `count` transactions."""
        del self.log[count:]
        self.durable, self.committed = min(self.durable, count), min(self.committed, count)
        if self.applied > count:
            self.tree, self.applied = Tree(), 0
            for txn in self.log:
                self.applied += 1
                self._apply(txn)
