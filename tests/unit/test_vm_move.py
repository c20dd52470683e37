"""Bringing VMs to other nodes: commands in every state, and what the two nodes report on the way."""

from __future__ import annotations

from typing import Any

import pytest

from pvc.commands.facts import Ending, ReportEnded
from pvc.commands.facts_moves import LIVE_REFUSED, ReportArrived, ReportMigrationFailed, ReportPrepared
from pvc.errors import Rejected
from pvc.events import vm_moves as m
from pvc.projections.views import vm_info
from pvc.projections.vm_machine import ACTIVE, AT_REST, VmState
from tests.support.core import NODE_MEMORY_MIB, TinyCluster, a_cluster, bring

MOVES = ("vm.migrate", "vm.move")


def a_cluster_of_three(state: str = "running", **fields: Any) -> TinyCluster:
    """web01 on hv1, in `state`; hv2 and hv3 are there for it."""
    cluster = a_cluster("hv1", "hv2", "hv3")
    cluster.do("vm.define", **{"name": "web01", "memory_mib": 1024, "node": "hv1"} | fields)
    bring(cluster, "web01", state)
    return cluster


def types(events: tuple[Any, ...]) -> list[str]:
    return [event.TYPE for event in events]


def refused(cluster: TinyCluster, name: str, /, **fields: Any) -> Rejected:
    head = cluster.state.head
    with pytest.raises(Rejected) as refusal:
        cluster.do(name, vm="web01", **fields)
    assert cluster.state.head == head and refusal.value.hint
    return refusal.value


def go(cluster: TinyCluster, command: str = "vm.migrate", /, **fields: Any) -> TinyCluster:
    """The whole way of a live migration."""
    cluster.do(command, vm="web01", **fields)
    cluster.says_prepared()
    cluster.says_ended(Ending.MIGRATED)
    cluster.says_arrived()
    return cluster


# Commands.


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("state", list(VmState))
def test_a_vm_goes_live_when_it_runs_at_once_when_it_is_at_rest_and_else_not(name: str, state: VmState) -> None:
    cluster = a_cluster_of_three(state)
    before = cluster.vm()
    if state in AT_REST:
        (moved,) = cluster.do(name, vm="web01", node="hv3")
        assert isinstance(moved, m.VmMoved)
        assert (cluster.vm().node, cluster.vm().state, cluster.vm().epoch) == ("hv3", state, before.epoch)
    elif state is VmState.RUNNING:
        (asked,) = cluster.do(name, vm="web01", node="hv3")
        assert isinstance(asked, m.VmMigrationRequested) and asked.live and asked.fallback
        assert (cluster.vm().node, cluster.vm().state) == ("hv1", VmState.MIGRATING)
    else:
        assert refused(cluster, name, node="hv3").code == f"vm.is_{state.replace('-', '_')}"
        assert cluster.vm() == before


def test_a_migration_is_for_a_time_and_a_move_for_good() -> None:
    migrated = go(a_cluster_of_three(), "vm.migrate", node="hv2").vm()
    assert (migrated.node, migrated.home, migrated.away, migrated.state) == ("hv2", "hv1", "migrate", VmState.RUNNING)
    moved = go(a_cluster_of_three(), "vm.move", node="hv2").vm()
    assert (moved.node, moved.home, moved.away) == ("hv2", "hv2", "")
    assert migrated.why == ("as asked",)


def test_a_migration_that_leads_home_is_none_to_come_back_from() -> None:
    cluster = go(go(a_cluster_of_three(), node="hv2"), node="hv1")
    assert (cluster.vm().node, cluster.vm().away) == ("hv1", "")
    assert refused(cluster, "vm.unmigrate").code == "vm.is_home"


