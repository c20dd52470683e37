"""Whatever a receiver answers, and whoever is killed or deposed: each event comes, in order, none skipped, none lost.

An event comes for the first time only after all before it have come or are parked in the log. What comes again is the
same by its id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvc.events.cluster import LogRestored
from pvc.sim.loop import run_virtual
from pvc.webhooks import cursor as c
from pvc.webhooks.course import Answer
from pvc.webhooks.deliverer import LOOKS
from pvc.webhooks.store import ABSENT, Taken
from tests.support.deliveries import World

ANSWERS = {
    "ok": Answer(status=200),
    "fail": Answer(status=500),
    "busy": Answer(status=429, retry_after_s=600),
    "gone": Answer(status=410),
    "silent": Answer(error="no answer within 20 s"),
    "lost": Answer(error="the connection was reset"),
}
STEPS = st.sampled_from(["happen", "many", "kill", "depose", "wait", "hours", "days", "pause", "replay", "resume"])


def check(world: World, replayed: bool) -> None:
    wanted, parked = world.wanted(), set(world.parked())
    assert set(world.taken) | parked == set(wanted) if not replayed else set(wanted) <= set(world.taken) | parked
    first = list(dict.fromkeys(world.taken))
    late = set(parked) | world_late(world)
    in_order = [one for one in first if one not in late]
    assert in_order == [one for one in wanted if one in set(in_order)], "in the order of the log"


def world_late(world: World) -> set[str]:
    """What was parked once, and came with a replay."""
    assert world.state.cluster is not None
    found = set()
    for entry in world.cluster.entries:
        for raw in entry.record.events:
            if raw.type == "webhook.parked":
                import msgspec

                data = msgspec.msgpack.decode(raw.data)
                found.add(f"{world.state.cluster.id}-{data['position']}-{data['index']}")
    return found


@pytest.mark.many_seeds
@given(
    answers=st.lists(st.sampled_from(sorted(ANSWERS)), max_size=30),
    steps=st.lists(STEPS, max_size=14),
    batch=st.sampled_from([1, 1, 3, 50]),
    tries=st.sampled_from([1, 2, 10]),
    seed=st.integers(0, 1000),
)
def test_nothing_is_lost_or_skipped_whatever_fails(
    answers: Sequence[str], steps: Sequence[str], batch: int, tries: int, seed: int
) -> None:
    async def run() -> None:
        left = list(answers)
        # At first whoever answers well has not really got it: the answer is lost on the way.
        world = World(
            lambda ids: ANSWERS[left.pop(0)] if left else ANSWERS["ok"],
            seed,
            types=("vm.*",),
            batch=batch,
            tries=tries,
            rate=1000,
        )
        await world.begin()
        world.elect()
        replayed = False
        for step in steps:
            match step:
                case "happen":
                    world.happen()
                case "many":
                    world.happen(20)
                case "kill":
                    await world.kill()
                    world.elect()
                case "depose":
                    world.elect()  # and the old one goes on until its cursor refuses
                case "wait":
                    await asyncio.sleep(0.5)
                case "hours":
                    await asyncio.sleep(3 * 3600)
                case "days":
                    await asyncio.sleep(2 * 86_400)
                case "pause":
                    world.cluster.do("webhook.pause", hook="billing")
                    world.wake()
                case "replay":
                    world.cluster.do("webhook.replay", hook="billing", since="1", first=1)
                    world.wake()
                    replayed = True
                case "resume":
                    world.cluster.do("webhook.resume", hook="billing")
                    world.wake()
        world.cluster.do("webhook.resume", hook="billing")
        world.happen()
        await world.until_done()
        check(world, replayed)
        if not replayed:
            await asyncio.sleep(2 * 86_400)  # also where it was asked to wait
            cursor = await world.cursor()
            assert cursor.tail == world.state.position and len(cursor.way) == 1
            assert cursor.epoch == world.epoch

    run_virtual(run())


def test_a_deposed_deliverer_stops_at_its_next_writing_and_only_repeats() -> None:
    async def run() -> None:
        world = World(lambda ids: ANSWERS["ok"], types=("vm.*",), rate=1000)
        await world.begin()
        world.elect()
        world.happen(200)
        await asyncio.sleep(1.0)
        assert 0 < len(world.taken) < 200
        world.elect()
        await asyncio.sleep(3.0)
        old, new = world.nodes
        assert old[1].done() and not new[1].done()
        await world.until_done()
        check(world, replayed=False)
        assert (await world.cursor()).epoch == world.epoch

    run_virtual(run())


def test_one_whose_term_is_over_cannot_take_the_cursor_back() -> None:
    async def run() -> None:
        world = World(lambda ids: ANSWERS["ok"], types=("vm.*",))
        await world.begin()
        world.elect()
        await asyncio.sleep(1)
        first, _, _ = world.nodes[0]
        world.elect()
        await asyncio.sleep(1)
        with pytest.raises(Taken):
            await first._take(world.hook)

    run_virtual(run())


def test_ten_thousand_events_of_backlog_come_in_order_with_few_writings_of_the_cursor() -> None:
    async def run() -> None:
        world = World(lambda ids: ANSWERS["ok"], types=("vm.*",), batch=100, rate=1000)
        await world.begin()
        world.happen(10_000)
        world.elect()
        await world.until_done()
        assert world.taken == world.wanted() and len(world.taken) == 10_000
        assert len(world.posted) == 100
        [(_, _, store)] = world.nodes
        assert store.writes < 20, "about one a second"

    run_virtual(run())


def test_rare_events_do_not_wait_until_the_whole_log_was_looked_through() -> None:
    async def run() -> None:
        world = World(lambda ids: ANSWERS["ok"], types=("vm.defined",), batch=100)
        await world.begin()
        for _ in range(2):
            world.happen()
            for number in range(LOOKS):
                world.cluster.do("cluster.set_maintenance", maintenance=number % 2 == 0)
        world.happen()
        world.elect()
        while len(world.taken) < 3:
            await asyncio.sleep(1)
        assert [len(ids) for ids in world.posted] == [1, 1, 1] and world.taken == world.wanted()
        await asyncio.sleep(2)
        assert (await world.cursor()).tail == world.state.position

    run_virtual(run())


def test_a_poisoned_event_is_parked_alone_and_can_be_replayed() -> None:
    async def run() -> None:
        poison: set[str] = set()
        world = World(
            lambda ids: Answer(status=400) if poison & set(ids) else ANSWERS["ok"],
            types=("vm.*",),
            batch=10,
            tries=3,
            rate=1000,
        )
        await world.begin()
        world.happen(30)
        wanted = world.wanted()
        poison.add(wanted[13])
        world.elect()
        await world.until_done()
        assert world.parked() == [wanted[13]]
        assert world.taken == [one for one in wanted if one != wanted[13]], "in order, and each once"
        assert world.hook.parked[0].reason == "it answered 400" and not world.hook.disabled
        poison.clear()
        at = world.hook.parked[0].position
        world.cluster.do("webhook.replay", hook="billing", since=str(at), first=at, last=at)
        world.wake()
        await world.until_done()
        assert world.taken[-1] == wanted[13] and world.parked() == []

    run_virtual(run())


def test_a_dead_receiver_is_disabled_after_days_and_nothing_is_lost() -> None:
    async def run() -> None:
        alive = False
        world = World(lambda ids: ANSWERS["ok"] if alive else ANSWERS["silent"], types=("vm.*",), rate=1000)
        await world.begin()
        world.happen(5)
        world.elect()
        await asyncio.sleep(30 * 86_400)
        assert world.hook.disabled == "no answer within 20 s"
        assert "webhook.disabled" in {fault.code for fault in world.state.faults.values()}
        posted, parked = len(world.posted), len(world.parked())
        assert posted <= 20 and parked == 1
        await asyncio.sleep(30 * 86_400)
        assert len(world.posted) == posted, "it is left alone"
        alive = True
        world.cluster.do("webhook.resume", hook="billing")
        world.wake()
        await asyncio.sleep(10)
        assert world.taken == world.wanted()[parked:]
        assert world.state.faults == {}

    run_virtual(run())


@pytest.mark.parametrize("known", [True, False])
def test_a_log_that_was_set_back_leaves_no_gap_however_far_the_cursor_was(known: bool) -> None:
    async def run() -> None:
        world = World(lambda ids: ANSWERS["ok"], types=("vm.*",), rate=1000)
        await world.begin()
        world.happen(10)
        position = world.state.position
        if known:
            restored = LogRestored(position=position - 3, node="hv1", source="a backup")
            world.cluster.record(restored, name="log.restore")
            world.cluster.says_ready()
        before = c.Cursor(hook=world.hook.id, epoch=99, way=(c.Span(next=position + 500),), record="another")
        await world.store.write(world.hook.id, c.encode(before), ABSENT)
        world.elect()
        world.happen(10)
        wanted = world.wanted()[7 if known else 0 :]
        async with asyncio.timeout(1000):
            while world.taken != wanted:
                await asyncio.sleep(1)
        assert (await world.cursor()).epoch == world.epoch

    run_virtual(run())


def test_a_cursor_whose_record_the_log_has_not_is_of_another_log() -> None:
    async def run() -> None:
        world = World(lambda ids: ANSWERS["ok"], types=("vm.*",), rate=1000)
        await world.begin()
        world.happen(10)
        before = c.Cursor(hook=world.hook.id, way=(c.Span(next=world.state.position - 1),), record="another")
        await world.store.write(world.hook.id, c.encode(before), ABSENT)
        world.elect()
        await world.until_done()
        assert world.taken == world.wanted()

    run_virtual(run())
