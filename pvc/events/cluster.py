"""Everything that can happen to the cluster as a whole, and the note of a command that was refused."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct


class ClusterInitialised(Struct, frozen=True, kw_only=True, gc=False):
    """The cluster came into being; always the first record of its log."""

    TYPE: ClassVar[str] = "cluster.initialised"
    cluster: str
    """The cluster's id (a UUID)."""
    name: str


class PrimaryElected(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Fact: the node acts for the whole cluster from here on. Acts of an earlier epoch are refused."""

    TYPE: ClassVar[str] = "cluster.primary_elected"
    node: str
    epoch: int
    silent_s: int = 0
    """For how long ZooKeeper had not answered the node shortly before: then nothing could be changed."""


class MaintenanceSet(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Whether the cluster is in maintenance: then no node is declared lost, fenced or recovered from."""

    TYPE: ClassVar[str] = "cluster.maintenance_set"
    on: bool
    reason: str = ""


class FeatureLevelRaised(Struct, frozen=True, kw_only=True, gc=False):
    """Every member knows this feature level, so records may be of it."""

    TYPE: ClassVar[str] = "cluster.feature_level_raised"
    level: int


class FaultAcknowledged(Struct, frozen=True, kw_only=True, gc=False):
    """Somebody has taken notice of a fault; it stays until its cause is gone."""

    TYPE: ClassVar[str] = "cluster.fault_acknowledged"
    fault: str


class SigningKeyAdded(Struct, frozen=True, kw_only=True, gc=False):
    """Fact: from here on the node signs checkpoints of the log with this key, whose private half never leaves it."""

    TYPE: ClassVar[str] = "cluster.signing_key_added"
    node: str
    key_id: str
    """8 hex digits."""
    key: str
    """The public half, as C2SP writes a verifier key: NAME+ID+BASE64."""


class SigningKeyRetired(Struct, frozen=True, kw_only=True, gc=False):
    """Nothing that is signed with this key from here on counts; what was signed before stays valid."""

    TYPE: ClassVar[str] = "cluster.signing_key_retired"
    node: str
    key_id: str
    reason: str
    """`rotated`, `replaced` (the node has lost it) or `node removed`."""


class KeyRotationRequested(Struct, frozen=True, kw_only=True, gc=False):
    """The node is to make a new signing key and retire this one."""

    TYPE: ClassVar[str] = "cluster.key_rotation_requested"
    node: str
    key_id: str


class LogRestored(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The log was restored to an earlier end: what the nodes run is not known before they are heard of again."""

    TYPE: ClassVar[str] = "cluster.log_restored"
    position: int
    """The last record that was restored."""
    node: str
    """Where the restore was carried out."""
    source: str
    """What it was restored from, in words."""


class LogCheckpointed(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The primary vouches for the log's first `size` records: a signed note that can be kept outside."""

    TYPE: ClassVar[str] = "cluster.log_checkpointed"
    node: str
    epoch: int
    """Of the primary that signed it."""
    size: int
    root: str
    """The root of the tree over those records (RFC 6962), 64 hex digits."""
    key_id: str
    note: str
    """The signed checkpoint (C2SP tlog-checkpoint)."""
    anchored: dict[str, int] = {}
    """Anchor -> size of the newest checkpoint that had been delivered there when this one was made."""


class AnchorFailed(Struct, frozen=True, kw_only=True, gc=False):
    """Checkpoints cannot be delivered to a place outside."""

    TYPE: ClassVar[str] = "cluster.anchor_failed"
    node: str
    anchor: str
    """`file`, `syslog` or `webhook`."""
    message: str


class AnchorRecovered(Struct, frozen=True, kw_only=True, gc=False):
    """Checkpoints are delivered to that place again, or it is no longer wanted."""

    TYPE: ClassVar[str] = "cluster.anchor_recovered"
    node: str
    anchor: str


class CommandRejected(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """An authenticated principal asked for something that was refused. Changes nothing."""

    TYPE: ClassVar[str] = "command.rejected"
    code: str
    message: str
    vm: str = ""
    """The id of the VM it was about, where it was about one."""
