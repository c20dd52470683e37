"""Where the log lives in ZooKeeper: paths, the znodes' contents, and who may do what with them. No I/O.

    /pvc/<cluster>/log/active          name of the active segment, incarnation of the log
    /pvc/<cluster>/log/s/<first>       head of the segment; its version is the commit token
    /pvc/<cluster>/log/s/<first>/e-<i> one record, READ-only; its position is first + i
    /pvc/<cluster>/log/m/<first>       manifest of a sealed segment, see `pvc.log.manifest`

A segment that is full is sealed: its head says so and never changes again, and the next segment begins at its `next`.
The small znodes are JSON, so that `zkCli.sh get` shows an admin something; records are as they were sealed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec

from pvc.errors import LogDamaged
from pvc.events.record import EMPTY, Entry, Head
from pvc.zookeeper.place import ancestors, place_of
from pvc.zookeeper.types import CREATE, DELETE, READ, WRITE, Create, SetData

T = TypeVar("T")

FIRST_SEGMENT = 1
"""A segment is known by the position of its first record."""

RESTORE = "a restore"
"""Who holds a log while a backup is restored into it. Only a restore goes on with that, since only it can end it with
the record that says so; a repair would open half of a log."""

APPEND = READ | WRITE | CREATE
"""What every node may do in a segment."""


class Active(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of `active`. The incarnation is made with the log and never changes: another one is another log."""

    segment: Annotated[str, msgspec.Meta(pattern=r"^\d{1,20}$")]
    incarnation: str
    archivist: str = ""
    """The digest identity that may delete records which are archived. Empty: all nodes have but one, and may."""


class SegmentHead(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Contents of a segment's znode."""

    next: int
    """The position the next record gets."""
    hash: bytes
    record: str
    """Id of the last record."""
    level: int = 1
    """Feature level of the last record, so that an old node can see that it must not write."""
    size_bytes: int = 0
    """Of the segment's records together."""
    began_us: int = 0
    """Time of the segment's first record, 0 while there is none."""
    sealed: bool = False
    """Nothing is added any more: `next` is the first position of the next segment."""
    cut: bool = False
    """Records behind `next` were taken away, so that ZooKeeper would number new ones wrongly: the segment is full."""
    holder: str = ""
    """Who alone may append: a repair or a restore in progress. Empty: everybody."""

    @property
    def head(self) -> Head:
        """The last record."""
        return Head(position=self.next - 1, hash=self.hash, record_id=self.record)

    def after(self, entries: Sequence[Entry]) -> SegmentHead:
        """What stands here once these records, the next ones, are in the segment."""
        last = entries[-1]
        return msgspec.structs.replace(
            self,
            next=last.position + 1,
            hash=last.hash,
            record=last.record.id,
            level=last.record.level,
            size_bytes=self.size_bytes + sum(len(entry.data) for entry in entries),
            began_us=self.began_us or entries[0].record.time_us,
        )


NOTHING = SegmentHead(next=FIRST_SEGMENT, hash=EMPTY.hash, record=EMPTY.record_id)
"""The head of a log without records."""


class SegmentLimits(msgspec.Struct, frozen=True, kw_only=True):
    """When a segment is full. Writers need not agree on it."""

    records: int = 4_096
    """16 subtrees of 256 leaves; and a version never comes near the end of its 31 bits."""
    size_bytes: int = 2 * 1024 * 1024
    age_s: float = 24 * 3600.0
    """Of its first record when another comes, by the clocks of those who wrote the two."""

    def is_full(self, segment: int, stored: SegmentHead, entries: Sequence[Entry]) -> bool:
        """Whether these records are to go into a new segment. One that is empty takes whatever comes."""
        records = stored.next - segment
        return records > 0 and (
            stored.cut
            or records + len(entries) > self.records
            or stored.size_bytes + sum(len(entry.data) for entry in entries) > self.size_bytes
            or entries[0].record.time_us - stored.began_us > self.age_s * 1_000_000
        )


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

    def new_segment(self, first: int, stored: SegmentHead, archivist: str) -> Create:
        """Create a segment. Who may delete and create may forge, so that those who append are not to have both."""
        if not archivist:
            return Create(self.segment(first), encode_head(stored), APPEND | DELETE)
        return Create(self.segment(first), encode_head(stored), APPEND, others=((archivist, READ | DELETE),))

    def foundation(self, incarnation: str, archivist: str = "", holder: str = "") -> list[Create]:
        """Everything of an empty log, below the cluster's znode."""
        nothing = msgspec.structs.replace(NOTHING, holder=holder)
        active = Active(segment=f"{FIRST_SEGMENT:020d}", incarnation=incarnation, archivist=archivist)
        return [
            Create(self.log, b"", READ | CREATE),
            self._parent(self.segments, archivist),
            self._parent(self.manifests, archivist),
            self.new_segment(FIRST_SEGMENT, nothing, archivist),
            Create(self.active, encode_active(active), READ | WRITE),
        ]

    def roll(
        self, segment: int, stored: SegmentHead, version: int, active: Active, active_version: int
    ) -> list[SetData | Create]:
        """Seal the active `segment`, whose head is `stored` at this version, and begin the next one."""
        following = msgspec.structs.replace(stored, size_bytes=0, began_us=0, cut=False)
        renamed = msgspec.structs.replace(active, segment=f"{stored.next:020d}")
        return [
            SetData(self.segment(segment), encode_head(msgspec.structs.replace(stored, sealed=True)), version),
            self.new_segment(stored.next, following, active.archivist),
            SetData(self.active, encode_active(renamed), active_version),
        ]

    def _parent(self, path: str, archivist: str) -> Create:
        if not archivist:
            return Create(path, b"", READ | CREATE | DELETE)
        return Create(path, b"", READ | CREATE, others=((archivist, READ | DELETE),))

    def manifest(self, first: int) -> str:
        """The manifest of the segment that begins with position `first`."""
        return f"{self.manifests}/{first:020d}"

    def ancestors(self) -> list[Create]:
        """The znodes above the log, which other clusters and other parts of PVC use too."""
        return ancestors(self._cluster)


def encode_head(stored: SegmentHead) -> bytes:
    """A segment's contents."""
    return msgspec.json.encode(stored)


def decode_head(data: bytes) -> SegmentHead:
    """What a segment's contents state. Raises LogDamaged."""
    return _decode(data, SegmentHead, "the head of the log")


def encode_active(active: Active) -> bytes:
    """Contents of `active`."""
    return msgspec.json.encode(active)


def decode_active(data: bytes) -> Active:
    """What `active` states. Raises LogDamaged."""
    return _decode(data, Active, "the name of the active segment")


def _decode(data: bytes, type: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(data, type=type)
    except msgspec.MsgspecError as error:
        raise LogDamaged(f"{what} cannot be read: {error}", code="log.undecodable") from error


def way_on_from(holder: str) -> str:
    """What an admin does about a holder that has died."""
    if holder == RESTORE:
        return "run `pvc cluster restore` again: it goes on"
    return "take over with `pvc log repair --take-over`"
