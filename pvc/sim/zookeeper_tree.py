"""The znodes of a simulated ZooKeeper server: what a transaction comes to, and doing it. No time and no network.

Only what PVC uses is here, and that as ZooKeeper does it: the number of a sequential znode counts all that were ever
created under its parent, and a failed transaction uses none up; -1 is any version; a transaction is checked operation
by operation against the outcome of those before it; the ACL of a znode guards its data, that of its parent its being.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from pvc.zookeeper.types import (
    ADMIN,
    CREATE,
    DELETE,
    READ,
    WRITE,
    BadVersion,
    Create,
    Delete,
    NodeExists,
    NoNode,
    NotAllowed,
    SetData,
    Znode,
)

ANYBODY = ""
Acl: TypeAlias = tuple[tuple[str, int], ...]
"""Who may what: digest identities, or ANYBODY."""

EVERYTHING: Acl = ((ANYBODY, READ | WRITE | CREATE | DELETE | ADMIN),)


class Identity(msgspec.Struct, frozen=True):
    """Who a client is."""

    own: str = ANYBODY
    """To whom the znodes are given that it creates."""
    also: tuple[str, ...] = ()
    """What it may use besides."""


ANY_VERSION = -1


class Check(msgspec.Struct, frozen=True):
    """Part of a multi: the znode must be there."""

    path: str


Operation: TypeAlias = SetData | Create | Delete | Check


class NotEmpty(Exception):
    """A znode that has children cannot be deleted."""


class NoChildren(Exception):
    """An ephemeral znode cannot have children."""


class Node(msgspec.Struct, frozen=True, gc=False):
    """A znode. It is shared by all servers that have it, and replaced as a whole."""

    data: bytes
    version: int = 0
    owner: int = 0
    acl: Acl = EVERYTHING
    created: int = 0
    """Number of the transaction that created it."""

    def allows(self, permission: int, identity: Identity) -> bool:
        """Whether somebody may."""
        return any(who in (ANYBODY, identity.own, *identity.also) and may & permission for who, may in self.acl)


Step: TypeAlias = tuple[str, Node | None]
"""A znode as it is afterwards; None: it is gone."""


class Tree:
    """All znodes of one server."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {"/": Node(b"")}
        self.children: dict[str, dict[str, None]] = {"/": {}}
        self.made: dict[str, int] = {}
        """How many children a znode ever got: the number of the next sequential one."""
        self.ephemerals: dict[int, dict[str, None]] = {}
        self.sessions: dict[int, float] = {}
        """The living sessions' time-outs."""

    def copy(self) -> Tree:
        """Another tree, equal now."""
        other = Tree()
        other.nodes = dict(self.nodes)
        other.children = {path: dict(names) for path, names in self.children.items()}
        other.made = dict(self.made)
        other.ephemerals = {session: dict(paths) for session, paths in self.ephemerals.items()}
        other.sessions = dict(self.sessions)
        return other

    # -- Reading ---------------------------------------------------------------------------------------------------

    def read(self, path: str, identity: Identity) -> Znode:
        """The znode. Raises NoNode, NotAllowed."""
        node = self.node(path)
        _require(node, READ, identity)
        return Znode(data=node.data, version=node.version, owner=node.owner, created=node.created)

    def names(self, path: str, identity: Identity) -> list[str]:
        """Names of its children, in no order. Raises NoNode, NotAllowed."""
        _require(self.node(path), READ, identity)
        return list(reversed(self.children.get(path, {})))

    # -- Writing ---------------------------------------------------------------------------------------------------

    def prepare(
        self, operations: Sequence[Operation], session: int, identity: Identity, *, number: int
    ) -> tuple[list[Step], list[int | str]]:
        """What has to be done for these, and each one's result, as transaction `number`; changes nothing yet.

        Raises what is wrong with the first operation that cannot be done.
        """
        return _Draft(self, session, identity, number).write(operations)

    def apply(self, path: str, node: Node | None) -> str:
        """One step; whether the znode was "created", "changed" or "deleted"."""
        before = self.nodes.get(path)
        if node is None:
            assert before is not None, f"{path} is not there"
            del self.nodes[path]
            self.children.pop(path, None)
            self.made.pop(path, None)
            parent, name = split(path)
            del self.children[parent][name]
            if before.owner:
                self.ephemerals[before.owner].pop(path)
            return "deleted"
        self.nodes[path] = node
        if before is not None:
            return "changed"
        parent, name = split(path)
        self.children.setdefault(parent, {})[name] = None
        self.made[parent] = self.made.get(parent, 0) + 1
        if node.owner:
            self.ephemerals.setdefault(node.owner, {})[path] = None
        return "created"

    def end_session(self, session: int) -> list[Step]:
        """What goes with a session; changes nothing yet."""
        return [(path, None) for path in self.ephemerals.get(session, {})]

    def node(self, path: str) -> Node:
        """The znode. Raises NoNode."""
        node = self.nodes.get(path)
        if node is None:
            raise NoNode(f"there is no znode {path}", code="log.no_node")
        return node


