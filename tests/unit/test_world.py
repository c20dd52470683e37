"""The world: one consistent fold, and those who wait for it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from pvc.errors import LogDamaged, PvcError, Unavailable
from pvc.events.record import CommandRef, RawEvent, Record, seal
from pvc.events.registry import UnknownEvent
from pvc.events.vm import VmStartRequested
from pvc.log.memory import MemoryLog
from pvc.projections.fold import EVOLVE
from pvc.runtime.world import REPLAY_BATCH, World, catch_up, follow
from pvc.sim.loop import run_virtual
from tests.support.core import ADMIN, TinyCluster, a_cluster_with_vm


def test_a_record_is_folded_once_however_often_it_comes() -> None:
    cluster = a_cluster_with_vm("running")
    world = World()
    told = []
    with world.listening(lambda entry, events: told.append(entry.position)):
        for entry in [*cluster.entries, *cluster.entries]:
            world.apply(entry)
    assert told == [entry.position for entry in cluster.entries]
    assert world.state.state_hash() == cluster.state.state_hash()


def test_a_listener_hears_nothing_after_its_block() -> None:
    cluster = a_cluster_with_vm()
    world = World()
    told = []
    with world.listening(lambda entry, events: told.append(entry.position)):
        world.apply(cluster.entries[0])
    world.apply(cluster.entries[1])
    assert told == [1]


def test_a_gap_stops_the_fold_for_good_and_keeps_the_last_good_state() -> None:
    cluster = a_cluster_with_vm()
    world = World()
    world.apply(cluster.entries[0])
    with pytest.raises(LogDamaged) as failure:
        world.apply(cluster.entries[2])
    assert failure.value.code == "log.gap"
    assert world.fault is failure.value
    with pytest.raises(LogDamaged):
        world.apply(cluster.entries[1])
    assert world.position == 1


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (RawEvent(type="vm.teleported", data=msgspec.Raw(b"\x80")), "fold.unknown_event"),
        (RawEvent(type="vm.enabled", v=2, data=msgspec.Raw(b"\x80")), "fold.unknown_event"),
        (RawEvent(type="vm.enabled", data=msgspec.Raw(b"\x80")), "fold.unreadable_event"),
    ],
)
def test_an_event_from_the_future_stops_the_fold_and_changes_nothing(raw: RawEvent, code: str) -> None:
    cluster = a_cluster_with_vm()
    world = World()
    for entry in cluster.entries:
        world.apply(entry)
    before = world.state.state_hash()
    with pytest.raises(UnknownEvent) as failure:
        world.apply(_with_event(cluster, raw))
    assert failure.value.code == code and failure.value.hint
    assert (world.position, world.state.state_hash()) == (cluster.state.position, before)


def test_a_defect_in_the_fold_stops_writes_and_is_told_as_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(state: Any, event: Any, record: Any) -> None:
        raise KeyError("no such node")

    cluster = a_cluster_with_vm("running")
    world = World()
    for entry in cluster.entries[:3]:
        world.apply(entry)
    monkeypatch.setitem(EVOLVE, VmStartRequested, broken)
    for entry in cluster.entries[3:]:
        with pytest.raises(PvcError, match="cannot fold record 4") as failure:
            world.apply(entry)
        assert failure.value.code == "fold.defect"
        assert failure.value is world.fault


def test_a_replay_longer_than_a_batch_is_whole() -> None:
    cluster = a_cluster_with_vm()
    for number in range(REPLAY_BATCH + 10):
        cluster.do("vm.set_autostart", vm="web01", autostart=number % 2 == 0)

    async def replay() -> World:
        log = MemoryLog()
        log._records = [entry.data for entry in cluster.entries]
        log._head = cluster.state.head
        world = World()
        await catch_up(world, log)
        return world

    assert run_virtual(replay()).state.state_hash() == cluster.state.state_hash()


def test_waiting_for_a_position_ends_when_it_is_folded_and_not_before() -> None:
    cluster = a_cluster_with_vm()

    async def wait() -> list[Any]:
        world = World()
        third = asyncio.create_task(world.reach(3, 10))
        first = asyncio.create_task(world.reach(1, 10))
        seen = []
        for entry in cluster.entries:
            world.apply(entry)
            await asyncio.sleep(0.1)
            seen.append((entry.position, first.done(), third.done()))
        await world.reach(2, 0)
        return seen

    assert run_virtual(wait()) == [(1, True, False), (2, True, False), (3, True, True)]


def test_waiting_for_a_position_that_does_not_come_ends_in_time_and_leaves_nothing_behind() -> None:
    async def wait() -> World:
        world = World()
        patient = asyncio.create_task(world.reach(1, 1000))
        await asyncio.sleep(0)
        for _ in range(100):
            begin = asyncio.get_running_loop().time()
            with pytest.raises(Unavailable, match="up to 0, not yet to 1000000") as failure:
                await world.reach(1_000_000, 2.0)
            assert failure.value.code == "log.behind"
            assert asyncio.get_running_loop().time() - begin == pytest.approx(2.0)
        assert len(world._waiters) < 5
        world.apply(a_cluster_with_vm().entries[0])
        await patient
        return world

    assert run_virtual(wait()).position == 1


def test_following_folds_what_is_appended_and_skips_what_is_known() -> None:
    cluster = a_cluster_with_vm("running")

    async def run() -> World:
        log = MemoryLog()
        world = World()
        following = asyncio.create_task(follow(world, log))
        for entry in cluster.entries:
            head = await log.head()
            await log.append([entry], after=head)
            if entry.position % 2:
                world.apply(entry, trusted=True)
            await asyncio.sleep(0.01)
        await world.reach(cluster.state.position, 5)
        following.cancel()
        return world

    assert run_virtual(run()).state.state_hash() == cluster.state.state_hash()


def _with_event(cluster: TinyCluster, raw: RawEvent) -> Any:
    head = cluster.state.head
    return seal(
        Record(
            position=head.position + 1,
            prev=head.hash,
            id="FUTURE",
            time_us=1,
            actor=ADMIN,
            origin="hv1",
            command=CommandRef(id="FUTURE", name="vm.enable"),
            events=(raw,),
        )
    )


async def test_a_log_that_is_shorter_than_its_head_is_damage_and_no_endless_loop() -> None:
    class CutShort(MemoryLog):
        async def read(self, first: int, limit: int) -> list[bytes]:
            return []

    cluster = a_cluster_with_vm()
    log = CutShort()
    for entry in cluster.entries:
        await log.append([entry], after=await log.head())
    with pytest.raises(LogDamaged) as failure:
        async with asyncio.timeout(5):
            await catch_up(World(), log)
    assert failure.value.code == "log.gap"
