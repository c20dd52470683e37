"""The words in which PVC speaks of ZooKeeper: identities, operations, refusals. No kazoo and no I/O in here."""

from __future__ import annotations

import msgspec

from pvc.errors import Conflict, NotFound, OutcomeUnknown, Unavailable

READ, WRITE, CREATE, DELETE, ADMIN = 1, 2, 4, 8, 16
"""ZooKeeper's permissions, to be added up."""


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """A digest identity of ZooKeeper. The password goes over the wire in clear unless TLS is on."""

    user: str
    password: str


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """Paths of PEM files for a connection by TLS; the certificate also authenticates this client."""

    ca: str
    certificate: str
    key: str


class SetData(msgspec.Struct, frozen=True):
    """Part of a multi: replace a znode's data if its version is the one given."""

    path: str
    data: bytes
    version: int


class Create(msgspec.Struct, frozen=True):
    """Part of a multi: create a znode with these permissions for the cluster's identity and none for others."""

    path: str
    data: bytes
    permissions: int
    sequence: bool = False
    ephemeral: bool = False
    others: tuple[tuple[str, int], ...] = ()
    """Digest identities ("user:hash") that have permissions too."""


class Delete(msgspec.Struct, frozen=True):
    """Part of a multi: delete a znode if its version is the one given."""

    path: str
    version: int


class Znode(msgspec.Struct, frozen=True):
    """A znode that was read."""

    data: bytes
    version: int
    owner: int
    """Id of the session whose end deletes it, 0 if it is not ephemeral."""
    created: int = 0
    """Number of the transaction that created it: of two znodes, the older one's is lower."""


class Handshake(msgspec.Struct, frozen=True):
    """What was agreed on with a server at the beginning of a connection."""

    session: int
    timeout_s: float
    """Granted, perhaps not what was asked for."""
    began: float
    """Monotonic time at which this client set out to connect, before it sent anything."""


class NoSession(Unavailable):
    """There was no connection, so nothing was sent."""


class Lost(OutcomeUnknown):
    """The connection or the session broke, or no answer came: the operation took place or did not."""


class NoNode(NotFound):
    """The znode does not exist."""


class NodeExists(Conflict):
    """The znode exists already."""


class BadVersion(Conflict):
    """The znode's version is not the expected one."""


class NotAllowed(Unavailable):
    """The ACL does not let this identity do that. Nothing was written."""


class OverQuota(NotAllowed):
    """There is no more room where that was to be written, until something is deleted there. Nothing was written."""
