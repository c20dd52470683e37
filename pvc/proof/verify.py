"""The whole log verified, portion by portion: one chain, one tree, and every checkpoint against both.

What is given from outside (keys, checkpoints that were anchored) is trusted; what the log says of itself is only shown
to be of one piece. With nothing from outside, whoever could rewrite everything would not be found out: `Verification`
says what it was measured against.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from pvc.proof.findings import Finding, Kind, Unproven
from pvc.proof.merkle import Frontier, complete_root, tree_root
from pvc.proof.note import PublicKey, SignedCheckpoint, check_signature, origin_of, parse_checkpoint, parse_key
from pvc.proof.scan import (
    CHECKPOINTED,
    INITIALISED,
    KEY_ADDED,
    KEY_RETIRED,
    TILE,
    TILE_LEVEL,
    Portion,
    broken_link,
    split_hashes,
)

MAX_FINDINGS = 1_000
"""Findings that are kept; past that they are counted only."""

SYSLOG_MARK = "pvc-checkpoint: "
"""What stands before a note in a system log, on one line: its ends of lines are a backslash and an n there."""

RECENT_TILES = 1_024
"""So many times 256 leaves are remembered one by one: a checkpoint may come that late after what it vouches for."""


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What is true of the records that were looked at."""

    first: int
    last: int
    records: int
    head_hash: str
    root: str
    """Of the tree over all of them; empty where it could not be made, because records before or between are missing."""
    origin: str
    checkpoints: int
    """Checkpoints in the log that hold: signed by a key of their time, with the root of these records."""
    newest_checkpoint: int
    """The size of the newest of them; what comes after it nobody has vouched for yet."""
    anchored: tuple[int, ...]
    """Sizes of the checkpoints given from outside that hold."""
    given_keys: int
    """Keys given from outside; 0: the log's own word was taken for whose keys are whose."""
    unchecked: int
    """Checkpoints that could not be compared, because records are missing."""
    findings: tuple[Finding, ...]
    more_findings: int

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


class _Key(msgspec.Struct, kw_only=True):
    key: PublicKey
    added: int
    retired: int = 0


