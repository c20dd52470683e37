"""Nodes come and go: added, fenced how, flushed, brought back, removed; maintenance, and faults that are seen."""

from __future__ import annotations

from typing import Any

import pytest

from pvc.commands.facts import Ending
from pvc.commands.facts_cluster import MOVE_TRIES, PARALLEL_MOVES, ReportFlushStep
from pvc.errors import Rejected
from pvc.events.record import MAX_RECORD_BYTES
from pvc.projections.state import FlushState, NodeState
from pvc.projections.vm_machine import VmState
from tests.support.core import NODE_MEMORY_MIB, TinyCluster, a_cluster, bring, command


def types(events: tuple[Any, ...]) -> list[str]:
    return [event.TYPE for event in events]


def refused(cluster: TinyCluster, name: str, /, **fields: Any) -> Rejected:
    head = cluster.state.head
    with pytest.raises(Rejected) as refusal:
        cluster.do(name, **fields)
    assert cluster.state.head == head and refusal.value.hint
    return refusal.value


def with_vms(*names: str, node: str = "hv1", **fields: Any) -> TinyCluster:
    """Three nodes; the VMs run on one of them."""
    cluster = a_cluster("hv1", "hv2", "hv3")
    for name in names:
        define(cluster, name, node=node, **fields)
    return cluster


def define(cluster: TinyCluster, name: str, state: str = "running", **fields: Any) -> None:
    cluster.do("vm.define", **{"name": name, "memory_mib": 512, "node": "hv1"} | fields)
    bring(cluster, name, state)


def arrive(cluster: TinyCluster, name: str) -> None:
    """The rest of a live migration."""
    cluster.says_prepared(name)
    cluster.says_ended(Ending.MIGRATED, name)
    cluster.says_arrived(name)


def flush(cluster: TinyCluster, node: str = "hv1") -> None:
    """Flush to the end; every migration succeeds."""
    cluster.do("node.flush", node=node)
    run_steps(cluster, node)


def run_steps(cluster: TinyCluster, node: str) -> None:
    while cluster.state.nodes[node].flush in (FlushState.FLUSHING, FlushState.RETURNING):
        cluster.flush_step(node)
        for vm in list(cluster.state.vms.values()):
            if vm.state is VmState.MIGRATING:
                arrive(cluster, vm.name)


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


# Flush.


def test_a_flush_moves_the_most_important_first_and_only_some_at_once() -> None:
    names = [f"vm{number}" for number in range(PARALLEL_MOVES + 2)]
    cluster = with_vms(*names)
    cluster.do("vm.set_priority", vm="vm5", priority=99)
    assert types(cluster.do("node.flush", node="hv1")) == ["node.flush_requested"]
    assert not cluster.state.nodes["hv1"].ready
    asked = cluster.flush_step("hv1")
    moving = [cluster.state.vms[event.vm].name for event in asked]  # type: ignore[union-attr]
    assert moving == ["vm5", "vm0", "vm1", "vm2"]
    assert {event.target for event in asked} == {"hv2", "hv3"}, "each placement counts those before it"  # type: ignore[union-attr]
    assert cluster.flush_step("hv1") == (), "it waits"
    arrive(cluster, "vm5")
    assert [cluster.state.vms[event.vm].name for event in cluster.flush_step("hv1")] == ["vm3"]  # type: ignore[union-attr]
    run_steps(cluster, "hv1")
    node = cluster.state.nodes["hv1"]
    assert (node.flush, cluster.state.load_of("hv1").running) == (FlushState.FLUSHED, 0)
    assert all(cluster.vm(name).away == "flush" and cluster.vm(name).home == "hv1" for name in names)


def test_a_node_without_running_vms_is_flushed_at_once_and_vms_at_rest_stay() -> None:
    cluster = a_cluster("hv1", "hv2")
    define(cluster, "web01", "stopped")
    assert types(cluster.do("node.flush", node="hv1")) == ["node.flush_requested", "node.flushed"]
    assert cluster.vm().node == "hv1"
    assert refused(cluster, "node.flush", node="hv1").code == "node.is_flushed"
    assert refused(cluster, "vm.start", vm="web01").code == "node.not_ready"


def test_a_flush_needs_a_ready_node_and_somewhere_to_go() -> None:
    cluster = with_vms("web01")
    cluster.says_lost("hv2")
    assert refused(cluster, "node.flush", node="hv2").code == "node.not_ready"
    flush(cluster, "hv3")
    assert refused(cluster, "node.flush", node="hv1").code == "node.none_ready"
    cluster.do("node.ready", node="hv3")
    cluster.do("node.flush", node="hv1")
    assert refused(cluster, "node.flush", node="hv1").code == "node.is_flushing"


