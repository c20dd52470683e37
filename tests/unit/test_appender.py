"""The appender: what a caller learns, and what is in the log, whatever the log does."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import msgspec
import pytest

from pvc.commands.base import Decision
from pvc.commands.registry import BY_NAME
from pvc.errors import OutcomeUnknown, PvcError, Rejected, Unavailable
from pvc.events import vm as e
from pvc.events.record import EMPTY, Actor, CommandRef, Head, Record, check_follows, seal, unseal
from pvc.events.registry import decode_event, encode_event
from pvc.log.base import MAX_BATCH_ENTRIES
from pvc.projections.state import ClusterState
from pvc.runtime.appender import CROWDED_S, MAX_ATTEMPTS, MAX_QUEUE, Appender, Outcome, Request
from pvc.runtime.world import World, catch_up
from pvc.sim.loop import VirtualClock, run_virtual
from tests.support.core import ADMIN, command, node_ready, replayed
from tests.support.fake_log import TroubledLog, conflict, unavailable, unknown_and_not_done, unknown_but_done


class Desk:
    """A world, its log, and an appender that is running."""

    def __init__(self) -> None:
        self.log = TroubledLog()
        self.world = World()
        self.appender = self.another_appender(self.world, seed=1)

    def another_appender(self, world: World, seed: int = 2) -> Appender:
        """As another process on the same log would have it."""
        return Appender(world, self.log, origin="hv1", clock=VirtualClock(), rng=random.Random(seed))

    async def do(self, name: str, /, key: str = "", audit: bool = False, **fields: Any) -> Outcome:
        return await self.appender.submit(request(name, key=key, audit=audit, **fields))

    async def names(self) -> list[str]:
        """Names of all commands in the log; checks that its records make one dense chain."""
        head = EMPTY
        names = []
        for data in await self.log.read(1, 10_000):
            entry = unseal(data)
            check_follows(entry, head)
            head = entry.head
            names.append(entry.record.command.name)
        return names


def request(name: str, /, key: str = "", audit: bool = False, **fields: Any) -> Request:
    return Request(
        name=name,
        command=command(name, **fields),
        decide=BY_NAME[name].decide,
        actor=ADMIN,
        command_id=key,
        audit_refusal=audit,
    )


@contextlib.asynccontextmanager
async def a_desk(initialised: bool = True) -> AsyncIterator[Desk]:
    desk = Desk()
    running = asyncio.create_task(desk.appender.run())
    if initialised:
        from pvc.commands.facts import REPORTS, ReportNodeReady

        await desk.do("cluster.init", name="main")
        name, decide = REPORTS[ReportNodeReady]
        await desk.appender.submit(Request(name=name, command=node_ready(), decide=decide, actor=ADMIN))
    try:
        yield desk
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def gathered(*waiting: Awaitable[Outcome]) -> list[Outcome | BaseException]:
    return await asyncio.gather(*waiting, return_exceptions=True)


def virtual(test: Any) -> Any:
    """Run an async test on virtual time: back-off costs nothing, and the order is always the same."""

    def run() -> None:
        run_virtual(test())

    run.__name__ = test.__name__
    return run


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
        assert desk.world.state.state_hash() == await _replayed_hash(desk)


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
        assert desk.world.state.state_hash() == await _replayed_hash(desk)


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
        assert desk.world.state.state_hash() == await _replayed_hash(desk)


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
            log._records.append(_foreign(after).data)  # somebody else's record took the place
            log._head = _foreign(after).head
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
        assert desk.world.state.state_hash() == await _replayed_hash(desk)


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


def _foreign(after: Head) -> Any:
    return seal(
        Record(
            position=after.position + 1,
            prev=after.hash,
            id="FOREIGN",
            time_us=1,
            actor=Actor(principal="node/hv2", method="node"),
            origin="hv2",
            command=CommandRef(id="FOREIGN", name="test.foreign"),
            events=(encode_event(e.VmEnabled(vm="nobody")),),
        )
    )


async def _replayed_hash(desk: Desk) -> str:
    return replayed([unseal(data) for data in await desk.log.read(1, 10_000)]).state_hash()
