"""What the SQLite log says about bad places, damaged files and full disks, and that it loses nothing over them."""

from __future__ import annotations

import asyncio
import errno
import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from pvc import disk_thread
from pvc.errors import LogDamaged, OutcomeUnknown, PvcError, Unavailable
from pvc.events.record import EMPTY
from pvc.log import sqlite as sqlite_log
from pvc.log import sqlite_file
from pvc.log.sqlite import SqliteLog
from pvc.log.sqlite_file import LogFile
from tests.contract.log_contract import read_all, take
from tests.contract.log_records import a_chain, an_entry, bytes_of


async def a_log_of(path: Path, count: int) -> list[bytes]:
    """A closed log file with `count` records; returns their bytes."""
    log = await SqliteLog.open(path)
    entries = a_chain(EMPTY, count, size=500)
    await log.append(entries, after=EMPTY)
    await log.close()
    return bytes_of(entries)


async def refusal_of(path: Path) -> PvcError:
    with pytest.raises(PvcError) as refusal:
        await SqliteLog.open(path)
    return refusal.value


async def test_a_closed_log_opens_again_with_all_its_records(tmp_path: Path) -> None:
    stored = await a_log_of(tmp_path / "log.db", 20)
    log = await SqliteLog.open(tmp_path / "log.db")
    assert await read_all(log) == stored
    head = await log.head()
    await log.append([an_entry(head)], after=head)
    assert (await log.head()).position == 21
    await log.close()


async def test_only_its_owner_may_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    log = await SqliteLog.open(path)
    await log.append([an_entry(EMPTY)], after=EMPTY)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == {"log.db": 0o600, "log.db-wal": 0o600, "log.db-shm": 0o600}
    await log.close()


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    error = await refusal_of(tmp_path / "nowhere" / "log.db")
    assert (type(error), error.code) == (Unavailable, "log.cannot_open")
    assert str(tmp_path / "nowhere") in error.message
    assert "mkdir" in error.hint


async def test_a_directory_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    error = await refusal_of(tmp_path)
    assert (type(error), error.code) == (Unavailable, "log.cannot_open")
    assert "is a directory" in error.message


async def test_a_disk_without_room_for_a_new_log_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sqlite_file, "make_private", no_room)
    error = await refusal_of(tmp_path / "log.db")
    assert (type(error), error.code) == (Unavailable, "log.cannot_open")
    assert "No space left" in error.message and error.hint


async def test_a_disk_that_does_not_answer_at_the_start_is_waited_for_only_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_thread, "DEADLINE_S", 0.05)
    thaw = threading.Event()
    monkeypatch.setattr(sqlite_file, "make_private", lambda path: thaw.wait(5))
    error = await refusal_of(tmp_path / "log.db")
    thaw.set()
    assert (isinstance(error, Unavailable), error.code) == (True, "log.timeout")


async def test_a_file_that_is_no_database_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    path.write_bytes(b"these are not the bytes you are looking for " * 100)
    error = await refusal_of(path)
    assert (type(error), error.code) == (LogDamaged, "log.corrupt")
    assert "restore" in error.hint


async def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE photo (name TEXT)")
    before = path.read_bytes()
    error = await refusal_of(path)
    assert (type(error), error.code) == (LogDamaged, "log.foreign_file")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "forgery",
    [
        "UPDATE record SET data = CAST(data || x'00' AS BLOB) WHERE position = 20",
        "UPDATE record SET hash = zeroblob(32) WHERE position = 19",
        "UPDATE record SET id = 'another' WHERE position = 20",
        "DELETE FROM record WHERE position = 19",
        "INSERT INTO record SELECT 21, id, hash, data FROM record WHERE position = 20",
    ],
)
async def test_a_forged_tail_is_found_on_opening(tmp_path: Path, forgery: str) -> None:
    path = tmp_path / "log.db"
    await a_log_of(path, 20)
    with sqlite3.connect(path) as db:
        assert db.execute(forgery).rowcount == 1
    error = await refusal_of(path)
    assert (type(error), error.code) == (LogDamaged, "log.corrupt")


