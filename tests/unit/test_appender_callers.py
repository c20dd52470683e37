"""The appender: what its callers learn, with their keys, refusals and defects, and when the node stops."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import msgspec
import pytest

from pvc.commands.base import Decision
from pvc.errors import OutcomeUnknown, PvcError, Rejected, Unavailable
from pvc.events import vm as e
from pvc.events.record import CommandRef, Head, unseal
from pvc.events.registry import decode_event
from pvc.projections.state import ClusterState
from pvc.runtime.appender import MAX_QUEUE, Appender, Outcome
from pvc.runtime.world import World, catch_up
from pvc.sim.loop import VirtualClock
from tests.support.fake_log import TroubledLog, conflict, unavailable, unknown_and_not_done
from tests.support.virtual import virtual
from tests.unit.appender_desk import Desk, a_desk, gathered, replayed_hash, request

# Keys.


@virtual
async def test_a_key_is_good_for_one_command_and_tells_its_outcome_again() -> None:
    async with a_desk() as desk:
        first = await desk.do("vm.define", key="K", name="web01", memory_mib=64)
        again = await desk.do("vm.define", key="K", name="web01", memory_mib=64)
        assert again.repeated and again.entry == first.entry and again.position == first.position
        with pytest.raises(Rejected) as refusal:
            await desk.do("vm.start", key="K", vm="web01")
        assert refusal.value.code == "idempotency.key_reused"
        assert "position 3" in refusal.value.message
        assert len(await desk.names()) == 3


@virtual
async def test_the_same_key_twice_in_one_append_is_done_once() -> None:
    async with a_desk() as desk:
        first, again, other = await gathered(
            desk.do("vm.define", key="K", name="web01", memory_mib=64),
            desk.do("vm.define", key="K", name="web01", memory_mib=64),
            desk.do("vm.start", key="K", vm="web01"),
        )
        assert isinstance(first, Outcome) and isinstance(again, Outcome)
        assert (first.repeated, again.repeated) == (False, True)
        assert first.entry == again.entry
        assert getattr(other, "code", "") == "idempotency.key_reused"
        assert desk.log.batches[2:] == [1]


@virtual
async def test_a_key_used_through_one_process_is_known_to_another() -> None:
    async with a_desk() as desk:
        await desk.do("vm.define", key="K", name="web01", memory_mib=64)
        world = World()  # has folded nothing yet
        other = desk.another_appender(world)
        running = asyncio.create_task(other.run())
        await catch_up(world, desk.log)
        again = await other.submit(request("vm.define", key="K", name="web01", memory_mib=64))
        running.cancel()
        assert (again.repeated, again.position) == (True, 3)


@virtual
async def test_a_refusal_is_in_the_history_and_does_not_spend_its_key() -> None:
    async with a_desk() as desk:
        with pytest.raises(Rejected):
            await desk.do("vm.start", key="K", audit=True, vm="web01")
        entry = unseal((await desk.log.read(3, 1))[0])
        (note,) = (decode_event(raw) for raw in entry.record.events)
        assert (note.TYPE, note.code) == ("command.rejected", "vm.not_found")  # type: ignore[union-attr]
        assert entry.record.command == CommandRef(id="K", name="vm.start")
        await desk.do("vm.define", name="web01", memory_mib=64)
        started = await desk.do("vm.start", key="K", audit=True, vm="web01")
        assert (started.repeated, started.position) == (False, 5)


@virtual
async def test_before_init_a_refusal_leaves_no_record() -> None:
    async with a_desk(initialised=False) as desk:
        with pytest.raises(Rejected):
            await desk.do("vm.start", audit=True, vm="web01")
        assert await desk.names() == []


@virtual
async def test_a_refusal_among_others_is_written_with_them() -> None:
    async with a_desk() as desk:
        outcomes = await gathered(
            desk.do("vm.start", audit=True, vm="web01"), desk.do("vm.define", name="web01", memory_mib=64)
        )
        assert getattr(outcomes[0], "code", "") == "vm.not_found"
        assert isinstance(outcomes[1], Outcome) and outcomes[1].position == 4
        assert desk.log.batches[2:] == [2]


# Callers and defects.


@virtual
async def test_a_caller_that_goes_away_harms_nobody() -> None:
    async with a_desk() as desk:
        gone = asyncio.create_task(desk.do("vm.define", name="web01", memory_mib=64))
        stays = asyncio.create_task(desk.do("vm.define", name="web02", memory_mib=64))
        await asyncio.sleep(0)
        gone.cancel()
        assert (await stays).position in (3, 4)
        assert "web02" in desk.world.state.vm_names
        assert (await desk.do("vm.define", name="web03", memory_mib=64)).entry is not None


@virtual
async def test_what_its_caller_gave_up_while_the_node_stood_still_is_not_done_much_later() -> None:
    async with a_desk() as desk:
        given_up: asyncio.Task[Outcome]

        def gives_up(log: TroubledLog, entries: Any, after: Head) -> None:
            given_up.cancel()
            conflict(log, entries, after)

        desk.log.troubles = [gives_up]
        given_up = asyncio.create_task(desk.do("vm.define", name="web01", memory_mib=64))
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert (await desk.do("vm.define", name="web02", memory_mib=64)).entry is not None
        assert list(desk.world.state.vm_names) == ["web02"]


@virtual
async def test_a_defect_in_one_command_is_its_own_callers_alone() -> None:
    def broken(state: ClusterState, given: Any, context: Any) -> Decision:
        raise ZeroDivisionError

    async with a_desk() as desk:
        bad = msgspec.structs.replace(request("vm.start", vm="web01"), decide=broken)
        outcomes = await gathered(desk.appender.submit(bad), desk.do("vm.define", name="web01", memory_mib=64))
        assert getattr(outcomes[0], "code", "") == "internal"
        assert isinstance(outcomes[1], Outcome)
        assert await desk.names() == ["cluster.init", "node.report_ready", "vm.define"]


@virtual
async def test_an_event_that_could_not_be_read_back_is_never_written() -> None:
    def poisonous(state: ClusterState, given: Any, context: Any) -> Decision:
        spec = e.VmSpec(memory_mib=1, vcpus=0)
        return Decision(events=(e.VmDefined(vm="x", name="web01", spec=spec, node="hv1"),))

    async with a_desk() as desk:
        bad = msgspec.structs.replace(request("vm.start", vm="web01"), decide=poisonous)
        with pytest.raises(PvcError) as failure:
            await desk.appender.submit(bad)
        assert failure.value.code == "internal"
        assert len(await desk.names()) == 2
        assert desk.world.fault is None


@virtual
async def test_a_record_over_the_cap_is_refused_and_others_go_on() -> None:
    def huge(state: ClusterState, given: Any, context: Any) -> Decision:
        return Decision(events=(e.VmFailed(vm="x", reason="y" * 300_000),))

    async with a_desk() as desk:
        bad = msgspec.structs.replace(request("vm.start", vm="web01"), decide=huge)
        outcomes = await gathered(desk.appender.submit(bad), desk.do("vm.define", name="web01", memory_mib=64))
        assert getattr(outcomes[0], "code", "") == "log.record_too_large"
        assert isinstance(outcomes[1], Outcome)


@virtual
async def test_a_defect_in_the_log_fails_its_batch_and_not_the_appender() -> None:
    def broken(log: TroubledLog, entries: Any, after: Head) -> None:
        raise ZeroDivisionError

    async with a_desk() as desk:
        desk.log.troubles = [broken]
        outcomes = await gathered(
            desk.do("vm.define", name="web01", memory_mib=64), desk.do("vm.define", name="web02", memory_mib=64)
        )
        assert [getattr(outcome, "code", "") for outcome in outcomes] == ["internal", "internal"]
        assert (await desk.do("vm.define", name="web01", memory_mib=64)).position == 3


@virtual
async def test_after_a_batch_that_failed_the_next_is_decided_without_it() -> None:
    async with a_desk() as desk:
        for trouble in (unavailable, conflict, unknown_and_not_done):
            before = desk.world.position
            desk.log.troubles = [trouble]
            names = [f"{trouble.__name__.replace('_', '-')}-{number}" for number in range(3)]
            await gathered(*(desk.do("vm.define", name=name, memory_mib=64) for name in names))
            again = await gathered(*(desk.do("vm.define", name=name, memory_mib=64) for name in names))
            taken = [getattr(outcome, "code", "") for outcome in again]
            assert taken == (["vm.name_taken"] * 3 if trouble is conflict else [""] * 3)
            assert desk.world.position == before + 3
        assert desk.world.state.state_hash() == await replayed_hash(desk)


@virtual
async def test_a_dry_run_decides_and_writes_nothing() -> None:
    async with a_desk() as desk:
        decision = desk.appender.try_out(request("vm.define", name="web01", memory_mib=64))
        assert [event.TYPE for event in decision.events] == ["vm.defined"]
        with pytest.raises(Rejected):
            desk.appender.try_out(request("vm.start", vm="web01"))
        assert desk.world.position == 2 and len(await desk.names()) == 2


@virtual
async def test_when_the_node_stops_nobody_is_left_waiting() -> None:
    desk = Desk()
    early = asyncio.create_task(desk.do("cluster.init", name="main"))
    await asyncio.sleep(0)
    running = asyncio.create_task(desk.appender.run())
    await early
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    with pytest.raises(Unavailable) as failure:
        await asyncio.wait_for(desk.do("vm.define", name="web01", memory_mib=64), 5)
    assert failure.value.code == "node.stopping"


@virtual
async def test_a_command_on_its_way_when_the_node_stops_is_told_as_unknown() -> None:
    desk = Desk()

    class Slow(TroubledLog):
        async def append(self, entries: Any, *, after: Head) -> Head:
            await asyncio.sleep(60)
            raise AssertionError("cancelled before")

    slow = Slow()
    appender = Appender(World(), slow, origin="hv1", clock=VirtualClock(), rng=random.Random(1))
    running = asyncio.create_task(appender.run())
    under_way = asyncio.create_task(appender.submit(request("cluster.init", name="main")))
    await asyncio.sleep(1)
    queued = asyncio.create_task(appender.submit(request("cluster.init", name="main")))
    await asyncio.sleep(1)
    running.cancel()
    outcomes = await gathered(under_way, queued)
    assert isinstance(outcomes[0], OutcomeUnknown)
    assert getattr(outcomes[1], "code", "") == "node.stopping"
    assert desk.world.position == 0


@virtual
async def test_a_queue_that_is_full_says_so() -> None:
    desk = Desk()  # nobody serves
    waiting = [asyncio.create_task(desk.do("cluster.init", name="main")) for _ in range(MAX_QUEUE)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as failure:
        await desk.do("cluster.init", name="main")
    assert failure.value.code == "log.queue_full"
    for task in waiting:
        task.cancel()
