"""What a verification has to say: a refusal of what proves nothing, and the list of what is wrong with a log."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Unproven(Exception):
    """Something given as a proof, a signature or a stored log is not one. `code` is stable and dotted."""

    def __init__(self, message: str, *, code: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint


class Kind(StrEnum):
    """What is wrong at a position."""

    DAMAGED = "damaged"
    """The stored bytes are not those that were written: a disk, a copy or a hand has changed them."""
    TRUNCATED = "truncated"
    """Records are missing at the end."""
    UNREADABLE = "unreadable"
    """The bytes are no record."""
    GAP = "gap"
    """A record is missing, or there twice."""
    CHAIN = "chain"
    """A record is not the one whose hash its successor names."""
    TREE = "tree"
    """A stored hash of the tree is not that of the records below it."""
    ROOT = "root"
    """A checkpoint vouches for other records than these."""
    SIGNATURE = "signature"
    """A checkpoint is not signed by a key that could."""
    COPY = "copy"
    """Two copies have different records."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, and where."""

    position: int
    """Of the record; of the first one where it is about several."""
    kind: Kind
    message: str
    last: int = 0
    """Of the last record where it is about several."""
