"""Replaces a file in one step: whoever reads it, also after a crash or a power cut, finds all of the old or the new."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def replace_file(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Put `content` in the place of `path`, with these permissions from its first instant (less the umask).

    Raises OSError; the old file is untouched then, and nothing is left beside it.
    """
    # The thread's number, which is the process's own for its first one: two threads do not get in each other's way.
    scratch = path.with_name(f".{path.name}.{threading.get_native_id()}")
    scratch.unlink(missing_ok=True)  # of a process that died in the middle and had the same number
    try:
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def flush_directory(path: Path) -> None:
    """Return when the names in this directory are on the disk. Raises OSError."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
