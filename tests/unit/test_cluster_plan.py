"""What the primary has to do: from the first sign of a loss to the last VM that runs elsewhere, step by step."""

from __future__ import annotations

from typing import Any

import pytest

from pvc.handlers import cluster_plan as plan
from pvc.handlers.cluster_plan import (
    FENCE_AGAIN_S,
    NEVER_SEEN_GRACE_S,
    SELF_FENCE_MARGIN_S,
    UNGUARDED,
    UNREADY,
    UNREADY_S,
    BelieveSelfFence,
    DeclareLost,
    Fence,
    FlushStep,
    GiveUpFencing,
    PowerOn,
    RaiseLevel,
    Recover,
    Tried,
    Watch,
    plan_cluster,
)
from pvc.projections.state import ClusterState
from tests.support.core import TinyCluster, a_cluster, bring

NODES = ("hv1", "hv2", "hv3")
STEP_S = 0.5


class Primary:
    """The cluster as its primary sees it, look after look."""

    def __init__(self, cluster: TinyCluster | None = None) -> None:
        self.cluster = cluster or a_cluster(*NODES)
        self.watch = Watch(since_s=0.0)
        self.tried = Tried()
        self.now_s = 0.0
        self.there = set(self.cluster.state.nodes)
        self.unready: dict[str, str] = {}

    def due(self, *, after_s: float = STEP_S) -> list[Any]:
        """What is due after so long, in which it has looked often."""
        end = self.now_s + after_s
        while self.now_s < end:
            self.now_s = min(self.now_s + STEP_S, end)
            ready_at = {node.name: node.ready_at for node in self.cluster.state.nodes.values()}
            self.watch.note(frozenset(self.there), self.now_s, self.now_s, ready_at)
            self.watch.note_unready(self.unready, self.now_s)
        return plan_cluster(self.cluster.state, self.watch, self.tried, self.now_s)

    def says(self, node: str, why: str) -> None:
        """What keeps a node that is there from saying that it is ready."""
        self.unready = {node: why}

    def gone(self, node: str = "hv3") -> int:
        """The node was there, and is no more, and the log knows it; returns which loss that is."""
        self.due()
        self.there.discard(node)
        self.due()
        self.cluster.says_lost(node)
        return self.cluster.state.nodes[node].lost_at

    def with_agent(self, node: str = "hv3") -> Primary:
        self.cluster.do("node.set_fence", node=node, agent="fence_ipmilan", option=["ip=10.0.1.2"])
        return self


def test_while_all_are_there_nothing_is_due() -> None:
    assert Primary().due() == []
    assert plan_cluster(ClusterState(), Watch(since_s=0.0), Tried(), 1.0) == []


# Lost.


def test_a_node_that_was_seen_and_is_gone_is_lost_at_once() -> None:
    primary = Primary()
    primary.due()
    primary.there.discard("hv3")
    ready_at = primary.cluster.state.nodes["hv3"].ready_at
    assert primary.due() == [DeclareLost(node="hv3", reason="its session has ended", ready_at=ready_at)]


def test_a_node_that_was_never_seen_has_some_time_to_boot() -> None:
    primary = Primary()
    primary.there.discard("hv3")
    assert primary.due(after_s=NEVER_SEEN_GRACE_S - STEP_S) == []
    (lost,) = primary.due()
    assert isinstance(lost, DeclareLost) and lost.reason == "it has no session, and had none for 60 s"


def test_in_maintenance_nothing_is_done_about_missing_nodes_and_flushes_go_on() -> None:
    primary = Primary().with_agent()
    primary.gone()
    primary.cluster.do("cluster.set_maintenance", maintenance=True)
    primary.there.discard("hv2")
    assert primary.due(after_s=100) == []
    primary.cluster.do("vm.define", name="web01", memory_mib=64, node="hv1")
    bring(primary.cluster, "web01", "running")
    primary.cluster.do("node.flush", node="hv1")
    assert primary.due() == [FlushStep(node="hv1")]
    primary.cluster.do("cluster.set_maintenance", maintenance=False)
    assert [type(duty) for duty in primary.due()] == [DeclareLost, Fence, FlushStep]


def test_a_member_that_was_never_heard_of_is_not_missed() -> None:
    primary = Primary()
    primary.cluster.do("node.add", node="hv4")
    assert primary.due(after_s=2 * NEVER_SEEN_GRACE_S) == []


# Fenced.


