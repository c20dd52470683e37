"""Nodes are flushed for a while and brought back into service, and their VMs with them."""

from __future__ import annotations

from pvc.commands.facts import Ending
from pvc.commands.facts_cluster import MOVE_TRIES, PARALLEL_MOVES, ReportFlushStep
from pvc.events.record import MAX_RECORD_BYTES
from pvc.projections.state import FlushState
from tests.support.answers import refused, types
from tests.support.core import NODE_MEMORY_MIB, a_cluster
from tests.unit.nodes_in_service import arrive, define, flush, run_steps, with_vms

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