async def test_a_hole_is_found_on_reading(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await a_log_of(path, 20)
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM record WHERE position = 7")
    log = await SqliteLog.open(path)
    for first in (1, 7):
        with pytest.raises(LogDamaged) as damage:
            await log.read(first, 20)
        assert damage.value.code == "log.gap"
    with pytest.raises(LogDamaged):
        await take(log.follow(0), 20)
    await log.close()


async def test_pages_overwritten_on_the_disk_are_damage_for_readers_and_followers(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await a_log_of(path, 200)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xde\xad" * ((size - 8192 - 65536) // 2))  # the tail, which opening verifies, stays
    log = await SqliteLog.open(path)
    with pytest.raises(LogDamaged) as damage:
        await read_all(log)
    assert damage.value.code == "log.corrupt"
    with pytest.raises(LogDamaged):
        await take(log.follow(0), 200)
    await log.close()


async def test_a_full_file_refuses_the_append_whole_and_takes_it_when_there_is_room(tmp_path: Path) -> None:
    log = await SqliteLog.open(tmp_path / "log.db")
    kept = a_chain(EMPTY, 3, size=1_000)
    head = await log.append(kept, after=EMPTY)
    (pages,) = await log._run(lambda file: file._db.execute("PRAGMA page_count").fetchone())
    await log._run(lambda file: file._db.execute(f"PRAGMA max_page_count = {pages + 2}").fetchone())
    more = a_chain(head, 100, size=1_000)
    with pytest.raises(Unavailable) as refusal:
        await log.append(more, after=head)
    assert refusal.value.code == "log.disk_full"
    assert "free some space" in refusal.value.hint
    assert await log.head() == head
    assert await read_all(log) == bytes_of(kept)
    await log._run(lambda file: file._db.execute("PRAGMA max_page_count = 1000000").fetchone())
    assert await log.append(more, after=head) == more[-1].head
    assert await read_all(log) == bytes_of([*kept, *more])
    await log.close()


async def test_a_file_locked_by_another_program_is_busy_not_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pvc.log.sqlite_file.BUSY_S", 0.1)
    path = tmp_path / "log.db"
    log = await SqliteLog.open(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable) as refusal:
        await log.append([an_entry(EMPTY)], after=EMPTY)
    assert refusal.value.code == "log.busy"
    assert await log.head() == EMPTY  # reading goes on
    other.execute("ROLLBACK")
    other.close()
    await log.append([an_entry(EMPTY)], after=EMPTY)
    await log.close()


async def test_a_disk_that_does_not_answer_leaves_the_outcome_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await SqliteLog.open(tmp_path / "log.db")
    locker = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(disk_thread, "DEADLINE_S", 0.1)
    entry = an_entry(EMPTY)
    with pytest.raises(OutcomeUnknown):
        await log.append([entry], after=EMPTY)
    with pytest.raises(Unavailable) as refusal:
        await log.head()  # waits for its turn behind the append
    assert refusal.value.code == "log.timeout"
    monkeypatch.setattr(disk_thread, "DEADLINE_S", 10)
    locker.execute("ROLLBACK")
    locker.close()
    assert await log.head() == entry.head  # it did take place
    await log.close()


async def test_an_idle_log_does_not_look_at_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await SqliteLog.open(tmp_path / "log.db")
    looks = 0
    look = LogFile.head

    def counted(file: LogFile) -> object:
        nonlocal looks
        looks += 1
        return look(file)

    monkeypatch.setattr(LogFile, "head", counted)
    followers = [asyncio.create_task(take(log.follow(0), 1)) for _ in range(50)]
    await asyncio.sleep(0.5)
    assert 3 <= looks <= 20, "one lookup serves all followers"
    for follower in followers:
        follower.cancel()
    await asyncio.wait(followers)
    await asyncio.sleep(3 * sqlite_log.POLL_S)
    looks = 0
    await asyncio.sleep(0.2)
    assert looks == 0, "nobody follows"
    await log.close()
