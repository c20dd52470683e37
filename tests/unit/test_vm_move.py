"""Bringing VMs to other nodes: what may be asked for in every state, and the room that is kept."""

from __future__ import annotations

import pytest

from pvc.commands.facts import Ending
from pvc.events import vm_moves as m
from pvc.projections.vm_machine import AT_REST, VmState
from tests.support.answers import types
from tests.support.core import NODE_MEMORY_MIB, bring
from tests.unit.moving_vm import MOVES, a_cluster_of_three, go, move_refused

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
        assert move_refused(cluster, name, node="hv3").code == f"vm.is_{state.replace('-', '_')}"
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
    assert move_refused(cluster, "vm.unmigrate").code == "vm.is_home"


def test_unmigrate_leads_home_and_only_there() -> None:
    cluster = go(a_cluster_of_three(), node="hv2")
    (asked,) = cluster.do("vm.unmigrate", vm="web01")
    assert (asked.target, asked.permanent) == ("hv1", False)  # type: ignore[union-attr]
    cluster = go(a_cluster_of_three(), node="hv2")
    cluster.says_lost("hv1")
    assert move_refused(cluster, "vm.unmigrate").code == "node.unsuitable"


def test_a_vm_may_be_at_home_where_it_is_from_now_on() -> None:
    cluster = go(a_cluster_of_three(), node="hv2")
    assert types(cluster.do("vm.move", vm="web01", node="hv2")) == ["vm.moved"]
    vm = cluster.vm()
    assert (vm.node, vm.home, vm.away, vm.state) == ("hv2", "hv2", "", VmState.RUNNING)
    assert move_refused(cluster, "vm.move", node="hv2").code == "vm.is_there"


@pytest.mark.parametrize("name", MOVES)
def test_the_target_is_chosen_by_the_selector_or_must_be_able(name: str) -> None:
    cluster = a_cluster_of_three()
    cluster.do("vm.define", name="big", memory_mib=4096, node="hv2")
    bring(cluster, "big", "running")
    (asked,) = cluster.do(name, vm="web01")
    assert (asked.target, asked.why) == ("hv3", ("selector mem: 8192 MiB free",))  # type: ignore[union-attr]
    cluster = a_cluster_of_three(node_limits=["hv1", "hv2"])
    refusal = move_refused(cluster, name, node="hv3")
    assert (refusal.code, refusal.message) == (
        "node.unsuitable",
        "web01 cannot go to hv3: it is outside its node limits",
    )
    assert move_refused(cluster, name, node="hv9").code == "node.not_found"
    assert move_refused(cluster, name, node="hv1").code == "vm.is_there"


def test_a_vm_at_rest_needs_no_room_yet_and_a_running_one_does() -> None:
    for state, outcome in (("stopped", "vm.moved"), ("running", "")):
        cluster = a_cluster_of_three(state)
        cluster.do("vm.define", name="big", memory_mib=NODE_MEMORY_MIB, node="hv2")
        bring(cluster, "big", "running")
        if outcome:
            assert types(cluster.do("vm.migrate", vm="web01", node="hv2")) == [outcome]
        else:
            assert move_refused(cluster, "vm.migrate", node="hv2").code == "node.unsuitable"


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
    refusal = move_refused(a_cluster_of_three(migration_method="none"), "vm.migrate", force_live=True)
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
    refusal = move_refused(cluster, "vm.migrate", node="hv2")
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
        assert move_refused(cluster, "vm.cancel_migration").code == code


def test_a_cancel_that_comes_too_late_stops_nothing() -> None:
    cluster = a_cluster_of_three("migrating")
    cluster.says_prepared()
    cluster.do("vm.cancel_migration", vm="web01")
    assert types(cluster.says_ended(Ending.MIGRATED)) == ["vm.migrated"]
    cluster.says_arrived()
    assert cluster.vm().state is VmState.RUNNING and cluster.vm().migration is None


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
    refusal = move_refused(cluster, "vm.modify", memory_mib=2193)
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
