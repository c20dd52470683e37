"""A node is lost, fenced, and what it ran comes up elsewhere; and what happens when it is back."""

from __future__ import annotations

from typing import Any

import pytest

from pvc.commands.facts import Ending, ReportEnded
from pvc.commands.facts_cluster import (
    RECOVERY_BATCH,
    ReportFenceFailed,
    ReportFlushStep,
    ReportLevel,
    ReportNodeFenced,
    ReportNodeLost,
    ReportPrimary,
    ReportRecovery,
)
from pvc.errors import Rejected
from pvc.events.record import MAX_RECORD_BYTES
from pvc.projections.state import NodeState
from pvc.projections.vm_machine import ACTIVE, AT_REST, WANTED, VmState
from tests.support.answers import types
from tests.support.core import NODE_MEMORY_MIB, TinyCluster, a_cluster, bring


def a_cluster_of_three() -> TinyCluster:
    """The VMs will be on hv2; hv1 is the primary, and may take what hv3 cannot."""
    cluster = a_cluster("hv1", "hv2", "hv3")
    cluster.elect()
    return cluster


def define(cluster: TinyCluster, name: str, state: str = "running", **fields: Any) -> None:
    cluster.do("vm.define", **{"name": name, "memory_mib": 1024, "node": "hv2"} | fields)
    bring(cluster, name, state)


# Who says so.


def test_only_a_coordinator_becomes_primary_and_each_time_with_the_next_epoch() -> None:
    cluster = a_cluster("hv1", "hv2")
    assert cluster.report(ReportPrimary(node="hv2")) == ()
    assert cluster.report(ReportPrimary(node="hv9")) == ()
    assert [cluster.elect()["epoch"] for _ in range(3)] == [1, 2, 3]
    assert TinyCluster().report(ReportPrimary(node="hv1")) == ()


STALE = [
    lambda by: ReportNodeLost(**by, node="hv3", reason="r", ready_at=0),
    lambda by: ReportNodeFenced(**by, node="hv2", lost_at=1, method="agent", evidence="e"),
    lambda by: ReportFenceFailed(**by, node="hv2", lost_at=1, message="m"),
    lambda by: ReportRecovery(**by, node="hv2"),
    lambda by: ReportFlushStep(**by, node="hv2"),
    lambda by: ReportLevel(**by),
]


@pytest.mark.parametrize("report", STALE)
@pytest.mark.parametrize("by", [{"primary": "hv1", "epoch": 1}, {"primary": "hv2", "epoch": 2}], ids=["old", "other"])
def test_whoever_is_primary_no_more_is_refused(report: Any, by: dict[str, Any]) -> None:
    cluster = a_cluster_of_three()
    cluster.elect()
    before = cluster.state.head
    with pytest.raises(Rejected) as refusal:
        cluster.report(report(by))
    assert refusal.value.code == "cluster.stale_primary" and "hv1 with epoch 2" in refusal.value.message
    assert cluster.state.head == before


def test_before_there_is_a_cluster_nobody_is_primary() -> None:
    with pytest.raises(Rejected, match="that is nobody"):
        TinyCluster().report(ReportLevel(primary="hv1", epoch=1))


# Lost and fenced.


def test_a_lost_node_is_a_fault_until_it_is_back() -> None:
    cluster = a_cluster_of_three()
    assert types(cluster.says_lost("hv2")) == ["node.lost"]
    node = cluster.state.nodes["hv2"]
    assert (node.state, node.lost_at, node.ready) == (NodeState.LOST, cluster.state.position, False)
    assert cluster.state.faults["node.lost/hv2"].message == "node hv2 is lost: its session has ended"
    assert cluster.says_lost("hv2") == (), "it is so already"
    cluster.says_fenced("hv2")
    assert cluster.state.nodes["hv2"].evidence == "power off" and "node.lost/hv2" in cluster.state.faults
    cluster.says_ready("hv2")
    node = cluster.state.nodes["hv2"]
    assert (node.state, node.lost_at, node.evidence) == (NodeState.READY, 0, "")
    assert cluster.state.faults == {}


def test_in_maintenance_no_node_is_declared_lost() -> None:
    cluster = a_cluster_of_three()
    cluster.do("cluster.set_maintenance", maintenance=True)
    assert cluster.says_lost("hv2") == ()
    cluster.do("cluster.set_maintenance", maintenance=False)
    assert types(cluster.says_lost("hv2")) == ["node.lost"]


