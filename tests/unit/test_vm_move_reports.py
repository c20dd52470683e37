"""Bringing VMs to other nodes: what the two nodes report on the way."""

from __future__ import annotations

from typing import Any

import pytest

from pvc.commands.facts import Ending, ReportEnded
from pvc.commands.facts_moves import LIVE_REFUSED, ReportArrived, ReportMigrationFailed, ReportPrepared
from pvc.events import vm_moves as m
from pvc.projections.views import vm_info
from pvc.projections.vm_machine import ACTIVE, VmState
from tests.support.answers import types
from tests.unit.moving_vm import a_cluster_of_three


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
