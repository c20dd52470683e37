"""The blocking half of the operations: one connection to their SQLite file, used from one thread at a time.

The file is made of the log and of nothing else. When it is damaged, of another version, or of another log, it is thrown
away and made again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from pvc.events.record import Record
from pvc.log.sqlite_common import ForeignFormat, make_private, transaction
from pvc.projections.operation_seen import Seen, VmPlace, seen_of
from pvc.projections.operations import (
    OPEN,
    Course,
    Member,
    Operation,
    OperationKind,
    after_record,
    begun_by,
)
from pvc.projections.vm_machine import VmState

FORMAT = 0x50564F02
"""Stands in the file's header."""

_BUSY_S = 5.0

_SCHEMA = """
CREATE TABLE operation (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    command TEXT NOT NULL,
    actor TEXT NOT NULL,
    state TEXT NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE INDEX operation_state ON operation (state, position);
CREATE INDEX operation_command ON operation (command, position);
CREATE INDEX operation_actor ON operation (actor, position);
CREATE TABLE subject (subject TEXT NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (subject, position))
STRICT, WITHOUT ROWID;
CREATE TABLE waits (subject TEXT NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (subject, position))
STRICT, WITHOUT ROWID;
CREATE INDEX waits_position ON waits (position);
CREATE TABLE member (
    position INTEGER NOT NULL,
    subject TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (position, subject)
) STRICT, WITHOUT ROWID;
CREATE TABLE vm (id TEXT PRIMARY KEY, name TEXT NOT NULL, node TEXT NOT NULL, state TEXT NOT NULL)
STRICT, WITHOUT ROWID;
CREATE INDEX vm_node ON vm (node);
CREATE TABLE reached (only INTEGER PRIMARY KEY CHECK (only = 1), position INTEGER NOT NULL, record TEXT NOT NULL)
STRICT;
INSERT INTO reached VALUES (1, 0, '');
"""
GONE = "gone"
"""The state of a VM that was removed: its name is still told."""


class OperationQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which operations are wanted: those that match everything that is given."""

    states: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    """Names, `vm.*` for all that begin with `vm.`."""
    actors: tuple[str, ...] = ()
    """As records name them."""
    subjects: tuple[str, ...] | None = None
    """Exact: about any of these; None: about anything."""
    among: tuple[str, ...] | None = None
    """The same, for what the reader may see."""
    before: int | None = None
    after: int | None = None
    """The range of positions, both ends not in it."""
    limit: int = 50
    ascending: bool = False


class Reached(NamedTuple):
    """The last record that was looked at."""

    position: int
    record: str


class OperationFile:
    """An open file. Methods raise sqlite3.Error, and MsgspecError where a row of it cannot be read."""

    def __init__(self, path: Path, kinds: Mapping[str, OperationKind]) -> None:
        make_private(path)
        self._kinds = kinds
        self._anywhere = frozenset(end for kind in kinds.values() if kind.anywhere for end in kind.outcomes)
        self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            _prepare(self._db)
        except BaseException:
            self._db.close()
            raise

    def reached(self) -> Reached:
        """Up to where the log was looked at."""
        row = self._db.execute("SELECT position, record FROM reached").fetchone()
        if row is None:
            raise ForeignFormat("it does not say how far it goes")
        return Reached(*row)

    def fold(self, batch: Sequence[bytes]) -> set[str]:
        """Go on with these records, in order, in one transaction, and not beyond bytes that are no record; returns the
        ids of the operations that changed."""
        changed: set[str] = set()
        with transaction(self._db):
            position = self.reached().position
            for data in batch:
                try:
                    record = _records.decode(data)
                except msgspec.MsgspecError:
                    break
                if record.position == position + 1:
                    changed |= self._fold(record)
                    position = record.position
                    self._db.execute("UPDATE reached SET position = ?, record = ?", (position, record.id))
        return changed

    def get(self, operation_id: str) -> Operation | None:
        """One operation."""
        row = self._db.execute("SELECT data FROM operation WHERE id = ?", (operation_id,)).fetchone()
        return _operations.decode(row[0]) if row else None

    def members(self, position: int, limit: int) -> list[Member]:
        """The VMs of an operation that is about many."""
        sql = "SELECT data FROM member WHERE position = ? ORDER BY subject LIMIT ?"
        return [_members.decode(data) for (data,) in self._db.execute(sql, (position, limit))]

    def find(self, query: OperationQuery) -> list[Operation]:
        """The operations that match, newest first unless `ascending`."""
        where, values = ["TRUE"], list[object]()
        for column, wanted in (("state", query.states), ("actor", query.actors)):
            if wanted:
                where.append(f"{column} IN ({_marks(wanted)})")
                values += wanted
        if query.commands:
            names = [name for name in self._kinds if any(_means(asked, name) for asked in query.commands)]
            where.append(f"command IN ({_marks(names)})")
            values += names
        for subjects in (query.subjects, query.among):
            if subjects is not None:
                about = f"SELECT position FROM subject WHERE subject IN ({_marks(subjects)})"  # noqa: S608 - as below
                where.append(f"position IN ({about})")
                values += subjects
        if query.before is not None:
            where.append("position < ?")
            values.append(query.before)
        if query.after is not None:
            where.append("position > ?")
            values.append(query.after)
        # Put together from this module's own words alone; every value is bound.
        sql = (
            f"SELECT data FROM operation WHERE {' AND '.join(where)} "  # noqa: S608
            f"ORDER BY position {'ASC' if query.ascending else 'DESC'} LIMIT ?"
        )
        return [_operations.decode(data) for (data,) in self._db.execute(sql, (*values, query.limit))]

    def names(self, subjects: Sequence[str]) -> dict[str, str]:
        """What the VMs among these subjects are called, or were when they were removed."""
        found = {}
        for subject in subjects:
            row = self._db.execute("SELECT name FROM vm WHERE id = ?", (subject.partition("/")[2],)).fetchone()
            if row and subject.startswith("vm/"):
                found[subject] = row[0]
        return found

    def places(self) -> list[tuple[str, str, str, str]]:
        """Id, name, node and state of each VM that there ever was, as far as operations know."""
        return self._db.execute("SELECT id, name, node, state FROM vm").fetchall()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _fold(self, record: Record) -> set[str]:
        kind = self._kinds.get(record.command.name)
        on_node: list[str] = []
        places = self._places_of(record)
        before = dict(places)
        seen = seen_of(record, places)
        if kind is not None and kind.course in (Course.EMPTYING, Course.RECOVERY):
            node = next((one.subject.partition("/")[2] for one in seen if one.subject.startswith("node/")), "")
            on_node = self._active_on(node)  # before this record
        self._keep_places(before, places)
        changed = set[str]()
        for operation in self._about(record, seen):
            kind_of_it = self._kinds.get(operation.command)
            if kind_of_it is None:
                continue  # of another version's command
            among = self.members(operation.position, -1) if kind_of_it.course is not Course.OUTCOME else []
            known = {member.subject: member for member in among}
            later, members = after_record(operation, known, record, seen, kind_of_it)
            if later != operation or members:
                self._keep(later, members)
                changed.add(later.id)
        begun = begun_by(record, seen, kind, on_node)
        if begun is not None:
            self._keep(*begun, new=True)
            changed.add(begun[0].id)
        return changed

    def _about(self, record: Record, seen: Sequence[Seen]) -> list[Operation]:
        """The open operations that a record may change."""
        positions = set[int]()
        ends = (one.raw.type for one in seen if one.raw.type in self._anywhere)
        for subject in dict.fromkeys((*(one.subject for one in seen), *ends)):
            sql = "SELECT position FROM waits WHERE subject = ?"
            positions.update(position for (position,) in self._db.execute(sql, (subject,)))
        if record.cause:
            row = self._db.execute("SELECT position FROM operation WHERE id = ?", (record.cause,)).fetchone()
            positions.update(row or ())
        found = []
        for position in sorted(positions):
            (data,) = self._db.execute("SELECT data FROM operation WHERE position = ?", (position,)).fetchone()
            operation = _operations.decode(data)
            if operation.open:
                found.append(operation)
        return found

    def _keep(self, operation: Operation, members: Mapping[str, Member], *, new: bool = False) -> None:
        db, position = self._db, operation.position
        row = (position, operation.id, operation.command, operation.actor, operation.state.value, _encode(operation))
        db.execute("INSERT OR REPLACE INTO operation VALUES (?, ?, ?, ?, ?, ?)", row)
        rows = [(position, member.subject, _encode(member)) for member in members.values()]
        db.executemany("INSERT OR REPLACE INTO member VALUES (?, ?, ?)", rows)
        if new:
            subjects = [(subject, position) for subject in operation.subjects]
            db.executemany("INSERT OR IGNORE INTO subject VALUES (?, ?)", subjects)
        if operation.state not in OPEN:
            db.execute("DELETE FROM waits WHERE position = ?", (position,))
            return
        kind = self._kinds.get(operation.command)
        # A type of events cannot be taken for a subject: one has a dot, the other a slash, or neither.
        ends = kind.outcomes if kind is not None and kind.anywhere else ()
        waits = [(subject, position) for subject in (*((*operation.subjects, *ends) if new else ()), *members)]
        db.executemany("INSERT OR IGNORE INTO waits VALUES (?, ?)", waits)

    def _places_of(self, record: Record) -> dict[str, VmPlace]:
        """Where the VMs stand that a record is about."""
        ids = dict.fromkeys(vm for raw in record.events if (vm := _vm_of(raw.data)))
        found = {}
        for vm in ids:
            row = self._db.execute("SELECT name, node, state FROM vm WHERE id = ?", (vm,)).fetchone()
            if row and row[2] != GONE:
                found[vm] = VmPlace(name=row[0], node=row[1], state=VmState(row[2]))
        return found

    def _keep_places(self, before: Mapping[str, VmPlace], after: Mapping[str, VmPlace]) -> None:
        for vm, place in after.items():
            if before.get(vm) != place:
                row = (vm, place.name, place.node, place.state.value)
                self._db.execute("INSERT OR REPLACE INTO vm VALUES (?, ?, ?, ?)", row)
        for vm in before.keys() - after.keys():
            self._db.execute("UPDATE vm SET state = ?, node = '' WHERE id = ?", (GONE, vm))

    def _active_on(self, node: str) -> list[str]:
        sql = "SELECT id, name, node, state FROM vm WHERE node = ? AND state != ? ORDER BY name"
        return [
            vm
            for vm, name, where, state in self._db.execute(sql, (node, GONE))
            if VmPlace(name=name, node=where, state=VmState(state)).active
        ]


class _About(msgspec.Struct):
    """As much of an event as tells which VM it is about."""

    vm: str = ""


def _vm_of(data: msgspec.Raw) -> str:
    try:
        return _abouts.decode(data).vm
    except msgspec.MsgspecError:
        return ""


def _prepare(db: sqlite3.Connection) -> None:
    (found,) = db.execute("PRAGMA user_version").fetchone()
    if found not in (0, FORMAT):
        raise ForeignFormat(f"its format is {found:#x}, not {FORMAT:#x}")
    db.execute("PRAGMA journal_mode = WAL")
    # A power cut may lose the last records, never their order: it goes on from where it then stands.
    db.execute("PRAGMA synchronous = NORMAL")
    if found == 0:
        db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT")


def _means(asked: str, name: str) -> bool:
    return name.startswith(asked[:-1]) if asked.endswith("*") else name == asked


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


_records = msgspec.msgpack.Decoder(Record)
_operations = msgspec.msgpack.Decoder(Operation)
_members = msgspec.msgpack.Decoder(Member)
_abouts = msgspec.msgpack.Decoder(_About)
_encode = msgspec.msgpack.Encoder().encode