def test_a_flush_waits_for_what_is_starting_ending_or_coming() -> None:
    cluster = with_vms("a", "b")
    define(cluster, "c", node="hv2")
    define(cluster, "d", "starting")
    cluster.do("vm.migrate", vm="c", node="hv1")
    cluster.do("vm.shutdown", vm="a")
    cluster.do("node.flush", node="hv1")
    assert [cluster.state.vms[event.vm].name for event in cluster.flush_step("hv1")] == ["b"]  # type: ignore[union-attr]
    arrive(cluster, "b")
    cluster.says_ended(name="a")
    cluster.says_start_failed("d")
    assert cluster.flush_step("hv1") == (), "c is on its way here"
    arrive(cluster, "c")
    assert [cluster.state.vms[event.vm].name for event in cluster.flush_step("hv1")] == ["c"]  # type: ignore[union-attr]
    arrive(cluster, "c")
    assert types(cluster.flush_step("hv1")) == ["node.flushed"]


def test_a_node_that_something_is_coming_to_is_not_flushed_at_once() -> None:
    cluster = with_vms("web01")
    cluster.do("vm.migrate", vm="web01", node="hv2")
    assert types(cluster.do("node.flush", node="hv2")) == ["node.flush_requested"]
    assert cluster.flush_step("hv2") == ()
    arrive(cluster, "web01")
    assert types(cluster.flush_step("hv2")) == ["vm.migration_requested"]


def test_what_cannot_be_moved_is_left_with_the_reason_and_is_a_fault() -> None:
    cluster = with_vms("fixed", migration_method="none")
    define(cluster, "tied", node_limits=["hv1"])
    define(cluster, "unlucky")
    cluster.do("node.flush", node="hv1")
    for _ in range(MOVE_TRIES):
        assert types(cluster.flush_step("hv1")) == ["vm.migration_requested"]
        cluster.says_not_moved("unlucky")
    (incomplete,) = cluster.flush_step("hv1")
    assert [left.partition(": ")[0] for left in incomplete.left] == ["fixed", "tied", "unlucky"]  # type: ignore[union-attr]
    assert incomplete.left[2] == f"unlucky: {MOVE_TRIES} migrations failed"  # type: ignore[union-attr]
    assert cluster.state.nodes["hv1"].flush is FlushState.FLUSHED
    assert "fixed: its migration method is none" in cluster.state.faults["node.flush_incomplete/hv1"].message
    assert cluster.flush_step("hv1") == ()
    cluster.do("vm.stop", vm="fixed")
    cluster.says_ended(Ending.DESTROYED, "fixed")
    cluster.do("node.flush", node="hv1")
    assert "node.flush_incomplete/hv1" not in cluster.state.faults
    assert cluster.vm("unlucky").failed_moves == 0, "it is tried anew"


def test_a_flush_that_is_asked_for_again_is_complete_when_what_it_had_left_has_ended() -> None:
    cluster = with_vms("web01", migration_method="none")
    flush(cluster)
    assert "node.flush_incomplete/hv1" in cluster.state.faults
    cluster.do("vm.stop", vm="web01")
    cluster.says_ended(Ending.DESTROYED)
    assert types(cluster.do("node.flush", node="hv1")) == ["node.flush_requested", "node.flushed"]
    assert cluster.state.faults == {}
    assert refused(cluster, "node.flush", node="hv1").code == "node.is_flushed"


def test_what_is_left_of_a_large_flush_fits_into_one_record() -> None:
    cluster = a_cluster("hv1", "hv2")
    cluster.says_ready("hv1", memory_mib=10**6)
    for number in range(2, 20):
        cluster.do("node.add", node=f"{'n' * 50}{number}")
    for number in range(500):
        define(cluster, f"{'v' * 50}{number:03d}", node_limits=["hv1"])
    cluster.do("node.flush", node="hv1")
    (incomplete,) = cluster.flush_step("hv1")
    assert len(cluster.entries[-1].data) < MAX_RECORD_BYTES
    assert incomplete.left[-1].startswith("and ") and incomplete.left[-1].endswith(" more")  # type: ignore[union-attr]


def test_a_vm_goes_by_shutdown_where_that_is_its_method() -> None:
    cluster = with_vms("web01", migration_method="shutdown")
    cluster.do("node.flush", node="hv1")
    (asked,) = cluster.flush_step("hv1")
    assert not asked.live  # type: ignore[union-attr]
    cluster.says_prepared()
    cluster.says_ended()
    assert types(cluster.flush_step("hv1")) == ["node.flushed"], "it starts elsewhere already"


def test_a_vm_that_is_flushed_home_is_not_away() -> None:
    cluster = with_vms("web01", node_limits=["hv1", "hv2"])
    cluster.do("vm.migrate", vm="web01")
    arrive(cluster, "web01")
    flush(cluster, "hv2")
    assert (cluster.vm().node, cluster.vm().away) == ("hv1", "")


