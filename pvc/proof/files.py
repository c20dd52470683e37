"""Stored logs verified without a daemon: exported files, the archive's segments, and the databases that a node keeps.

Reading stays in this process; the hashing goes to as many processes as there are processors.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pvc.proof.findings import Finding, Kind, Unproven
from pvc.proof.frames import BLOCK_RECORDS, MAGIC, Block, Damaged, End, is_intact, read_file, records_of
from pvc.proof.scan import Portion, scan
from pvc.proof.verify import Verifier

SQLITE_MAGIC = b"SQLite format 3\x00"

SMALL = 20_000
"""Records up to which it is not worth while to start processes."""

Progress = Callable[[int], None]
"""Told the last position taken."""


class Rows(NamedTuple):
    """Records from a database."""

    first: int
    data: list[bytes]


class Trouble(NamedTuple):
    """Records that could not be read."""

    finding: Finding


Part = Block | Rows | End | Trouble


def verify_files(
    paths: Sequence[Path], verifier: Verifier, *, workers: int = 0, progress: Progress | None = None
) -> None:
    """Give the records of these files, in order, to the verifier. `workers`: processes; 0: one for each processor.

    Raises Unproven when a file is of no known kind, OSError when it cannot be read.
    """
    parts = _all_parts(paths)
    count = workers or len(os.sched_getaffinity(0))
    head: list[Part] = []
    for part in parts:  # a few blocks first: a small log is verified before processes would have started
        head.append(part)
        if sum(_count(each) for each in head) > SMALL:
            break
    with contextlib.ExitStack() as stack:
        large = count > 1 and sum(_count(each) for each in head) > SMALL
        pool = stack.enter_context(_pool(count)) if large else None
        _take_all(_chained(head, parts), verifier, pool, 2 * count + 2, progress)


def look(part: Block | Rows) -> Portion | Trouble:
    """Hash the records of a part; runs in any process."""
    try:
        if isinstance(part, Rows):
            return scan(part.first, part.data)
        portion = scan(part.first, records_of(part))
    except Damaged as error:
        return Trouble(_damage(error))
    if not is_intact(part) and not portion.findings:
        # Nothing inside contradicts itself, so it is the last record, of which no other one has the hash.
        message = f"records {part.first} to {part.last}: the checksum is wrong, most likely in the last one"
        return Trouble(Finding(position=part.first, last=part.last, kind=Kind.DAMAGED, message=message))
    return portion


def _take_all(
    parts: Iterator[Part],
    verifier: Verifier,
    pool: ProcessPoolExecutor | None,
    ahead: int,
    progress: Progress | None,
) -> None:
    waiting: deque[Part | Future[Portion | Trouble]] = deque()
    last = (0, b"")
    more = True
    while more or waiting:
        while more and len(waiting) < ahead:
            part = next(parts, None)
            if part is None:
                more = False
            elif pool is not None and isinstance(part, Block | Rows):
                waiting.append(pool.submit(look, part))
            else:
                waiting.append(part)
                if pool is None:
                    break
        if not waiting:
            continue
        item = waiting.popleft()
        found = item.result() if isinstance(item, Future) else look(item) if isinstance(item, Block | Rows) else item
        if isinstance(found, Portion):
            verifier.take(found)
            last = (found.last, found.head)
            if progress is not None:
                progress(found.last)
        elif isinstance(found, End):
            _check_end(found, last, verifier)
        elif isinstance(found, Trouble):
            verifier.miss(found.finding)
            last = (0, b"")


def _check_end(end: End, last: tuple[int, bytes], verifier: Verifier) -> None:
    position, head = last
    if not position:
        return  # the last record could not be read, which has been told
    if end.last != position:
        message = f"records {position + 1} to {end.last} are missing at the end of the file"
        verifier.miss(Finding(position=position + 1, last=end.last, kind=Kind.TRUNCATED, message=message))
    elif end.head_hash != head:
        message = f"record {position} was changed: its hash is not the one at the end of the file"
        verifier.miss(Finding(position=position, last=position, kind=Kind.CHAIN, message=message))


def _all_parts(paths: Sequence[Path]) -> Iterator[Part]:
    for path in paths:
        if str(path) == "-":
            import sys

            yield from _parts_of_file(sys.stdin.buffer)
            continue
        with path.open("rb") as file:
            beginning = file.read(len(SQLITE_MAGIC))
            file.seek(0)
            if beginning.startswith(MAGIC):
                yield from _parts_of_file(file)
            elif beginning == SQLITE_MAGIC:
                yield from _parts_of_database(path)
            else:
                raise Unproven(
                    f"{path} is neither an exported log nor a database with records",
                    code="proof.foreign_file",
                    hint="`pvc log export FILE` makes one; a node keeps log.db and history.db in its data directory",
                )


def _parts_of_file(file: BinaryIO) -> Iterator[Part]:
    try:
        yield from read_file(file)
    except Damaged as error:
        yield Trouble(_damage(error))


def _parts_of_database(path: Path) -> Iterator[Part]:
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            rows = db.execute("SELECT position, data FROM record ORDER BY position")
            while chunk := rows.fetchmany(BLOCK_RECORDS):
                yield from _runs([(int(position), bytes(data)) for position, data in chunk])
    except sqlite3.Error as error:
        message = f"the database {path} cannot be read on: {error}"
        yield Trouble(Finding(position=0, kind=Kind.DAMAGED, message=message))


def _runs(rows: Sequence[tuple[int, bytes]]) -> Iterator[Rows]:
    """The rows in runs without a gap."""
    begun = 0
    for at in range(1, len(rows) + 1):
        if at == len(rows) or rows[at][0] != rows[at - 1][0] + 1:
            yield Rows(rows[begun][0], [data for _, data in rows[begun:at]])
            begun = at


def _damage(error: Damaged) -> Finding:
    kind = Kind.TRUNCATED if error.truncated else Kind.DAMAGED
    return Finding(position=error.first, last=error.last, kind=kind, message=error.message)


def _count(part: Part) -> int:
    return part.records if isinstance(part, Block) else len(part.data) if isinstance(part, Rows) else 0


def _chained(head: Sequence[Part], rest: Iterator[Part]) -> Iterator[Part]:
    yield from head
    yield from rest


def _pool(count: int) -> ProcessPoolExecutor:
    # Forked: it starts at once, and this process has no threads yet that it could catch holding a lock.
    return concurrent.futures.ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("fork"))
