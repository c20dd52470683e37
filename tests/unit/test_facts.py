"""What nodes report: every report in every state, late, doubled, and about runs that are over."""

from __future__ import annotations

from typing import Any

import pytest

from pvc.commands.facts import MAX_AUTOSTARTS, RESTART_LIMIT, RESTART_WINDOW_US, Ending, ReportReset, ReportRunning
from pvc.events.record import seal
from pvc.projections.vm_machine import ACTIVE, AT_REST, VmState
from tests.support.answers import types
from tests.support.core import (
    NODE_MEMORY_MIB,
    SECOND_US,
    TinyCluster,
    a_cluster,
    a_cluster_with_vm,
    bring,
    node_ready,
    timed_out,
)

# One table: what follows from each report in each state (nothing where it is not named).

RUNNING_LEADS = {"starting": (["vm.started"], "running")}
FAILED_LEADS = {
    "starting": (["vm.start_failed"], "failed"),
    "arriving": (["vm.crashed", "vm.start_requested"], "starting"),
}
TIMED_OUT_LEADS = {
    "shutting-down": (["vm.shutdown_timed_out"], "stopping"),
    "restarting": (["vm.shutdown_timed_out"], "restarting"),
}
RESET_LEADS = {"resetting": (["vm.was_reset"], "running")}
GUEST_LEADS = {
    "starting": (["vm.started", "vm.stopped"], "stopped"),
    "running": (["vm.stopped"], "stopped"),
    "shutting-down": (["vm.stopped"], "stopped"),
    "stopping": (["vm.stopped"], "stopped"),
    "restarting": (["vm.stopped"], "starting"),
    "resetting": (["vm.stopped"], "stopped"),
    "migrating": (["vm.stopped"], "stopped"),
    "arriving": (["vm.stopped"], "stopped"),
}
CRASH_LEADS = GUEST_LEADS | {
    "starting": (["vm.started", "vm.crashed", "vm.start_requested"], "starting"),
    "running": (["vm.crashed", "vm.start_requested"], "starting"),
    "resetting": (["vm.crashed", "vm.start_requested"], "starting"),
    "migrating": (["vm.crashed", "vm.start_requested"], "starting"),
    "arriving": (["vm.crashed", "vm.start_requested"], "starting"),
}


@pytest.mark.parametrize("state", list(VmState))
@pytest.mark.parametrize(
    ("says", "leads"),
    [
        (TinyCluster.says_running, RUNNING_LEADS),
        (TinyCluster.says_start_failed, FAILED_LEADS),
        (TinyCluster.says_timed_out, TIMED_OUT_LEADS),
        (TinyCluster.says_reset, RESET_LEADS),
        (TinyCluster.says_ended, GUEST_LEADS),
        (lambda cluster: cluster.says_ended(Ending.CRASHED), CRASH_LEADS),
        (lambda cluster: cluster.says_ended(Ending.DESTROYED), CRASH_LEADS),
        (lambda cluster: cluster.says_ended(Ending.LOST), CRASH_LEADS),
        (lambda cluster: cluster.says_ended(Ending.UNKNOWN), CRASH_LEADS),
        (lambda cluster: cluster.says_ended(Ending.MIGRATED), CRASH_LEADS),
    ],
    ids=[
        "running",
        "start-failed",
        "timed-out",
        "reset",
        "guest",
        "crashed",
        "destroyed",
        "lost",
        "unknown",
        "migrated",
    ],
)
def test_a_report_leads_where_its_state_says(says: Any, leads: dict[str, Any], state: VmState) -> None:
    cluster = a_cluster_with_vm(state)
    expected, target = leads.get(state, ([], state))
    assert types(says(cluster)) == expected
    assert cluster.vm().state == target
    assert (cluster.vm().running_spec is None) == (cluster.vm().state in AT_REST)


