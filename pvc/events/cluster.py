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


class CommandRejected(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """An authenticated principal asked for something that was refused. Changes nothing."""

    TYPE: ClassVar[str] = "command.rejected"
    code: str
    message: str
    vm: str = ""
    """The id of the VM it was about, where it was about one."""
