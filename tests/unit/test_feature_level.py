"""Versions side by side: the new is not written before all know it; who does not know it stops, and harms nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from pvc.drivers.hypervisor import DomainState
from pvc.errors import Rejected
from pvc.events import registry
from pvc.events.cluster import FeatureLevelRaised
from pvc.events.record import CommandRef, Entry, RawEvent, Record, seal
from pvc.events.registry import (
    BY_TYPE,
    FEATURE_LEVEL,
    FIELD_LEVELS,
    TYPE_LEVELS,
    Event,
    NewerLevel,
    decode_event,
    encode_event,
    level_of,
)
from pvc.events.vm import Disk, VmEnabled, VmSpec, VmTagAdded
from pvc.presence.hello import Hello, read_hello
from pvc.projections.snapshot import snapshot
from pvc.projections.state import ClusterState, NodeState
from pvc.projections.vm_machine import VmState
from pvc.runtime.snapshots import SnapshotFile
from pvc.runtime.world import World, catch_up
from tests.support.core import ADMIN, a_cluster_with_vm
from tests.support.virtual import virtual
from tests.unit.appender_desk import a_desk
from tests.unit.primary_house import House, live, other_than

NEXT = FEATURE_LEVEL + 1


def record_after(state: ClusterState, *events: Event, level: int = FEATURE_LEVEL) -> Entry:
    return seal(
        Record(
            position=state.head.position + 1,
            prev=state.head.hash,
            id="NEXT",
            time_us=1,
            actor=ADMIN,
            origin="hv1",
            command=CommandRef(id="NEXT", name="next"),
            level=level,
            events=tuple(encode_event(event) for event in events),
        )
    )


# Reading.


def test_a_record_of_a_newer_level_stops_the_fold_though_each_of_its_events_is_known() -> None:
    state = a_cluster_with_vm().state
    world, before = World(state), state.state_hash()
    with pytest.raises(NewerLevel) as told:
        world.apply(record_after(state, VmEnabled(vm="v"), level=NEXT))
    assert told.value is world.fault
    assert (told.value.code, told.value.status) == ("fold.newer_level", 503)
    assert f"feature level {NEXT}" in told.value.message and f"none above {FEATURE_LEVEL}" in told.value.message
    assert "install" in told.value.hint
    assert world.state.state_hash() == before


def test_raising_the_level_stops_the_fold_of_who_does_not_know_it_before_it_writes_at_that_level() -> None:
    state = a_cluster_with_vm().state
    world = World(state)
    with pytest.raises(NewerLevel):
        world.apply(record_after(state, FeatureLevelRaised(level=NEXT)))
    assert world.state.cluster is not None
    assert world.state.cluster.level == FEATURE_LEVEL


def test_a_field_that_an_older_version_does_not_know_is_no_obstacle_to_it() -> None:
    known = msgspec.to_builtins(VmTagAdded(vm="v", tag="t"))
    newer = RawEvent(type=VmTagAdded.TYPE, data=msgspec.Raw(msgspec.msgpack.encode({**known, "colour": "red"})))
    assert decode_event(newer) == VmTagAdded(vm="v", tag="t")
    hello = {"version": "9", "position": 1, "state_hash": "x", "colour": "red"}
    read = read_hello(msgspec.json.encode(hello))
    assert read == Hello(version="9", position=1, state_hash="x")
    assert (read.gateway, read.certificate, read.archived) == ("", "", 0), "an older version does not say"


@pytest.mark.parametrize("event", BY_TYPE.values(), ids=lambda event: event.TYPE)
def test_no_event_forbids_the_fields_of_later_versions(event: type[Event]) -> None:
    assert not event.__struct_config__.forbid_unknown_fields


def test_a_stored_state_of_a_newer_level_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state, file = a_cluster_with_vm().state, SnapshotFile(tmp_path / "snapshot")
    file.save(snapshot(state))
    assert file.load() is not None
    assert state.cluster is not None
    state.put_cluster(replace(state.cluster, level=NEXT))
    file.save(snapshot(state))
    assert file.load() is None
    assert f"it is of feature level {NEXT}" in caplog.text


# Writing.


def test_what_the_tables_name_is_there_and_known() -> None:
    for kind, level in TYPE_LEVELS.items():
        assert kind in BY_TYPE and 1 < level <= FEATURE_LEVEL
    for (kind, name), level in FIELD_LEVELS.items():
        (field,) = (field for field in msgspec.structs.fields(BY_TYPE[kind]) if field.name == name)
        assert field.default is not msgspec.NODEFAULT, f"{kind}.{name}: what it is in older records must be seen"
        assert 1 < level <= FEATURE_LEVEL


def test_an_event_is_of_the_level_of_its_type_and_of_the_fields_that_it_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, guarded = VmTagAdded(vm="v", tag="t"), VmTagAdded(vm="v", tag="t", protected=True)
    assert level_of(guarded) == 1
    monkeypatch.setitem(FIELD_LEVELS, (VmTagAdded.TYPE, "protected"), 3)
    assert (level_of(plain), level_of(guarded)) == (1, 3)
    monkeypatch.setitem(TYPE_LEVELS, VmTagAdded.TYPE, 2)
    assert (level_of(plain), level_of(guarded)) == (2, 3)


@contextlib.asynccontextmanager
async def knowing_of_the_next_level() -> AsyncIterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FIELD_LEVELS, (VmTagAdded.TYPE, "protected"), NEXT)
        patch.setattr(registry, "FEATURE_LEVEL", NEXT)
        yield


@virtual
async def test_what_older_members_do_not_know_is_refused_until_the_level_is_raised() -> None:
    async with a_desk() as desk, knowing_of_the_next_level():
        await desk.do("vm.define", name="web01", memory_mib=64)
        plain = await desk.do("vm.add_tag", vm="web01", tag="plain")
        with pytest.raises(Rejected) as refusal:
            await desk.do("vm.add_tag", audit=True, vm="web01", tag="guarded", protected=True)
        assert refusal.value.code == "cluster.level_too_low"
        assert f"needs feature level {NEXT}" in refusal.value.message
        await desk.log.append(
            [record_after(desk.world.state, FeatureLevelRaised(level=NEXT))], after=await desk.log.head()
        )
        await catch_up(desk.world, desk.log)
        guarded = await desk.do("vm.add_tag", vm="web01", tag="guarded", protected=True)
        assert plain.entry is not None and guarded.entry is not None
        assert (plain.entry.record.level, guarded.entry.record.level) == (1, NEXT)
        assert await desk.names() == ["cluster.init", "node.report_ready", "vm.define"] + ["vm.add_tag"] * 2 + [
            "next",
            "vm.add_tag",
        ]


# A node whose fold has stopped.


async def raise_beyond(house: House) -> None:
    """A record that nobody here knows."""
    state = house.state
    await house.log.append([record_after(state, FeatureLevelRaised(level=NEXT))], after=state.head)
    await house.until(lambda: all(host.world.fault is not None for host in house.hosts.values()))


def test_a_stopped_fold_ends_starts_and_fences_nothing_not_after_a_restart_either() -> None:
    async def story(house: House) -> None:
        await house.run_a_vm("web01", "hv3")
        hv3 = house.hosts["hv3"]
        await raise_beyond(house)
        # As a VM that was moved here by a record that hv3 cannot read.
        arrived = "7f9c0d1e-0000-4000-8000-000000000001"
        await hv3.machine.define(arrived, "moved", VmSpec(memory_mib=64, vcpus=1, disks=(Disk(path="/x"),)), epoch=2)
        await hv3.machine.start(arrived)
        for _ in range(2):
            await asyncio.sleep(120)
            assert house.runs_on("web01") == ["hv3"]
            domain = await hv3.machine.get_domain(arrived)
            assert domain is not None and domain.state is DomainState.RUNNING
            hv3.kill()
            hv3.start()
        await asyncio.sleep(60)
        assert hv3.presence.joined, "nobody takes it for lost"
        hello = read_hello((await hv3.presence.members())["hv3"].hello)
        assert hello is not None and hello.fault == "fold.newer_level"
        assert "off" not in {action for action, _ in house.fence.calls}
        assert [node.state for node in house.state.nodes.values()] == [NodeState.READY] * 3

    live(story)


def test_a_primary_whose_fold_has_stopped_lets_another_be_it() -> None:
    async def story(house: House) -> None:
        first, epoch = house.primary, house.epoch
        await house.run_a_vm("web01", other_than(first))
        house.hosts[first].world.fault = NewerLevel("as if")
        await house.until(lambda: house.primary != first)
        assert house.epoch == epoch + 1
        await asyncio.sleep(120)
        assert house.primary != first, "nor does it come back"
        assert house.node(first).state is NodeState.READY
        assert house.vm().state is VmState.RUNNING

    live(story)
