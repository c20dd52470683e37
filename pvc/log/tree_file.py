"""The log's Merkle tree in the replica: hashes of complete subtrees of 256 leaves and more, beside the records.

A root or a proof then reads at most two times 256 records and some forty hashes, however long the log. Smaller subtrees
are made from the records when they are asked for: keeping them would take as much room as a tenth of the records.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence

import msgspec

from pvc.proof.findings import Finding, Kind
from pvc.proof.merkle import Frontier, Subtree, complete_root, leaf_hash, node_hash, tree_root
from pvc.proof.scan import TILE, TILE_LEVEL, Portion, broken_link, scan, split_hashes
from pvc.proof.verify import checkpoint_notes

TREE_SCHEMA = """
CREATE TABLE subtree (
    level INTEGER NOT NULL,
    number INTEGER NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (level, number)
) STRICT, WITHOUT ROWID;
"""

_LEAVES = "SELECT data FROM record WHERE position > ? AND position <= ? ORDER BY position"


class TreeGap(sqlite3.DatabaseError):
    """Part of the tree is missing: the file is damaged, and is to be filled anew."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


class RootAt(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint found in the log, and the root that the replica has for its size."""

    position: int
    note: str
    root: bytes
    """Empty where the replica has not so many records."""


class RangeLook(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at some of the replica's records found."""

    first: int
    data: list[bytes]
    findings: tuple[Finding, ...]
    checkpoints: tuple[RootAt, ...]


def grow(db: sqlite3.Connection, frontier: Frontier, data: Iterable[bytes]) -> None:
    """Add the records that come next to the tree."""
    complete = [node for each in data for node in frontier.append(leaf_hash(each)) if node[0] >= TILE_LEVEL]
    db.executemany("INSERT INTO subtree VALUES (?, ?, ?)", complete)


def frontier_at(db: sqlite3.Connection, size: int) -> Frontier:
    """What the tree of the first `size` records has to remember to grow."""
    subtree = stored_subtrees(db, size)
    hashes: list[bytes] = []
    first = 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            hashes.append(subtree(level, first >> level))
            first += 1 << level
    return Frontier(size, hashes)


def stored_subtrees(db: sqlite3.Connection, size: int) -> Subtree:
    """The subtrees over the first `size` records. Raises TreeGap when one is missing."""
    tiles: dict[int, list[bytes]] = {}

    def subtree(level: int, number: int) -> bytes:
        if level >= TILE_LEVEL:
            row = db.execute("SELECT hash FROM subtree WHERE level = ? AND number = ?", (level, number)).fetchone()
            if row is None:
                raise TreeGap(f"the subtree {number} of level {level} is missing")
            return bytes(row[0])
        first = number << level
        tile = first // TILE
        if tile not in tiles:
            end = min((tile + 1) * TILE, size)
            tiles[tile] = [leaf_hash(row[0]) for row in db.execute(_LEAVES, (tile * TILE, end))]
            if len(tiles[tile]) != end - tile * TILE:
                raise TreeGap(f"of the records {tile * TILE + 1} to {end} some are missing")
        at = first % TILE
        return complete_root(tiles[tile][at : at + (1 << level)])

    return subtree


def look_at_range(db: sqlite3.Connection, first: int, limit: int, head: int) -> RangeLook:
    """Hash the records from `first` on (the beginning of 256 leaves) anew, and compare with all that is stored."""
    assert (first - 1) % TILE == 0, "a look begins where a subtree does"
    rows = db.execute(
        "SELECT position, data FROM record WHERE position >= ? ORDER BY position LIMIT ?", (first, limit)
    ).fetchall()
    data = [bytes(row[1]) for row in rows]
    positions = [row[0] for row in rows]
    if positions != list(range(first, first + len(rows))) or not rows:
        missing = next((at for at, found in enumerate(positions, first) if at != found), first + len(rows))
        message = f"record {missing} is missing in this node's replica"
        return RangeLook(
            first=first,
            data=[],
            findings=(Finding(position=missing, kind=Kind.GAP, message=message),),
            checkpoints=(),
        )
    portion = scan(first, data)
    findings = list(portion.findings)
    before = db.execute("SELECT data FROM record WHERE position = ?", (first - 1,)).fetchone()
    if before is not None and portion.before and hashlib.sha256(before[0]).digest() != portion.before:
        findings.insert(0, broken_link(first - 1))
    findings += _compare_tree(db, portion)
    checkpoints = [
        RootAt(position=position, note=note, root=_root(db, size) if size <= head else b"")
        for position, size, note in checkpoint_notes(portion)
    ]
    return RangeLook(first=first, data=data, findings=tuple(findings), checkpoints=tuple(checkpoints))


def _root(db: sqlite3.Connection, size: int) -> bytes:
    try:
        return tree_root(size, stored_subtrees(db, size))
    except TreeGap:
        return b""


def _compare_tree(db: sqlite3.Connection, portion: Portion) -> list[Finding]:
    """Where what is stored of the tree is not what follows from what is below it."""
    findings: list[Finding] = []
    level, number = TILE_LEVEL, (portion.first - 1) // TILE
    below: Sequence[bytes] = split_hashes(portion.tiles)
    while below:
        stored = [_stored(db, level, at) for at in range(number, number + len(below))]
        for at, (found, kept) in enumerate(zip(below, stored, strict=True), number):
            if found != kept:
                first, last = (at << level) + 1, (at + 1) << level
                message = f"the stored hash over the records {first} to {last} is not that of what stands below it"
                findings.append(Finding(position=first, last=last, kind=Kind.TREE, message=message))
        # The pairs that end within this range; the left half of the first may have been looked at before.
        pairs = range(number // 2, (number + len(stored)) // 2)
        halves = dict(enumerate(stored, number))
        below = [
            node_hash(*(halves.get(at) or _stored(db, level, at) for at in (2 * pair, 2 * pair + 1))) for pair in pairs
        ]
        level, number = level + 1, number // 2
    return findings


def _stored(db: sqlite3.Connection, level: int, number: int) -> bytes:
    row = db.execute("SELECT hash FROM subtree WHERE level = ? AND number = ?", (level, number)).fetchone()
    return bytes(row[0]) if row is not None else b""