def test_a_flush_of_a_node_that_is_lost_waits_for_it() -> None:
    cluster = with_vms("web01")
    cluster.do("node.flush", node="hv1")
    cluster.says_lost("hv1")
    assert cluster.flush_step("hv1") == ()
    cluster.says_ready("hv1")
    assert types(cluster.flush_step("hv1")) == ["vm.migration_requested"]
    assert cluster.report(ReportFlushStep(**cluster.primary, node="hv9")) == ()
    assert cluster.flush_step("hv2") == (), "nobody flushes it"


# Back into service.


def test_a_node_that_is_ready_again_gets_its_vms_back() -> None:
    cluster = with_vms("a", "b", "c")
    flush(cluster)
    cluster.do("vm.stop", vm="b")
    cluster.says_ended(Ending.DESTROYED, "b")
    cluster.do("vm.migrate", vm="c")
    arrive(cluster, "c")
    assert types(cluster.do("node.ready", node="hv1")) == ["node.return_requested"]
    assert cluster.state.nodes["hv1"].ready
    assert sorted(types(cluster.flush_step("hv1"))) == ["vm.migration_requested", "vm.moved"]
    arrive(cluster, "a")
    (returned,) = cluster.flush_step("hv1")
    assert returned.left == ()  # type: ignore[union-attr]
    assert (cluster.vm("a").node, cluster.vm("b").node, cluster.vm("c").node) == ("hv1", "hv1", "hv3")
    assert (cluster.vm("a").away, cluster.vm("b").away, cluster.vm("c").away) == ("", "", "migrate")
    assert cluster.state.nodes["hv1"].flush is FlushState.NONE
    assert refused(cluster, "node.ready", node="hv1").code == "node.is_ready"


def test_a_node_that_nothing_comes_home_to_is_ready_at_once() -> None:
    cluster = with_vms()
    flush(cluster)
    assert types(cluster.do("node.ready", node="hv1")) == ["node.return_requested", "node.returned"]
    cluster.says_lost("hv2")
    assert refused(cluster, "node.ready", node="hv2").code == "node.not_ready"


def test_what_cannot_come_home_is_told_and_may_be_asked_for_again() -> None:
    cluster = with_vms("web01", memory_mib=4096)
    flush(cluster)
    cluster.do("vm.set_migration_method", vm="web01", migration_method="none")
    cluster.do("node.ready", node="hv1")
    (returned,) = cluster.flush_step("hv1")
    assert returned.left == ("web01: its migration method is none",)  # type: ignore[union-attr]
    cluster.do("vm.set_migration_method", vm="web01", migration_method="live")
    define(cluster, "big", memory_mib=NODE_MEMORY_MIB - 4000)
    cluster.do("node.ready", node="hv1")
    (returned,) = cluster.flush_step("hv1")
    assert "4000 MiB free, 4096 are needed" in returned.left[0]  # type: ignore[union-attr]
    assert cluster.state.nodes["hv1"].flush is FlushState.NONE


def test_a_vm_on_a_lost_node_comes_home_when_that_is_settled() -> None:
    cluster = with_vms("web01")
    flush(cluster)
    away = cluster.vm().node
    cluster.says_lost(away)
    cluster.do("node.ready", node="hv1")
    assert cluster.flush_step("hv1") == (), "nobody there could send it"
    cluster.says_fenced(away)
    cluster.recover(away)
    cluster.says_running()
    run_steps(cluster, "hv1")
    assert cluster.vm().node == "hv1"


def test_a_flush_may_be_called_off() -> None:
    cluster = with_vms("a", "b")
    cluster.do("node.flush", node="hv1")
    cluster.flush_step("hv1")
    arrive(cluster, "a")
    cluster.says_not_moved("b")
    cluster.do("node.ready", node="hv1")
    run_steps(cluster, "hv1")
    assert (cluster.vm("a").node, cluster.vm("b").node) == ("hv1", "hv1")


def test_many_vms_at_rest_come_home_in_records_that_are_not_too_large() -> None:
    cluster = a_cluster("hv1", "hv2")
    for node in ("hv1", "hv2"):
        cluster.says_ready(node, memory_mib=10**6)
    for number in range(300):
        define(cluster, f"{'v' * 50}{number:03d}", node="hv1")
    cluster.lose("hv1")
    cluster.recover("hv1")
    for vm in list(cluster.state.vms.values()):
        cluster.says_start_failed(vm.name)
    cluster.says_ready("hv1", memory_mib=10**6)
    cluster.do("node.ready", node="hv1")
    counts = [len(cluster.flush_step("hv1")) for _ in range(3)]
    assert counts == [200, 100, 1]
    assert cluster.state.nodes["hv1"].flush is FlushState.NONE


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