@pytest.mark.parametrize("state", sorted(ACTIVE))
def test_a_report_about_another_run_node_or_vm_says_nothing(state: VmState) -> None:
    cluster = a_cluster_with_vm(state)
    vm = cluster.vm()
    for about in ({"epoch": vm.epoch + 1}, {"epoch": vm.epoch - 2}, {"node": "hv2"}, {"vm": "nobody"}):
        fields: dict[str, Any] = {"vm": vm.id, "node": "hv1", "epoch": vm.epoch} | about
        assert cluster.report(ReportRunning(**fields)) == ()
        assert cluster.report(ReportReset(**fields, mark=vm.reset_mark)) == ()
    assert cluster.says_ended(epoch=vm.epoch + 1) == ()
    assert cluster.vm() == vm


@pytest.mark.parametrize(
    ("ending", "how"),
    [(Ending.CRASHED, "crashed"), (Ending.DESTROYED, "killed"), (Ending.LOST, "lost"), (Ending.UNKNOWN, "unknown")],
)
def test_an_unasked_end_is_told_as_what_it_was(ending: Ending, how: str) -> None:
    cluster = a_cluster_with_vm("running", on_crash="stop")
    (crashed,) = cluster.says_ended(ending)
    assert crashed.how == how  # type: ignore[union-attr]
    assert cluster.vm().state is VmState.FAILED
    assert cluster.vm().error.startswith("the VM ")


def test_a_requested_end_is_told_as_asked_and_an_own_wish_is_not() -> None:
    asked = a_cluster_with_vm("shutting-down").says_ended()[0]
    unasked = a_cluster_with_vm("running").says_ended()[0]
    forced = a_cluster_with_vm("stopping").says_ended(Ending.DESTROYED)[0]
    assert (asked.how, asked.requested) == ("guest", True)  # type: ignore[union-attr]
    assert (unasked.how, unasked.requested) == ("guest", False)  # type: ignore[union-attr]
    assert (forced.how, forced.requested) == ("forced", True)  # type: ignore[union-attr]


def test_a_crash_that_comes_after_the_admins_stop_does_not_start_the_vm_again() -> None:
    cluster = a_cluster_with_vm("running")
    cluster.do("vm.stop", vm="web01")
    assert types(cluster.says_ended(Ending.CRASHED)) == ["vm.stopped"]
    assert cluster.vm().state is VmState.STOPPED


def test_an_end_that_came_before_the_start_it_is_reported_in_counts_for_the_old_run_only() -> None:
    cluster = a_cluster_with_vm("running")
    cluster.says_ended()
    cluster.do("vm.start", vm="web01")
    assert cluster.says_ended(epoch=1) == ()
    assert cluster.vm().state is VmState.STARTING


# Time-outs.


def test_a_shutdown_that_leaves_its_guest_ends_in_a_fact_and_a_running_vm() -> None:
    cluster = a_cluster_with_vm("running")
    cluster.do("vm.shutdown", vm="web01", timeout_s=1, on_timeout="leave")
    assert types(cluster.says_timed_out()) == ["vm.shutdown_abandoned"]
    assert cluster.vm().state is VmState.RUNNING
    assert not cluster.vm().forced


def test_a_late_time_out_does_not_cut_the_next_request_short() -> None:
    cluster = a_cluster_with_vm("running")
    cluster.do("vm.shutdown", vm="web01", timeout_s=1, on_timeout="leave")
    late = timed_out(cluster.vm())
    cluster.says_timed_out()
    cluster.do("vm.shutdown", vm="web01", timeout_s=600)
    assert cluster.report(late) == ()
    cluster.do("vm.stop", vm="web01")
    cluster.says_ended()
    bring(cluster, "web01", "restarting")
    assert cluster.report(late) == ()


def test_a_restart_is_forced_once_and_the_next_run_is_not() -> None:
    cluster = a_cluster_with_vm("restarting")
    cluster.says_timed_out()
    assert cluster.vm().forced
    assert cluster.says_timed_out() == ()
    cluster.says_ended(Ending.DESTROYED)
    assert (cluster.vm().state, cluster.vm().forced) == (VmState.STARTING, False)


