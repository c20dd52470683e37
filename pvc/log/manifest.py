"""The manifest of a sealed segment: what is in it, so that a copy from anywhere can be checked. No I/O.

It stays in ZooKeeper when the records have left it. Each names the hash of the one before, so that the newest vouches
for all; its tree root is that of the whole log at the segment's end (RFC 6962), the same that checkpoints sign.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Sequence

import msgspec

from pvc.errors import LogDamaged
from pvc.events.record import Head, unseal
from pvc.proof.frames import Block, Damaged, End, encode_file, read_file, records_of

_LENGTH_BYTES = 4


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of the segment with the records `first` to `last`."""

    first: int
    last: int
    incarnation: str
    """Of the log."""
    size_bytes: int
    """Of its records together, uncompressed."""
    digest: bytes
    """SHA-256 over the records, each behind its length (4 bytes, big-endian)."""
    before: bytes
    """Hash of the record before the first one."""
    hash: bytes
    """Hash of the last record."""
    record: str
    """Id of the last record."""
    root: bytes
    """Root of the log's tree at size `last`."""
    previous: bytes
    """SHA-256 of the stored manifest of the segment before, empty for the first one."""
    sealed_by: str
    """The node that wrote this."""
    note: str = ""
    """A signed checkpoint of that root, where the node has a key."""

    @property
    def head(self) -> Head:
        """The log's head at the segment's end."""
        return Head(position=self.last, hash=self.hash, record_id=self.record)

    def agrees_with(self, other: Manifest) -> bool:
        """Whether both say the same of the same records, whoever wrote them."""
        return msgspec.structs.replace(self, sealed_by="", note="", previous=b"") == msgspec.structs.replace(
            other, sealed_by="", note="", previous=b""
        )


def encode_manifest(manifest: Manifest) -> bytes:
    """As it is stored."""
    return msgspec.json.encode(manifest)


def decode_manifest(data: bytes) -> Manifest:
    """What is stored. Raises LogDamaged."""
    try:
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise LogDamaged(f"a manifest of the log cannot be read: {error}", code="log.undecodable") from error


def digest_of(records: Sequence[bytes]) -> bytes:
    """What a manifest says of its records."""
    return hashlib.sha256(
        b"".join(itertools.chain.from_iterable((len(data).to_bytes(_LENGTH_BYTES), data) for data in records))
    ).digest()


def describe(
    first: int,
    records: Sequence[bytes],
    *,
    incarnation: str,
    root: bytes,
    previous: bytes,
    sealed_by: str,
    note: str = "",
) -> Manifest:
    """The manifest of these records. Raises LogDamaged when they are none."""
    opening, closing = unseal(records[0]), unseal(records[-1])
    return Manifest(
        first=first,
        last=first + len(records) - 1,
        incarnation=incarnation,
        size_bytes=sum(map(len, records)),
        digest=digest_of(records),
        before=opening.record.prev,
        hash=closing.hash,
        record=closing.record.id,
        root=root,
        previous=previous,
        sealed_by=sealed_by,
        note=note,
    )


def encode_blob(first: int, records: Sequence[bytes]) -> bytes:
    """A segment as an archive keeps it: a file like those of `pvc log export`."""
    return encode_file(first, records)


def decode_blob(data: bytes, manifest: Manifest) -> list[bytes]:
    """The records of an archived segment, which are those that its manifest speaks of. Raises LogDamaged."""
    records: list[bytes] = []
    try:
        for part in read_file(io.BytesIO(data)):
            match part:
                case Block():
                    records += records_of(part)
                case End():
                    break
    except Damaged as error:
        raise _bad_copy(manifest, error.message) from error
    check_records(records, manifest)
    return records


def check_records(records: Sequence[bytes], manifest: Manifest) -> None:
    """Raise LogDamaged unless these are the records that the manifest speaks of."""
    if len(records) != manifest.last - manifest.first + 1 or digest_of(records) != manifest.digest:
        raise _bad_copy(manifest, "its records are not those of the manifest")


def _bad_copy(manifest: Manifest, why: str) -> LogDamaged:
    return LogDamaged(
        f"a copy of the records {manifest.first} to {manifest.last} is damaged: {why}",
        code="log.copy_damaged",
        hint="it is replaced from a good copy by itself; look after the disk that it was on",
    )
