"""A record of the log for a reader: who, when, from where, why, and each event in a sentence."""

from __future__ import annotations

import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from pvc.events.record import Actor, CommandRef, Record
from pvc.gateway.lists import ListOf, by_attributes
from pvc.log.history import Found
from pvc.projections.story import ToldEvent, tell


class RecordView(msgspec.Struct, frozen=True, kw_only=True):
    """One record of the log."""

    position: int
    id: str
    time: Annotated[str, Meta(description="ISO 8601, UTC, with milliseconds.", examples=["2025-01-31T12:00:00.000Z"])]
    time_us: Annotated[int, Meta(description="The same in microseconds since the Unix epoch.")]
    actor: Actor
    origin: Annotated[str, Meta(description="The node that appended it.")]
    command: CommandRef
    cause: Annotated[str, Meta(description="Id of the record that led to this one; empty where none did.")]
    correlation: Annotated[str, Meta(description="Id of the record that the chain of causes began with.")]
    level: int
    events: list[ToldEvent]


RECORDS: ListOf[RecordView] = ListOf(
    item=RecordView,
    rows="records",
    sorts=by_attributes("position"),
    order="-position",
    key=lambda record: f"{record.position:020}",
)
"""Lists of records, whichever they are."""


def record_view(found: Found) -> RecordView:
    """The view of a record from the history index."""
    record = decode_record(found.data)
    return RecordView(
        position=record.position,
        id=record.id,
        time=iso_time(record.time_us),
        time_us=record.time_us,
        actor=record.actor,
        origin=record.origin,
        command=record.command,
        cause=record.cause,
        correlation=found.correlation,
        level=record.level,
        events=[tell(raw) for raw in record.events],
    )


def decode_record(data: bytes) -> Record:
    """A record's envelope, from bytes that were verified when they were folded."""
    return _decoder.decode(data)


_LAST_US = 253_402_300_799_999_999
"""The last microsecond that a calendar has; a record says of itself when it was written, and may say anything."""


def iso_time(time_us: int) -> str:
    """`2025-01-31T12:00:00.000Z`; the first or last moment there is, for what is before or after it."""
    time_us = max(0, min(time_us, _LAST_US))
    time = datetime.datetime.fromtimestamp(time_us // 1_000_000, datetime.UTC)
    return f"{time:%Y-%m-%dT%H:%M:%S}.{time_us // 1000 % 1000:03d}Z"


_decoder = msgspec.msgpack.Decoder(Record)