class Verifier:
    """Takes portions in order, then gives its verdict."""

    def __init__(
        self,
        *,
        keys: Sequence[PublicKey] = (),
        checkpoints: Sequence[SignedCheckpoint] = (),
        note: Callable[[Finding], None] | None = None,
    ) -> None:
        """`keys` and `checkpoints` come from outside; `note` is told of each finding at once."""
        self._given = tuple(keys)
        self._outside = list(checkpoints)
        self._note = note
        self._findings: list[Finding] = []
        self._more = 0
        self._tree: _Tree | None = None
        self._keys: dict[str, _Key] = {}
        self._origin = ""
        self._first = self._next = self._records = 0
        self._head = b""
        self._valid = self._newest = self._unchecked = 0
        self._differs = False
        self._whole = True
        """Whether every record so far could be read, from the first on."""
        self._pinned = frozenset(signed.checkpoint.size for signed in checkpoints)

    @property
    def next_position(self) -> int:
        """The position that comes next; 0 before the first portion."""
        return self._next

    def take(self, portion: Portion) -> None:
        """The next records."""
        if not self._first:
            self._first = portion.first
            self._tree = _Tree(self._pinned) if portion.first == 1 else None
            self._whole = portion.first == 1
            if portion.first == 1 and portion.before not in (b"", bytes(32)):
                self._found(1, Kind.CHAIN, "record 1 names a predecessor, but there is none")
        elif portion.first != self._next:
            last = portion.first - 1
            if portion.first < self._next:
                self._found(portion.first, Kind.GAP, f"record {portion.first} comes again after {self._next - 1}")
            else:
                self._found(self._next, Kind.GAP, f"records {self._next} to {last} are missing", last)
            self._tree, self._head, self._whole = None, b"", False
        if self._head and portion.before and portion.before != self._head:
            self._add(broken_link(portion.first - 1))
        for finding in portion.findings:
            self._add(finding)
        if self._tree is not None:
            self._tree.add(portion)
        self._head, self._next = portion.head, portion.last + 1
        self._records += portion.count
        for position, data in portion.notable:
            self._consider(position, data)

    def miss(self, finding: Finding) -> None:
        """Records that could not be read; what follows cannot be compared with any root."""
        self._add(finding)
        self._tree, self._head, self._whole = None, b"", False
        if self._next:
            self._next = max(self._next, finding.last + 1)

    def verdict(self) -> Verification:
        """What is true of everything that was taken."""
        anchored = [signed.checkpoint.size for signed in self._outside if self._holds_outside(signed)]
        root = self._tree.root_at(self._tree.size) if self._tree is not None and self._tree.size else None
        return Verification(
            first=self._first,
            last=max(self._next - 1, 0),
            records=self._records,
            head_hash=self._head.hex(),
            root=root.hex() if root is not None else "",
            origin=self._origin,
            checkpoints=self._valid,
            newest_checkpoint=self._newest,
            anchored=tuple(sorted(anchored)),
            given_keys=len(self._given),
            unchecked=self._unchecked,
            findings=tuple(sorted(self._findings, key=lambda finding: finding.position)),
            more_findings=self._more,
        )

    def _consider(self, position: int, data: bytes) -> None:
        try:
            record = _decode(data)
        except msgspec.MsgspecError:
            return  # it has been found unreadable already
        for event in record.events:
            try:
                self._consider_event(position, event)
            except (msgspec.MsgspecError, KeyError, TypeError, AttributeError, ValueError) as error:
                self._found(position, Kind.UNREADABLE, f"the event {event.type} of record {position}: {error}")

    def _consider_event(self, position: int, event: _Event) -> None:
        if event.type == INITIALISED:
            self._origin = self._origin or origin_of(_fields(event)["cluster"])
        elif event.type == KEY_ADDED:
            fields = _fields(event)
            try:
                key = parse_key(fields["key"])
            except Unproven as error:
                self._found(position, Kind.SIGNATURE, f"record {position} announces a key that is none: {error}")
            else:
                self._keys.setdefault(key.id, _Key(key=key, added=position))
        elif event.type == KEY_RETIRED:
            known = self._keys.get(_fields(event)["key_id"])
            if known is not None:
                known.retired = known.retired or position
        elif event.type == CHECKPOINTED:
            self._consider_checkpoint(position, _fields(event)["note"])

    def _consider_checkpoint(self, position: int, note: str) -> None:
        try:
            signed = parse_checkpoint(note)
            if self._origin and signed.checkpoint.origin != self._origin:
                raise Unproven(f"it is of another log: {signed.checkpoint.origin}", code="proof.other_log")
            check_signature(signed, self._keys_at(position))
        except Unproven as error:
            if error.code == "proof.unknown_key" and not self._whole and not self._given:
                self._unchecked += 1  # its key may have been announced in records that are not here
                return
            self._found(position, Kind.SIGNATURE, f"the checkpoint in record {position}: {error.message}")
            return
        size = signed.checkpoint.size
        if size >= position:
            self._found(position, Kind.ROOT, f"record {position} vouches for {size} records, more than there were")
        elif self._matches(signed, position):
            self._valid += 1
            self._newest = max(self._newest, size)

    def _keys_at(self, position: int) -> list[PublicKey]:
        in_use = [
            known.key
            for known in self._keys.values()
            if known.added < position and (not known.retired or position < known.retired)
        ]
        if not self._given:
            return in_use
        given = {key.id for key in self._given}
        return [key for key in in_use if key.id in given] if self._whole else list(self._given)

    def _holds_outside(self, signed: SignedCheckpoint) -> bool:
        size = signed.checkpoint.size
        keys = self._given or tuple(known.key for known in self._keys.values())
        try:
            if self._origin and signed.checkpoint.origin != self._origin:
                raise Unproven(f"it is of another log: {signed.checkpoint.origin}", code="proof.other_log")
            key = check_signature(signed, keys)
        except Unproven as error:
            self._found(size, Kind.SIGNATURE, f"the given checkpoint of size {size}: {error.message}")
            return False
        known = self._keys.get(key.id)
        if known is not None and known.retired and size >= known.retired:
            self._found(size, Kind.SIGNATURE, f"the given checkpoint of size {size} is signed by the retired {key.id}")
            return False
        if size >= self._next:
            self._found(
                max(self._next, 1),
                Kind.TRUNCATED,
                f"records {self._next} to {size} are missing: a checkpoint given vouches for {size} records",
                size,
            )
            return False
        return self._matches(signed, size)

    def _matches(self, signed: SignedCheckpoint, position: int) -> bool:
        size = signed.checkpoint.size
        root = self._tree.root_at(size) if self._tree is not None else None
        if root is None:
            self._unchecked += 1
            return False
        if root == signed.checkpoint.root:
            return True
        if not self._differs:  # all later ones must differ too, so the first one says all
            self._differs = True
            what = f"the checkpoint of size {size} vouches for other records"
            where = f"what was changed is among the records {self._newest + 1} to {size}"
            roots = f"its root is {signed.checkpoint.root.hex()}, that of these records is {root.hex()}"
            self._found(position, Kind.ROOT, f"{what}: {where} ({roots})")
        return False

    def _found(self, position: int, kind: Kind, message: str, last: int = 0) -> None:
        self._add(Finding(position=position, kind=kind, message=message, last=last))

    def _add(self, finding: Finding) -> None:
        if self._note is not None:
            self._note(finding)
        if len(self._findings) < MAX_FINDINGS:
            self._findings.append(finding)
        else:
            self._more += 1


