"""The operations outlive damage: of their own file, and of the replica that they are made from."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pvc.errors import Unavailable
from pvc.log.history import HistoryIndex
from pvc.log.memory import MemoryLog
from pvc.runtime.operation_file import OperationFile, OperationQuery
from pvc.runtime.operations import Operations
from tests.support.core import TinyCluster
from tests.support.story_of_a_cluster import live
from tests.unit.test_history_index import a_log

RECORDS = 700
BAD = 650


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pvc.runtime.operations.PAUSE_S", 0.05)


@contextlib.asynccontextmanager
async def running(operations: Operations, history: HistoryIndex) -> AsyncIterator[None]:
    following = asyncio.create_task(operations.run(history))
    try:
        yield
    finally:
        following.cancel()
        ended = await asyncio.gather(following, return_exceptions=True)
        assert isinstance(ended[0], asyncio.CancelledError), "it ended by itself"


async def a_replica(path: Path, damage: str) -> tuple[HistoryIndex, MemoryLog]:
    """An index of a log of `RECORDS` records, damaged as the SQL says; and the log, which is whole."""
    entries = a_log(RECORDS)
    log = MemoryLog()
    for first in range(0, RECORDS, 100):
        await log.append(entries[first : first + 100], after=await log.head())
    history = await HistoryIndex.open(path)
    await history.index(entries)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(damage)
        db.commit()
    return history, log


@pytest.mark.parametrize("damage", ["page", "row"])
async def test_a_file_that_does_not_say_how_far_it_goes_is_made_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "operations.db"
    await (await Operations.open(path)).close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'reached'").fetchone()
        (page_size,) = db.execute("PRAGMA page_size").fetchone()
        if damage == "row":
            db.execute("DELETE FROM reached")
            db.commit()
    if damage == "page":
        with path.open("r+b") as file:
            file.seek((root - 1) * page_size)
            file.write(b"\xff" * 200)
    operations = await Operations.open(path)
    assert operations.position == 0
    assert await operations.find(OperationQuery()) == []
    await operations.close()


async def test_a_file_with_an_operation_that_cannot_be_read_is_made_anew(tmp_path: Path) -> None:
    story = TinyCluster()
    for _ in live(story):
        pass
    history = await HistoryIndex.open(tmp_path / "history.db")
    await history.index(story.entries)
    operations = await Operations.open(tmp_path / "operations.db")
    async with running(operations, history):
        await operations.reach(story.state.position, 20)
        before = await operations.find(OperationQuery())
        with contextlib.closing(sqlite3.connect(tmp_path / "operations.db")) as db:
            db.execute("UPDATE operation SET data = x'c1'")
            db.commit()
        with pytest.raises(Unavailable) as failure:
            await operations.find(OperationQuery())
        assert failure.value.code == "operation.disk"
        await operations.reach(story.state.position, 20)
        assert await operations.find(OperationQuery()) == before
    await operations.close()
    await history.close()


@pytest.mark.parametrize(
    "damage",
    [
        f"UPDATE record SET data = x'c1c1c1' WHERE position = {BAD}",
        f"DELETE FROM record WHERE position = {BAD}",
        f"UPDATE record SET data = (SELECT data FROM record WHERE position = 1) WHERE position = {BAD}",
    ],
    ids=["undecodable", "missing", "another one"],
)
async def test_a_bad_record_in_the_replica_has_it_filled_anew_from_the_log(tmp_path: Path, damage: str) -> None:
    history, log = await a_replica(tmp_path / "history.db", damage)
    operations = await Operations.open(tmp_path / "operations.db")
    filling = asyncio.create_task(history.run(log))
    async with running(operations, history):
        await operations.reach(RECORDS, 20)
        assert [len(await history.read(one, 1)) for one in (BAD, RECORDS)] == [1, 1]
    filling.cancel()
    await asyncio.gather(filling, return_exceptions=True)
    await operations.close()
    await history.close()


async def test_the_last_record_looked_at_may_be_the_bad_one(tmp_path: Path) -> None:
    history, log = await a_replica(tmp_path / "history.db", "SELECT 1")
    operations = await Operations.open(tmp_path / "operations.db")
    await operations._run(OperationFile.fold, [entry.data for entry in a_log(BAD)])
    await operations.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "history.db")) as db:
        db.execute(f"UPDATE record SET data = x'c1' WHERE position = {BAD}")
        db.commit()
    operations = await Operations.open(tmp_path / "operations.db")
    assert operations.position == BAD
    filling = asyncio.create_task(history.run(log))
    async with running(operations, history):
        await operations.reach(RECORDS, 20)
    filling.cancel()
    await asyncio.gather(filling, return_exceptions=True)
    await operations.close()
    await history.close()


async def test_what_filling_anew_does_not_help_against_costs_no_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history, _ = await a_replica(tmp_path / "history.db", f"DELETE FROM record WHERE position = {BAD}")
    operations = await Operations.open(tmp_path / "operations.db")
    begun_anew, looks, read = list[str](), list[int](), history.read

    async def reads(first: int, limit: int) -> list[bytes]:
        looks.append(first)
        return await read(first, limit)

    monkeypatch.setattr(history, "read", reads)
    monkeypatch.setattr(history, "begin_anew", lambda: begun_anew.append("anew"))
    async with running(operations, history):
        await operations.reach(BAD - 1, 20)
        before = len(looks)
        await asyncio.sleep(0.5)
        assert len(looks) - before <= 25  # two of each turn, of which there are at most ten
        with pytest.raises(Unavailable):
            await operations.reach(BAD, 0)
    assert begun_anew == ["anew"]
    await operations.close()
    await history.close()
