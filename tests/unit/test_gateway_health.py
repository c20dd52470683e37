"""The cluster's health: what makes it worse, in which words, and what no longer counts."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from pvc.events.fence import FenceSettings
from pvc.gateway import cluster_health
from pvc.gateway.cluster_health import Heard, zookeeper_modes
from pvc.gateway.health_codes import CODES
from pvc.presence.hello import Hello
from pvc.projections.cluster_views import Health
from pvc.projections.state import Cluster, ClusterState, Fault, FlushState, Node, NodeState
from pvc.projections.vm_machine import VmState
from pvc.runtime.telemetry import FenceAnswer, NodeFigures
from tests.support.core import a_cluster_with_vm

HOUR_US = 3_600_000_000


def assess(state: ClusterState, heard: Heard) -> tuple[Health, list[str]]:
    """The health and the reasons in words; each has a remedy, without a hole in it."""
    health, problems = cluster_health.assess(state, heard)
    assert all(one.hint and "{" not in one.hint for one in problems)
    assert all(one.code in CODES and (one.code == "fault" or one.health in CODES[one.code].health) for one in problems)
    return health, [one.message for one in problems]


def three_nodes(**changes: Any) -> ClusterState:
    """Three ready coordinators without VMs; `changes` are those of hv3."""
    state = ClusterState()
    state.put_cluster(Cluster(id="c", name="main", initialised_us=1, primary="hv1", primary_epoch=1))
    for name in ("hv1", "hv2", "hv3"):
        node = Node(
            name=name,
            state=NodeState.READY,
            coordinator=True,
            memory_mib=4096,
            vcpus=4,
            version="1",
            fence=FenceSettings(agent="fence_ipmilan"),
        )
        state.put_node(replace(node, **changes) if name == "hv3" else node)
    return state


def figures(**zookeeper: str) -> dict[str, NodeFigures]:
    return {name: NodeFigures(node=name, time_us=1, zookeeper=mode) for name, mode in zookeeper.items()}


def hellos(**hashes: str) -> dict[str, Hello]:
    return {name: Hello(version="1", position=7, state_hash=digest) for name, digest in hashes.items()}


def with_fault(state: ClusterState, **changes: Any) -> ClusterState:
    fault = Fault(id="node.lost/hv3", code="node.lost", subject="node/hv3", message="node hv3 is lost", since_us=1)
    state.put_fault(replace(fault, **changes))
    return state


def test_a_cluster_that_lacks_nothing_is_ok() -> None:
    heard = Heard(
        figures=figures(hv1="leader", hv2="follower", hv3="follower"),
        hellos=hellos(hv1="a", hv2="a", hv3="a"),
        now_us=HOUR_US,
    )
    assert assess(three_nodes(), heard) == (Health.OK, [])
    assert assess(ClusterState(), Heard()) == (Health.OK, [])


def test_who_hears_nothing_from_zookeeper_cannot_call_anything_well() -> None:
    health, reasons = assess(three_nodes(), Heard(silent=True))
    assert health is Health.CRITICAL
    assert "ZooKeeper does not answer" in reasons[0]


def test_a_node_that_is_lost_is_critical_until_it_is_fenced() -> None:
    lost = with_fault(three_nodes(state=NodeState.LOST))
    health, reasons = assess(lost, Heard())
    assert health is Health.CRITICAL
    assert reasons[0] == "node hv3 is lost"
    assert "2 of 3 coordinators are ready: the next loss takes the majority" in reasons
    assert assess(with_fault(three_nodes(state=NodeState.FENCED)), Heard())[0] is Health.DEGRADED


def test_a_fault_that_was_acknowledged_no_longer_counts_but_what_it_leaves_short_does() -> None:
    state = with_fault(three_nodes(state=NodeState.LOST), acknowledged_by="admin")
    assert assess(state, Heard()) == (
        Health.DEGRADED,
        ["2 of 3 coordinators are ready: the next loss takes the majority"],
    )


def test_a_node_that_cannot_be_fenced_is_told_of_once() -> None:
    state = with_fault(three_nodes(state=NodeState.LOST, unfenced="no agent"))
    with_fault(state, id="node.unfenced/hv3", code="node.unfenced", message="node hv3 cannot be fenced")
    reasons = assess(state, Heard())[1]
    assert "node hv3 cannot be fenced" in reasons and "node hv3 is lost" not in reasons


def test_without_a_majority_of_coordinators_it_is_critical() -> None:
    state = three_nodes(state=NodeState.JOINING)
    state.put_node(replace(state.nodes["hv2"], state=NodeState.JOINING))
    health, reasons = assess(state, Heard())
    assert health is Health.CRITICAL
    assert reasons[0] == "1 of 3 coordinators are ready: that is no majority"


def test_without_any_coordinator_it_is_critical_and_an_even_number_is_told_of() -> None:
    state = three_nodes()
    for name in ("hv1", "hv2", "hv3"):
        state.put_node(replace(state.nodes[name], coordinator=False))
    assert assess(state, Heard()) == (Health.CRITICAL, ["there is no coordinator: none can act for the cluster"])
    state = three_nodes(coordinator=False)
    reason = "2 coordinators stand no more losses than 1: have one more, or one less"
    assert assess(state, Heard()) == (Health.DEGRADED, [reason])


def test_without_a_primary_it_is_critical_where_there_are_several_to_choose_from() -> None:
    state = three_nodes()
    assert state.cluster is not None
    state.put_cluster(replace(state.cluster, primary=""))
    assert assess(state, Heard()) == (Health.CRITICAL, ["no node is primary, so none acts for the cluster"])
    state = with_fault(three_nodes(state=NodeState.LOST))
    assert state.cluster is not None
    state.put_cluster(replace(state.cluster, primary="hv3"))
    assert "no node is primary, so none acts for the cluster: hv3 is lost" in assess(state, Heard())[1]


def test_states_that_differ_at_one_position_are_critical() -> None:
    health, reasons = assess(three_nodes(), Heard(hellos=hellos(hv1="a", hv2="b", hv3="a")))
    assert (health, reasons) == (Health.CRITICAL, ["the states of hv1, hv3 and hv2 differ at position 7"])


def test_a_divergence_that_the_primary_has_found_is_told_of_once() -> None:
    state = with_fault(
        three_nodes(), id="node.diverged/hv3", code="node.diverged", message="node hv3 has another state"
    )
    heard = Heard(hellos=hellos(hv1="a", hv2="a", hv3="b"))
    assert assess(state, heard) == (Health.CRITICAL, ["node hv3 has another state"])


def test_another_version_may_hash_the_same_state_otherwise() -> None:
    said = hellos(hv1="a", hv2="a", hv3="b")
    said["hv3"] = replace(said["hv3"], version="2")
    assert assess(three_nodes(), Heard(hellos=said)) == (Health.OK, [])


def test_who_is_there_and_cannot_be_understood_is_no_reason() -> None:
    said: dict[str, Hello | None] = {**hellos(hv1="a", hv2="a"), "hv3": None}
    assert assess(three_nodes(), Heard(hellos=said)) == (Health.OK, [])


def test_who_keeps_the_feature_level_down_is_named_be_it_lost_or_not() -> None:
    state = three_nodes()
    for name in ("hv1", "hv3"):
        state.put_node(replace(state.nodes[name], level=3))
    assert assess(state, Heard()) == (Health.DEGRADED, ["the feature level stays 1: 3 is not known to hv2"])
    state.put_node(replace(state.nodes["hv2"], state=NodeState.LOST))
    assert "the feature level stays 1: 3 is not known to hv2 (lost)" in assess(state, Heard())[1]
    state.put_node(replace(state.nodes["hv2"], state=NodeState.JOINING))
    assert not any("feature level" in reason for reason in assess(state, Heard())[1]), "it has not said anything yet"


def test_a_node_whose_fold_has_stopped_is_seen_from_all_others() -> None:
    said = hellos(hv1="a", hv2="a", hv3="a")
    said["hv3"] = replace(said["hv3"], position=3, fault="fold.newer_level")
    health, reasons = assess(three_nodes(), Heard(hellos=said))
    assert health is Health.CRITICAL
    assert reasons == ["node hv3 only lets its VMs go on: its fold has stopped: fold.newer_level"]


@pytest.mark.parametrize(
    ("modes", "health", "reason"),
    [
        (("leader", "follower", "down"), Health.DEGRADED, "ZooKeeper serves on 2 of 3: not on hv3"),
        (("leader", "no_quorum", "down"), Health.CRITICAL, "ZooKeeper serves on 1 of 3: not on hv2, hv3"),
    ],
)
def test_zookeeper_servers_that_do_not_serve_are_named(modes: tuple[str, ...], health: Health, reason: str) -> None:
    heard = Heard(figures=figures(**dict(zip(("hv1", "hv2", "hv3"), modes, strict=True))))
    assert assess(three_nodes(), heard) == (health, [reason])


def test_a_zookeeper_that_is_not_pvcs_own_is_not_missed() -> None:
    heard = Heard(figures=figures(hv1="", hv2="", hv3=""))
    assert assess(three_nodes(), heard) == (Health.OK, [])
    assert zookeeper_modes(three_nodes(), figures(hv1="", hv2="leader")) == {"hv2": "leader"}


def test_a_node_that_is_not_heard_of_is_missed_unless_it_has_just_started() -> None:
    heard = Heard(figures=figures(hv1="", hv2=""), now_us=HOUR_US)
    assert assess(three_nodes(), heard) == (Health.DEGRADED, ["no figures came from hv3 for 30 s"])
    assert assess(three_nodes(ready_us=HOUR_US - 1_000_000), heard) == (Health.OK, [])
    heard = Heard(hellos=hellos(hv1="a", hv2="a"), now_us=HOUR_US)
    assert assess(three_nodes(), heard)[1] == ["node hv3 has no session"]


def test_nodes_that_nothing_could_fence_are_named() -> None:
    state = three_nodes(fence=None)
    reason = "hv3 has no fence agent and no watchdog: if it is lost, its VMs wait for a person"
    assert assess(state, Heard()) == (Health.DEGRADED, [reason])
    state.put_node(replace(state.nodes["hv2"], fence=None))
    reason = "hv2, hv3 have no fence agent and no watchdog: if one of them is lost, its VMs wait for a person"
    assert assess(state, Heard()) == (Health.DEGRADED, [reason])
    for name in ("hv2", "hv3"):
        state.put_node(replace(state.nodes[name], self_fence_s=12))
    assert assess(state, Heard()) == (Health.OK, []), "they have watchdogs"


def test_a_single_node_lacks_no_fencing() -> None:
    state = three_nodes(fence=None)
    state.drop_node("hv1")
    state.drop_node("hv2")
    assert state.cluster is not None
    state.put_cluster(replace(state.cluster, primary="hv3"))
    assert assess(state, Heard()) == (Health.OK, [])


def test_a_fence_agent_that_does_not_answer_is_told_of_while_its_node_is_there() -> None:
    said = figures(hv1="", hv2="", hv3="")
    said["hv1"] = replace(said["hv1"], fences={"hv2": FenceAnswer(on=True), "hv3": FenceAnswer(error="no route")})
    assert assess(three_nodes(), Heard(figures=said)) == (
        Health.DEGRADED,
        ["the fence agent of hv3 does not answer hv1: no route"],
    )
    said["hv2"] = replace(said["hv2"], fences={"hv3": FenceAnswer(on=True)})
    assert assess(three_nodes(), Heard(figures=said))[0] is Health.DEGRADED, "what the primary finds counts"
    reasons = assess(three_nodes(state=NodeState.LOST), Heard(figures=said))[1]
    assert not any("fence agent" in reason for reason in reasons)


def test_a_fence_agent_that_says_off_of_a_node_that_is_there_switches_another_machine() -> None:
    said = figures(hv1="", hv2="", hv3="")
    said["hv1"] = replace(said["hv1"], fences={"hv3": FenceAnswer(on=False)})
    (reason,) = assess(three_nodes(), Heard(figures=said))[1]
    assert reason.startswith("the fence agent of hv3 tells hv1 that hv3 is off, which it is not")


def test_what_an_admin_has_done_is_told_as_well() -> None:
    state = three_nodes(flush=FlushState.FLUSHED, version="2")
    assert state.cluster is not None
    state.put_cluster(replace(state.cluster, maintenance=True, maintenance_reason="new switches"))
    assert assess(state, Heard()) == (
        Health.DEGRADED,
        [
            "node hv3 takes no VMs: it is flushed",
            "nodes run different versions of PVC: most 1, hv3 2",
            "the cluster is in maintenance (new switches): no lost node is fenced",
        ],
    )


def two_nodes_with_a_vm(free_mib: int, **changes: Any) -> ClusterState:
    """web01 with 1024 MiB runs on hv1, the only coordinator; hv2 has this much."""
    state = a_cluster_with_vm("running").state
    state.put_node(replace(state.nodes["hv1"], self_fence_s=12))
    state.put_node(replace(state.nodes["hv1"], name="hv2", memory_mib=free_mib, coordinator=False))
    vm = next(iter(state.vms.values()))
    state.put_vm(replace(vm, **changes))
    return state


def test_vms_that_would_find_no_room_after_a_loss_are_told_of() -> None:
    assert assess(two_nodes_with_a_vm(1024), Heard()) == (Health.OK, [])
    reason = "if node hv1 were lost, 1 of its 1 VMs would find no room elsewhere (1024 MiB)"
    assert assess(two_nodes_with_a_vm(1023), Heard()) == (Health.DEGRADED, [reason])
    assert assess(two_nodes_with_a_vm(4096, node_limits=("hv1",)), Heard()) == (Health.DEGRADED, [reason])


def test_failed_vms_and_those_that_wait_to_be_recovered_are_told_of() -> None:
    state = two_nodes_with_a_vm(4096, state=VmState.FAILED)
    subject = f"vm/{state.vm_names['web01']}"
    with_fault(state, id=f"vm.failed/{subject[3:]}", code="vm.failed", subject=subject)
    assert assess(state, Heard()) == (Health.DEGRADED, ["1 VM has failed: web01"])
    with_fault(state, id=f"vm.failed/{subject[3:]}", code="vm.failed", subject=subject, acknowledged_by="admin")
    assert assess(state, Heard()) == (Health.OK, [])
    state = two_nodes_with_a_vm(4096, error="no node can take web01")
    state.put_node(replace(state.nodes["hv1"], state=NodeState.FENCED))
    health, reasons = assess(state, Heard())
    assert health is Health.CRITICAL
    assert reasons[0] == "1 VM is not recovered yet from the fenced node hv1: no node can take web01"
