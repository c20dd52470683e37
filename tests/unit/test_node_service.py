"""Nodes come and go: added, fenced how, removed; maintenance, and faults that are seen."""

from __future__ import annotations

from typing import Any

import pytest

from pvc.errors import Rejected
from pvc.projections.state import NodeState
from tests.support.answers import refused, types
from tests.support.core import TinyCluster, a_cluster, command
from tests.unit.nodes_in_service import arrive, define, flush, with_vms

# Members.


def test_only_the_first_node_joins_by_itself() -> None:
    cluster = TinyCluster()
    cluster.do("cluster.init", name="main")
    assert types(cluster.says_ready("hv1")) == ["node.joined", "node.ready"]
    assert cluster.state.nodes["hv1"].coordinator
    with pytest.raises(Rejected) as refusal:
        cluster.says_ready("hv2")
    assert (refusal.value.code, refusal.value.hint) == ("node.not_a_member", "make it one: pvc node add hv2")
    cluster.do("node.add", node="hv2")
    assert cluster.state.nodes["hv2"].state is NodeState.JOINING and not cluster.state.nodes["hv2"].ready
    assert types(cluster.says_ready("hv2")) == ["node.ready"]
    assert refused(cluster, "node.add", node="hv2").code == "node.exists"


def test_coordinators_that_are_named_at_the_beginning_are_members_before_they_are_heard_of() -> None:
    cluster = TinyCluster()
    cluster.do("cluster.init", name="main", coordinators=["hv1", "hv2", "hv3", "hv1"])
    assert all(node.coordinator and node.state is NodeState.JOINING for node in cluster.state.nodes.values())
    assert types(cluster.says_ready("hv2")) == ["node.ready"]
    with pytest.raises(Rejected):
        cluster.says_ready("hv4")
    for names in (["hv1", "hv2"], ["a", "b", "c", "d", "e", "f"]):
        refusal = refused(TinyCluster(), "cluster.init", name="main", coordinators=names)
        assert (refusal.code, refusal.field) == ("cluster.bad_coordinators", "coordinators")


def test_a_node_without_vms_is_removed_once_it_is_out_of_service() -> None:
    cluster = with_vms()
    assert refused(cluster, "node.remove", node="hv2").code == "node.in_service"
    flush(cluster, "hv2")
    assert types(cluster.do("node.remove", node="hv2")) == ["node.removed"]
    assert "hv2" not in cluster.state.nodes
    cluster.says_lost("hv3")
    refusal = refused(cluster, "node.remove", node="hv3")
    assert (refusal.code, refusal.hint) == ("node.in_service", SETTLE_LOST)
    cluster.says_fenced("hv3")
    cluster.do("node.remove", node="hv3")
    assert cluster.state.faults == {}
    cluster.do("node.add", node="hv4")
    assert types(cluster.do("node.remove", node="hv4")) == ["node.removed"], "it was never heard of"


def test_a_node_that_vms_are_on_or_belong_to_or_are_going_to_is_not_removed() -> None:
    cluster = with_vms("web01", node="hv2")
    flush(cluster, "hv2")
    refusal = refused(cluster, "node.remove", node="hv2")
    assert (refusal.code, refusal.message) == ("node.has_vms", "1 VMs belong to node hv2: web01")
    assert refusal.hint == "move them for good: pvc vm move web01"
    cluster = with_vms("web01")
    cluster.do("vm.migrate", vm="web01", node="hv2")
    cluster.says_lost("hv2")
    cluster.says_fenced("hv2")
    assert refused(cluster, "node.remove", node="hv2").code == "node.has_vms"


SETTLE_LOST = "bring it back, or cut its power, and once you are sure that it is off: pvc node confirm-fenced hv3"


def test_what_is_hinted_at_about_a_lost_node_leads_to_its_removal() -> None:
    cluster = with_vms("web01")
    cluster.do("vm.move", vm="web01", node="hv3")
    arrive(cluster, "web01")
    cluster.says_lost("hv3")
    for name in ("node.flush", "node.ready"):
        refusal = refused(cluster, name, node="hv3")
        assert (refusal.code, refusal.hint) == ("node.not_ready", SETTLE_LOST)
    refusal = refused(cluster, "node.remove", node="hv3")
    assert (refusal.code, refusal.hint) == ("node.in_service", SETTLE_LOST), "moving its VMs would be refused"
    cluster.do("node.confirm_fenced", node="hv3")
    refusal = refused(cluster, "node.flush", node="hv3")
    assert (
        refusal.hint
        == "it is off, and its VMs are recovered elsewhere: start it again, or take it out: pvc node remove hv3"
    )
    cluster.recover("hv3")
    cluster.says_running("web01")
    assert refused(cluster, "node.remove", node="hv3").hint == "move them for good: pvc vm move web01"
    cluster.do("vm.move", vm="web01", node=cluster.vm("web01").node)
    assert types(cluster.do("node.remove", node="hv3")) == ["node.removed"]


def test_a_node_that_has_never_been_heard_of_is_to_be_started() -> None:
    cluster = a_cluster("hv1")
    cluster.do("node.add", node="hv2")
    assert refused(cluster, "node.flush", node="hv2").hint == "start pvcd on hv2: it joins by itself"


