"""Records for log tests: small, distinct, properly chained."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

import msgspec

from pvc.events.record import Actor, CommandRef, Entry, Head, RawEvent, Record, seal

_ids = itertools.count(1)


def an_entry(after: Head, *, id: str = "", note: str = "", size: int = 0) -> Entry:
    """A record that continues `after`; `size` bytes of random ballast in its event."""
    number = next(_ids)
    return seal(
        Record(
            position=after.position + 1,
            prev=after.hash,
            id=id or f"R{os.getpid():08d}{number:017d}",
            time_us=1_700_000_000_000_000 + number,
            actor=Actor(principal="root", method="socket"),
            origin="hv1",
            command=CommandRef(id=f"C{number}", name="test.write"),
            events=(
                RawEvent(
                    type="test.written",
                    data=msgspec.Raw(msgspec.msgpack.encode({"note": note, "ballast": os.urandom(size)})),
                ),
            ),
        )
    )


def a_chain(after: Head, count: int, *, size: int = 0) -> list[Entry]:
    """`count` records, each continuing the one before."""
    chain: list[Entry] = []
    for _ in range(count):
        after = (chain[-1].head) if chain else after
        chain.append(an_entry(after, size=size))
    return chain


def bytes_of(entries: Sequence[Entry]) -> list[bytes]:
    """What a log must give back for these entries."""
    return [entry.data for entry in entries]