def test_a_node_that_has_announced_itself_anew_is_not_lost_for_the_session_before() -> None:
    cluster = a_cluster_of_three()
    late = ReportNodeLost(**cluster.primary, node="hv2", reason="gone", ready_at=cluster.state.nodes["hv2"].ready_at)
    cluster.says_ready("hv2")
    assert cluster.report(late) == ()


def test_a_node_that_has_not_been_heard_of_and_one_that_is_none_are_not_lost() -> None:
    cluster = a_cluster_of_three()
    cluster.do("node.add", node="hv4")
    assert cluster.says_lost("hv4") == ()
    assert cluster.report(ReportNodeLost(**cluster.primary, node="hv9", reason="r", ready_at=0)) == ()


def test_a_fencing_of_an_earlier_loss_says_nothing_about_this_one() -> None:
    cluster = a_cluster_of_three()
    cluster.says_lost("hv2")
    earlier = cluster.state.nodes["hv2"].lost_at
    cluster.says_ready("hv2")
    fenced = ReportNodeFenced(**cluster.primary, node="hv2", lost_at=earlier, method="agent", evidence="off")
    failed = ReportFenceFailed(**cluster.primary, node="hv2", lost_at=earlier, message="no answer")
    for report in (fenced, failed):
        assert cluster.report(report) == (), "it is back"
    cluster.says_lost("hv2")
    for report in (fenced, failed):
        assert cluster.report(report) == (), "it is lost anew"
    assert types(cluster.says_fenced("hv2")) == ["node.fenced"]
    assert cluster.says_fenced("hv2") == ()


def test_a_node_that_cannot_be_fenced_is_a_louder_fault_told_once_for_each_reason() -> None:
    cluster = a_cluster_of_three()
    define(cluster, "web01")
    cluster.says_lost("hv2")
    assert types(cluster.says_unfenced("hv2")) == ["node.fence_failed"]
    assert cluster.says_unfenced("hv2") == ()
    assert types(cluster.says_unfenced("hv2", "wrong password")) == ["node.fence_failed"]
    assert "wrong password" in cluster.state.faults["node.unfenced/hv2"].message
    assert cluster.recover("hv2") == (), "nothing is recovered on a guess"
    cluster.says_fenced("hv2")
    assert set(cluster.state.faults) == {"node.lost/hv2"}


def test_an_admin_may_declare_a_lost_node_fenced() -> None:
    cluster = a_cluster_of_three()
    with pytest.raises(Rejected) as refusal:
        cluster.do("node.confirm_fenced", node="hv2")
    assert refusal.value.code == "node.not_lost"
    cluster.says_lost("hv2")
    (fenced,) = cluster.do("node.confirm_fenced", node="hv2")
    assert (fenced.method, fenced.evidence) == ("manual", "root says that it is off")  # type: ignore[union-attr]


# Recovery.


@pytest.mark.parametrize("state", list(VmState))
def test_what_is_to_run_runs_elsewhere_and_what_was_to_end_has_ended(state: VmState) -> None:
    cluster = a_cluster_of_three()
    cluster.do("vm.define", name="web01", memory_mib=1024, node="hv1" if state is VmState.ARRIVING else "hv2")
    if state is VmState.ARRIVING:
        cluster.do("vm.start", vm="web01")
        cluster.says_running()
        cluster.do("vm.migrate", vm="web01", node="hv2")
        cluster.says_prepared()
        cluster.says_ended(Ending.MIGRATED)
    else:
        bring(cluster, "web01", state)
    before = cluster.vm()
    assert before.node == "hv2"
    events = cluster.lose("hv2")
    after = cluster.vm()
    if state in WANTED:
        assert types(events) == ["vm.recovered"]
        assert (after.state, after.epoch, after.migration) == (VmState.STARTING, before.epoch + 1, None)
        assert after.node in ("hv1", "hv3") and after.home == before.home
        assert after.away == ("" if after.node == after.home else "recovery")
    elif state in ACTIVE:
        assert types(events) == ["vm.stopped"]
        assert (after.state, after.node) == (VmState.STOPPED, "hv2")
    else:
        assert events == () and after == before
    late = ReportEnded(vm=before.id, node="hv2", epoch=before.epoch, ending=Ending.GUEST)
    assert cluster.report(late) == (), "whatever it says now"
    assert cluster.recover("hv2") == ()
    assert cluster.state.load_of("hv2").memory_mib == 0


