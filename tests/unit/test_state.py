"""The state: indexes, hash, forks, snapshots, and the memory of commands."""

from __future__ import annotations

import msgspec
import pytest

from pvc.projections import snapshot as snapshot_module
from pvc.projections.cluster_views import cluster_info, node_info
from pvc.projections.snapshot import StaleSnapshot, restore, snapshot
from pvc.projections.state import RECENT_COMMANDS, RECENT_SLACK, ClusterState
from pvc.projections.views import spec_differences, vm_info, vm_row
from tests.support.core import a_cluster_with_vm, bring, replayed


def test_the_hash_tells_states_apart_and_nothing_else() -> None:
    one, other = a_cluster_with_vm(), a_cluster_with_vm()
    assert one.state.state_hash() == other.state.state_hash() != ClusterState().state_hash()
    one.do("vm.add_tag", vm="web01", tag="a")
    assert one.state.state_hash() != other.state.state_hash()


def test_the_hash_does_not_depend_on_when_it_was_asked_for() -> None:
    cluster = a_cluster_with_vm()
    seen = []
    for tag in ("a", "b", "c"):
        cluster.do("vm.add_tag", vm="web01", tag=tag)
        seen.append(cluster.state.state_hash())
    assert len(set(seen)) == 3
    assert replayed(cluster.entries).state_hash() == seen[-1]


def test_the_hash_of_tags_does_not_depend_on_their_order() -> None:
    one, other = a_cluster_with_vm(), a_cluster_with_vm()
    for cluster, tags in ((one, {"a": True, "b": False}), (other, {"b": False, "a": True})):
        cluster.state.put_vm(msgspec.structs.replace(cluster.vm(), tags=tags))
    assert one.state.state_hash() == other.state.state_hash()


def test_what_is_removed_leaves_no_trace_in_the_hash() -> None:
    cluster = a_cluster_with_vm()
    vm = cluster.vm()
    before = cluster.state.fork()
    cluster.state.drop_vm(vm.id)
    cluster.state.put_vm(vm)
    assert cluster.state.state_hash() == before.state_hash()


def test_a_fork_goes_its_own_way() -> None:
    cluster = a_cluster_with_vm("running")
    twin = cluster.state.fork()
    before = (twin.state_hash(), twin.load_of("hv1"), twin.vm_names.copy(), twin.recent.copy(), twin.head)
    cluster.do("vm.stop", vm="web01")
    cluster.says_ended()
    cluster.do("vm.rename", vm="web01", name="web02")
    cluster.do("vm.define", name="web01", memory_mib=64)
    cluster.add_node("hv2")
    assert (twin.state_hash(), twin.load_of("hv1"), twin.vm_names, twin.recent, twin.head) == before


def test_a_snapshot_holds_everything() -> None:
    cluster = a_cluster_with_vm("restarting", tags=["a"], autostart=True)
    again = restore(snapshot(cluster.state))
    for name in ("head", "cluster", "nodes", "vms", "tokens", "faults", "recent", "vm_names"):
        assert getattr(again, name) == getattr(cluster.state, name), name
    assert again.load_of("hv1") == cluster.state.load_of("hv1")
    assert again.state_hash() == cluster.state.state_hash()
    assert snapshot(again) == snapshot(cluster.state)


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"not a snapshot", msgspec.msgpack.encode({"projection_version": 1, "vms": 3})]
)
def test_a_damaged_snapshot_is_stale(data: bytes) -> None:
    with pytest.raises(StaleSnapshot):
        restore(data)


def test_a_snapshot_of_another_fold_is_stale_whatever_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "PROJECTION_VERSION", 99)
    data = snapshot(a_cluster_with_vm().state)
    monkeypatch.undo()
    for stored in (data, msgspec.msgpack.encode({"projection_version": 99, "unheard": "of"})):
        with pytest.raises(StaleSnapshot, match="version 99"):
            restore(stored)


def test_the_newest_commands_are_remembered_and_the_oldest_forgotten() -> None:
    state = ClusterState()
    total = RECENT_COMMANDS + 2 * RECENT_SLACK
    for number in range(total):
        state.remember_command(f"c{number}")
    assert RECENT_COMMANDS <= len(state.recent) <= RECENT_COMMANDS + RECENT_SLACK
    assert list(state.recent)[-RECENT_COMMANDS:] == [f"c{n}" for n in range(total - RECENT_COMMANDS, total)]


# Views.


def test_a_row_and_the_whole_tell_that_a_restart_is_due() -> None:
    cluster = a_cluster_with_vm("running")
    assert not vm_row(cluster.vm()).restart_required
    cluster.do("vm.modify", vm="web01", memory_mib=2048, cmdline="")
    row, info = vm_row(cluster.vm()), vm_info(cluster.vm())
    assert (row.restart_required, row.memory_mib) == (True, 2048)
    assert info.restart_required == ["memory_mib"]
    assert spec_differences(None, cluster.vm().spec) == ()


def test_a_node_tells_what_its_vms_take() -> None:
    cluster = a_cluster_with_vm("running", vcpus=2)
    cluster.do("vm.define", name="web02", memory_mib=64)
    info = node_info(cluster.state, cluster.state.nodes["hv1"])
    assert (info.memory_allocated_mib, info.vcpus_allocated, info.vms, info.vms_running) == (1024, 2, 2, 1)


def test_the_cluster_counts_its_vms_by_state() -> None:
    cluster = a_cluster_with_vm("running")
    cluster.do("vm.define", name="web02", memory_mib=64)
    bring(cluster, "web02", "disabled")
    info = cluster_info(cluster.state)
    assert (info.initialised, info.nodes, info.nodes_ready, info.vms) == (True, 1, 1, 2)
    assert info.vms_by_state == {"disabled": 1, "running": 1}
    assert (info.position, info.state_hash) == (cluster.state.position, cluster.state.state_hash())
    assert not cluster_info(ClusterState()).initialised
