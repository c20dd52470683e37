"""The record: one position of the log, with who asked for it, from where, why, and the hash of the one before.

Decoding has two stages: the envelope here, each event's data by its type (`pvc.events.registry`). The chain is
hashed over the stored bytes, never over a re-encoding, so a record of a newer version keeps its hash.

Records, events and the state's objects are made with `gc=False`: they are values that cannot form a cycle, and a replay
makes millions of them, which the garbage collector would otherwise walk again and again (it doubled the decoding).
"""

from __future__ import annotations

import hashlib

import msgspec

from pvc.errors import LogDamaged, TooLarge

MAX_RECORD_BYTES = 256 * 1024
"""A quarter of ZooKeeper's packet (1,048,575 bytes), so that a multi with its overhead always fits."""

ZERO_HASH = bytes(32)
"""What the first record names as its predecessor."""


class Actor(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Who caused a record: a principal (`root`, `node/hv1`, a person), how it proved itself, and from where.

    In records a person's name and address are sealed (`pvc.events.sealed`), but in those of earlier versions; to a
    reader they are shown opened, or by a pseudonym where the person was erased.
    """

    principal: str
    method: str
    """`socket` (local root), `token`, `oidc` (a login), or `node` (a fact that a node learnt). `peer` (another node)
    never writes."""
    address: str = ""
    source: str = ""
    """Through what: `cli/0.1.0`, `api`, `node`; the client says it, so it is a statement, not a proof."""


class CommandRef(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The command a record is the outcome of: its id (the idempotency key) and registered name."""

    id: str
    name: str
    digest: str = ""
    """A hash of what was asked: the same id with another digest is not the same command. Empty for reports."""


class RawEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """An event as stored: its type and version say how to read `data`; unknown types pass through verbatim."""

    type: str
    v: int = 1
    data: msgspec.Raw


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One position of the log. All events of one command stand in one record, so they are atomic."""

    position: int
    prev: bytes
    """SHA-256 of the previous record's bytes, `ZERO_HASH` at position 1."""
    id: str
    """ULID."""
    time_us: int
    """Microseconds since the Unix epoch, as the appending node saw them; for showing, never for ordering."""
    actor: Actor
    origin: str
    """Name of the node it comes from: which took the command, or learnt the fact. The primary may have appended it."""
    command: CommandRef
    cause: str = ""
    """Id of the record that led to this one, empty where an admin's wish was the beginning."""
    level: int = 1
    """The cluster's feature level at this position."""
    events: tuple[RawEvent, ...]


class Head(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The end of the log: position, hash and id of the last record (0, `ZERO_HASH` and "" when it is empty)."""

    position: int = 0
    hash: bytes = ZERO_HASH
    record_id: str = ""


EMPTY = Head()

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A record together with its stored bytes and their hash."""

    record: Record
    data: bytes
    hash: bytes

    @property
    def position(self) -> int:
        """The record's position."""
        return self.record.position

    @property
    def head(self) -> Head:
        """The log's head once this entry is its last."""
        return Head(position=self.record.position, hash=self.hash, record_id=self.record.id)


def seal(record: Record) -> Entry:
    """Encode a new record. Raises TooLarge over `MAX_RECORD_BYTES`."""
    data = _encoder.encode(record)
    if len(data) > MAX_RECORD_BYTES:
        raise TooLarge(
            f"this change makes a record of {len(data):,} bytes; the limit is {MAX_RECORD_BYTES:,}",
            code="log.record_too_large",
            hint="split the change into smaller ones",
        )
    return Entry(record=record, data=data, hash=hashlib.sha256(data).digest())


def unseal(data: bytes) -> Entry:
    """Decode stored bytes. Raises LogDamaged when they are no record."""
    try:
        record = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise LogDamaged(f"stored bytes are not a record: {error}", code="log.undecodable") from error
    return Entry(record=record, data=data, hash=hashlib.sha256(data).digest())


def check_follows(entry: Entry, head: Head) -> None:
    """Raise LogDamaged unless `entry` is the dense, chained successor of `head`."""
    if entry.position != head.position + 1:
        raise LogDamaged(f"record {entry.position} was read where {head.position + 1} should be", code="log.gap")
    if entry.record.prev != head.hash:
        raise LogDamaged(
            f"record {entry.position} does not continue the chain of record {head.position}",
            code="log.chain_broken",
            hint="the log was rewritten, rewound or restored; compare it with another node's copy before writing on",
        )
