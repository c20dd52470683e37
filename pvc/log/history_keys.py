"""What a record can be found by, and the test of one record against a filter: the twin of the search in the file.

A live stream tests each record as it comes, a stream of the past asks the index; both must mean the same. So a filter
goes by what was so when the record was written (the names that a VM had had by then, the tags that it had then): what
matches is a property of the log alone, and the same whenever and wherever it is read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from pvc.events.record import RawEvent, Record
from pvc.events.registry import Event, UnknownEvent, decode_event, subject_of
from pvc.events.registry import Subject as EventSubject
from pvc.log.history_search import type_means

_NAMES = "SELECT 'vm/' || name FROM name WHERE vm = ? AND since <= ?"
_TAGS = "SELECT tag FROM tag WHERE subject = ? AND first <= ?2 AND last >= ?2"


class EventKeys(NamedTuple):
    """What one event of a record is found by."""

    type: str
    subject: str
    """`vm/<id>`, `node/<name>`, `access/<token id>`, `webhook/<id>`, `cluster`."""
    named: frozenset[str]
    """`vm/<name>` for each name that the VM had had by then; empty for what is no VM."""
    tags: frozenset[str]
    """The tags that the VM had then, with one that this record took off."""


class RecordKeys(NamedTuple):
    """What a record is found by."""

    position: int
    id: str
    actor: str
    """As the record names it, so a person's name is sealed."""
    correlation: str
    """The id of the record that the chain of causes began with."""
    events: tuple[EventKeys, ...]


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which records a reader wants: those with an event that matches everything given. It can be a key of a dict."""

    types: tuple[str, ...] = ()
    subject: str = ""
    actor: str = ""
    """As the reader writes it; who that is in the log is told apart."""
    tag: str = ""
    correlation: str = ""
    """The id of the record that the chain began with."""


def matches(wanted: EventFilter, keys: RecordKeys) -> bool:
    """Whether a record is wanted, whoever wrote it."""
    if wanted.correlation and keys.correlation != wanted.correlation:
        return False
    if not (wanted.types or wanted.subject or wanted.tag):
        return True
    return any(
        (not wanted.types or any(type_means(asked, event.type) for asked in wanted.types))
        and (not wanted.subject or wanted.subject == event.subject or wanted.subject in event.named)
        and (not wanted.tag or wanted.tag in event.tags)
        for event in keys.events
    )


def keys_of(db: sqlite3.Connection, record: Record, correlation: str) -> RecordKeys:
    """The keys of a record that is indexed in this file."""
    events = []
    for subject, type_, _ in about(record):
        named = tags = _NONE
        if subject.kind == "vm":
            named = frozenset(name for (name,) in db.execute(_NAMES, (subject.id, record.position)))
            tags = frozenset(tag for (tag,) in db.execute(_TAGS, (str(subject), record.position)))
        events.append(EventKeys(type_, str(subject), named, tags))
    return RecordKeys(record.position, record.id, record.actor.principal, correlation, tuple(events))


def about(record: Record) -> Iterator[tuple[EventSubject, str, Event | None]]:
    """Subject, type and, where this version knows it, the event itself."""
    for raw in record.events:
        event = _known(raw)
        subject = subject_of(event) if event is not None else EventSubject(raw.type.partition(".")[0], "")
        yield subject, raw.type, event


def _known(raw: RawEvent) -> Event | None:
    try:
        return decode_event(raw)
    except UnknownEvent:
        return None


_NONE: frozenset[str] = frozenset()
