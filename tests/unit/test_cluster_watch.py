"""What the primary may conclude from its looks at who is there: never more than they prove."""

from __future__ import annotations

from pvc.commands.facts_cluster import ReportNodeLost
from pvc.handlers.cluster_plan import (
    LOOK_GAP_S,
    NEEDED,
    SELF_FENCE_MARGIN_S,
    BelieveSelfFence,
    DeclareLost,
    Fence,
    GiveUpFencing,
    Tried,
    Watch,
    plan_cluster,
)
from pvc.projections.state import NodeState
from tests.support.core import TinyCluster, a_cluster

PROMISE_S = 12


def look(cluster: TinyCluster, watch: Watch, now_s: float, *there: str, took_s: float = 0.0) -> list[object]:
    """One look of the primary, and what is due after it."""
    ready_at = {node.name: node.ready_at for node in cluster.state.nodes.values()}
    watch.note(frozenset(there), now_s, now_s + took_s, ready_at)
    return [due for due in plan_cluster(cluster.state, watch, Tried(), now_s) if isinstance(due, _OF_INTEREST)]


def look_again(cluster: TinyCluster, watch: Watch, from_s: float, until_s: float) -> list[object]:
    """Look again and again, and never find hv2."""
    found: list[object] = []
    now_s = from_s
    while now_s < until_s and not found:
        found = look(cluster, watch, now_s, "hv1")
        now_s += 0.5
    return found


def a_cluster_that_fences_itself() -> TinyCluster:
    cluster = a_cluster("hv1", "hv2")
    cluster.elect("hv1")
    cluster.says_ready("hv2", self_fence_s=PROMISE_S)
    return cluster


_OF_INTEREST = (DeclareLost, BelieveSelfFence)


def test_a_look_from_before_a_node_came_back_does_not_declare_it_lost() -> None:
    cluster = a_cluster_that_fences_itself()
    watch = Watch(since_s=0.0)
    look(cluster, watch, 1.0, "hv1", "hv2")
    look(cluster, watch, 2.0, "hv1")
    cluster.says_ready("hv2", self_fence_s=PROMISE_S)  # it had come just after that look
    assert plan_cluster(cluster.state, watch, Tried(), 2.1) == []
    assert look(cluster, watch, 2.5, "hv1") != [], "the next look knows of that"


def test_a_loss_that_was_found_before_the_node_came_back_is_not_recorded() -> None:
    cluster = a_cluster_that_fences_itself()
    found = ReportNodeLost(
        **cluster.primary, node="hv2", reason="its session has ended", ready_at=cluster.state.nodes["hv2"].ready_at
    )
    cluster.says_ready("hv2", self_fence_s=PROMISE_S)
    assert cluster.report(found) == ()
    assert cluster.state.nodes["hv2"].state is NodeState.READY


def test_a_promise_is_believed_when_its_time_was_seen_to_pass() -> None:
    cluster = a_cluster_that_fences_itself()
    watch = Watch(since_s=0.0)
    look(cluster, watch, 0.5, "hv1", "hv2")
    look(cluster, watch, 1.0, "hv1")
    cluster.says_lost("hv2")
    bound_s = 1.0 + PROMISE_S + SELF_FENCE_MARGIN_S
    assert look_again(cluster, watch, 1.5, bound_s) == []
    assert isinstance(look(cluster, watch, bound_s, "hv1")[0], BelieveSelfFence)


def test_time_in_which_nobody_looked_does_not_count_for_a_promise() -> None:
    cluster = a_cluster_that_fences_itself()
    watch = Watch(since_s=0.0)
    look(cluster, watch, 0.5, "hv1", "hv2")
    look(cluster, watch, 1.0, "hv1")
    cluster.says_lost("hv2")
    # Meanwhile it may have been back, with a lease and running VMs, and gone again.
    assert look(cluster, watch, 100.0, "hv1") == []
    assert look_again(cluster, watch, 100.0 + LOOK_GAP_S / 2, 100.0 + PROMISE_S) == []