def test_a_stop_during_a_restart_ends_with_a_stopped_vm() -> None:
    cluster = a_cluster_with_vm("restarting")
    cluster.do("vm.stop", vm="web01")
    assert cluster.says_ended(epoch=1) == ()
    cluster.says_ended(Ending.LOST)
    assert cluster.vm().state is VmState.STOPPED


# Policies.


def crash(cluster: TinyCluster) -> list[str]:
    events = types(cluster.says_ended(Ending.CRASHED))
    if cluster.vm().state is VmState.STARTING:
        cluster.says_running()
    return events


def test_a_vm_that_crashes_too_often_is_left_failed_with_the_reason() -> None:
    cluster = a_cluster_with_vm("running")
    for _ in range(RESTART_LIMIT):
        assert crash(cluster)[-1] == "vm.start_requested"
    assert crash(cluster) == ["vm.crashed", "vm.failed"]
    assert (cluster.vm().state, cluster.vm().error) == (VmState.FAILED, "ended 4 times within 10 minutes")


def test_crashes_longer_ago_than_the_window_do_not_count() -> None:
    cluster = a_cluster_with_vm("running")
    for _ in range(3 * RESTART_LIMIT):
        cluster.time_us += RESTART_WINDOW_US // RESTART_LIMIT
        assert crash(cluster)[-1] == "vm.start_requested"
    assert cluster.vm().state is VmState.RUNNING


def test_an_admin_may_start_a_vm_that_was_given_up() -> None:
    cluster = a_cluster_with_vm("running")
    for _ in range(RESTART_LIMIT + 1):
        crash(cluster)
    cluster.do("vm.start", vm="web01")
    assert (cluster.vm().state, cluster.vm().error) == (VmState.STARTING, "")


def test_a_guest_that_powers_off_unasked_starts_again_by_policy_but_not_for_ever() -> None:
    cluster = a_cluster_with_vm("running", on_poweroff="restart")
    for _ in range(RESTART_LIMIT):
        assert types(cluster.says_ended())[-1] == "vm.start_requested"
        cluster.says_running()
    assert types(cluster.says_ended()) == ["vm.stopped", "vm.failed"]
    assert cluster.vm().state is VmState.FAILED


def test_a_guest_that_may_power_itself_off_uses_up_no_restarts() -> None:
    cluster = a_cluster_with_vm("running")
    for _ in range(2 * RESTART_LIMIT):
        cluster.says_ended()
        bring(cluster, "web01", "running")
    assert crash(cluster)[-1] == "vm.start_requested"


def test_a_policy_that_finds_no_room_leaves_the_vm_failed_with_the_reason() -> None:
    cluster = a_cluster_with_vm("running", on_poweroff="restart")
    cluster.do("vm.define", name="web02", memory_mib=NODE_MEMORY_MIB - 1024)
    bring(cluster, "web02", "running")
    cluster.do("vm.modify", vm="web01", memory_mib=1025)
    assert types(cluster.says_ended()) == ["vm.stopped", "vm.failed"]
    assert cluster.vm().state is VmState.FAILED
    assert cluster.vm().error == "no room to start it: it needs 1025 MiB, node hv1 has 1024 MiB free"


def test_an_error_is_shown_only_while_the_vm_is_failed() -> None:
    cluster = a_cluster_with_vm("failed")
    assert cluster.vm().error == "no such file"
    cluster.do("vm.disable", vm="web01")
    assert cluster.vm().error == ""


# Nodes.


def test_a_node_that_was_added_is_ready_when_it_says_so() -> None:
    cluster = a_cluster()
    assert types(cluster.add_node("hv2")) == ["node.joined", "node.ready"]
    assert cluster.state.nodes["hv2"].ready


def test_a_restart_of_the_daemon_starts_nothing_and_a_boot_starts_what_shall() -> None:
    cluster = a_cluster_with_vm(autostart=True)
    cluster.do("vm.define", name="db01", memory_mib=64, autostart=True)
    cluster.do("vm.define", name="off01", memory_mib=64)
    assert types(cluster.says_ready()) == ["node.ready"]
    _, first, second = cluster.says_ready(boot="boot-2")
    assert [first.vm, second.vm] == [cluster.vm("db01").id, cluster.vm("web01").id]  # type: ignore[union-attr]
    assert cluster.vm("off01").state is VmState.STOPPED
    assert types(cluster.says_ready(boot="boot-2")) == ["node.ready"]