class _Tree:
    """The tree over all records so far, from the first on, and its roots at sizes that are not long past.

    Subtrees of 256 leaves and more are kept for good, a quarter of a byte a record; leaves for a while, and for sizes
    that are asked for at the end.
    """

    def __init__(self, pinned: frozenset[int]) -> None:
        self._frontier = Frontier()
        self._nodes: dict[tuple[int, int], bytes] = {}
        self._tiles: collections.OrderedDict[int, list[bytes]] = collections.OrderedDict()
        self._pinned = {size // TILE for size in pinned}

    @property
    def size(self) -> int:
        """Leaves so far."""
        return (self._frontier.size) + len(self._tiles.get(self._frontier.size // TILE, ()))

    def add(self, portion: Portion) -> None:
        """Add the leaves of the portion that comes next."""
        leaves = split_hashes(portion.leaves)
        tiles = split_hashes(portion.tiles)
        at = 0
        while at < len(leaves):
            number = self._frontier.size // TILE
            tile = self._tiles.setdefault(number, [])
            taken = leaves[at : at + TILE - len(tile)]
            tile += taken
            at += len(taken)
            if len(tile) == TILE:
                ready = not (at % TILE) and at // TILE - 1 < len(tiles)
                found = tiles[at // TILE - 1] if ready else complete_root(tile)
                self._nodes[TILE_LEVEL, number] = found
                for level, above, node in self._frontier.append_subtree(TILE_LEVEL, found):
                    self._nodes[level, above] = node
                self._forget(number)

    def root_at(self, size: int) -> bytes | None:
        """The root of the first `size` leaves; None where they are not known one by one any more."""
        if size > self.size or (size % TILE and size // TILE not in self._tiles):
            return None
        return tree_root(size, self._subtree)

    def _subtree(self, level: int, number: int) -> bytes:
        if level >= TILE_LEVEL:
            return self._nodes[level, number]
        first = number << level
        at = first % TILE
        return complete_root(self._tiles[first // TILE][at : at + (1 << level)])

    def _forget(self, newest: int) -> None:
        old = newest - RECENT_TILES
        if old >= 0 and old not in self._pinned:
            self._tiles.pop(old, None)


class _Event(msgspec.Struct, frozen=True):
    type: str
    data: msgspec.Raw


class _Record(msgspec.Struct, frozen=True):
    position: int
    events: tuple[_Event, ...]


_decode = msgspec.msgpack.Decoder(_Record).decode


def _fields(event: _Event) -> Any:
    return msgspec.msgpack.decode(event.data)


def checkpoint_notes(portion: Portion) -> list[tuple[int, int, str]]:
    """Position, claimed size and note of each checkpoint among these records; those that make no sense have size 0."""
    found: list[tuple[int, int, str]] = []
    for position, data in portion.notable:
        try:
            for event in _decode(data).events:
                if event.type == CHECKPOINTED:
                    note = str(_fields(event)["note"])
                    found.append((position, parse_checkpoint(note).checkpoint.size, note))
        except (Unproven, msgspec.MsgspecError, KeyError, TypeError):
            found.append((position, 0, ""))
    return found


def parse_checkpoints(text: str) -> list[SignedCheckpoint]:
    """The checkpoints of a file: one note, or many, as an anchor gathers them, or the lines of a system log in which
    they stand among others. Raises Unproven."""
    found: list[SignedCheckpoint] = []
    if SYSLOG_MARK in text:
        told = [line.partition(SYSLOG_MARK)[2] for line in text.splitlines() if SYSLOG_MARK in line]
        return [parse_checkpoint(each.rstrip().replace("\\n", "\n")) for each in told]
    lines: list[str] = []
    in_signatures = False
    for line in [*text.splitlines(), ""]:
        if in_signatures and not line.startswith("— "):
            found.append(parse_checkpoint("\n".join(lines) + "\n"))
            lines, in_signatures = [], False
        if line or lines:
            lines.append(line)
        in_signatures = line.startswith("— ")
    if any(lines):
        raise Unproven("the last checkpoint has no signature", code="proof.bad_note")
    return found


def newest_first(checkpoints: Iterable[SignedCheckpoint]) -> list[SignedCheckpoint]:
    """The checkpoints by size, the largest first."""
    return sorted(checkpoints, key=lambda signed: -signed.checkpoint.size)