def test_unmigrate_leads_home_and_only_there() -> None:
    cluster = go(a_cluster_of_three(), node="hv2")
    (asked,) = cluster.do("vm.unmigrate", vm="web01")
    assert (asked.target, asked.permanent) == ("hv1", False)  # type: ignore[union-attr]
    cluster = go(a_cluster_of_three(), node="hv2")
    cluster.says_lost("hv1")
    assert refused(cluster, "vm.unmigrate").code == "node.unsuitable"


def test_a_vm_may_be_at_home_where_it_is_from_now_on() -> None:
    cluster = go(a_cluster_of_three(), node="hv2")
    assert types(cluster.do("vm.move", vm="web01", node="hv2")) == ["vm.moved"]
    vm = cluster.vm()
    assert (vm.node, vm.home, vm.away, vm.state) == ("hv2", "hv2", "", VmState.RUNNING)
    assert refused(cluster, "vm.move", node="hv2").code == "vm.is_there"


@pytest.mark.parametrize("name", MOVES)
def test_the_target_is_chosen_by_the_selector_or_must_be_able(name: str) -> None:
    cluster = a_cluster_of_three()
    cluster.do("vm.define", name="big", memory_mib=4096, node="hv2")
    bring(cluster, "big", "running")
    (asked,) = cluster.do(name, vm="web01")
    assert (asked.target, asked.why) == ("hv3", ("selector mem: 8192 MiB free",))  # type: ignore[union-attr]
    cluster = a_cluster_of_three(node_limits=["hv1", "hv2"])
    refusal = refused(cluster, name, node="hv3")
    assert (refusal.code, refusal.message) == (
        "node.unsuitable",
        "web01 cannot go to hv3: it is outside its node limits",
    )
    assert refused(cluster, name, node="hv9").code == "node.not_found"
    assert refused(cluster, name, node="hv1").code == "vm.is_there"


def test_a_vm_at_rest_needs_no_room_yet_and_a_running_one_does() -> None:
    for state, outcome in (("stopped", "vm.moved"), ("running", "")):
        cluster = a_cluster_of_three(state)
        cluster.do("vm.define", name="big", memory_mib=NODE_MEMORY_MIB, node="hv2")
        bring(cluster, "big", "running")
        if outcome:
            assert types(cluster.do("vm.migrate", vm="web01", node="hv2")) == [outcome]
        else:
            assert refused(cluster, "vm.migrate", node="hv2").code == "node.unsuitable"


def test_a_named_target_is_told_what_it_means_for_the_affinities() -> None:
    cluster = a_cluster_of_three(anti_affinity=["db"])
    cluster.do("vm.define", name="db01", memory_mib=64, node="hv2", tags=["db"])
    (asked,) = cluster.do("vm.migrate", vm="web01", node="hv2")
    assert asked.why == ("as asked", "anti-affinity to db: 1 there")  # type: ignore[union-attr]


def test_the_method_says_how_a_running_vm_is_moved() -> None:
    for method, force_live, expected in (
        ("live", False, (True, True)),
        ("live", True, (True, False)),
        ("shutdown", False, (False, False)),
        ("shutdown", True, (True, False)),
    ):
        cluster = a_cluster_of_three(migration_method=method)
        (asked,) = cluster.do("vm.migrate", vm="web01", force_live=force_live)
        assert (asked.live, asked.fallback) == expected  # type: ignore[union-attr]
    refusal = refused(a_cluster_of_three(migration_method="none"), "vm.migrate", force_live=True)
    assert refusal.code == "vm.not_movable"


def test_the_downtime_is_the_vms_unless_another_is_asked_for() -> None:
    for asked, expected in ((None, 50), (7, 7)):
        cluster = a_cluster_of_three(max_downtime_ms=50)
        fields = {} if asked is None else {"max_downtime_ms": asked}
        (request,) = cluster.do("vm.migrate", vm="web01", **fields)
        assert request.max_downtime_ms == expected  # type: ignore[union-attr]