class _Draft:
    """A transaction as far as it was looked at; what comes later in it sees what came before."""

    def __init__(self, tree: Tree, session: int, identity: Identity, number: int) -> None:
        self._tree = tree
        self._session = session
        self._identity = identity
        self._number = number
        self._changed: dict[str, Node | None] = {}
        self._made: dict[str, int] = {}
        self._children: dict[str, int] = {}

    def write(self, operations: Sequence[Operation]) -> tuple[list[Step], list[int | str]]:
        steps: list[Step] = []
        results: list[int | str] = []
        for operation in operations:
            match operation:
                case Check():
                    _require(self._node(operation.path), READ, self._identity)
                    results.append(0)
                case SetData():
                    node = self._node(operation.path)
                    _require(node, WRITE, self._identity)
                    _require_version(node, operation.version)
                    node = msgspec.structs.replace(node, data=operation.data, version=node.version + 1)
                    self._changed[operation.path] = node
                    steps.append((operation.path, node))
                    results.append(node.version)
                case Create():
                    steps.append(self._create(operation))
                    results.append(steps[-1][0])
                case Delete():
                    self._delete(operation)
                    steps.append((operation.path, None))
                    results.append(0)
        return steps, results

    def _create(self, operation: Create) -> Step:
        parent, path = parent_of(operation.path), operation.path
        above = self._node(parent)
        _require(above, CREATE, self._identity)
        made = self._made.get(parent, self._tree.made.get(parent, 0))
        if operation.sequence:
            path = f"{path}{made:010d}"
        if self._find(path) is not None:
            raise NodeExists(f"znode {path} exists", code="log.node_exists")
        if above.owner:
            raise NoChildren(parent)
        node = Node(
            operation.data,
            owner=self._session if operation.ephemeral else 0,
            acl=((self._identity.own, operation.permissions), *operation.others),
            created=self._number,
        )
        self._changed[path] = node
        self._made[parent] = made + 1
        self._made[path] = self._children[path] = 0
        self._count(parent, 1)
        return path, node

    def _delete(self, operation: Delete) -> None:
        parent, node = parent_of(operation.path), self._node(operation.path)
        _require(self._node(parent), DELETE, self._identity)
        _require_version(node, operation.version)
        if self._count(operation.path, 0):
            raise NotEmpty(operation.path)
        self._changed[operation.path] = None
        self._count(parent, -1)

    def _find(self, path: str) -> Node | None:
        return self._changed[path] if path in self._changed else self._tree.nodes.get(path)

    def _node(self, path: str) -> Node:
        node = self._find(path)
        if node is None:
            raise NoNode(f"there is no znode {path}", code="log.no_node")
        return node

    def _count(self, path: str, more: int) -> int:
        count = self._children.get(path)
        if count is None:
            count = len(self._tree.children.get(path, ()))
        self._children[path] = count + more
        return count + more


def split(path: str) -> tuple[str, str]:
    """The parent's path and the name in it."""
    parent, _, name = path.rpartition("/")
    return parent or "/", name


def parent_of(path: str) -> str:
    """The path of the znode above."""
    return split(path)[0]


def _require(node: Node, permission: int, identity: Identity) -> None:
    if not node.allows(permission, identity):
        raise NotAllowed(
            "ZooKeeper refuses this identity: NoAuthError",
            code="log.not_allowed",
            hint="see that the credentials are those the cluster was initialised with",
        )


def _require_version(node: Node, version: int) -> None:
    if version not in (ANY_VERSION, node.version):
        raise BadVersion("the znode has another version")
