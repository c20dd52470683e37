"""Past states: replay gives what the fold gave then, from stored states too; a store that is bad is passed over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pvc.errors import Unavailable
from pvc.events.record import Entry
from pvc.log.history import HistoryIndex
from pvc.log.memory import MemoryLog
from pvc.projections import snapshot as snapshot_module
from pvc.projections.snapshot import PROJECTION_VERSION, restore, snapshot_to_read
from pvc.projections.state import ClusterState
from pvc.runtime import past as past_module
from pvc.runtime import past_files as past_files_module
from pvc.runtime.past import KEPT, PastStates
from pvc.runtime.past_files import PastFiles
from pvc.runtime.snapshots import SnapshotFile, keep_snapshots
from pvc.runtime.world import World, catch_up
from tests.support.core import TinyCluster
from tests.support.story_of_a_cluster import live

SPACING = 16


class Told:
    """A whole life of a cluster: its records, and the hash that the state had at each."""

    def __init__(self) -> None:
        self.hashes = {0: ClusterState().state_hash()}
        cluster = TinyCluster()
        for _ in live(cluster):
            self.hashes[cluster.state.position] = cluster.state.state_hash()
        self.hashes[cluster.state.position] = cluster.state.state_hash()
        self.entries: list[Entry] = cluster.entries


@pytest.fixture(scope="module")
def told() -> Told:
    return Told()


@pytest.fixture
async def history(tmp_path: Path, told: Told) -> AsyncIterator[HistoryIndex]:
    index = await HistoryIndex.open(tmp_path / "history.db")
    await index.index(told.entries)
    yield index
    await index.close()


@pytest.fixture
def files(tmp_path: Path) -> PastFiles:
    return PastFiles(tmp_path / "snapshots", spacing=SPACING)


async def check_all(past: PastStates, told: Told, positions: list[int]) -> None:
    assert positions, "something is compared"
    for position in positions:
        state = await past.at(position)
        assert (state.position, state.state_hash()) == (position, told.hashes[position])


async def test_every_past_state_is_the_state_that_was_then(told: Told, history: HistoryIndex, files: PastFiles) -> None:
    last = len(told.entries)
    positions = [position for position in told.hashes if position]
    await check_all(PastStates(history), told, positions[::7])
    await check_all(PastStates(history, files), told, sorted(positions, reverse=True))
    assert files.positions() == list(range(SPACING, last + 1, SPACING)), "made on the way"
    await check_all(PastStates(history, files), told, positions)


async def test_a_stored_state_spares_the_replay_before_it(
    told: Told, history: HistoryIndex, files: PastFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    await PastStates(history, files).at(len(told.entries))
    folded = []
    fold = past_module.fold
    monkeypatch.setattr(past_module, "fold", lambda state, entry: (folded.append(entry.position), fold(state, entry)))
    position = 2 * SPACING + 3
    past = PastStates(history, files)
    await check_all(past, told, [position])
    assert folded == [2 * SPACING + 1, 2 * SPACING + 2, position]
    await past.at(position)
    await past.at(position + 1)
    assert folded[3:] == [position + 1], "a state at hand is used, and gone on from"
    await check_all(past, told, [position])


async def test_only_the_last_few_states_are_kept_at_hand(told: Told, history: HistoryIndex) -> None:
    past = PastStates(history)
    first = await past.at(1)
    assert await past.at(1) is first
    for position in range(2, KEPT + 2):
        await past.at(position)
    assert await past.at(1) is not first


@pytest.mark.parametrize("damage", ["flipped", "cut", "foreign", "gone"])
async def test_a_stored_state_that_is_bad_is_thrown_away_and_made_anew(
    damage: str, told: Told, history: HistoryIndex, files: PastFiles, tmp_path: Path
) -> None:
    await PastStates(history, files).at(3 * SPACING)
    victim = next(path for path in sorted((tmp_path / "snapshots").iterdir()) if int(path.name[:12]) == 2 * SPACING)
    content = victim.read_bytes()
    if damage == "flipped":
        victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "cut":
        victim.write_bytes(content[:40])
    elif damage == "gone":
        victim.unlink()
    else:
        other = TinyCluster()
        other.do("cluster.init", name="other", token_id="abcdefgh", token_sha256="5f" * 32)
        while other.state.position < 2 * SPACING:
            other.says_ready()
            other.do("vm.define", name=f"vm{other.state.position}", memory_mib=64)
        assert other.state.position >= 2 * SPACING
        twin = await _replayed(other.entries[: 2 * SPACING], tmp_path)
        files.save(2 * SPACING, snapshot_to_read(twin))
    again = PastFiles(tmp_path / "snapshots", spacing=SPACING)
    await check_all(PastStates(history, again), told, [2 * SPACING + 5, 2 * SPACING])
    assert 2 * SPACING in again.positions()
    read = again.nearest(2 * SPACING)
    assert read is not None and read.state_hash() == told.hashes[2 * SPACING]


async def _replayed(entries: list[Entry], folder: Path) -> ClusterState:
    index = await HistoryIndex.open(folder / "other.db")
    try:
        await index.index(entries)
        return await PastStates(index).at(len(entries))
    finally:
        await index.close()


async def test_states_of_another_version_of_the_fold_are_not_even_looked_at(
    told: Told, history: HistoryIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await PastStates(history, PastFiles(tmp_path / "snapshots", spacing=SPACING)).at(2 * SPACING)
    for module in (snapshot_module, past_files_module):
        monkeypatch.setattr(module, "PROJECTION_VERSION", 999)
    newer = PastFiles(tmp_path / "snapshots", spacing=SPACING)
    assert newer.positions() == []
    assert list((tmp_path / "snapshots").iterdir()) == []
    await check_all(PastStates(history, newer), told, [2 * SPACING])
    assert newer.positions() == [SPACING, 2 * SPACING]


def test_what_the_stored_states_take_is_bounded_and_they_stay_evenly_spread(tmp_path: Path) -> None:
    data = snapshot_to_read(ClusterState())
    probe = PastFiles(tmp_path / "probe", spacing=10)
    probe.save(10, data)
    size = sum(path.stat().st_size for path in (tmp_path / "probe").iterdir())
    files = PastFiles(tmp_path / "snapshots", spacing=10, max_bytes=8 * size)
    for position in range(10, 10 * 100, 10):
        files.save(position, data)
    kept = files.positions()
    assert len(kept) == 8 and kept[-1] == 990
    assert sum(path.stat().st_size for path in (tmp_path / "snapshots").iterdir()) <= 8 * size
    gaps = [after - before for before, after in zip([0, *kept], kept, strict=False)]
    assert max(gaps) <= 2 * 990 / 8, f"none is far from the next: {kept}"


def test_a_state_close_to_a_stored_one_is_not_wanted(tmp_path: Path) -> None:
    files = PastFiles(tmp_path / "snapshots", spacing=10)
    assert not files.wants(4), "the beginning is near"
    assert files.wants(10)
    files.save(20, snapshot_to_read(ClusterState()))
    assert [position for position in range(5, 31) if files.wants(position)] == [*range(5, 16), *range(25, 31)]


async def test_what_a_diverged_node_has_stored_is_thrown_away_and_replayed_anew(
    told: Told, history: HistoryIndex, files: PastFiles, tmp_path: Path
) -> None:
    past = PastStates(history, files)
    first = await past.at(2 * SPACING)
    files.discard()
    assert files.positions() == [] and list((tmp_path / "snapshots").iterdir()) == []
    again = await past.at(2 * SPACING)
    assert again is not first, "nor is what was made of them kept"
    await check_all(past, told, [2 * SPACING, 3])


async def test_a_full_disk_costs_only_the_stored_state(
    told: Told, history: HistoryIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(past_files_module, "replace_file", full)
    files = PastFiles(tmp_path / "snapshots", spacing=SPACING)
    await check_all(PastStates(history, files), told, [2 * SPACING + 1])
    assert files.positions() == []


def test_what_is_no_stored_state_and_cannot_be_removed_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    (folder / "lost+found").mkdir(parents=True)
    (folder / f"000000000010-v{PROJECTION_VERSION}.snap").symlink_to("nowhere")
    PastFiles(folder).save(5_000, snapshot_to_read(ClusterState()))
    files = PastFiles(folder)
    assert files.wants(10_000)
    assert files.positions() == [5_000]


def test_a_directory_that_cannot_be_looked_at_costs_only_the_stored_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Path) -> None:
        raise OSError(5, "Input/output error")

    folder = tmp_path / "snapshots"
    PastFiles(folder).save(5_000, snapshot_to_read(ClusterState()))
    monkeypatch.setattr(Path, "iterdir", broken)
    files = PastFiles(folder)
    assert files.wants(5_000)
    assert files.positions() == [] and files.nearest(6_000) is None
    files.save(5_000, snapshot_to_read(ClusterState()))
    assert files.positions() == [5_000]


async def test_a_past_state_that_takes_too_long_says_so(
    told: Told, history: HistoryIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past_module, "PAST_DEADLINE_S", 0.0)
    with pytest.raises(Unavailable, match="took longer") as refused:
        await PastStates(history).at(5)
    assert refused.value.code == "past.too_slow"


async def test_an_index_that_is_just_being_filled_again_is_no_damage_of_the_log(
    history: HistoryIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(first: int, limit: int) -> list[bytes]:
        return []

    monkeypatch.setattr(history, "read", nothing)
    with pytest.raises(Unavailable) as refused:
        await PastStates(history).at(5)
    assert refused.value.code == "history.behind"


async def test_a_state_for_reading_lacks_only_the_ids_of_commands(told: Told, history: HistoryIndex) -> None:
    state = await PastStates(history).at(len(told.entries))
    read = restore(snapshot_to_read(state))
    assert read.state_hash() == state.state_hash() and read.head == state.head
    assert state.recent and not read.recent


async def test_a_node_leaves_a_state_behind_as_it_goes_along(
    told: Told, files: PastFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pvc.runtime.snapshots.EVERY_RECORDS", SPACING)
    log, world = MemoryLog(), World()
    keeper = asyncio.create_task(keep_snapshots(world, SnapshotFile(tmp_path / "snapshot"), files))
    await asyncio.sleep(0)
    for entry in told.entries[: 3 * SPACING]:
        await log.append([entry], after=await log.head())
        await catch_up(world, log)
        if entry.position % SPACING == 0:
            await asyncio.sleep(0.02)
    async with asyncio.timeout(30):
        while not files.positions():
            await asyncio.sleep(0.01)
    keeper.cancel()
    await asyncio.gather(keeper, return_exceptions=True)
    kept = files.positions()
    assert all(after - before >= SPACING // 2 for before, after in zip([0, *kept], kept, strict=False))
    for position in kept:
        stored = files.nearest(position)
        assert stored is not None and (stored.position, stored.state_hash()) == (position, told.hashes[position])


async def test_a_time_means_the_last_record_written_by_then_though_clocks_differ(tmp_path: Path) -> None:
    cluster = TinyCluster()
    cluster.do("cluster.init", name="main", token_id="abcdefgh", token_sha256="5f" * 32)
    begun_us = cluster.time_us
    for shift_s in (10, -5, 0, 20, -30, 40):
        cluster.time_us += shift_s * 1_000_000
        cluster.says_ready()
        cluster.do("vm.define", name=f"vm{len(cluster.entries)}", memory_mib=64)
    times = {entry.position: entry.record.time_us for entry in cluster.entries}
    index = await HistoryIndex.open(tmp_path / "history.db")
    try:
        await index.index(cluster.entries)
        for time_us in sorted({*times.values(), *(time + 1 for time in times.values()), begun_us - 1}):
            expected = max((position for position, time in times.items() if time <= time_us), default=0)
            assert await index.position_at(time_us) == expected
    finally:
        await index.close()