def test_from_a_node_that_is_not_there_nothing_running_can_be_moved_and_what_rests_can() -> None:
    cluster = a_cluster_of_three()
    cluster.says_lost("hv1")
    refusal = refused(cluster, "vm.migrate", node="hv2")
    assert (refusal.code, refusal.message) == ("node.not_ready", "web01 runs on node hv1, which is lost")
    cluster = a_cluster_of_three("stopped")
    cluster.says_lost("hv1")
    assert types(cluster.do("vm.move", vm="web01", node="hv2")) == ["vm.moved"]


# Cancelling.


@pytest.mark.parametrize("state", list(VmState))
def test_only_a_migration_that_has_not_left_can_be_cancelled(state: VmState) -> None:
    cluster = a_cluster_of_three(state)
    if state is VmState.MIGRATING:
        cause = cluster.vm().cause
        assert types(cluster.do("vm.cancel_migration", vm="web01")) == ["vm.migration_cancel_requested"]
        assert cluster.do("vm.cancel_migration", vm="web01") == (), "it is being given up"
        assert cluster.vm().cause != cause, "whoever cancels waits for the failure"
        assert types(cluster.says_not_moved(code="vm.migration_cancelled")) == ["vm.migration_failed"]
        assert cluster.vm().state is VmState.RUNNING
    else:
        code = "vm.has_left" if state is VmState.ARRIVING else "vm.not_migrating"
        assert refused(cluster, "vm.cancel_migration").code == code


def test_a_cancel_that_comes_too_late_stops_nothing() -> None:
    cluster = a_cluster_of_three("migrating")
    cluster.says_prepared()
    cluster.do("vm.cancel_migration", vm="web01")
    assert types(cluster.says_ended(Ending.MIGRATED)) == ["vm.migrated"]
    cluster.says_arrived()
    assert cluster.vm().state is VmState.RUNNING and cluster.vm().migration is None


# Reports.


def test_a_migration_takes_its_time_from_when_it_was_asked_for() -> None:
    cluster = a_cluster_of_three()
    cluster.do("vm.migrate", vm="web01")
    since_us = cluster.time_us
    cluster.says_prepared()
    cluster.says_ended(Ending.MIGRATED)
    assert cluster.vm().state is VmState.ARRIVING and cluster.time_us > since_us
    info = vm_info(cluster.vm())
    assert info.migration is not None and info.migration.since_us == since_us


def test_the_log_hands_the_guest_over_once_the_target_is_prepared() -> None:
    cluster = a_cluster_of_three("migrating")
    (prepared,) = cluster.says_prepared()
    assert cluster.vm().migration.prepared  # type: ignore[union-attr]
    assert cluster.says_prepared() == ()
    before = cluster.vm()
    (left,) = cluster.says_ended(Ending.MIGRATED)
    assert left == m.VmMigrated(
        vm=before.id,
        migration=before.migration.id,
        source="hv1",
        target="hv2",
        epoch=1,  # type: ignore[union-attr]
    )
    assert (prepared.node, cluster.vm().node, cluster.vm().state) == ("hv2", "hv2", VmState.ARRIVING)  # type: ignore[union-attr]
    assert types(cluster.says_arrived()) == ["vm.arrived"]
    assert cluster.says_arrived() == ()


ENDINGS_WHILE_PREPARED = {
    Ending.MIGRATED: ["vm.migrated"],
    # It may have run on at the source after a copy of it had arrived: that copy must never run.
    Ending.UNKNOWN: ["vm.crashed", "vm.start_requested"],
    Ending.LOST: ["vm.crashed", "vm.start_requested"],
    Ending.GUEST: ["vm.stopped"],
    Ending.CRASHED: ["vm.crashed", "vm.start_requested"],
    Ending.DESTROYED: ["vm.crashed", "vm.start_requested"],
}