def test_the_last_coordinator_stays() -> None:
    cluster = with_vms()
    refusal = refused(cluster, "node.remove", node="hv1")
    assert refusal.code == "node.last_coordinator"
    assert refusal.hint == "make another one first: pvc node add NODE --coordinator"
    cluster.add_node("hv9", coordinator=True)
    flush(cluster, "hv1")
    assert types(cluster.do("node.remove", node="hv1")) == ["node.removed"]
    assert refused(cluster, "node.remove", node="hv9").code == "node.last_coordinator"


def test_an_even_number_of_coordinators_is_noted() -> None:
    cluster = TinyCluster()
    cluster.do("cluster.init", name="main", coordinators=["hv1", "hv2", "hv3"])
    add = command("node.add", node="hv4", coordinator=True)
    assert cluster.try_out(add).notes == ("4 coordinators stand no more losses than 3: have 3 or 5",)
    assert cluster.try_out(command("node.add", node="hv4")).notes == ()
    assert cluster.try_out(command("node.remove", node="hv3")).notes == (
        "2 coordinators stand no more losses than 1: have 1 or 3",
    )
    cluster.do("node.remove", node="hv3")
    assert cluster.try_out(command("node.remove", node="hv2")).notes == ()


# Fencing.


def test_how_a_node_is_fenced_is_set_changed_and_taken_back() -> None:
    cluster = a_cluster()
    good: dict[str, Any] = {"node": "hv1", "agent": "fence_ipmilan", "option": ["ip=10.0.1.2", "lanplus=1"]}
    assert types(cluster.do("node.set_fence", **good)) == ["node.fence_set"]
    settings = cluster.state.nodes["hv1"].fence
    assert settings is not None and settings.options == {"ip": "10.0.1.2", "lanplus": "1"}
    assert cluster.do("node.set_fence", **good) == ()
    assert refused(cluster, "node.set_fence", node="hv1", option=["ip=10.0.1.2"]).code == "input.conflict"
    assert refused(cluster, "node.set_fence", **good | {"option": ["password=x"]}).code == "input.invalid"
    assert types(cluster.do("node.set_fence", node="hv1")) == ["node.fence_set"]
    assert cluster.state.nodes["hv1"].fence is None


def test_another_way_to_fence_a_lost_node_is_tried_anew() -> None:
    cluster = a_cluster("hv1", "hv2")
    cluster.says_lost("hv2")
    cluster.says_unfenced("hv2")
    cluster.do("node.set_fence", node="hv2", agent="fence_ipmilan", option=["ip=10.0.1.2"])
    assert cluster.state.nodes["hv2"].unfenced == ""
    assert types(cluster.says_unfenced("hv2")) == ["node.fence_failed"], "and if it fails too, that is told"


# Maintenance and faults.


def test_maintenance_is_set_with_its_reason_and_lifted() -> None:
    cluster = a_cluster()
    cluster.do("cluster.set_maintenance", maintenance=True, reason="switches")
    assert cluster.do("cluster.set_maintenance", maintenance=True, reason="switches") == ()
    assert cluster.state.cluster is not None and cluster.state.cluster.maintenance_reason == "switches"
    cluster.do("cluster.set_maintenance", maintenance=False)
    assert not cluster.state.cluster.maintenance
    assert refused(TinyCluster(), "cluster.set_maintenance", maintenance=True).code == "cluster.not_initialised"


def test_a_fault_whose_reason_changes_stays_as_old_and_as_seen_as_it_is() -> None:
    cluster = a_cluster("hv1", "hv2")
    cluster.says_lost("hv2")
    cluster.says_unfenced("hv2", "its device does not answer")
    since_us = cluster.state.faults["node.unfenced/hv2"].since_us
    cluster.do("fault.acknowledge", fault="node.unfenced/hv2")
    seen_us = cluster.time_us
    cluster.says_unfenced("hv2", "its device refuses the password")
    fault = cluster.state.faults["node.unfenced/hv2"]
    assert fault.message.endswith("its device refuses the password")
    assert (fault.since_us, fault.acknowledged_by, fault.acknowledged_us) == (since_us, "root", seen_us)
    cluster.says_ready("hv2")
    cluster.says_lost("hv2")
    cluster.says_unfenced("hv2")
    assert cluster.state.faults["node.unfenced/hv2"].acknowledged_by == "", "another loss is another fault"


def test_a_fault_that_was_seen_stays_until_its_cause_is_gone() -> None:
    cluster = a_cluster("hv1", "hv2")
    assert refused(cluster, "fault.acknowledge", fault="node.lost/hv2").code == "fault.not_found"
    cluster.says_lost("hv2")
    assert refused(cluster, "fault.acknowledge", fault="node.lost/hv1").hint == "did you mean node.lost/hv2?"
    cluster.do("fault.acknowledge", fault="node.lost/hv2")
    fault = cluster.state.faults["node.lost/hv2"]
    assert (fault.acknowledged_by, fault.acknowledged_us) == ("root", cluster.time_us)
    assert cluster.do("fault.acknowledge", fault="node.lost/hv2") == ()
    cluster.says_ready("hv2")
    assert cluster.state.faults == {}


def test_a_failed_vm_is_a_fault_until_it_is_started_or_gone() -> None:
    for remedy in ("vm.start", "vm.disable", "vm.remove"):
        cluster = a_cluster()
        define(cluster, "web01", "failed")
        (fault,) = cluster.state.faults.values()
        assert (fault.id, fault.message) == (f"vm.failed/{cluster.vm().id}", "web01: no such file")
        cluster.do(remedy, vm="web01")
        assert cluster.state.faults == {}