def test_the_most_important_come_first_and_get_the_room_there_is() -> None:
    cluster = a_cluster_of_three()
    for name, priority in (("low", 10), ("b", 50), ("a", 50), ("high", 90)):
        define(cluster, name, memory_mib=2000, priority=priority)
    for node in ("hv1", "hv3"):
        define(cluster, f"big-{node}", node=node, memory_mib=NODE_MEMORY_MIB - 4000)
    cluster.do("node.flush", node="hv3")
    events = cluster.lose("hv2")
    assert [(event.TYPE, cluster.state.vms[event.vm].name) for event in events] == [  # type: ignore[union-attr]
        ("vm.recovered", "high"),
        ("vm.recovered", "a"),
        ("vm.recovery_delayed", "b"),
        ("vm.recovery_delayed", "low"),
    ]


def test_what_finds_no_room_is_a_fault_told_once_and_recovered_when_there_is_some() -> None:
    cluster = a_cluster_of_three()
    define(cluster, "web01", memory_mib=6000)
    define(cluster, "small", memory_mib=100, priority=1)
    for node in ("hv1", "hv3"):
        define(cluster, f"big-{node}", node=node, memory_mib=5000)
    assert types(cluster.lose("hv2")) == ["vm.recovery_delayed", "vm.recovered"]
    vm = cluster.vm()
    assert (vm.node, vm.state) == ("hv2", VmState.RUNNING) and "3192 MiB free, 6000 are needed" in vm.error
    assert cluster.state.faults[f"vm.unplaced/{vm.id}"].message == f"web01: {vm.error}"
    assert cluster.recover("hv2") == (), "that a little less is free now is nothing new"
    cluster.says_running("small")
    cluster.do("vm.stop", vm="big-hv3")
    cluster.says_ended(Ending.DESTROYED, "big-hv3")
    assert types(cluster.recover("hv2")) == ["vm.recovered"]
    assert (cluster.vm().node, cluster.vm().error) == ("hv3", "")
    assert f"vm.unplaced/{vm.id}" not in cluster.state.faults


def test_a_vm_that_is_stopped_while_nobody_can_take_it_stays_off() -> None:
    cluster = a_cluster_of_three()
    define(cluster, "web01", node_limits=["hv2"])
    cluster.lose("hv2")
    cluster.do("vm.stop", vm="web01")
    assert not any(fault.startswith("vm.") for fault in cluster.state.faults)
    assert types(cluster.recover("hv2")) == ["vm.stopped"]


def test_each_placement_counts_those_before_it_as_large_as_they_will_be() -> None:
    cluster = a_cluster_of_three()
    for name in ("a", "b", "c", "d"):
        define(cluster, name, memory_mib=1024)
        cluster.do("vm.modify", vm=name, memory_mib=5000)
    events = cluster.lose("hv2")
    assert types(events) == ["vm.recovered", "vm.recovered", "vm.recovery_delayed", "vm.recovery_delayed"]
    assert [cluster.state.load_of(node).memory_mib for node in ("hv1", "hv3")] == [5000, 5000]


def test_many_are_recovered_in_records_that_are_not_too_large() -> None:
    cluster = a_cluster_of_three()
    for number in range(4, 40):
        cluster.add_node(f"{'n' * 50}{number}")
    for node in ("hv1", "hv2", "hv3"):
        cluster.says_ready(node, memory_mib=10**6)
    count = 2 * RECOVERY_BATCH + 1
    for number in range(count):
        define(cluster, f"{'v' * 50}{number:03d}", node_limits=["hv2"] if number % 3 == 0 else ["hv1", "hv2"])
    cluster.says_lost("hv2")
    cluster.says_fenced("hv2")
    batches = []
    while events := cluster.recover("hv2"):
        batches.append(len(events))
        assert len(cluster.entries[-1].data) < MAX_RECORD_BYTES
    assert batches == [RECOVERY_BATCH, RECOVERY_BATCH, 1]
    assert sum(vm.node == "hv1" for vm in cluster.state.vms.values()) == count - (count + 2) // 3


def test_the_target_of_a_migration_that_is_lost_holds_the_vm_up_but_does_not_take_it_along() -> None:
    cluster = a_cluster_of_three()
    define(cluster, "web01", node="hv1")
    cluster.do("vm.migrate", vm="web01", node="hv2")
    assert cluster.lose("hv2") == (), "it still runs at the source"
    cluster.says_not_moved(code="vm.target_silent")
    assert (cluster.vm().node, cluster.vm().state) == ("hv1", VmState.RUNNING)


