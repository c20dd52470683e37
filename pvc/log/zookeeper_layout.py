"""Where the log lives in ZooKeeper: paths, the znodes' contents, and who may do what with them. No I/O.

    /pvc/<cluster>/log/active          name of the active segment, incarnation of the log
    /pvc/<cluster>/log/s/<first>       head of the segment; its version is the commit token
    /pvc/<cluster>/log/s/<first>/e-<i> one record, READ-only; its position is first + i
    /pvc/<cluster>/log/m/<first>       manifest of a sealed segment

The small znodes are JSON, so that `zkCli.sh get` shows an admin something; records are as they were sealed.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from pvc.errors import LogDamaged
from pvc.events.record import EMPTY, Entry, Head
from pvc.zookeeper.place import ancestors, place_of
from pvc.zookeeper.types import CREATE, READ, WRITE, Create

T = TypeVar("T")

FIRST_SEGMENT = 1
"""A segment is known by the position of its first record."""


class Active(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of `active`. The incarnation is made with the log and never changes: another one is another log."""

    segment: str
    incarnation: str


class SegmentHead(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of a segment's znode."""

    next: int
    """The position the next record gets."""
    hash: bytes
    record: str
    """Id of the last record."""
    level: int = 1
    """Feature level of the last record, so that an old node can see that it must not write."""


class Layout:
    """The paths of one cluster's log."""

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
        place = place_of(cluster)
        self.log = f"{place}/log"
        self.active = f"{self.log}/active"
        self.segments = f"{self.log}/s"
        self.manifests = f"{self.log}/m"

    def segment(self, first: int) -> str:
        """The segment that begins with position `first`."""
        return f"{self.segments}/{first:020d}"

    def entry(self, segment: int, position: int) -> str:
        """The record at `position`, which belongs to `segment`."""
        assert position >= segment, f"position {position} is before segment {segment}"
        return f"{self.segment(segment)}/e-{position - segment:010d}"

    def new_entry(self, segment: int, entry: Entry) -> Create:
        """Create the segment's next record; the server numbers it. Nobody may ever change or delete it."""
        return Create(f"{self.segment(segment)}/e-", entry.data, READ, sequence=True)

    def foundation(self, incarnation: str) -> list[Create]:
        """Everything of an empty log, below the cluster's znode."""
        name = f"{FIRST_SEGMENT:020d}"
        return [
            Create(self.log, b"", READ | CREATE),
            Create(self.segments, b"", READ | CREATE),
            Create(self.manifests, b"", READ | CREATE),
            Create(self.segment(FIRST_SEGMENT), encode_head(EMPTY, 1), READ | WRITE | CREATE),
            Create(self.active, msgspec.json.encode(Active(segment=name, incarnation=incarnation)), READ | WRITE),
        ]

    def ancestors(self) -> list[Create]:
        """The znodes above the log, which other clusters and other parts of PVC use too."""
        return ancestors(self._cluster)


def encode_head(head: Head, level: int) -> bytes:
    """A segment's contents once `head` is the last record."""
    stored = SegmentHead(next=head.position + 1, hash=head.hash, record=head.record_id, level=level)
    return msgspec.json.encode(stored)


def decode_head(data: bytes) -> Head:
    """The head a segment's contents state. Raises LogDamaged."""
    stored = _decode(data, SegmentHead, "the head of the log")
    return Head(position=stored.next - 1, hash=stored.hash, record_id=stored.record)


def decode_active(data: bytes) -> tuple[int, str]:
    """First position of the active segment, and the incarnation. Raises LogDamaged."""
    active = _decode(data, Active, "the name of the active segment")
    return int(active.segment), active.incarnation


def _decode(data: bytes, type: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(data, type=type)
    except msgspec.MsgspecError as error:
        raise LogDamaged(f"{what} cannot be read: {error}", code="log.undecodable") from error