def test_a_look_that_took_long_counts_for_a_promise_only_from_its_end() -> None:
    cluster = a_cluster_that_fences_itself()
    watch = Watch(since_s=0.0)
    look(cluster, watch, 0.5, "hv1", "hv2")
    look(cluster, watch, 1.0, "hv1", took_s=9.0)
    cluster.says_lost("hv2")
    bound_s = 1.0 + PROMISE_S + SELF_FENCE_MARGIN_S
    assert look_again(cluster, watch, 10.5, bound_s + 1) == []


def test_the_state_knows_which_announcement_is_the_last() -> None:
    cluster = a_cluster_that_fences_itself()
    before = cluster.state.nodes["hv2"]
    cluster.says_ready("hv2")
    assert cluster.state.nodes["hv2"].ready_at == cluster.state.position > before.ready_at


def coordinators(*names: str) -> TinyCluster:
    cluster = a_cluster("hv1")
    for name in names:
        cluster.add_node(name, coordinator=True)
        cluster.do("node.set_fence", node=name, agent="fence_ipmilan")
    cluster.elect("hv1")
    return cluster


def fences(cluster: TinyCluster, tried: Tried, *there: str) -> dict[str, str]:
    """Node -> what the primary does about it, with these there."""
    watch = Watch(since_s=0.0)
    watch.note(frozenset(there), 1.0, 1.0, {node.name: node.ready_at for node in cluster.state.nodes.values()})
    due = plan_cluster(cluster.state, watch, tried, 1.0)
    return {duty.node: type(duty).__name__ for duty in due if isinstance(duty, Fence | GiveUpFencing)}


def test_coordinators_are_fenced_one_by_one_where_their_servers_make_the_majority() -> None:
    cluster = coordinators("hv2", "hv3")
    cluster.says_lost("hv2")
    cluster.says_lost("hv3")
    tried = Tried()
    assert fences(cluster, tried, "hv1") == {"hv2": "Fence", "hv3": "GiveUpFencing"}
    tried.fencing.add(("hv2", cluster.state.nodes["hv2"].lost_at))
    assert fences(cluster, tried, "hv1") == {"hv3": "GiveUpFencing"}
    tried.fencing.clear()
    cluster.says_fenced("hv2")
    assert fences(cluster, tried, "hv1") == {"hv3": "GiveUpFencing"}, "it is off, and boots at best"
    cluster.says_unfenced("hv3", NEEDED)
    assert fences(cluster, tried, "hv1") == {}, "that is said once"
    cluster.says_ready("hv2")
    assert fences(cluster, tried, "hv1", "hv2") == {"hv3": "Fence"}


def test_a_coordinator_that_could_not_be_fenced_serves_nobody() -> None:
    cluster = coordinators("hv2", "hv3")
    cluster.says_lost("hv2")
    cluster.says_unfenced("hv2", "its BMC does not answer")
    assert fences(cluster, Tried(), "hv1", "hv3") == {"hv2": "Fence"}, "there is hv3"
    cluster.says_lost("hv3")
    assert fences(cluster, Tried(), "hv1")["hv3"] == "GiveUpFencing", "with hv2 dead there is only hv3's server"
    cluster.says_unfenced("hv3", NEEDED)
    assert fences(cluster, Tried(), "hv1") == {"hv2": "GiveUpFencing"}, "one of the two serves, and which is not known"
    assert fences(cluster, Tried(), "hv1", "hv2") == {"hv3": "Fence"}, "hv2 is there again"


def test_a_coordinator_that_was_never_installed_serves_nobody() -> None:
    cluster = coordinators("hv2")
    cluster.do("node.add", node="hv3", coordinator=True)
    cluster.says_lost("hv2")
    assert fences(cluster, Tried(), "hv1") == {"hv2": "GiveUpFencing"}
    assert fences(cluster, Tried(), "hv1", "hv3") == {"hv2": "Fence"}, "its daemon only has not said that it is ready"


def test_a_larger_cluster_can_do_without_two_of_its_coordinators() -> None:
    cluster = coordinators("hv2", "hv3", "hv4", "hv5")
    for name in ("hv3", "hv4", "hv5"):
        cluster.says_lost(name)
    found = fences(cluster, Tried(), "hv1", "hv2")
    assert found == {"hv3": "Fence", "hv4": "Fence", "hv5": "GiveUpFencing"}
