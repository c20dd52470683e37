"""A stored state saves folding; it is passed over when it cannot be used, and tells when the log is another one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pvc.errors import LogDamaged
from pvc.events import registry
from pvc.events.record import Entry
from pvc.log.memory import MemoryLog
from pvc.projections import snapshot as snapshot_module
from pvc.projections.snapshot import snapshot
from pvc.runtime.snapshots import SnapshotFile, check_same_log, keep_snapshots, store_snapshot
from pvc.runtime.world import World, catch_up
from tests.support.core import TinyCluster
from tests.support.story_of_a_cluster import live


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> list[Entry]:
    monkeypatch.setattr(registry, "FEATURE_LEVEL", 2)  # which the story raises to
    cluster = TinyCluster()
    for _ in live(cluster):
        pass
    return cluster.entries


@pytest.fixture
def file(tmp_path: Path) -> SnapshotFile:
    return SnapshotFile(tmp_path / "snapshot")


async def a_log(entries: list[Entry]) -> MemoryLog:
    log = MemoryLog()
    for entry in entries:
        await log.append([entry], after=await log.head())
    return log


async def folded(log: MemoryLog) -> World:
    world = World()
    await catch_up(world, log)
    return world


async def test_a_node_goes_on_from_what_it_stored(file: SnapshotFile, entries: list[Entry]) -> None:
    half = len(entries) // 2
    await store_snapshot(await folded(await a_log(entries[:half])), file)
    world = World(file.load())
    assert world.position == half
    log = await a_log(entries)
    await check_same_log(world.state.head, log)
    await catch_up(world, log)
    assert world.state.state_hash() == (await folded(log)).state.state_hash()


async def test_a_state_that_is_not_to_be_trusted_is_not_gone_on_from(file: SnapshotFile, entries: list[Entry]) -> None:
    world = await folded(await a_log(entries))
    await store_snapshot(world, file)
    file.discard()
    assert file.load() is None
    await store_snapshot(world, file)
    assert file.load() is None, "the daemon's end stores none either"


async def test_there_is_nothing_to_go_on_from_at_first(file: SnapshotFile) -> None:
    assert file.load() is None


@pytest.mark.parametrize("damage", [b"", b"x", b"\0" * 32 + b"no snapshot"])
async def test_a_damaged_file_is_passed_over(tmp_path: Path, file: SnapshotFile, damage: bytes) -> None:
    (tmp_path / "snapshot").write_bytes(damage)
    assert file.load() is None


async def test_a_flipped_bit_is_noticed(tmp_path: Path, file: SnapshotFile, entries: list[Entry]) -> None:
    await store_snapshot(await folded(await a_log(entries)), file)
    content = bytearray((tmp_path / "snapshot").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "snapshot").write_bytes(content)
    assert file.load() is None


async def test_a_state_of_another_fold_is_passed_over(
    file: SnapshotFile, entries: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    await store_snapshot(await folded(await a_log(entries)), file)
    monkeypatch.setattr(snapshot_module, "PROJECTION_VERSION", snapshot_module.PROJECTION_VERSION + 1)
    assert file.load() is None


async def test_a_log_that_was_set_back_is_noticed(entries: list[Entry]) -> None:
    world = await folded(await a_log(entries))
    with pytest.raises(LogDamaged) as damage:
        await check_same_log(world.state.head, await a_log(entries[:-1]))
    assert damage.value.code == "log.rewound"
    assert damage.value.hint


async def test_a_log_with_another_record_there_is_noticed(entries: list[Entry]) -> None:
    world = await folded(await a_log(entries))
    other = World(snapshot_module.restore(snapshot(world.state)))
    other.state.head = entries[-2].head.__class__(position=entries[-1].position, hash=b"\1" * 32, record_id="other")
    with pytest.raises(LogDamaged) as damage:
        await check_same_log(other.state.head, await a_log(entries))
    assert damage.value.code == "log.rewritten"


async def test_a_full_disk_is_no_reason_to_stop(tmp_path: Path, entries: list[Entry]) -> None:
    nowhere = SnapshotFile(tmp_path / "missing" / "snapshot")
    await store_snapshot(await folded(await a_log(entries)), nowhere)
    assert nowhere.load() is None


async def test_a_snapshot_is_stored_every_so_many_records(
    file: SnapshotFile, entries: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pvc.runtime.snapshots.EVERY_RECORDS", 3)
    world = World()
    keeper = asyncio.create_task(keep_snapshots(world, file))
    await asyncio.sleep(0)
    for entry in entries[:3]:
        world.apply(entry)
    async with asyncio.timeout(5):
        while file.load() is None:
            await asyncio.sleep(0.01)
    keeper.cancel()
    stored = file.load()
    assert stored is not None
    assert stored.position == 3
