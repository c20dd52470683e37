"""What all SQLite files have in common: private files, whole transactions, what their errors mean, and their end."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path


def make_private(path: Path) -> None:
    """Create an empty file for the owner alone, unless there is one. SQLite itself would let everyone read it, and
    records name people and addresses. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))


@contextlib.contextmanager
def transaction(db: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """All of the block or nothing. IMMEDIATE takes the write lock first, so nothing changes between the block's reads
    and its writes; DEFERRED makes all its reads see the same moment."""
    db.execute(f"BEGIN {kind}")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # on some errors SQLite has rolled back by itself
            with contextlib.suppress(sqlite3.Error):  # the first error is the one to report
                db.execute("ROLLBACK")
        raise


class ForeignFormat(sqlite3.DatabaseError):
    """The file is a database, but not of this version of what it is for."""


def means_damage(error: Exception) -> bool:
    """Whether the file is broken, no database, or of another version, so that one which can be made again should be."""
    return isinstance(error, ForeignFormat) or code_of(error) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def remove_database(path: Path) -> None:
    """Have no such file any more, nor what SQLite keeps beside it. Raises OSError."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def code_of(error: BaseException) -> int:
    """SQLite's extended result code, 0 where the error has none; `& 0xFF` gives the primary one."""
    return int(getattr(error, "sqlite_errorcode", 0))