@pytest.mark.parametrize("prepared", [True, False])
@pytest.mark.parametrize("ending", list(Ending))
def test_every_end_at_the_source_of_a_live_migration_has_its_meaning(ending: Ending, prepared: bool) -> None:
    cluster = a_cluster_of_three("migrating")
    if prepared:
        cluster.says_prepared()
    expected = ENDINGS_WHILE_PREPARED[ending]
    if not prepared and ending is not Ending.GUEST:
        expected = ["vm.crashed", "vm.start_requested"]
    assert types(cluster.says_ended(ending)) == expected
    vm = cluster.vm()
    assert (vm.migration is None) == (vm.state is not VmState.ARRIVING)
    if vm.state is VmState.ARRIVING:
        # It is lost on the target as well.
        assert types(cluster.says_ended(Ending.LOST)) == ["vm.crashed", "vm.start_requested"]
        assert (cluster.vm().node, cluster.vm().epoch) == ("hv2", 2)
    elif vm.state is VmState.STARTING:
        assert (vm.node, vm.epoch) == ("hv1", 2)
    assert cluster.state.load_of("hv3").memory_mib == 0


@pytest.mark.parametrize("ending", list(Ending))
def test_every_end_at_the_source_of_a_migration_by_shutdown_is_its_step(ending: Ending) -> None:
    cluster = a_cluster_of_three(migration_method="shutdown")
    cluster.do("vm.modify", vm="web01", memory_mib=2048)
    cluster.do("vm.migrate", vm="web01", node="hv2")
    cluster.says_prepared()
    (relocated,) = cluster.says_ended(ending)
    assert isinstance(relocated, m.VmRelocated)
    vm = cluster.vm()
    assert (vm.node, vm.epoch, vm.state, vm.migration, vm.away) == ("hv2", 2, VmState.STARTING, None, "migrate")
    assert vm.running_spec == vm.spec, "it starts as it is defined now"


def test_a_guest_whose_target_is_lost_while_it_shuts_down_is_started_where_it_was() -> None:
    cluster = a_cluster_of_three(migration_method="shutdown")
    cluster.do("vm.migrate", vm="web01", node="hv2")
    cluster.says_prepared()
    cluster.says_lost("hv2")
    failed, stopped, started = cluster.says_ended(Ending.GUEST)
    assert types((failed, stopped, started)) == ["vm.migration_failed", "vm.stopped", "vm.start_requested"]
    assert (failed.code, failed.message) == ("vm.target_lost", "hv2 is lost")
    vm = cluster.vm()
    assert (vm.node, vm.epoch, vm.state, vm.migration) == ("hv1", 2, VmState.STARTING, None)
    assert cluster.state.load_of("hv2").memory_mib == 0


def test_a_guest_that_does_not_shut_down_for_its_migration_is_forced_off() -> None:
    cluster = a_cluster_of_three(migration_method="shutdown")
    cluster.do("vm.migrate", vm="web01", node="hv2", timeout_s=5)
    cluster.says_prepared()
    assert types(cluster.says_timed_out()) == ["vm.shutdown_timed_out"]
    assert cluster.vm().forced and cluster.says_timed_out() == ()
    cluster.says_ended(Ending.DESTROYED)
    assert not cluster.vm().forced


def test_a_live_migration_knows_no_time_out_of_a_shutdown() -> None:
    cluster = a_cluster_of_three("migrating")
    cluster.says_prepared()
    assert cluster.says_timed_out() == ()


def test_what_cannot_go_live_goes_by_a_shutdown_to_the_same_node() -> None:
    cluster = a_cluster_of_three()
    cluster.do("vm.move", vm="web01", node="hv3", timeout_s=7)
    cluster.says_prepared()
    before = cluster.vm()
    (again,) = cluster.says_not_moved(code=LIVE_REFUSED)
    assert isinstance(again, m.VmMigrationRequested)
    assert (again.live, again.fallback, again.target, again.permanent, again.timeout_s) == (
        False,
        False,
        "hv3",
        True,
        7,
    )
    assert again.reason == "not live: it cannot be"
    vm = cluster.vm()
    assert (vm.cause, vm.failed_moves) == (before.cause, 0), "whoever asked still waits"
    assert vm.migration is not None and not vm.migration.prepared, "the target is asked once more"
    assert vm.migration.id != before.migration.id  # type: ignore[union-attr]
    assert types(cluster.says_not_moved(code=LIVE_REFUSED)) == ["vm.migration_failed"]