def test_a_lost_node_is_fenced_once_at_a_time_and_again_after_a_pause() -> None:
    primary = Primary().with_agent()
    loss = primary.gone()
    assert primary.due() == [Fence(node="hv3", lost_at=loss)]
    primary.tried.fencing.add(("hv3", loss))
    assert primary.due(after_s=100) == [], "it is under way"
    primary.tried.fencing.clear()
    primary.tried.failed_s["hv3", loss] = primary.now_s
    assert primary.due(after_s=FENCE_AGAIN_S - 1) == []
    assert primary.due(after_s=1) == [Fence(node="hv3", lost_at=loss)]


def test_another_loss_is_fenced_anew() -> None:
    primary = Primary().with_agent()
    first = primary.gone()
    primary.tried.failed_s["hv3", first] = primary.now_s
    primary.there.add("hv3")
    primary.cluster.says_ready("hv3")
    second = primary.gone()
    assert primary.due() == [Fence(node="hv3", lost_at=second)] and second != first


def test_a_lost_node_that_is_there_again_is_left_alone() -> None:
    primary = Primary().with_agent()
    primary.gone()
    primary.there.add("hv3")
    assert primary.due(after_s=100) == []


def test_a_lost_node_that_is_there_and_cannot_say_that_it_is_ready_is_fenced_after_a_time() -> None:
    primary = Primary().with_agent()
    loss = primary.gone()
    primary.there.add("hv3")
    primary.says("hv3", "libvirtd does not answer")
    assert primary.due(after_s=UNREADY_S) == []
    assert primary.due() == [Fence(node="hv3", lost_at=loss)]


def test_what_keeps_a_node_from_being_ready_counts_only_while_it_lasts() -> None:
    primary = Primary().with_agent()
    primary.gone()
    primary.there.add("hv3")
    for _ in range(3):
        primary.says("hv3", "libvirtd does not answer")
        assert primary.due(after_s=UNREADY_S - 1) == []
        primary.says("hv3", "")
        assert primary.due() == [], "it is about to say so"


def test_a_node_that_cannot_say_that_it_is_ready_nor_be_fenced_is_given_up_with_its_reason_once() -> None:
    primary = Primary()
    loss = primary.gone()
    primary.cluster.says_unfenced("hv3", UNGUARDED)
    primary.there.add("hv3")
    primary.says("hv3", "libvirtd does not answer")
    (give_up,) = primary.due(after_s=UNREADY_S + 1)
    assert give_up == GiveUpFencing(node="hv3", lost_at=loss, why=UNREADY + "libvirtd does not answer")
    primary.cluster.says_unfenced("hv3", give_up.why)
    primary.says("hv3", "libvirtd does not answer after 2 tries")
    assert primary.due(after_s=100) == []
    primary.there.discard("hv3")
    assert primary.due() == [GiveUpFencing(node="hv3", lost_at=loss, why=UNGUARDED)]


def test_a_node_that_can_neither_be_fenced_nor_fences_itself_is_given_up_once() -> None:
    primary = Primary()
    loss = primary.gone()
    assert primary.due() == [GiveUpFencing(node="hv3", lost_at=loss, why=UNGUARDED)]
    primary.cluster.says_unfenced("hv3", "it has no fence agent and no watchdog")
    assert primary.due(after_s=100) == []
    primary.with_agent()
    assert primary.due() == [Fence(node="hv3", lost_at=loss)], "an agent that is set now is tried"


def test_a_promise_is_believed_when_its_time_is_over_and_not_before() -> None:
    primary = Primary()
    primary.cluster.says_ready("hv3", self_fence_s=12)
    loss = primary.gone()
    bound_s = 12 + SELF_FENCE_MARGIN_S
    assert primary.due(after_s=bound_s - 2 * STEP_S) == []
    (believe,) = primary.due(after_s=2 * STEP_S)
    assert isinstance(believe, BelieveSelfFence)
    assert (believe.node, believe.lost_at) == ("hv3", loss) and believe.waited_s >= bound_s


def test_a_node_with_both_is_fenced_by_the_one_that_is_quicker() -> None:
    primary = Primary().with_agent()
    primary.cluster.says_ready("hv3", self_fence_s=12)
    loss = primary.gone()
    assert primary.due() == [Fence(node="hv3", lost_at=loss)]
    primary.tried.failed_s["hv3", loss] = primary.now_s
    (believe,) = primary.due(after_s=20)
    assert isinstance(believe, BelieveSelfFence)


