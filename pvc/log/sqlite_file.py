"""The blocking half of the SQLite log: one connection to one file, used from one thread (see `pvc.log.sqlite`).

WAL with synchronous=FULL: a commit returns after its bytes are on the disk, and readers never wait for a writer.
What SQLite says about a full, broken, foreign or unreachable file is translated here, once, into the error tree.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pvc.errors import LogDamaged, OutcomeUnknown, PvcError, Unavailable
from pvc.events.record import EMPTY, ZERO_HASH, Entry, Head, unseal
from pvc.log.base import MAX_READ_BYTES, conflict
from pvc.log.sqlite_common import code_of, make_private, transaction

BUSY_S = 5.0
"""How long an append waits for another process's transaction, which takes milliseconds."""

APPLICATION_ID = 0x50564301
"""Says in the file's header that it is a log of PVC, format 1; `file` shows it, a foreign database has another."""

_CACHE_KIB = 8_192
"""Enough for the inner pages of a log of some ten million records."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    hash BLOB NOT NULL,
    data BLOB NOT NULL
) STRICT
"""
_HEAD = "SELECT position, hash, id FROM record ORDER BY position DESC LIMIT 1"
_INSERT = "INSERT INTO record (position, id, hash, data) VALUES (?, ?, ?, ?)"
_READ = "SELECT position, data FROM record WHERE position >= ? ORDER BY position LIMIT ?"

_NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_CONTENDED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


class LogFile:
    """An open log file. Every method may raise Unavailable or LogDamaged."""

    def __init__(self, path: Path) -> None:
        self._path = path
        _check_place(path)
        with self._translated("open"):
            self._db = _connect(path)
        try:
            with self._translated("open"):
                _prepare(self._db, path)
                _check_tail(self._db, path)
        except BaseException:
            self._db.close()
            raise

    def head(self) -> Head:
        """Position, hash and id of the last record."""
        with self._translated("read"):
            return _head(self._db)

    def append(self, entries: Sequence[Entry], after: Head) -> Head:
        """Insert all entries and wait for the disk, if the head is `after`; else Conflict."""
        with self._translated("append to"), transaction(self._db):
            found = _head(self._db)
            if found != after:
                raise conflict(found, after)
            rows = ((entry.position, entry.record.id, entry.hash, entry.data) for entry in entries)
            self._db.executemany(_INSERT, rows)
        return entries[-1].head

    def read(self, first: int, limit: int) -> list[bytes]:
        """Stored bytes from `first` on, at most `limit` records and about MAX_READ_BYTES; LogDamaged at a hole."""
        batch: list[bytes] = []
        size = 0
        with self._translated("read"), contextlib.closing(self._db.execute(_READ, (first, limit))) as rows:
            for position, data in rows:
                if position != first + len(batch):
                    raise LogDamaged(
                        f"{self._path} has no record {first + len(batch)}, but it has {position}",
                        code="log.gap",
                        hint=_RESTORE,
                    )
                batch.append(data)
                size += len(data)
                if size >= MAX_READ_BYTES:
                    break
        return batch

    def close(self) -> None:
        """Close the connection; the last one to close folds the WAL into the file."""
        self._db.close()

    @contextlib.contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _translate(error, self._path, doing) from error


def fold_wal(path: Path) -> None:
    """Bring all of a log that nobody here has open into its one file, which can then be moved. Blocks up to BUSY_S.

    Closing does the same, but says nothing where it cannot. Raises Unavailable (`log.busy`, `log.disk_full`),
    LogDamaged; the log is whole then, in its two files.
    """
    wal = Path(f"{path}-wal")
    try:
        with contextlib.closing(_connect(path)) as db:
            db.execute("PRAGMA synchronous = FULL")
            busy, *_ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        raise _translate(error, path, "fold the WAL of") from error
    if busy or (wal.exists() and wal.stat().st_size):
        raise Unavailable(
            f"cannot bring all of {path} into one file: another process reads it",
            code="log.busy",
            hint=f"see who has it open with `fuser {path}`, end that, and try again",
        )


_RESTORE = (
    "stop the node, move the file aside and restore it from a backup; in a cluster of several nodes remove it, "
    "and it is filled again from the cluster's log"
)