def test_a_guest_that_left_for_a_node_that_is_gone_is_recovered_from_there() -> None:
    cluster = a_cluster_of_three()
    define(cluster, "web01", node="hv1")
    cluster.do("vm.migrate", vm="web01", node="hv2")
    cluster.says_prepared()
    cluster.says_lost("hv2")
    cluster.says_ended(Ending.MIGRATED)
    assert (cluster.vm().node, cluster.vm().state) == ("hv2", VmState.ARRIVING)
    cluster.says_fenced("hv2")
    assert types(cluster.recover("hv2")) == ["vm.recovered"]
    assert cluster.vm().epoch == 2


# Back again.


def test_a_node_that_was_lost_but_not_fenced_goes_on_where_it_was() -> None:
    cluster = a_cluster_of_three()
    define(cluster, "web01")
    before = cluster.vm()
    cluster.says_lost("hv2")
    cluster.says_unfenced("hv2")
    assert types(cluster.says_ready("hv2")) == ["node.ready"]
    assert cluster.vm() == before
    assert cluster.state.faults == {} and cluster.state.nodes["hv2"].unfenced == ""


@pytest.mark.parametrize("state", list(VmState))
def test_a_fenced_node_that_is_back_starts_what_nobody_took(state: VmState) -> None:
    cluster = a_cluster_of_three()
    home = "hv1" if state is VmState.ARRIVING else "hv2"
    cluster.do("vm.define", name="web01", memory_mib=1024, node=home)
    if state is VmState.ARRIVING:
        bring(cluster, "web01", "running")
        cluster.do("vm.migrate", vm="web01", node="hv2")
        cluster.says_prepared()
        cluster.says_ended(Ending.MIGRATED)
    else:
        bring(cluster, "web01", state)
    before = cluster.vm()
    cluster.says_lost("hv2")
    cluster.says_fenced("hv2")
    _, *events = cluster.says_ready("hv2", boot="boot-2")
    vm = cluster.vm()
    assert vm.node == "hv2"
    if state in WANTED:
        assert types(tuple(events)) == ["vm.recovered"]
        assert (vm.state, vm.epoch) == (VmState.STARTING, before.epoch + 1)
    else:
        assert types(tuple(events)) == ([] if state in AT_REST else ["vm.stopped"])
        assert vm.state in AT_REST


def test_what_has_grown_beyond_its_node_meanwhile_does_not_start_there_again() -> None:
    cluster = a_cluster("hv1")
    for name in ("web01", "web02", "web03"):
        cluster.do("vm.define", name=name, memory_mib=2000)
        bring(cluster, name, "running")
    cluster.do("vm.modify", vm="web01", memory_mib=4000)
    cluster.do("vm.modify", vm="web02", memory_mib=4000)
    cluster.says_lost("hv1")
    cluster.says_fenced("hv1")
    assert types(cluster.says_ready("hv1", boot="boot-2")) == [
        "node.ready",
        "vm.recovered",
        "vm.recovered",
        "vm.start_failed",
        "vm.recovered",
    ]
    assert cluster.vm("web02").state is VmState.FAILED and "no room" in cluster.vm("web02").error
    assert cluster.state.load_of("hv1").memory_mib <= NODE_MEMORY_MIB


def test_a_recovered_vm_stays_away_until_its_node_is_asked_to_take_it_back() -> None:
    cluster = a_cluster_of_three()
    define(cluster, "web01")
    cluster.lose("hv2")
    cluster.says_running()
    assert types(cluster.says_ready("hv2", boot="boot-2")) == ["node.ready"]
    assert cluster.vm().away == "recovery"
    assert types(cluster.do("node.ready", node="hv2")) == ["node.return_requested"]
    (asked,) = cluster.flush_step("hv2")
    assert (asked.target, asked.reason) == ("hv2", "hv2 is back")  # type: ignore[union-attr]


# Feature levels.


def test_the_feature_level_rises_when_the_last_member_knows_it() -> None:
    cluster = a_cluster_of_three()
    assert cluster.level_step() == ()
    for node in ("hv1", "hv2"):
        cluster.says_ready(node, level=3)
    assert cluster.level_step() == ()
    cluster.says_ready("hv3", level=2)
    cluster.do("node.add", node="hv4")
    (raised,) = cluster.level_step()
    assert raised.level == 2  # type: ignore[union-attr]
    assert cluster.level_step() == ()
