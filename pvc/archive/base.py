"""The Archive protocol: blobs that are written once, under names that say what must be in them.

A name holds the beginning of its blob's SHA-256. So every archive can tell a damaged copy by itself, two nodes that
write the same segment do each other no harm, and a copy from anywhere can replace a bad one. 64 bits of the hash find
damage, not forgery: against that stands the whole hash in the segment's manifest, which the log's readers check.
"""

from __future__ import annotations

import hashlib
import re
from typing import Protocol

import msgspec

from pvc.errors import NotFound, PvcError, Unavailable

MAX_BLOB_BYTES = 32 * 1024 * 1024
"""Many times a segment, which is sealed at some 2 MB of records; what claims to be larger is not given the memory."""

DAMAGED_SUFFIX = ".damaged"
"""Of what is kept aside when a bad copy is removed."""

_NAME = re.compile(r"log-(\d{20})-(\d{20})-([0-9a-f]{16})\.pvclog")


class BlobName(msgspec.Struct, frozen=True, kw_only=True):
    """What a blob's name says."""

    first: int
    """Position of its first record."""
    last: int
    digest16: str
    """The first 16 hex digits of the SHA-256 of the blob's bytes."""

    def __str__(self) -> str:
        return f"log-{self.first:020d}-{self.last:020d}-{self.digest16}.pvclog"


class DamagedCopy(PvcError):
    """What is kept under a name is not what the name says. Remove it, and put a good copy in its place."""

    status = 503
    default_code = "archive.damaged"


class Archive(Protocol):
    """One place for blobs. Every implementation passes tests/contract/archive_contract.py.

    All calls may be repeated, and come back within a deadline of the archive's own. They raise Unavailable
    (`archive.unreachable`, `archive.disk_full`, `archive.io_error`, `archive.closed`).
    """

    title: str
    """For people: `directory /var/lib/pvc/archive`, `RADOS pool pvc-log`."""

    async def put(self, name: str, data: bytes) -> None:
        """Keep the blob; when this returns, it outlives a power cut.

        Where the name is taken by the same bytes, nothing is to be done. Raises DamagedCopy where it is taken by
        others, which are left as they are. `name` must be the one of `blob_name`: AssertionError.
        """
        ...

    async def get(self, name: str) -> bytes:
        """The blob. Raises NotFound (`archive.not_found`), DamagedCopy."""
        ...

    async def names(self) -> list[str]:
        """The names of all blobs, in the order of their records, damaged ones too."""
        ...

    async def remove(self, name: str) -> None:
        """Take a damaged copy away, so that a good one can be put; nothing if there is none.

        The bytes are kept aside, under the name with `.damaged` behind it, where they can still be read.
        """
        ...

    async def close(self) -> None:
        """Release everything; later calls raise Unavailable."""
        ...


def blob_name(first: int, last: int, data: bytes) -> str:
    """The name of the blob `data`, which holds the records from `first` to `last`."""
    return str(BlobName(first=first, last=last, digest16=_digest16(data)))


def parse_blob_name(name: str) -> BlobName | None:
    """What a name says; None where it is no blob's name. No path can be smuggled in by one that is."""
    found = _NAME.fullmatch(name)
    if found is None or not found[0].isascii() or not 1 <= int(found[1]) <= int(found[2]):
        return None
    return BlobName(first=int(found[1]), last=int(found[2]), digest16=found[3])


def is_content_of(name: str, data: bytes) -> bool:
    """Whether these bytes are the ones that the name says."""
    said = parse_blob_name(name)
    return said is not None and said.digest16 == _digest16(data)


def check_put(name: str, data: bytes) -> None:
    """What every archive demands of a `put` before it does anything."""
    assert is_content_of(name, data), f"{name} is not the name of these bytes"
    assert len(data) <= MAX_BLOB_BYTES, f"a blob of {len(data)} bytes could not be read again"


def not_found(title: str, name: str) -> NotFound:
    """There is no such blob."""
    return NotFound(
        f"the {title} has no {name[:100]}",
        code="archive.not_found",
        hint="another node, or another archive of this one, may have it",
    )


def damaged(title: str, name: str, why: str) -> DamagedCopy:
    """The copy under this name is bad."""
    return DamagedCopy(
        f"{name} in the {title} is damaged: {why}",
        hint="it is replaced from a good copy as soon as one is found; look after the disk that it was on",
    )


def closed(title: str) -> Unavailable:
    """What every call gets after `close`."""
    return Unavailable(f"the {title} is closed", code="archive.closed", hint="open it again")


def _digest16(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
