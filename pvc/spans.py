"""A span: something that took time and belongs to a record of the log, told when it is over. Pure.

A trace is a chain of causes: its id is the id of the record that the chain began with, 128 bits like that of a trace.
So every node knows the trace of what it does from the log alone, and nothing has to be carried along in records. The
same way the span of a record has an id that is made of the record's, by which others name it as their parent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Protocol

import msgspec

_DIGITS = {digit: value for value, digit in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")}
_ULID_CHARS = 26


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Something that took time."""

    name: str
    """Few and fixed: `vm.start`, `append`."""
    trace: str
    """Id of the record that the chain of causes began with."""
    record: str = ""
    """Id of the record that this is the span of; empty for a part."""
    parent: str = ""
    """Id of the record whose span this is below; empty for the beginning of a trace."""
    began_us: int
    ended_us: int
    server: bool = False
    """It answers somebody from outside."""
    link: str = ""
    """The W3C `traceparent` of who asked, where there was one."""
    error: str = ""
    """The code of what went wrong."""
    attributes: Mapping[str, str | int] = {}


class Tracer(Protocol):
    """Hears of spans; returns at once and never raises."""

    def tell(self, span: Span) -> None:
        """This is over."""
        ...


def trace_id_of(record: str) -> int:
    """The trace that begins with this record: its ULID as a number."""
    value = 0
    for digit in record:
        if len(record) != _ULID_CHARS or digit not in _DIGITS:
            return _digest(record, 16)
        value = value << 5 | _DIGITS[digit]
    return value & ((1 << 128) - 1) or 1


def span_id_of(record: str) -> int:
    """The id of a record's span."""
    return _digest(record, 8)


def _digest(text: str, size: int) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=size).digest(), "big") or 1
