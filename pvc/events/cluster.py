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


class CommandRejected(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """An authenticated principal asked for something that was refused. Changes nothing."""

    TYPE: ClassVar[str] = "command.rejected"
    code: str
    message: str
    vm: str = ""
    """The id of the VM it was about, where it was about one."""
