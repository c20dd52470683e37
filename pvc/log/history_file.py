"""The blocking half of the history index: one connection to its SQLite file, used from one thread at a time."""

from __future__ import annotations

import collections
import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from pvc.errors import Unavailable
from pvc.events.cluster import CommandRejected
from pvc.events.record import Entry, Record
from pvc.events.vm import VmDefined, VmRemoved, VmRenamed, VmTagAdded, VmTagRemoved
from pvc.log.history_keys import RecordKeys, about, keys_of
from pvc.log.history_search import FOR_EVER, SPAN, HistoryQuery, find_positions, find_subjects, occurring_types
from pvc.log.sqlite_common import ForeignFormat, code_of, make_private, transaction
from pvc.log.tree_file import TREE_SCHEMA, RangeLook, TreeGap, frontier_at, grow, look_at_range, stored_subtrees
from pvc.proof.merkle import Frontier, consistency_proof, inclusion_proof, tree_root

FORMAT = 0x50564904
"""Stands in the file's header; a file of another format is thrown away and filled anew."""

QUERY_DEADLINE_S = 10.0
"""A search that has looked this long is looking for a needle in a haystack; the admin can narrow it."""

_BUSY_S = 5.0
_CACHE_KIB = 16_384
_STEPS_BETWEEN_LOOKS_AT_THE_CLOCK = 100_000

_SCHEMA = """
CREATE TABLE record (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    root INTEGER NOT NULL,
    time_us INTEGER NOT NULL,
    actor TEXT NOT NULL,
    command TEXT NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX record_id ON record (id);
CREATE INDEX record_root ON record (root) WHERE root <> position;
CREATE INDEX record_actor ON record (actor);
CREATE INDEX record_command ON record (command) WHERE command <> '';
CREATE TABLE event (
    subject TEXT NOT NULL,
    position INTEGER NOT NULL,
    type TEXT NOT NULL,
    PRIMARY KEY (subject, position, type)
) STRICT, WITHOUT ROWID;
CREATE INDEX event_type ON event (type, position);
CREATE TABLE name (name TEXT NOT NULL, vm TEXT NOT NULL, since INTEGER NOT NULL, PRIMARY KEY (name, vm))
STRICT, WITHOUT ROWID;
CREATE INDEX name_vm ON name (vm, since);
CREATE TABLE tag (
    tag TEXT NOT NULL,
    subject TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (tag, subject, first)
) STRICT, WITHOUT ROWID;
CREATE INDEX tag_subject ON tag (subject, last);
CREATE TABLE span (number INTEGER PRIMARY KEY, earliest_us INTEGER NOT NULL, latest_us INTEGER NOT NULL) STRICT;
CREATE TABLE tally (kind TEXT NOT NULL, name TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (kind, name))
STRICT, WITHOUT ROWID;
"""
_MERGE_SPAN = """
INSERT INTO span VALUES (?, ?, ?) ON CONFLICT (number) DO UPDATE SET
    earliest_us = min(earliest_us, excluded.earliest_us), latest_us = max(latest_us, excluded.latest_us)
"""
_TAG = """
INSERT OR IGNORE INTO tag SELECT ?1, ?2, ?3, ?4
WHERE NOT EXISTS (SELECT 1 FROM tag WHERE tag = ?1 AND subject = ?2 AND last = ?4)
"""
_UNTAG = "UPDATE tag SET last = ? WHERE tag = ? AND subject = ? AND last = ?"
_UNTAG_ALL = "UPDATE tag SET last = ? WHERE subject = ? AND last = ?"
_MERGE_TALLY = "INSERT INTO tally VALUES (?, ?, ?) ON CONFLICT (kind, name) DO UPDATE SET n = n + excluded.n"
_FETCH = "SELECT r.data, o.id FROM record r CROSS JOIN record o ON o.position = r.root WHERE r.position = ?"


class Found(NamedTuple):
    """A record that was found."""

    data: bytes
    """The record as stored in the log."""
    correlation: str
    """The id of the record that the chain of causes began with; its own where it is the beginning."""


class FoundEvents(NamedTuple):
    """A record that was found, with what it is found by."""

    found: Found
    keys: RecordKeys


