"""A portion of the log looked at by itself: hashes, chain inside, and the few records that the whole needs to know of.

All that is costly happens here, in lists and without a look at what came before, so that portions can be handed to
several processes. Of a record only position and predecessor are decoded.
"""

from __future__ import annotations

import hashlib
import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence

import msgspec

from pvc.proof.findings import Finding, Kind
from pvc.proof.merkle import HASH_BYTES, complete_root

TILE_LEVEL = 8
TILE = 1 << TILE_LEVEL
"""Leaves of the smallest subtree whose hash is worth keeping."""

CHECKPOINTED = "cluster.log_checkpointed"
KEY_ADDED = "cluster.signing_key_added"
KEY_RETIRED = "cluster.signing_key_retired"
INITIALISED = "cluster.initialised"

_NOTABLE = b"cluster."
"""What the types of all events that matter here begin with."""

MAX_NAMED = 100
"""Findings of one portion that are named; a portion that is all noise need not name 4,096 records."""


class Portion(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to know of a run of records."""

    first: int
    count: int
    before: bytes
    """The hash that the first record names as its predecessor's; empty where the record is unreadable."""
    head: bytes
    """The hash of the last record's bytes."""
    leaves: bytes
    """The leaf hashes, one after the other."""
    tiles: bytes
    """The hashes of the complete subtrees of 256 leaves, where `first` begins one; else nothing."""
    notable: tuple[tuple[int, bytes], ...]
    """Positions and bytes of the records about keys and checkpoints."""
    findings: tuple[Finding, ...]

    @property
    def last(self) -> int:
        """The position of the last record."""
        return self.first + self.count - 1


class _Link(msgspec.Struct, frozen=True, gc=False):
    position: int
    prev: bytes


_decode = msgspec.msgpack.Decoder(_Link).decode


def scan(first: int, records: Sequence[bytes]) -> Portion:
    """Look at the records that should have the positions from `first` on."""
    assert records, "a portion has at least one record"
    sha256 = hashlib.sha256
    hashes = [sha256(data).digest() for data in records]
    leaves = [sha256(b"\x00" + data).digest() for data in records]
    findings: tuple[Finding, ...] = ()
    try:
        links = [_decode(data) for data in records]
        before = links[0].prev
        whole = [link.prev for link in links[1:]] == hashes[:-1] and [link.position for link in links] == list(
            range(first, first + len(records))
        )
    except msgspec.MsgspecError:
        before, whole = _prev(records[0]), False
    if not whole:
        findings = tuple(itertools.islice(_wrong(first, records, hashes), MAX_NAMED))
    return Portion(
        first=first,
        count=len(records),
        before=before,
        head=hashes[-1],
        leaves=b"".join(leaves),
        tiles=b"".join(_tiles(first, leaves)),
        notable=tuple(_notable(first, records)),
        findings=findings,
    )


def _tiles(first: int, leaves: Sequence[bytes]) -> list[bytes]:
    if (first - 1) % TILE:
        return []
    return [complete_root(leaves[at : at + TILE]) for at in range(0, len(leaves) - TILE + 1, TILE)]


def _notable(first: int, records: Sequence[bytes]) -> list[tuple[int, bytes]]:
    everything = b"".join(records)
    found = list(_places(_NOTABLE, everything))
    if not found:
        return []
    ends = list(itertools.accumulate(map(len, records)))
    numbers = sorted({bisect_right(ends, at) for at in found})
    return [(first + number, records[number]) for number in numbers]


def _places(word: bytes, text: bytes) -> Iterator[int]:
    at = text.find(word)
    while at >= 0:
        yield at
        at = text.find(word, at + 1)


def _wrong(first: int, records: Sequence[bytes], hashes: Sequence[bytes]) -> list[Finding]:
    """Each record that is not what it should be. A broken link says that the record before it was changed; where the
    links on both sides of a record are broken it is that record for certain, and the one before it only perhaps."""
    links = [_link(data) for data in records]
    findings: list[Finding] = []
    for number, link in enumerate(links):
        position = first + number
        if link is None:
            message = f"record {position} cannot be decoded: its bytes were changed"
            findings.append(Finding(position=position, kind=Kind.UNREADABLE, message=message))
        elif link.position != position:
            message = f"where record {position} should be stands one that calls itself {link.position}"
            findings.append(Finding(position=position, kind=Kind.GAP, message=message))
    named = {finding.position for finding in findings}
    broken = [
        first + number - 1
        for number, link in enumerate(links)
        if number and link is not None and link.prev != hashes[number - 1]
    ]
    for number, position in enumerate(broken):
        begins = not number or broken[number - 1] != position - 1
        goes_on = number + 1 < len(broken) and broken[number + 1] == position + 1
        if position not in named and position + 1 not in named and not (begins and goes_on):
            findings.append(broken_link(position))
    return sorted(findings, key=lambda finding: finding.position)


def broken_link(position: int) -> Finding:
    """The finding that the record at `position` is not the one that the next one names."""
    message = f"record {position} was changed: its hash is not the one that record {position + 1} names"
    return Finding(position=position, kind=Kind.CHAIN, message=message)


def _link(data: bytes) -> _Link | None:
    try:
        return _decode(data)
    except msgspec.MsgspecError:
        return None


def _prev(data: bytes) -> bytes:
    link = _link(data)
    return link.prev if link is not None else b""


def split_hashes(joined: bytes) -> list[bytes]:
    """The hashes that stand in `joined` one after the other."""
    return [joined[at : at + HASH_BYTES] for at in range(0, len(joined), HASH_BYTES)]