def test_what_shall_only_go_live_or_not_any_more_stays() -> None:
    cluster = a_cluster_of_three()
    cluster.do("vm.migrate", vm="web01", force_live=True)
    assert types(cluster.says_not_moved(code=LIVE_REFUSED)) == ["vm.migration_failed"]
    cluster.do("vm.migrate", vm="web01")
    cluster.do("vm.cancel_migration", vm="web01")
    assert types(cluster.says_not_moved(code=LIVE_REFUSED)) == ["vm.migration_failed"]


@pytest.mark.parametrize("by_target", [True, False])
def test_a_migration_that_fails_leaves_the_vm_running_where_it_was(by_target: bool) -> None:
    cluster = a_cluster_of_three("migrating")
    assert types(cluster.says_not_moved(by_target=by_target)) == ["vm.migration_failed"]
    vm = cluster.vm()
    assert (vm.node, vm.state, vm.epoch, vm.migration, vm.failed_moves) == ("hv1", VmState.RUNNING, 1, None, 1)
    assert cluster.state.load_of("hv2").memory_mib == 0


def test_a_failure_after_the_guest_was_forced_off_in_vain_does_not_shorten_the_next_shutdown() -> None:
    cluster = a_cluster_of_three(migration_method="shutdown")
    cluster.do("vm.migrate", vm="web01")
    cluster.says_timed_out()
    cluster.says_not_moved(by_target=True)
    assert not cluster.vm().forced
    cluster.do("vm.shutdown", vm="web01", timeout_s=5)
    assert types(cluster.says_timed_out()) == ["vm.shutdown_timed_out"]


def test_what_an_admin_asks_for_forgives_the_failures_before() -> None:
    cluster = a_cluster_of_three("migrating")
    cluster.says_not_moved()
    cluster.do("vm.migrate", vm="web01")
    assert cluster.vm().failed_moves == 0


@pytest.mark.parametrize("state", list(VmState))
def test_a_report_of_another_migration_node_or_run_says_nothing(state: VmState) -> None:
    cluster = a_cluster_of_three(state)
    vm = cluster.vm()
    move = vm.migration.id if vm.migration else "none"
    stale: list[Any] = [
        ReportPrepared(vm=vm.id, node="hv2", migration="another"),
        ReportPrepared(vm=vm.id, node="hv3", migration=move),
        ReportPrepared(vm="nobody", node="hv2", migration=move),
        ReportMigrationFailed(vm=vm.id, node="hv1", migration="another", code="c", message="m"),
        ReportMigrationFailed(vm=vm.id, node="hv3", migration=move, code="c", message="m"),
        ReportArrived(vm=vm.id, node="hv3", epoch=vm.epoch),
        ReportArrived(vm=vm.id, node=vm.node, epoch=vm.epoch + 1),
        ReportArrived(vm="nobody", node=vm.node, epoch=vm.epoch),
    ]
    if state in ACTIVE - {VmState.RESTARTING}:
        stale.append(ReportEnded(vm=vm.id, node="hv3", epoch=vm.epoch, ending=Ending.MIGRATED))
    if state is not VmState.ARRIVING:
        stale.append(ReportArrived(vm=vm.id, node=vm.node, epoch=vm.epoch))
    if state is not VmState.MIGRATING:
        stale += [
            ReportPrepared(vm=vm.id, node="hv2", migration=move),
            ReportMigrationFailed(vm=vm.id, node="hv1", migration=move, code="c", message="m"),
        ]
    for report in stale:
        assert cluster.report(report) == (), report
    assert cluster.vm() == vm