class HistoryFile:
    """An open index. Methods raise sqlite3.Error, which `pvc.log.history` knows what to do about."""

    def __init__(self, path: Path) -> None:
        make_private(path)
        self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        self._frontier: Frontier | None = None
        """Where the tree stands, once this connection has written."""
        try:
            _prepare(self._db)
        except BaseException:
            self._db.close()
            raise

    def position(self) -> int:
        """The last position indexed."""
        row = self._db.execute("SELECT max(position) FROM record").fetchone()
        return int(row[0] or 0)

    def data(self, position: int) -> bytes | None:
        """The bytes of one record."""
        row = self._db.execute("SELECT data FROM record WHERE position = ?", (position,)).fetchone()
        return bytes(row[0]) if row else None

    def position_at(self, time_us: int) -> int:
        """The last position whose record says that it was written by then; 0 where none does."""
        (number,) = self._db.execute("SELECT max(number) FROM span WHERE earliest_us <= ?", (time_us,)).fetchone()
        if number is None:
            return 0
        inside = "SELECT max(position) FROM record WHERE position BETWEEN ? AND ? AND time_us <= ?"
        (position,) = self._db.execute(inside, (number * SPAN, number * SPAN + SPAN - 1, time_us)).fetchone()
        return int(position)

    def command(self, command_id: str) -> bytes | None:
        """The bytes of the record that a command led to."""
        sql = "SELECT data FROM record WHERE command = ? AND command <> '' ORDER BY position LIMIT 1"
        row = self._db.execute(sql, (command_id,)).fetchone()
        return bytes(row[0]) if row else None

    def index(self, entries: Sequence[Entry], *, tell: bool = False) -> list[FoundEvents]:
        """Add records in one transaction; those that are there already are passed over. With `tell` returns the new
        ones, as `events` would find them."""
        try:
            with transaction(self._db):
                known = self.position()
                new = [entry for entry in entries if entry.position > known]
                _add(self._db, new)
                if self._frontier is None or self._frontier.size != known:
                    self._frontier = frontier_at(self._db, known)
                grow(self._db, self._frontier, (entry.data for entry in new))
                return [self._told(entry) for entry in new] if tell else []
        except BaseException:
            self._frontier = None  # it may be ahead of what was rolled back
            raise

    def mend(self, first: int, records: Sequence[bytes]) -> list[int]:
        """Put good bytes in the place of bad ones; returns the positions that were mended. A row that is not there at
        all raises what a damaged file does."""
        mended: list[int] = []
        with transaction(self._db):
            for position, data in enumerate(records, first):
                row = self._db.execute("SELECT data FROM record WHERE position = ?", (position,)).fetchone()
                if row is None:
                    raise TreeGap(f"record {position} is missing")
                if bytes(row[0]) != data:
                    self._db.execute("UPDATE record SET data = ? WHERE position = ?", (data, position))
                    mended.append(position)
        return mended

    def read(self, first: int, limit: int, max_bytes: int) -> list[bytes]:
        """The bytes of up to `limit` records from position `first` on; at least one where there is one."""
        found: list[bytes] = []
        sql = "SELECT data FROM record WHERE position >= ? ORDER BY position LIMIT ?"
        for (data,) in self._db.execute(sql, (first, limit)):
            max_bytes -= len(data)
            if found and max_bytes < 0:
                break
            found.append(bytes(data))
        return found

    def root(self, size: int) -> bytes:
        """The root of the tree over the first `size` records, which are there."""
        with transaction(self._db, "DEFERRED"):
            return tree_root(size, stored_subtrees(self._db, size))

    def frontier(self, size: int) -> Frontier:
        """What the tree over the first `size` records, which are there, has to remember to grow."""
        with transaction(self._db, "DEFERRED"):
            return frontier_at(self._db, size)

    def inclusion(self, position: int, size: int) -> list[bytes]:
        """The proof that the record at `position` is among the first `size`, which are there. Raises Unproven."""
        with transaction(self._db, "DEFERRED"):
            return inclusion_proof(position - 1, size, stored_subtrees(self._db, size))

    def consistency(self, old: int, new: int) -> list[bytes]:
        """The proof that the first `old` records are the beginning of the first `new`, which are there. Raises
        Unproven."""
        with transaction(self._db, "DEFERRED"):
            return consistency_proof(old, new, stored_subtrees(self._db, new))

    def look(self, first: int, limit: int) -> RangeLook:
        """Hash up to `limit` records from `first` on anew, and compare with all that is stored."""
        with transaction(self._db, "DEFERRED"):
            return look_at_range(self._db, first, limit, self.position())

    def subjects(self, subject: str) -> tuple[str, ...]:
        """The exact subjects that `subject` stands for, and of which there is any history."""
        return find_subjects(self._db, subject)

    def actors(self, beginning: str) -> dict[str, int]:
        """The actors that begin like this, and how many records each has."""
        sql = "SELECT name, n FROM tally WHERE kind = 'actor' AND name >= ? AND name < ?"
        return dict(self._db.execute(sql, (beginning, f"{beginning}\U0010ffff")))

    def types(self) -> frozenset[str]:
        """The event types that occur."""
        return frozenset(occurring_types(self._db))

    def query(self, query: HistoryQuery) -> list[Found]:
        """The records that match. Raises Unavailable when the search takes too long."""
        with self._within_time():
            return self._find(query)

    def events(self, query: HistoryQuery) -> list[FoundEvents]:
        """The records that match, each with its keys. Raises Unavailable when the search takes too long."""
        with self._within_time():
            return [
                FoundEvents(one, keys_of(self._db, _decoder.decode(one.data), one.correlation))
                for one in self._find(query)
            ]

    def correlation(self, record_id: str) -> str:
        """The id of the record that the chain of this one began with; empty where there is no such record."""
        sql = "SELECT o.id FROM record r JOIN record o ON o.position = r.root WHERE r.id = ?"
        row = self._db.execute(sql, (record_id,)).fetchone()
        return str(row[0]) if row else ""

    def _told(self, entry: Entry) -> FoundEvents:
        found = Found(*self._db.execute(_FETCH, (entry.position,)).fetchone())
        return FoundEvents(found, keys_of(self._db, entry.record, found.correlation))

    def _find(self, query: HistoryQuery) -> list[Found]:
        return [Found(*self._db.execute(_FETCH, (one,)).fetchone()) for one in find_positions(self._db, query)]

    @contextlib.contextmanager
    def _within_time(self) -> Iterator[None]:
        give_up = time.monotonic() + QUERY_DEADLINE_S
        self._db.set_progress_handler(lambda: time.monotonic() > give_up, _STEPS_BETWEEN_LOOKS_AT_THE_CLOCK)
        try:
            with transaction(self._db, "DEFERRED"):  # all parts of the search see the same moment
                yield
        except sqlite3.OperationalError as error:
            if code_of(error) != sqlite3.SQLITE_INTERRUPT:
                raise
            raise Unavailable(
                f"the search took longer than {QUERY_DEADLINE_S:g} s",
                code="history.too_slow",
                hint="narrow it: a shorter time, a subject or a correlation",
            ) from error
        finally:
            self._db.set_progress_handler(None, 0)

    def close(self) -> None:
        """Close the connection."""
        self._db.close()


