"""What the log's file and the history index's have in common: private files, whole transactions, codes of errors."""

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


def code_of(error: BaseException) -> int:
    """SQLite's extended result code, 0 where the error has none; `& 0xFF` gives the primary one."""
    return int(getattr(error, "sqlite_errorcode", 0))