def test_a_late_end_at_the_source_after_the_handover_says_nothing() -> None:
    cluster = a_cluster_of_three("arriving")
    vm = cluster.vm()
    for ending in Ending:
        assert cluster.report(ReportEnded(vm=vm.id, node="hv1", epoch=vm.epoch, ending=ending)) == ()


def test_a_stop_ends_a_vm_on_its_way_wherever_it_is() -> None:
    for state, node in (("migrating", "hv1"), ("arriving", "hv2")):
        cluster = a_cluster_of_three(state)
        cluster.do("vm.stop", vm="web01")
        assert (cluster.vm().state, cluster.vm().node, cluster.vm().migration) == (VmState.STOPPING, node, None)
        cluster.says_ended(Ending.DESTROYED)
        assert cluster.vm().state is VmState.STOPPED
        assert all(cluster.state.load_of(name).memory_mib == 0 for name in ("hv1", "hv2"))


def test_a_guest_that_arrived_but_cannot_run_on_is_gone_like_one_that_crashed() -> None:
    cluster = a_cluster_of_three("arriving")
    assert types(cluster.says_start_failed()) == ["vm.crashed", "vm.start_requested"]
    assert (cluster.vm().node, cluster.vm().epoch, cluster.vm().migration) == ("hv2", 2, None)
    cluster = a_cluster_of_three("arriving", on_crash="stop")
    cluster.says_start_failed()
    assert cluster.vm().state is VmState.FAILED


# Room.


def test_the_target_keeps_room_from_the_request_until_the_end() -> None:
    cluster = a_cluster_of_three("migrating")

    def loads() -> list[int]:
        return [cluster.state.load_of(node).memory_mib for node in ("hv1", "hv2")]

    assert loads() == [1024, 1024]
    cluster.says_prepared()
    cluster.says_ended(Ending.MIGRATED)
    assert loads() == [0, 1024]
    cluster.says_arrived()
    assert loads() == [0, 1024]


def test_what_may_be_shut_down_and_started_anew_has_room_kept_as_it_is_defined_now() -> None:
    cluster = a_cluster_of_three()
    cluster.do("vm.modify", vm="web01", memory_mib=4096)
    cluster.do("vm.migrate", vm="web01", node="hv2")
    assert cluster.state.load_of("hv2").memory_mib == 4096
    cluster.says_not_moved()
    cluster.do("vm.migrate", vm="web01", node="hv2", force_live=True)
    assert cluster.state.load_of("hv2").memory_mib == 1024


def test_a_vm_on_its_way_does_not_grow_beyond_the_room_that_its_target_has() -> None:
    cluster = a_cluster_of_three()
    cluster.do("vm.define", name="big", memory_mib=6000, node="hv2")
    bring(cluster, "big", "running")
    cluster.do("vm.migrate", vm="web01", node="hv2")
    refusal = refused(cluster, "vm.modify", memory_mib=2193)
    assert (refusal.code, refusal.message) == (
        "node.memory_full",
        "web01 needs 2193 MiB of memory, node hv2, where it is going, has 2192 MiB free",
    )
    cluster.do("vm.modify", vm="web01", memory_mib=2192)
    assert cluster.state.load_of("hv2").memory_mib == NODE_MEMORY_MIB
    cluster.do("vm.modify", vm="web01", memory_mib=512)
    assert cluster.state.load_of("hv2").memory_mib == 6000 + 1024


def test_the_wait_for_a_migration_ends_when_the_guest_powers_itself_off() -> None:
    from pvc.commands.registry import BY_NAME

    for name in ("vm.migrate", "vm.move", "vm.unmigrate"):
        assert BY_NAME[name].outcomes["vm.stopped"] is False
    assert BY_NAME["vm.cancel_migration"].outcomes["vm.stopped"] is False
    assert BY_NAME["vm.cancel_migration"].outcomes["vm.crashed"] is False