def _prepare(db: sqlite3.Connection) -> None:
    (found,) = db.execute("PRAGMA user_version").fetchone()
    if found not in (0, FORMAT):
        raise ForeignFormat(f"its format is {found:#x}, not {FORMAT:#x}")
    db.execute("PRAGMA journal_mode = WAL")
    # A power cut may lose the last records of the index, never their order: it resumes where it then stands.
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    if found == 0:
        db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} {TREE_SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT")


def _add(db: sqlite3.Connection, entries: Sequence[Entry]) -> None:
    events: list[tuple[str, int, str]] = []
    names: list[tuple[str, str, int]] = []
    spans: dict[int, tuple[int, int]] = {}
    tally: collections.Counter[tuple[str, str]] = collections.Counter()
    for entry in entries:
        record = entry.record
        actor = record.actor.principal
        row = (record.position, record.id, _root(db, record), record.time_us, actor, _command(record), entry.data)
        db.execute("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        earliest, latest = spans.get(record.position // SPAN, (record.time_us, record.time_us))
        spans[record.position // SPAN] = (min(earliest, record.time_us), max(latest, record.time_us))
        tally["actor", actor] += 1
        for subject, type_, event in about(record):
            events.append((str(subject), record.position, type_))
            tally["type", type_] += 1
            if isinstance(event, VmDefined | VmRenamed):
                names.append((event.name, event.vm, record.position))
            if isinstance(event, VmDefined | VmTagAdded | VmTagRemoved | VmRemoved):
                _keep_tags(db, str(subject), event, record.position)
    db.executemany("INSERT OR IGNORE INTO event VALUES (?, ?, ?)", events)
    db.executemany("INSERT OR IGNORE INTO name VALUES (?, ?, ?)", names)
    db.executemany(_MERGE_SPAN, [(number, *times) for number, times in spans.items()])
    db.executemany(_MERGE_TALLY, [(*key, n) for key, n in tally.items()])


def _root(db: sqlite3.Connection, record: Record) -> int:
    """The position of the beginning of the chain of causes; a cause is always earlier in the log."""
    if not record.cause:
        return record.position
    row = db.execute("SELECT root FROM record WHERE id = ?", (record.cause,)).fetchone()
    return int(row[0]) if row else record.position


def _command(record: Record) -> str:
    """The id of the command that was committed; a refusal commits nothing, so its id may come again."""
    refused = any(raw.type == CommandRejected.TYPE for raw in record.events)
    return "" if refused else record.command.id


def _keep_tags(
    db: sqlite3.Connection, subject: str, event: VmDefined | VmTagAdded | VmTagRemoved | VmRemoved, position: int
) -> None:
    match event:
        case VmDefined():
            db.executemany(_TAG, [(tag, subject, position, FOR_EVER) for tag in event.tags])
        case VmTagAdded():
            db.execute(_TAG, (event.tag, subject, position, FOR_EVER))
        case VmTagRemoved():
            db.execute(_UNTAG, (position, event.tag, subject, FOR_EVER))
        case VmRemoved():
            db.execute(_UNTAG_ALL, (position, subject, FOR_EVER))


_decoder = msgspec.msgpack.Decoder(Record)
