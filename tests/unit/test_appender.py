"""The appender: what becomes of commands in the log, whatever the log does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pvc.errors import OutcomeUnknown, PvcError, Unavailable
from pvc.events.record import CommandRef, Head
from pvc.log.base import MAX_BATCH_ENTRIES
from pvc.runtime.appender import CROWDED_S, MAX_ATTEMPTS, Outcome
from pvc.runtime.world import World, catch_up
from tests.support.core import ADMIN
from tests.support.fake_log import TroubledLog, conflict, unavailable, unknown_and_not_done, unknown_but_done
from tests.support.virtual import virtual
from tests.unit.appender_desk import a_desk, foreign, gathered, replayed_hash, request


@virtual
async def test_a_command_becomes_a_record_and_is_folded_before_its_caller_knows() -> None:
    async with a_desk() as desk:
        outcome = await desk.do("vm.define", key="K", name="web01", memory_mib=64)
        assert outcome.entry is not None
        record = outcome.entry.record
        assert (record.position, record.command) == (3, CommandRef(id="K", name="vm.define"))
        assert (record.actor, record.origin, record.cause, record.level) == (ADMIN, "hv1", "", 1)
        assert outcome.position == desk.world.position == 3
        assert "web01" in desk.world.state.vm_names


@virtual
async def test_what_is_already_so_is_no_record() -> None:
    async with a_desk() as desk:
        await desk.do("vm.define", name="web01", memory_mib=64)
        outcome = await desk.do("vm.set_autostart", vm="web01", autostart=False)
        assert (outcome.entry, outcome.position, outcome.repeated) == (None, 3, False)


@virtual
async def test_those_who_wait_together_are_one_append_and_see_each_other() -> None:
    async with a_desk() as desk:
        outcomes = await gathered(
            desk.do("vm.define", name="web01", memory_mib=64),
            desk.do("vm.start", vm="web01"),
            desk.do("vm.define", name="web01", memory_mib=64),
            desk.do("vm.start", vm="web01"),
        )
        assert desk.log.batches[2:] == [2]
        assert [getattr(outcome, "code", "done") for outcome in outcomes] == [
            "done",
            "done",
            "vm.name_taken",
            "vm.is_starting",
        ]
        assert desk.world.state.state_hash() == await replayed_hash(desk)


@virtual
async def test_more_than_fits_one_append_is_several_in_order() -> None:
    async with a_desk() as desk:
        count = MAX_BATCH_ENTRIES + 50
        outcomes = await gathered(*(desk.do("vm.define", name=f"vm{i}", memory_mib=64) for i in range(count)))
        assert [outcome.position for outcome in outcomes if isinstance(outcome, Outcome)] == list(range(3, 3 + count))
        assert desk.log.batches[2:] == [MAX_BATCH_ENTRIES, 50]


@virtual
async def test_when_the_second_of_two_appends_fails_the_first_ones_know_that_theirs_did_not() -> None:
    def fine(log: TroubledLog, entries: Any, after: Head) -> None:
        pass

    async with a_desk() as desk:
        desk.log.troubles = [fine, unavailable]
        count = MAX_BATCH_ENTRIES + 50
        outcomes = await gathered(*(desk.do("vm.define", name=f"vm{i}", memory_mib=64) for i in range(count)))
        assert all(isinstance(outcome, Outcome) for outcome in outcomes[:MAX_BATCH_ENTRIES])
        assert {getattr(outcome, "code", "") for outcome in outcomes[MAX_BATCH_ENTRIES:]} == {"log.disk_full"}
        assert len(desk.world.state.vms) == MAX_BATCH_ENTRIES == len(await desk.names()) - 2


@virtual
async def test_large_records_are_split_by_their_bytes() -> None:
    async with a_desk() as desk:
        text = "x" * 60_000
        xml = f"<domain><memory unit='MiB'>64</memory><!--{text}--></domain>"
        outcomes = await gathered(*(desk.do("vm.define", name=f"vm{i}", xml=xml) for i in range(20)))
        assert all(isinstance(outcome, Outcome) for outcome in outcomes)
        assert len(desk.log.batches[2:]) == 3


# Trouble.


@virtual
async def test_a_conflict_is_folded_and_everything_decided_again() -> None:
    async with a_desk() as desk:
        other_world = World()
        await catch_up(other_world, desk.log)
        other = desk.another_appender(other_world)
        running = asyncio.create_task(other.run())
        await other.submit(request("vm.define", name="web01", memory_mib=64))
        mine = await gathered(
            desk.do("vm.define", name="web01", memory_mib=128), desk.do("vm.define", name="web02", memory_mib=128)
        )
        running.cancel()
        assert getattr(mine[0], "code", "") == "vm.name_taken"
        assert isinstance(mine[1], Outcome) and mine[1].position == 4
        assert await desk.names() == ["cluster.init", "node.report_ready", "vm.define", "vm.define"]
        assert desk.world.state.state_hash() == await replayed_hash(desk)


@virtual
async def test_one_append_after_the_other_sees_all_that_came_before_its_own_and_others() -> None:
    async with a_desk() as desk:
        other_world = World()
        other = desk.another_appender(other_world)
        running = asyncio.create_task(other.run())
        for turn in range(3):
            names = [f"web{turn}{number}" for number in range(3)]
            await gathered(*(desk.do("vm.define", name=name, memory_mib=64) for name in names))
            taken = await gathered(*(desk.do("vm.define", name=name, memory_mib=64) for name in names))
            assert [getattr(refusal, "code", "") for refusal in taken] == ["vm.name_taken"] * 3
            alone = await desk.do("vm.start", vm=names[0])
            await catch_up(other_world, desk.log)
            await other.submit(request("vm.define", name=f"db{turn}", memory_mib=64))
            refused, done = await gathered(
                desk.do("vm.define", name=f"db{turn}", memory_mib=64), desk.do("vm.stop", vm=names[0])
            )
            assert getattr(refused, "code", "") == "vm.name_taken"
            assert isinstance(done, Outcome) and done.position == alone.position + 2
        running.cancel()
        assert desk.world.state.state_hash() == await replayed_hash(desk)


@virtual
async def test_a_log_that_is_always_busy_is_given_up_after_a_bound() -> None:
    async with a_desk() as desk:
        desk.log.troubles = [conflict] * MAX_ATTEMPTS
        before = desk.log.tries
        with pytest.raises(Unavailable) as failure:
            await desk.do("vm.define", name="web01", memory_mib=64)
        assert failure.value.code == "log.busy"
        assert desk.log.tries - before == MAX_ATTEMPTS
        assert (await desk.do("vm.define", name="web01", memory_mib=64)).position == 3


@virtual
async def test_what_comes_while_the_log_is_crowded_goes_along_in_one_append() -> None:
    async with a_desk() as desk:
        desk.log.troubles = [conflict] * 8
        asked = []
        for number in range(5):
            asked.append(asyncio.create_task(desk.do("vm.define", name=f"web0{number}", memory_mib=64)))
            await asyncio.sleep(0.001)
        outcomes = await gathered(*asked)
        assert [outcome.position for outcome in outcomes if isinstance(outcome, Outcome)] == [3, 4, 5, 6, 7]
        assert desk.log.batches[-1] == 5


@virtual
async def test_a_crowd_is_forgotten_when_it_has_gone() -> None:
    async with a_desk() as desk:
        desk.log.troubles = [conflict] * 12
        await desk.do("vm.define", name="web01", memory_mib=64)
        await asyncio.sleep(CROWDED_S + 0.1)
        begun = asyncio.get_running_loop().time()
        await desk.do("vm.define", name="web02", memory_mib=64)
        assert asyncio.get_running_loop().time() == begun


@virtual
async def test_a_full_disk_loses_nothing_and_is_told_as_it_is() -> None:
    async with a_desk() as desk:
        desk.log.troubles = [unavailable]
        outcomes = await gathered(
            desk.do("vm.define", name="web01", memory_mib=64), desk.do("vm.define", name="web02", memory_mib=64)
        )
        assert [getattr(outcome, "code", "") for outcome in outcomes] == ["log.disk_full"] * 2
        assert desk.world.position == 2 and not desk.world.state.vms
        assert (await desk.do("vm.define", name="web01", memory_mib=64)).position == 3


@virtual
async def test_a_reply_lost_after_the_append_is_found_out_and_leaves_no_duplicate() -> None:
    async with a_desk() as desk:
        desk.log.troubles = [unknown_but_done]
        outcomes = await gathered(desk.do("vm.define", name="web01", memory_mib=64), desk.do("vm.start", vm="web01"))
        assert [outcome.position for outcome in outcomes if isinstance(outcome, Outcome)] == [3, 4]
        assert await desk.names() == ["cluster.init", "node.report_ready", "vm.define", "vm.start"]


@virtual
async def test_a_request_that_may_still_be_on_its_way_is_told_as_unknown_and_can_be_asked_again() -> None:
    async with a_desk() as desk:
        desk.log.troubles = [unknown_and_not_done]
        with pytest.raises(OutcomeUnknown) as failure:
            await desk.do("vm.define", key="K", name="web01", memory_mib=64)
        assert "same idempotency key" in failure.value.hint
        again = await desk.do("vm.define", key="K", name="web01", memory_mib=64)
        assert (again.position, again.repeated) == (3, False)


@virtual
async def test_an_append_that_took_place_after_all_is_not_done_again_for_the_same_key() -> None:
    async with a_desk() as desk:
        desk.log.troubles = [unknown_but_done]
        desk.log.unreadable = True
        with pytest.raises(OutcomeUnknown):
            await desk.do("vm.define", key="K", name="web01", memory_mib=64)
        desk.log.unreadable = False
        again = await desk.do("vm.define", key="K", name="web01", memory_mib=64)
        assert (again.position, again.repeated) == (3, True)
        assert (await desk.names()).count("vm.define") == 1


@virtual
async def test_a_lost_request_overtaken_by_another_is_decided_again() -> None:
    async with a_desk() as desk:

        def overtaken(log: TroubledLog, entries: Any, after: Head) -> None:
            log._records.append(foreign(after).data)  # somebody else's record took the place
            log._head = foreign(after).head
            raise OutcomeUnknown("no answer")

        desk.log.troubles = [overtaken]
        outcome = await desk.do("vm.define", name="web01", memory_mib=64)
        assert outcome.position == 4
        assert await desk.names() == ["cluster.init", "node.report_ready", "test.foreign", "vm.define"]


@virtual
async def test_a_fold_that_stopped_refuses_writes_with_its_reason() -> None:
    async with a_desk() as desk:
        desk.world.fault = PvcError("the log holds the future", code="fold.unknown_event")
        with pytest.raises(PvcError) as failure:
            await desk.do("vm.define", name="web01", memory_mib=64)
        assert failure.value.code == "fold.unknown_event"
        assert len(await desk.names()) == 2