def test_what_shall_start_at_a_boot_starts_too_where_the_boot_was_a_fencing() -> None:
    cluster = a_cluster("hv1", "hv2")
    cluster.do("vm.define", name="up01", memory_mib=3000, node="hv2", node_limits=["hv2"])
    bring(cluster, "up01", "running")
    cluster.do("vm.define", name="db01", memory_mib=3000, node="hv2", autostart=True)
    cluster.do("vm.define", name="late01", memory_mib=3000, node="hv2", autostart=True)
    cluster.says_lost("hv2")
    cluster.says_fenced("hv2")
    assert types(cluster.says_ready("hv2", boot="boot-2")) == [
        "node.ready",
        "vm.recovered",
        "vm.start_requested",
        "vm.failed",
    ]
    assert (cluster.vm("db01").state, cluster.vm("late01").state) == (VmState.STARTING, VmState.FAILED)


def test_a_node_that_takes_no_vms_starts_none_at_its_boot() -> None:
    cluster = a_cluster("hv1", "hv2")
    cluster.do("vm.define", name="db01", memory_mib=64, node="hv2", autostart=True)
    cluster.do("node.flush", node="hv2")
    assert types(cluster.says_ready("hv2", boot="boot-2")) == ["node.ready"]
    assert cluster.vm("db01").state is VmState.STOPPED


@pytest.mark.parametrize("state", ["disabled", "failed", "running"])
def test_autostart_leaves_alone_what_is_not_plainly_stopped(state: str) -> None:
    cluster = a_cluster_with_vm(state, autostart=True)
    assert types(cluster.says_ready(boot="boot-2")) == ["node.ready"]


def test_autostart_stops_where_the_room_ends_and_says_so() -> None:
    cluster = a_cluster_with_vm(autostart=True, memory_mib=6000)
    cluster.do("vm.define", name="big01", memory_mib=6000, autostart=True)
    cluster.do("vm.define", name="z01", memory_mib=2000, autostart=True)
    assert types(cluster.says_ready(boot="boot-2")) == [
        "node.ready",
        "vm.start_requested",
        "vm.failed",
        "vm.start_requested",
    ]
    assert cluster.vm("web01").state is VmState.FAILED
    assert cluster.state.load_of("hv1").memory_mib == 8000


def test_an_autostart_vm_that_went_down_with_its_machine_comes_back_whatever_its_crash_policy() -> None:
    cluster = a_cluster_with_vm("running", autostart=True, on_crash="stop")
    cluster.says_ready(boot="boot-2")
    _, started = cluster.says_ended(Ending.LOST)
    assert started.reason == "policy: autostart, 1 of 3 tries"  # type: ignore[union-attr]
    cluster.says_running()
    assert types(cluster.says_ended(Ending.CRASHED)) == ["vm.crashed"]


def test_the_autostarts_of_one_boot_fit_into_one_record() -> None:
    cluster = a_cluster()
    cluster.says_ready(memory_mib=10**9)
    for number in range(MAX_AUTOSTARTS + 1):
        cluster.do("vm.define", name=f"{'v' * 50}{number:05d}", memory_mib=64, autostart=True)
    events = cluster.report(node_ready(memory_mib=10**9, boot="boot-2"))
    assert len(events) == 1 + MAX_AUTOSTARTS
    assert seal(cluster.entries[-1].record).position == cluster.state.position


def test_a_vm_tells_when_its_state_last_changed_by_the_time_of_the_record() -> None:
    cluster = a_cluster_with_vm()
    cluster.do("vm.start", vm="web01")
    assert cluster.vm().changed_us == cluster.time_us == cluster.vm().defined_us + SECOND_US