def _check_place(path: Path) -> None:
    """SQLite only ever says "unable to open database file"; say which of the reasons it is."""
    folder = path.parent
    problem, hint = "", ""
    if not folder.is_dir():
        problem, hint = f"there is no directory {folder}", f"create it: mkdir -p {folder}"
    elif path.is_dir():
        problem, hint = f"{path} is a directory", "name a file in it"
    elif not os.access(folder, os.W_OK | os.X_OK):
        problem, hint = f"the directory {folder} is not writable", "make it writable for the user that runs pvcd"
    elif path.exists() and not os.access(path, os.R_OK | os.W_OK):
        problem, hint = f"{path} is not readable and writable", "make it so for the user that runs pvcd"
    if problem:
        raise Unavailable(f"cannot open the log: {problem}", code="log.cannot_open", hint=hint)


def _connect(path: Path) -> sqlite3.Connection:
    try:
        make_private(path)
    except OSError as error:
        raise Unavailable(
            f"cannot open the log: {path} cannot be created: {error.strerror}",
            code="log.cannot_open",
            hint="see that its file system is mounted writable and has room",
        ) from error
    # Opened in the one thread that uses it, closed perhaps from another when opening fails half-way.
    return sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    with transaction(db, "DEFERRED"):  # both from one snapshot: another process may be creating the file
        (found,) = db.execute("PRAGMA application_id").fetchone()
        (objects,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if found != APPLICATION_ID and (found or objects):
        raise LogDamaged(
            f"{path} is a database, but not a log of this version of PVC",
            code="log.foreign_file",
            hint="name another file, or upgrade PVC if a newer version wrote it",
        )
    _switch_to_wal(db)
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    if found != APPLICATION_ID:
        with transaction(db):
            db.execute(_SCHEMA)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _switch_to_wal(db: sqlite3.Connection) -> None:
    """Several processes may create the file at once; SQLite then refuses the switch without waiting as asked."""
    until = time.monotonic() + BUSY_S
    while True:
        try:
            (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if code_of(error) & 0xFF not in _CONTENDED or time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            assert mode == "wal", f"this file system cannot hold a WAL (journal mode {mode})"
            return


def _check_tail(db: sqlite3.Connection, path: Path) -> None:
    """The last record must have its hash and continue the one before: a torn or edited tail shows here at once."""
    last = db.execute("SELECT position, id, hash, data FROM record ORDER BY position DESC LIMIT 2").fetchall()
    if not last:
        return
    position, record_id, stored, data = last[0]
    before = last[1][2] if len(last) == 2 else ZERO_HASH
    entry = unseal(data) if hashlib.sha256(data).digest() == stored else None
    sound = (
        entry is not None
        and (entry.position, entry.record.id, entry.record.prev) == (position, record_id, before)
        and (position == 1 or (len(last) == 2 and last[1][0] == position - 1))
    )
    if not sound:
        raise LogDamaged(
            f"the last record of {path}, at position {position}, is not the one that was written there",
            code="log.corrupt",
            hint=_RESTORE,
        )


def _head(db: sqlite3.Connection) -> Head:
    row = db.execute(_HEAD).fetchone()
    return Head(position=row[0], hash=row[1], record_id=row[2]) if row else EMPTY


def _translate(error: sqlite3.Error, path: Path, doing: str) -> PvcError:
    code = code_of(error)
    if code in _NO_ROOM:
        return Unavailable(
            f"cannot {doing} {path}: the disk is full",
            code="log.disk_full",
            hint="nothing was written or lost; free some space in its file system and try again",
        )
    if code & 0xFF in _DAMAGED:
        return LogDamaged(f"cannot {doing} {path}: {error}", code="log.corrupt", hint=_RESTORE)
    if code & 0xFF in _CONTENDED:
        return Unavailable(
            f"cannot {doing} {path}: another process has held its lock for {BUSY_S:g} s",
            code="log.busy",
            hint="see who has it open with `fuser`; a backup must use SQLite's own (`sqlite3 FILE .backup`)",
        )
    if code & 0xFF == sqlite3.SQLITE_IOERR and code != sqlite3.SQLITE_IOERR_WRITE and doing.startswith("append"):
        # A failed flush: the record may or may not be on the disk, and only a restart would tell.
        return OutcomeUnknown(
            f"cannot {doing} {path}: {error}",
            code="log.io_error",
            hint="the disk reports errors; see the kernel's log",
        )
    if code & 0xFF in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return Unavailable(
            f"cannot {doing} {path}: {error}",
            code="log.io_error" if code & 0xFF == sqlite3.SQLITE_IOERR else "log.cannot_open",
            hint="see that the file system is mounted writable and the kernel's log is free of disk errors",
        )
    return PvcError(f"cannot {doing} {path}: {error}", code="log.sqlite")
