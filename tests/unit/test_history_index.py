"""The history index: finds what it should, in order; survives damage, another log and its own death."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from pvc.errors import LogDamaged, Unavailable
from pvc.events import vm as e
from pvc.events.node import NodeJoined
from pvc.events.record import EMPTY, Actor, CommandRef, Entry, RawEvent, Record, seal, unseal
from pvc.events.registry import Event, decode_event, encode_event, subject_of
from pvc.log import history_file
from pvc.log.history import HistoryIndex, HistoryQuery
from pvc.log.memory import MemoryLog

Events = tuple[Event | RawEvent, ...]


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[HistoryIndex]:
    opened = await HistoryIndex.open(tmp_path / "history.db")
    yield opened
    await opened.close()


def a_log(count: int, seed: int = 1) -> list[Entry]:
    """Records of a busy life: several VMs and actors, renames, chains of causes, clocks that disagree."""
    rng = random.Random(seed)
    entries: list[Entry] = []
    for position in range(1, count + 1):
        vm = f"id-{rng.randrange(6)}"
        kinds: list[Callable[[str], Events]] = [
            lambda vm: (e.VmStarted(vm=vm, node="hv1", epoch=1),),
            lambda vm: (e.VmStopRequested(vm=vm), e.VmStopped(vm=vm, node="hv1", epoch=1, how="forced")),
            lambda vm: (e.VmRenamed(vm=vm, name=f"name-{rng.randrange(4)}", old_name="x"),),
            lambda vm: (NodeJoined(node=f"hv{rng.randrange(3)}"),),
            lambda vm: (e.VmDisabled(vm=vm), e.VmDisabled(vm="id-0")),
            lambda vm: (RawEvent(type="moon.risen", data=msgspec.Raw(b"\x80")),),
        ]
        cause = rng.choice(entries).record.id if entries and rng.random() < 0.5 else ""
        time_us = position * 1_000_000 + rng.randrange(-5_000_000, 5_000_000)
        entries.append(
            an_entry(entries, *rng.choice(kinds)(vm), actor=f"actor-{rng.randrange(3)}", cause=cause, time_us=time_us)
        )
    return entries


def an_entry(
    before: list[Entry], *events: Event | RawEvent, actor: str = "root", cause: str = "", time_us: int = 1
) -> Entry:
    head = before[-1].head if before else EMPTY
    return seal(
        Record(
            position=head.position + 1,
            prev=head.hash,
            id=f"R{head.position + 1:025d}",
            time_us=time_us,
            actor=Actor(principal=actor, method="token"),
            origin="hv1",
            command=CommandRef(id=f"C{head.position + 1}", name="test.write"),
            cause=cause,
            events=tuple(event if isinstance(event, RawEvent) else encode_event(event) for event in events),
        )
    )


async def test_every_kind_of_question_gets_the_answer_that_a_walk_through_the_log_gives(index: HistoryIndex) -> None:
    entries = a_log(3_000)
    for first in range(0, len(entries), 700):
        await index.index(entries[first : first + 700])
    rng = random.Random(7)

    def sometimes(*values: object) -> object:
        return rng.choice(values) if rng.random() < 0.3 else None

    asked = 0
    for _ in range(400):
        given = {
            "subject": sometimes("vm/id-1", "vm/name-1", "vm/name-2", "node/hv1", "vm/nobody", "moon"),
            "among": sometimes(("vm/id-1",), ("vm/id-1", "vm/id-2", "node/hv1"), ("vm/nobody",)),
            "actors": sometimes(("actor-1",), ("nobody",), ("actor-1", "actor-2")),
            "types": sometimes(("vm.started",), ("vm.*",), ("vm.disabled", "node.joined"), ("moon.*",), ("none",)),
            "since_us": sometimes(500_000_000, 2_900_000_000, 9_900_000_000),
            "until_us": sometimes(100_000_000, 1_500_000_000, -9_900_000_000),
            "correlation": sometimes(entries[3].record.id, entries[rng.randrange(3_000)].record.id, "unknown"),
            "before": sometimes(1, 100, 2_500),
            "after": sometimes(0, 1_000, 2_990, 5_000),
            "limit": sometimes(1, 7),
            "ascending": sometimes(True),
        }
        query = HistoryQuery(**{name: value for name, value in given.items() if value is not None})
        expected = by_walking(entries, query)
        found = await index.query(query)
        assert [(unseal(one.data).position, one.correlation) for one in found] == expected, query
        asked += bool(expected)
    assert asked > 80, "enough of the questions had an answer"


def by_walking(entries: list[Entry], query: HistoryQuery) -> list[tuple[int, str]]:
    """The plainest statement of what a query means."""
    correlations: dict[str, str] = {}
    names: dict[str, set[str]] = {}
    for entry in entries:
        record = entry.record
        correlations[record.id] = correlations[record.cause] if record.cause else record.id
        for raw in record.events:
            if raw.type == "vm.renamed":
                event = decode_event(raw)
                assert isinstance(event, e.VmRenamed)
                names.setdefault(f"vm/{event.name}", set()).add(f"vm/{event.vm}")
    subjects = {query.subject} | names.get(query.subject, set())

    def about(raw: RawEvent) -> bool:
        subject = "moon" if raw.type == "moon.risen" else str(subject_of(decode_event(raw)))
        typed = not query.types or any(
            raw.type == name or (name.endswith("*") and raw.type.startswith(name[:-1])) for name in query.types
        )
        meant = not query.among or subject in query.among
        return typed and meant and (not query.subject or subject in subjects)

    found = [
        (record.position, correlations[record.id])
        for record in (entry.record for entry in entries)
        if (query.since_us is None or record.time_us >= query.since_us)
        and (query.until_us is None or record.time_us <= query.until_us)
        and (query.before is None or record.position < query.before)
        and (query.after is None or record.position > query.after)
        and (not query.actors or record.actor.principal in query.actors)
        and (not query.correlation or correlations[record.id] == correlations.get(query.correlation))
        and (not (query.subject or query.among or query.types) or any(about(raw) for raw in record.events))
    ]
    return (found if query.ascending else found[::-1])[: query.limit]


async def test_records_that_are_there_already_are_passed_over(index: HistoryIndex) -> None:
    entries = a_log(20)
    await index.index(entries[:15])
    await index.index(entries[10:])
    await index.index(entries)
    assert index.position == 20
    assert [unseal(one.data).position for one in await index.query(HistoryQuery(limit=100))] == list(range(20, 0, -1))


async def test_it_follows_a_log_and_tells_when_it_has_arrived(index: HistoryIndex) -> None:
    entries = a_log(1_200)
    log = MemoryLog()
    await append(log, entries[:1_000])
    running = asyncio.create_task(index.run(log))
    await index.reach(1_000, 10)
    await append(log, entries[1_000:])
    await index.reach(1_200, 10)
    with pytest.raises(Unavailable) as behind:
        await index.reach(1_201, 0.05)
    assert behind.value.code == "history.behind"
    await stop(running)


async def test_it_goes_on_where_it_was_when_opened_again(tmp_path: Path) -> None:
    entries = a_log(300)
    index = await HistoryIndex.open(tmp_path / "history.db")
    await index.index(entries[:200])
    await index.close()
    index = await HistoryIndex.open(tmp_path / "history.db")
    assert index.position == 200
    log = MemoryLog()
    await append(log, entries)
    running = asyncio.create_task(index.run(log))
    await index.reach(300, 10)
    assert len(await index.query(HistoryQuery(limit=1_000))) == 300
    await stop(running)
    await index.close()


@pytest.mark.parametrize("damage", ["garbage", "torn", "empty", "foreign", "old"])
async def test_a_damaged_file_is_thrown_away_and_filled_again(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "history.db"
    entries = a_log(500)
    index = await HistoryIndex.open(path)
    await index.index(entries)
    await index.close()
    spoil(path, damage)
    index = await HistoryIndex.open(path)
    log = MemoryLog()
    await append(log, entries)
    running = asyncio.create_task(index.run(log))
    await index.reach(500, 10)
    found: list[int] = []
    for _ in range(50):  # damage deep in the file shows only when it is read; then it is built anew
        try:
            found = [unseal(one.data).position for one in await index.query(HistoryQuery(limit=1_000))]
            break
        except Unavailable:
            await asyncio.sleep(0.05)
            await index.reach(500, 10)
    assert found == list(range(500, 0, -1))
    await stop(running)
    await index.close()


def spoil(path: Path, damage: str) -> None:
    content = path.read_bytes()
    match damage:
        case "garbage":
            path.write_bytes(os.urandom(len(content)))
        case "torn":
            middle = len(content) // 3
            path.write_bytes(content[:4096] + b"\xff" * middle + content[4096 + middle :])
        case "empty":
            path.write_bytes(b"")
        case "foreign":
            path.unlink()
            with sqlite3.connect(path) as db:
                db.execute("PRAGMA user_version = 7")
                db.execute("CREATE TABLE other (x)")
            db.close()
        case "old":
            with sqlite3.connect(path) as db:
                db.execute(f"PRAGMA user_version = {history_file.FORMAT - 1}")
            db.close()


@pytest.mark.parametrize(("records", "seed", "code"), [(20, 1, "log.rewound"), (60, 2, "log.rewritten")])
async def test_a_replica_that_the_log_does_not_continue_stays_for_the_log_to_be_restored_from(
    tmp_path: Path, records: int, seed: int, code: str
) -> None:
    index, known = await HistoryIndex.open(tmp_path / "history.db"), a_log(50, seed=1)
    await index.index(known)
    log = MemoryLog()
    await append(log, a_log(records, seed=seed))
    with pytest.raises(LogDamaged) as damage:
        await asyncio.wait_for(index.run(log), 10)
    assert damage.value.code == code
    found = await index.query(HistoryQuery(limit=100))
    assert [one.data for one in found] == [entry.data for entry in reversed(known)]
    assert await index.head() == known[-1].head
    await index.close()


async def test_damage_found_while_comparing_with_the_log_is_mended_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = a_log(20)
    log = MemoryLog()
    await append(log, entries)
    index = await HistoryIndex.open(tmp_path / "history.db")
    await index.index(entries[:10])
    real, spoilt = history_file.HistoryFile.data, list[history_file.HistoryFile]()

    def data(file: history_file.HistoryFile, position: int) -> bytes | None:
        if file in spoilt or not spoilt:
            spoilt.append(file)
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
        return real(file, position)

    monkeypatch.setattr(history_file.HistoryFile, "data", data)
    running = asyncio.create_task(index.run(log))
    await index.reach(20, 5)
    assert [one.data for one in await index.query(HistoryQuery())] == [entry.data for entry in reversed(entries)]
    await stop(running)
    await index.close()


async def test_an_index_that_cannot_be_opened_leaves_no_thread_behind(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(Unavailable):
        await HistoryIndex.open(tmp_path / "no" / "such" / "folder" / "history.db")
    deadline = time.monotonic() + 5
    while threading.active_count() > before:
        assert time.monotonic() < deadline, threading.enumerate()
        await asyncio.sleep(0.01)


async def test_a_search_that_takes_too_long_is_ended_with_advice(
    index: HistoryIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    await index.index(a_log(3_000))
    monkeypatch.setattr(history_file, "QUERY_DEADLINE_S", -1.0)
    monkeypatch.setattr(history_file, "_STEPS_BETWEEN_LOOKS_AT_THE_CLOCK", 10)
    with pytest.raises(Unavailable) as slow:
        await index.query(HistoryQuery(actors=("actor-1",), since_us=99_000_000_000_000, limit=1, types=("vm.*",)))
        await index.query(HistoryQuery(limit=1_000))
    assert slow.value.code == "history.too_slow" and "narrow" in slow.value.hint
    monkeypatch.setattr(history_file, "QUERY_DEADLINE_S", 10.0)
    assert len(await index.query(HistoryQuery(limit=10))) == 10, "the next search is not harmed"


async def test_the_record_of_a_command_is_found_by_its_id_but_not_that_of_a_refusal(index: HistoryIndex) -> None:
    done = an_entry([], e.VmDisabled(vm="a"))
    from pvc.events.cluster import CommandRejected

    refused = an_entry([done], CommandRejected(code="x", message="y"))
    await index.index([done, refused])
    assert await index.find_command(done.record.command.id) == done.data
    assert await index.find_command(refused.record.command.id) is None
    assert await index.find_command("") is None


async def test_the_file_is_for_nobody_else_to_read(tmp_path: Path) -> None:
    index = await HistoryIndex.open(tmp_path / "history.db")
    await index.index(a_log(3))
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    await index.close()


async def test_every_search_goes_along_an_index(index: HistoryIndex, tmp_path: Path) -> None:
    """The cost does not grow with the log: no plan scans a table, or sorts what it found."""
    await index.index(a_log(2_000))
    plans: list[str] = []
    db = sqlite3.connect(tmp_path / "history.db")
    statements: list[str] = []
    db.set_trace_callback(statements.append)
    from pvc.log.history_search import find_positions

    parts = {
        "subject": "vm/name-1",
        "actors": ("actor-1", "actor-2"),
        "types": ("vm.started",),
        "since_us": 5,
        "correlation": a_log(9)[8].record.id,
    }
    for size in range(1, 4):
        for names in itertools.combinations(parts, size):
            find_positions(db, HistoryQuery(**{name: parts[name] for name in names}))
    db.set_trace_callback(None)
    asked = sorted({statement for statement in statements if statement.startswith("SELECT DISTINCT")})
    assert len(asked) > 10
    for statement in asked:
        plans += [f"{row[3]} <- {statement}" for row in db.execute(f"EXPLAIN QUERY PLAN {statement}")]
    bad = [plan for plan in plans if plan.startswith("SCAN") or "TEMP B-TREE" in plan.partition(" <- ")[0]]
    assert bad == []
    db.close()


async def append(log: MemoryLog, entries: list[Entry]) -> None:
    for first in range(0, len(entries), 200):
        await log.append(entries[first : first + 200], after=await log.head())


async def stop(task: asyncio.Task[None]) -> None:
    assert not task.done(), task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