# Recovered.


def test_a_fenced_node_is_emptied_and_switched_on_again_once() -> None:
    primary = Primary().with_agent()
    primary.cluster.do("vm.define", name="web01", memory_mib=64, node="hv3")
    bring(primary.cluster, "web01", "running")
    loss = primary.gone()
    primary.cluster.says_fenced("hv3")
    assert primary.due() == [Recover(node="hv3"), PowerOn(node="hv3", lost_at=loss)]
    primary.cluster.recover("hv3")
    assert primary.due() == [PowerOn(node="hv3", lost_at=loss)]
    primary.tried.powered_on.add(("hv3", loss))
    assert primary.due(after_s=100) == []


def test_a_node_that_could_not_be_switched_on_is_tried_again_until_it_is_there() -> None:
    primary = Primary().with_agent()
    loss = primary.gone()
    primary.cluster.says_fenced("hv3")
    primary.tried.power_failed_s["hv3", loss] = primary.now_s
    assert primary.due(after_s=FENCE_AGAIN_S - 1) == []
    assert primary.due(after_s=1) == [PowerOn(node="hv3", lost_at=loss)]
    primary.there.add("hv3")
    assert primary.due() == []


def test_vms_that_found_no_room_are_looked_at_again_and_again() -> None:
    primary = Primary()
    primary.cluster.do("vm.define", name="web01", memory_mib=64, node="hv3", node_limits=["hv3"])
    bring(primary.cluster, "web01", "running")
    primary.gone()
    primary.cluster.says_fenced("hv3")
    primary.cluster.recover("hv3")
    assert primary.due(after_s=100) == [Recover(node="hv3")]


# All at once.


def test_what_is_urgent_comes_first() -> None:
    primary = Primary(a_cluster(*NODES, "hv4", "hv5", "hv6", "hv7"))
    for node, fields in (("hv4", {}), ("hv5", {"self_fence_s": 1}), ("hv7", {})):
        primary.cluster.says_ready(node, **fields)
    for name, node in (("web01", "hv1"), ("web02", "hv6")):
        primary.cluster.do("vm.define", name=name, memory_mib=64, node=node)
        bring(primary.cluster, name, "running")
    primary.with_agent("hv4").with_agent("hv6")
    primary.cluster.do("node.flush", node="hv1")
    for node in primary.cluster.state.nodes:
        primary.cluster.says_ready(node, level=2, self_fence_s=primary.cluster.state.nodes[node].self_fence_s)
    for node in ("hv4", "hv5", "hv6", "hv7"):
        primary.gone(node)
    primary.cluster.says_fenced("hv6")
    primary.due(after_s=20)
    primary.there.discard("hv3")
    assert [type(duty) for duty in primary.due()] == [
        DeclareLost,
        Fence,
        BelieveSelfFence,
        Recover,
        GiveUpFencing,
        PowerOn,
        FlushStep,
        RaiseLevel,
    ]
    assert set(plan._URGENCY) == set(plan.Duty.__args__)


def test_flushes_and_returns_are_looked_at_until_they_are_done() -> None:
    primary = Primary()
    primary.cluster.do("vm.define", name="web01", memory_mib=64, node="hv1")
    bring(primary.cluster, "web01", "running")
    primary.cluster.do("node.flush", node="hv1")
    assert primary.due() == [FlushStep(node="hv1")]
    primary.cluster.do("node.ready", node="hv1")
    assert primary.due() == [], "nothing is to come home, so it is done"
    primary.cluster.do("node.flush", node="hv1")
    primary.cluster.says_lost("hv1")
    assert not any(isinstance(duty, FlushStep) for duty in primary.due())


def test_the_level_is_raised_when_all_that_were_heard_of_know_it() -> None:
    primary = Primary()
    for node in ("hv1", "hv2"):
        primary.cluster.says_ready(node, level=2)
    assert primary.due() == []
    primary.cluster.do("node.add", node="hv4")
    primary.cluster.says_ready("hv3", level=3)
    assert primary.due() == [RaiseLevel()]


@pytest.mark.parametrize("node", NODES)
def test_the_primary_never_guards_against_itself_while_it_is_there(node: str) -> None:
    primary = Primary().with_agent(node)
    primary.cluster.elect()
    primary.there = {node}
    primary.due(after_s=2 * NEVER_SEEN_GRACE_S)
    assert all(getattr(duty, "node", "") != node for duty in primary.due())
