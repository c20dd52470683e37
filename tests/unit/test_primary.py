"""Three nodes in one process: who is primary, what it does about a lost node, and that a stale one does nothing."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from pvc.commands.facts import REPORTS
from pvc.commands.facts_cluster import ReportNodeLost
from pvc.errors import Rejected
from pvc.handlers.cluster_plan import FENCE_AGAIN_S, SELF_FENCE_MARGIN_S
from pvc.projections.state import NodeState
from pvc.projections.vm_machine import VmState
from pvc.runtime.appender import Request
from tests.support.core import ADMIN
from tests.unit.primary_house import (
    NODES,
    SESSION_S,
    WATCHDOG_S,
    House,
    live,
    other_than,
)

# Election.


def test_one_coordinator_is_primary_and_another_takes_over_when_it_is_gone() -> None:
    async def story(house: House) -> None:
        first, epoch = house.primary, house.epoch
        await asyncio.sleep(60)
        assert (house.primary, house.epoch) == (first, epoch), "it stays who it is"
        house.hosts[first].kill()
        house.fence.fails.add(first)
        await house.until(lambda: house.primary != first)
        assert house.epoch == epoch + 1
        await house.until(lambda: house.node(first).state is NodeState.LOST)
        house.hosts[first].start()
        await house.until(lambda: house.node(first).state is NodeState.READY)
        assert house.primary != first

    live(story)


def test_a_primary_whose_daemon_is_restarted_at_once_is_the_next_one_too() -> None:
    async def story(house: House) -> None:
        first, epoch = house.primary, house.epoch
        house.hosts[first].kill()
        house.hosts[first].start()
        await house.until(lambda: house.epoch > epoch)
        assert house.primary == first
        await asyncio.sleep(3 * SESSION_S)
        assert "node.lost" not in await house.told(), "nobody noticed"

    live(story)


def test_a_primary_that_was_cut_off_and_comes_back_is_refused_and_does_no_harm() -> None:
    async def story(house: House) -> None:
        stale, epoch = house.primary, house.epoch
        victim = other_than(stale)
        house.server.freeze(stale)
        house.fence.fails.update(NODES)
        await house.until(lambda: house.primary != stale)
        late = ReportNodeLost(
            primary=stale, epoch=epoch, node=victim, reason="late", ready_at=house.node(victim).ready_at
        )
        name, decide = REPORTS[ReportNodeLost]
        request = Request(name=name, command=late, decide=decide, actor=ADMIN)
        with pytest.raises(Rejected) as refusal:
            await house.hosts[stale].appender.submit(request)
        assert refusal.value.code == "cluster.stale_primary"
        house.fence.fails.clear()
        house.server.thaw(stale)
        await asyncio.sleep(60)
        assert house.node(victim).state is NodeState.READY
        assert house.primary != stale or house.epoch > epoch

    live(story)


# Loss, fence, recovery.


def test_a_node_that_dies_is_fenced_its_vm_runs_elsewhere_and_it_comes_back() -> None:
    async def story(house: House) -> None:
        victim = other_than(house.primary)
        await house.run_a_vm(node=victim)
        house.hosts[victim].power(False)
        took_s = await house.until(lambda: house.vm().node != victim and house.vm().state is VmState.RUNNING)
        assert took_s <= SESSION_S + house.fence.delay_s + 5
        assert house.runs_on() == [house.vm().node]
        assert house.vm().epoch == 2 and house.vm().away == "recovery"
        house.fence.press(victim, on=True)
        await house.until(lambda: house.node(victim).state is NodeState.READY)
        assert ("off", victim) in house.fence.calls
        await house.do("node.ready", node=victim)
        await house.until(lambda: house.vm().node == victim and house.vm().state is VmState.RUNNING)
        assert house.vm().epoch == 2, "it came home live"

    live(story)


def test_a_node_that_only_hangs_is_switched_off_before_its_vm_starts_elsewhere_and_on_again_after() -> None:
    async def story(house: House) -> None:
        victim = other_than(house.primary)
        await house.run_a_vm(node=victim)
        house.hosts[victim].kill()
        await house.until(lambda: house.vm().node != victim and house.vm().state is VmState.RUNNING)
        assert house.runs_on() == [house.vm().node]
        await house.until(lambda: house.node(victim).state is NodeState.READY)
        assert house.switched(victim) == ["off", "on"]

    live(story)


def test_a_device_that_fails_keeps_the_vm_where_it_is_until_it_answers() -> None:
    async def story(house: House) -> None:
        victim = other_than(house.primary)
        await house.run_a_vm(node=victim)
        house.fence.fails.add(victim)
        house.hosts[victim].kill()
        await house.until(lambda: f"node.unfenced/{victim}" in house.state.faults)
        await asyncio.sleep(120)
        assert (house.vm().node, house.runs_on()) == (victim, [victim])
        assert (await house.told()).count("node.fence_failed") == 1
        house.fence.fails.clear()
        took_s = await house.until(lambda: house.vm().node != victim)
        assert took_s <= FENCE_AGAIN_S + 5
        assert f"node.unfenced/{victim}" not in house.state.faults

    live(story)


def test_a_node_without_any_fence_keeps_its_vm_until_an_admin_says_that_it_is_off() -> None:
    async def story(house: House) -> None:
        victim = other_than(house.primary)
        await house.run_a_vm(node=victim)
        house.hosts[victim].power(False)
        await house.until(lambda: f"node.unfenced/{victim}" in house.state.faults)
        await asyncio.sleep(60)
        assert house.vm().node == victim
        await house.do("node.confirm_fenced", node=victim)
        await house.until(lambda: house.vm().node != victim and house.vm().state is VmState.RUNNING, 10)

    live(story, agents=False)


def test_a_node_that_fences_itself_is_believed_after_the_time_it_promised() -> None:
    async def story(house: House) -> None:
        victim = other_than(house.primary)
        await house.run_a_vm(node=victim)
        house.server.cut(victim)
        took_s = await house.until(lambda: house.vm().node != victim and house.vm().state is VmState.RUNNING)
        bound_s = house.node(victim).self_fence_s + SELF_FENCE_MARGIN_S
        assert WATCHDOG_S + SELF_FENCE_MARGIN_S < bound_s <= took_s <= SESSION_S + bound_s + 3
        house.server.restore(victim)
        await house.until(lambda: house.node(victim).state is NodeState.READY)
        await asyncio.sleep(60)
        assert house.runs_on() == [house.vm().node]

    live(story, agents=False, watchdogs=True)


def test_an_agent_that_is_still_at_it_when_an_admin_has_confirmed_switches_nothing_off_any_more() -> None:
    async def story(house: House) -> None:
        victim = other_than(house.primary)
        house.fence.delay_s = 40
        house.hosts[victim].power(False)
        house.fence.press(victim, on=False)
        await house.until(lambda: house.node(victim).state is NodeState.LOST)
        await asyncio.sleep(5)
        house.fence.delay_s = 1
        await house.do("node.confirm_fenced", node=victim)
        await house.until(lambda: house.node(victim).state is NodeState.READY, 30)
        boots = house.hosts[victim].boots
        await asyncio.sleep(120)
        assert ("off", victim) not in house.fence.calls
        assert (house.node(victim).state, house.hosts[victim].boots) == (NodeState.READY, boots)

    live(story)


def test_a_node_that_is_back_before_its_device_has_answered_is_left_on() -> None:
    async def story(house: House) -> None:
        victim = other_than(house.primary)
        await house.run_a_vm(node=victim)
        house.fence.delay_s = 40
        house.server.cut(victim)
        await house.until(lambda: house.node(victim).state is NodeState.LOST)
        house.server.restore(victim)
        await house.until(lambda: house.node(victim).state is NodeState.READY, 30)
        await asyncio.sleep(120)
        assert ("off", victim) not in house.fence.calls
        assert (house.vm().node, house.vm().epoch) == (victim, 1)

    live(story)


def test_a_cluster_without_a_majority_loses_no_vm_of_a_node_with_an_agent() -> None:
    async def story(house: House) -> None:
        await house.run_a_vm()
        house.server.go_down()
        await asyncio.sleep(300)
        assert house.runs_on() == ["hv3"]
        house.server.come_up()
        await asyncio.sleep(120)
        assert house.runs_on() == ["hv3"] and house.vm().epoch == 1
        assert "node.lost" not in await house.told()

    live(story)


def test_that_nothing_could_be_written_is_on_record_once_it_can_be_again() -> None:
    async def story(house: House) -> None:
        await asyncio.sleep(60)
        elected = [event.silent_s for event in await house.elections()]
        assert elected == [0], "a beginning is no outage"
        house.server.go_down()
        await asyncio.sleep(60)
        house.server.come_up()
        await asyncio.sleep(60)
        _, *later = [event.silent_s for event in await house.elections()]
        assert len(later) == 1 and 50 <= later[0] <= 75
        house.hosts[house.primary].kill()
        await asyncio.sleep(60)
        assert [event.silent_s for event in await house.elections()][2:] == [0], "that was told already"

    live(story)


def test_in_maintenance_a_missing_node_is_left_alone() -> None:
    async def story(house: House) -> None:
        victim = other_than(house.primary)
        await house.do("cluster.set_maintenance", maintenance=True)
        house.hosts[victim].kill()
        await asyncio.sleep(5 * SESSION_S)
        assert house.node(victim).state is NodeState.READY and house.switched(victim) == []
        house.hosts[victim].start()
        await house.until(lambda: house.hosts[victim].presence.joined)
        await house.do("cluster.set_maintenance", maintenance=False)
        await asyncio.sleep(5 * SESSION_S)
        assert "node.lost" not in await house.told()

    live(story)


def test_a_primary_that_dies_between_two_steps_is_followed_by_one_that_goes_on() -> None:
    async def story(house: House) -> None:
        first = house.primary
        victim = other_than(first)
        await house.run_a_vm(node=victim)
        house.fence.delay_s = 20
        house.hosts[victim].kill()
        await house.until(lambda: house.node(victim).state is NodeState.LOST)
        house.hosts[first].kill()
        house.fence.fails.add(first)
        await house.until(lambda: house.vm().node == other_than(first, victim) and bool(house.runs_on()))

    live(story)


def test_a_flush_and_the_way_back_are_carried_out() -> None:
    async def story(house: House) -> None:
        for number in range(6):
            await house.run_a_vm(f"web{number:02d}", node="hv3")
        await house.do("node.flush", node="hv3")
        await house.until(lambda: house.node("hv3").flush.value == "flushed")
        assert house.state.load_of("hv3").running == 0
        await house.do("node.ready", node="hv3")
        await house.until(lambda: house.node("hv3").flush.value == "none")
        assert house.state.load_of("hv3").running == 6
        assert all(vm.epoch == 1 for vm in house.state.vms.values())

    live(story)


def test_a_node_whose_fold_went_astray_is_told_of_once() -> None:
    async def story(house: House) -> None:
        victim = other_than(house.primary)
        await house.run_a_vm()
        astray = house.hosts[victim].world.state
        astray.put_vm(replace(astray.vms[house.vm().id], description="only here"))
        await house.do("vm.add_tag", vm="web01", tag="any")
        await house.until(lambda: f"node.diverged/{victim}" in house.state.faults)
        await asyncio.sleep(30)
        assert (await house.told()).count("node.diverged") == 1

    live(story)
