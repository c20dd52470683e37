"""What can be asked of a node about the state of its log, and done about it: a port, which the daemon implements."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from pvc.runtime.repair import Survey


class SegmentState(StrEnum):
    """Where a segment is."""

    ACTIVE = "active"
    SEALED = "sealed"
    """Full; not yet described by a manifest."""
    DESCRIBED = "described"
    """In ZooKeeper, and described: it goes once all have it."""


class SegmentInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A segment that is in ZooKeeper."""

    first: int
    last: int
    size_bytes: int
    state: SegmentState


class ArchiveInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An archive that this node writes to."""

    title: str
    segments: int
    """Of those that have a manifest, so many are there."""
    missing: int
    problem: str = ""
    """Why it cannot be used just now."""


class FetchedInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What was read from one kind of place."""

    title: str
    segments: int
    size_bytes: int


class NodeCopy(msgspec.Struct, frozen=True, kw_only=True):
    """What a node that is there says that it has."""

    node: str
    position: int
    archived: int
    """Up to there it has everything in its own archive; 0 on one that archives nothing."""
    coordinator: bool


class LogStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where the log is."""

    kind: str
    """`zookeeper`, `sqlite` or `memory`."""
    position: int
    """As this node has folded it."""
    replica_position: int
    replica_bytes: int
    """Size of the replica's file, its indexes included."""
    incarnation: str = ""
    held_by: str = ""
    """Who alone may append; empty: everybody."""
    segments: tuple[SegmentInfo, ...] = ()
    archived_segments: int = 0
    """Segments that have a manifest."""
    archived_position: int = 0
    """Everything up to there has a manifest."""
    removed_position: int = 0
    """Everything up to there has left ZooKeeper."""
    waits_for: str = ""
    """What keeps old segments in ZooKeeper, where this node is the primary and something does."""
    archives: tuple[ArchiveInfo, ...] = ()
    quota_records: int = 0
    """So many may be in ZooKeeper; 0: the log is not there."""
    quota_bytes: int = 0
    nodes: tuple[NodeCopy, ...] = ()
    fetched: tuple[FetchedInfo, ...] = ()
    """What this node has read from archives since it started."""
    damage: tuple[str, ...] = ()
    """Copies that were found damaged since this node started, the newest last."""
    mended: tuple[str, ...] = ()
    """What was replaced by good copies."""


class Keep(StrEnum):
    """Which of two that contradict each other is to stand."""

    REPLICA = "replica"
    LOG = "log"


class RepairWish(msgspec.Struct, frozen=True, kw_only=True):
    """How to repair."""

    keep: Keep | None = None
    """None: do only what loses nothing."""
    take_over: bool = False
    """Go on although another repair holds the log."""
    force: bool = False
    """Although another node is known to have more records than this one."""


class RepairState(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison, what follows from it, and how far it has been done."""

    survey: Survey
    held_by: str = ""
    longer: tuple[str, ...] = ()
    """Nodes that say that they have more records than this one."""
    step: str = ""
    """What goes on, or was done, in words."""
    running: bool = False
    reached: int = 0
    """How far the log reaches by now."""
    error: str = ""
    """What ended it."""


class LogCare(Protocol):
    """Raises Unavailable, LogDamaged where a log cannot be read at all."""

    async def status(self) -> LogStatus:
        """Where everything is."""
        ...

    async def survey(self) -> RepairState:
        """Compare the log with this node's replica; while a repair is going on, how far it is."""
        ...

    async def repair(self, wish: RepairWish) -> RepairState:
        """Begin to repair; `survey` tells how it goes on. Raises Conflict where the wish does not say enough."""
        ...

    async def begin_restore(self) -> int:
        """Hold the empty log for a restore; returns its position, where one that was broken off goes on.

        Raises Conflict when the log is not empty.
        """
        ...

    async def restore(self, records: Sequence[bytes]) -> int:
        """Append the next records of a backup; returns the position reached. Raises LogDamaged, Conflict."""
        ...

    async def end_restore(self, source: str) -> None:
        """All is there; `source` says in words where it came from. The daemon starts over."""
        ...
