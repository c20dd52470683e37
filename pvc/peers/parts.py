"""What a node may fetch from another: where it is below /api/v1, what it looks like, how large it may be."""

from __future__ import annotations

import base64
import hashlib
import re

import msgspec

SEGMENT_PATH = "/log/segments/{segment}"
SNAPSHOT_PATH = "/log/snapshot"
REPLICA_PATH = "/log/replica"
RECORDS_PATH = "/log/replica/records"

SNAPSHOT_POSITION = "PVC-Snapshot-Position"
SNAPSHOT_VERSION = "PVC-Snapshot-Version"
CONTENT_DIGEST = "Content-Digest"
"""RFC 9530."""

MAX_SNAPSHOT_BYTES = 256 * 1024 * 1024
"""A hundred times that of a cluster with 10,000 VMs."""

MAX_RECORDS = 4_096
"""Of one portion; it also ends at about 4 MB."""

MAX_PORTION_BYTES = 16 * 1024 * 1024
"""Of such a portion, in its frames."""

_SPAN = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


class ReplicaInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's replica of the log is."""

    position: int
    """Of the record that this is about; 0: the replica is empty."""
    hash: str
    """Hex SHA-256 of that record."""
    root: str
    """Hex root of the tree (RFC 6962) over the records up to it."""
    newest: int
    """The last position that the replica has."""
    incarnation: str
    """Of the log in ZooKeeper, as this node knows it; empty where it does not."""


def segment_of(first: int, last: int) -> str:
    """How a segment is asked for, whatever its blob is called in that node's archive."""
    return f"{first}-{last}"


def parse_segment(text: str) -> tuple[int, int] | None:
    """First and last position; None where it is none."""
    found = _SPAN.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        return None
    return int(found[1]), int(found[2])


def content_digest(data: bytes) -> str:
    """The value of the header that lets the receiver see that nothing was changed or is missing."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"
