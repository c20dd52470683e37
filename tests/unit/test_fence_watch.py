"""Whether fence agents answer is asked before a node is lost: by whom, how often, and never in the way of a fencing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from pvc.drivers.fence_simulated import SimulatedFence
from pvc.errors import Unavailable
from pvc.events.fence import FenceSettings
from pvc.node.fence_watch import ASK_AGAIN_S, ASK_EVERY_S, GRACE_S, LOOK_S, FenceWatch, nodes_to_ask
from pvc.projections.state import NodeState
from pvc.runtime.telemetry import NodeFigures
from pvc.runtime.world import World
from pvc.sim.loop import VirtualClock, run_virtual
from tests.support.core import TinyCluster, a_cluster
from tests.unit.primary_house import House, other_than
from tests.unit.primary_house import live as live_nodes

TIMEOUT_S = 20
"""Of each agent."""


def fenced_cluster() -> TinyCluster:
    """hv1 is primary; hv2 is a coordinator, hv3 is none; all have agents."""
    cluster = a_cluster("hv1")
    cluster.add_node("hv2", coordinator=True)
    cluster.add_node("hv3")
    for name in ("hv1", "hv2", "hv3"):
        cluster.do("node.set_fence", node=name, agent="fence_ipmilan", option=["ip=10.0.1.2"], timeout_s=TIMEOUT_S)
    cluster.elect("hv1")
    return cluster


class Desk:
    """hv1's watch over the agents."""

    def __init__(self) -> None:
        self.cluster = fenced_cluster()
        self.world = World(self.cluster.state)
        self.fence = SimulatedFence(delay_s=2.0)
        self.may_act = True
        self.watch = FenceWatch("hv1", self.world, self.fence, VirtualClock(), may_act=lambda: self.may_act)

    def asked(self, node: str) -> int:
        return self.fence.calls.count(("status", node))


def live(story: Callable[[Desk], Awaitable[None]]) -> None:
    async def main() -> None:
        desk = Desk()
        running = asyncio.create_task(desk.watch.run())
        await story(desk)
        assert not running.done(), "it goes on"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run_virtual(main())


def test_the_primary_asks_for_all_others_and_the_next_coordinator_for_the_primary() -> None:
    state = fenced_cluster().state
    asked = {own: [node.name for node in nodes_to_ask(state, own)] for own in ("hv1", "hv2", "hv3")}
    assert asked == {"hv1": ["hv2", "hv3"], "hv2": ["hv1"], "hv3": []}


def test_a_node_without_an_agent_and_one_that_is_lost_are_not_asked_for() -> None:
    cluster = fenced_cluster()
    cluster.do("node.set_fence", node="hv2")
    cluster.says_lost("hv3")
    assert nodes_to_ask(cluster.state, "hv1") == []


def test_each_agent_is_asked_at_once_one_after_the_other_and_then_every_few_minutes() -> None:
    async def story(desk: Desk) -> None:
        await asyncio.sleep(3)
        assert (desk.asked("hv2"), desk.asked("hv3")) == (1, 0)
        await asyncio.sleep(3)
        assert {name: answer.on for name, answer in desk.world.fences.items()} == {"hv2": True, "hv3": True}
        await asyncio.sleep(ASK_EVERY_S - 10)
        assert (desk.asked("hv2"), desk.asked("hv3")) == (1, 1)
        await asyncio.sleep(20)
        assert (desk.asked("hv2"), desk.asked("hv3")) == (2, 2)

    live(story)


def test_an_agent_that_fails_is_said_to_and_asked_again_sooner() -> None:
    async def story(desk: Desk) -> None:
        desk.fence.fails.add("hv3")
        await asyncio.sleep(10)
        assert "the device does not answer" in desk.world.fences["hv3"].error
        assert desk.world.fences["hv2"].error == ""
        desk.fence.fails.clear()
        await asyncio.sleep(ASK_AGAIN_S + 5)
        assert desk.world.fences["hv3"].error == ""

    live(story)


def test_changed_settings_are_tried_at_once_and_what_the_old_ones_came_to_is_forgotten() -> None:
    async def story(desk: Desk) -> None:
        desk.fence.fails.add("hv3")
        await asyncio.sleep(10)
        desk.fence.fails.clear()
        desk.cluster.do("node.set_fence", node="hv3", agent="fence_redfish", option=["ip=10.0.1.3"])
        await asyncio.sleep(LOOK_S + desk.fence.delay_s / 2)
        assert "hv3" not in desk.world.fences
        await asyncio.sleep(desk.fence.delay_s)
        assert desk.world.fences["hv3"].on and desk.world.fences["hv3"].error == ""
        desk.cluster.do("node.set_fence", node="hv3")
        await asyncio.sleep(2 * LOOK_S)
        assert set(desk.world.fences) == {"hv2"}

    live(story)


def test_an_agent_that_hangs_is_given_up_in_time() -> None:
    async def story(desk: Desk) -> None:
        hangs = asyncio.Event()

        async def never(node: str, settings: FenceSettings) -> bool:
            await hangs.wait()
            raise AssertionError("nobody waits for it any more")

        desk.fence.is_on = never  # type: ignore[method-assign]
        await asyncio.sleep(TIMEOUT_S + GRACE_S + 2)
        assert desk.world.fences["hv2"].error == "fence_ipmilan did not answer within 20 s"

    live(story)


def test_the_question_makes_way_when_the_node_is_to_be_fenced() -> None:
    async def story(desk: Desk) -> None:
        desk.fence.delay_s = 15.0
        await asyncio.sleep(1)
        desk.cluster.says_lost("hv2")
        desk.cluster.says_lost("hv3")
        await asyncio.sleep(30)
        assert desk.asked("hv2") == 0, "it was cut short"
        assert desk.world.fences == {}

    live(story)


@pytest.mark.parametrize("why", ["no lease", "fold stopped"])
def test_who_may_not_act_asks_nothing_and_tells_nothing_old(why: str) -> None:
    async def story(desk: Desk) -> None:
        await asyncio.sleep(10)
        assert set(desk.world.fences) == {"hv2", "hv3"}
        if why == "no lease":
            desk.may_act = False
        else:
            desk.world.fault = Unavailable("defect")
        await asyncio.sleep(2 * ASK_EVERY_S)
        assert desk.world.fences == {} and desk.asked("hv2") == 1

    live(story)


def test_what_the_agents_answer_travels_with_the_nodes_figures() -> None:
    async def story(house: House) -> None:
        primary = house.primary
        failing = other_than(primary)
        house.fence.fails.add(failing)
        await house.do(
            "node.set_fence",
            node=failing,
            agent="fence_ipmilan",
            option=["ip=10.0.1.9"],
            password_file="/etc/pvc/fence",
        )
        await asyncio.sleep(60)
        told = {
            name: msgspec.json.decode(data, type=NodeFigures).fences for name, data in house.server.telemetry.items()
        }
        assert set(told[primary]) == set(house.hosts) - {primary}
        assert "the device does not answer" in told[primary][failing].error
        second = min(set(house.hosts) - {primary})
        assert set(told[second]) == {primary} and told[second][primary].on
        assert house.node(failing).state is NodeState.READY, "that is no reason to do anything to it"

    live_nodes(story)
