"""What ends operations, and what does not: read off the records of a cluster in the mind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pvc.commands.facts import Ending
from pvc.events.vm_moves import VmMigrationRequested
from pvc.projections.operations import PARTLY_FAILED, Operation, OperationState
from pvc.runtime.operation_file import OperationFile, OperationQuery
from pvc.runtime.operations import KINDS
from tests.support.core import TinyCluster, a_cluster, a_cluster_with_vm


def operations_of(cluster: TinyCluster, directory: Path, command: str) -> list[Operation]:
    """The command's operations after all that has been recorded, folded from the first record on."""
    file = OperationFile(directory / f"{len(cluster.entries)}-{command}.db", KINDS)
    file.fold([entry.data for entry in cluster.entries])
    found = file.find(OperationQuery(commands=(command,), ascending=True))
    file.close()
    return found


def operation_of(cluster: TinyCluster, directory: Path, command: str) -> Operation:
    (operation,) = operations_of(cluster, directory, command)
    return operation


def a_cluster_with_keys() -> TinyCluster:
    cluster = TinyCluster()
    nodes = ("hv1", "hv2", "hv3")
    cluster.do("cluster.init", name="main", coordinators=list(nodes))
    for node in nodes:
        cluster.says_ready(node)
        cluster.says_key(node, f"{node}-old")
    return cluster


class TestRotatingAllKeys:
    def test_is_over_when_each_coordinator_has_its_new_key(self, tmp_path: Path) -> None:
        cluster = a_cluster_with_keys()
        cluster.do("log.rotate_key")
        rotation = operation_of(cluster, tmp_path, "log.rotate_key")
        assert (rotation.state, rotation.done, rotation.total) == (OperationState.PENDING, 0, 3)
        for done, node in enumerate(("hv2", "hv1"), start=1):
            cluster.says_key(node, f"{node}-new")
            rotation = operation_of(cluster, tmp_path, "log.rotate_key")
            assert (rotation.state, rotation.done, rotation.code) == (OperationState.RUNNING, done, "")
        cluster.says_key("hv3", "hv3-new")
        rotation = operation_of(cluster, tmp_path, "log.rotate_key")
        assert (rotation.state, rotation.done, rotation.failed) == (OperationState.SUCCEEDED, 3, 0)

    def test_does_not_count_one_coordinator_twice(self, tmp_path: Path) -> None:
        cluster = a_cluster_with_keys()
        cluster.do("log.rotate_key")
        for word in ("new", "newer", "newest"):
            cluster.says_key("hv1", word)
        rotation = operation_of(cluster, tmp_path, "log.rotate_key")
        assert (rotation.state, rotation.done) == (OperationState.RUNNING, 1)

    def test_is_told_nothing_by_what_else_happens_to_the_cluster(self, tmp_path: Path) -> None:
        cluster = a_cluster_with_keys()
        cluster.do("log.rotate_key")
        before = operation_of(cluster, tmp_path, "log.rotate_key")
        cluster.elect("hv1")
        cluster.do("cluster.set_maintenance", maintenance=True)
        assert operation_of(cluster, tmp_path, "log.rotate_key") == before

    def test_has_failed_where_a_coordinator_was_removed_meanwhile(self, tmp_path: Path) -> None:
        cluster = a_cluster_with_keys()
        cluster.do("log.rotate_key")
        cluster.says_key("hv2", "hv2-new")
        cluster.elect("hv2")
        cluster.lose("hv1")
        cluster.do("node.remove", node="hv1")
        rotation = operation_of(cluster, tmp_path, "log.rotate_key")
        assert (rotation.state, rotation.done, rotation.failed) == (OperationState.RUNNING, 2, 1)
        cluster.says_key("hv3", "hv3-new")
        rotation = operation_of(cluster, tmp_path, "log.rotate_key")
        assert (rotation.state, rotation.code, rotation.failed) == (OperationState.FAILED, PARTLY_FAILED, 1)
        assert rotation.text == "it came about at 2 of 3 nodes"

    def test_ends_with_the_removal_of_the_last_that_is_due(self, tmp_path: Path) -> None:
        cluster = a_cluster_with_keys()
        cluster.do("log.rotate_key")
        for node in ("hv2", "hv3"):
            cluster.says_key(node, f"{node}-new")
        cluster.elect("hv2")
        cluster.lose("hv1")
        cluster.do("node.remove", node="hv1")
        rotation = operation_of(cluster, tmp_path, "log.rotate_key")
        assert (rotation.state, rotation.code, rotation.done) == (OperationState.FAILED, PARTLY_FAILED, 3)


def test_rotating_one_key_is_over_when_that_node_has_it(tmp_path: Path) -> None:
    cluster = a_cluster_with_keys()
    cluster.do("log.rotate_key", node="hv2")
    cluster.says_key("hv1", "hv1-new")
    assert operation_of(cluster, tmp_path, "log.rotate_key").state is OperationState.PENDING
    cluster.says_key("hv2", "hv2-new")
    assert operation_of(cluster, tmp_path, "log.rotate_key").state is OperationState.SUCCEEDED


def test_rotating_the_key_of_a_node_that_is_removed_has_failed(tmp_path: Path) -> None:
    cluster = a_cluster_with_keys()
    cluster.do("log.rotate_key", node="hv1")
    cluster.elect("hv2")
    cluster.lose("hv1")
    cluster.do("node.remove", node="hv1")
    rotation = operation_of(cluster, tmp_path, "log.rotate_key")
    assert (rotation.state, rotation.code) == (OperationState.FAILED, "cluster.signing_key_retired")


def test_adding_a_webhook_has_failed_where_it_is_removed_unverified(tmp_path: Path) -> None:
    cluster = a_cluster("hv1")
    cluster.do("webhook.add", name="billing", url="https://hooks.example.com/pvc")
    assert operation_of(cluster, tmp_path, "webhook.add").state is OperationState.PENDING
    cluster.do("webhook.remove", hook="billing")
    added = operation_of(cluster, tmp_path, "webhook.add")
    assert (added.state, added.code) == (OperationState.FAILED, "webhook.removed")
    assert added.text == "webhook billing removed"


def arrive(cluster: TinyCluster, name: str) -> None:
    """Let a migration go its way."""
    cluster.says_prepared(name)
    cluster.says_ended(Ending.MIGRATED, name)
    cluster.says_arrived(name)


def a_cluster_with_vms(nodes: tuple[str, ...], node: str, *names: str, **fields: Any) -> TinyCluster:
    """A cluster of these nodes with VMs that run on `node`."""
    cluster = a_cluster(*nodes)
    for name in names:
        cluster.do("vm.define", name=name, memory_mib=1024, node=node, **fields)
        cluster.do("vm.start", vm=name)
        cluster.says_running(name)
    return cluster


class TestWhatHasArrivedStaysSo:
    """A VM that has got somewhere has its part of the operation behind it, whatever others do to it afterwards."""

    def rebalanced(self) -> tuple[TinyCluster, str, str]:
        cluster = a_cluster_with_vms(("hv1",), "hv1", "web01", "web02", "web03", "web04", on_crash="stop")
        cluster.add_node("hv2")
        moves = cluster.do("cluster.rebalance", moves=2)
        first, second = (cluster.state.vms[move.vm].name for move in moves if isinstance(move, VmMigrationRequested))
        return cluster, first, second

    def test_a_rebalance_has_succeeded_though_one_of_its_vms_has_crashed_since(self, tmp_path: Path) -> None:
        cluster, first, second = self.rebalanced()
        arrive(cluster, first)
        cluster.says_ended(Ending.CRASHED, first)
        arrive(cluster, second)
        moved = operation_of(cluster, tmp_path, "cluster.rebalance")
        assert (moved.state, moved.code, moved.done, moved.failed) == (OperationState.SUCCEEDED, "", 2, 0)

    def test_a_rebalance_does_not_wait_for_what_an_admin_asked_for_since(self, tmp_path: Path) -> None:
        cluster, first, second = self.rebalanced()
        arrive(cluster, first)
        cluster.do("vm.shutdown", vm=first, timeout_s=3600)
        arrive(cluster, second)
        moved = operation_of(cluster, tmp_path, "cluster.rebalance")
        assert (moved.state, moved.done) == (OperationState.SUCCEEDED, 2)

    def test_a_crash_on_the_way_is_still_a_failure(self, tmp_path: Path) -> None:
        cluster, first, second = self.rebalanced()
        cluster.says_ended(Ending.CRASHED, first)
        arrive(cluster, second)
        moved = operation_of(cluster, tmp_path, "cluster.rebalance")
        assert (moved.state, moved.code, moved.failed) == (OperationState.FAILED, PARTLY_FAILED, 1)

    def test_a_flush_has_succeeded_though_one_of_its_vms_is_being_restarted_elsewhere(self, tmp_path: Path) -> None:
        cluster = a_cluster_with_vms(("hv1", "hv2"), "hv1", "web01", "web02")
        cluster.elect("hv1")
        cluster.do("node.flush", node="hv1")
        cluster.flush_step("hv1")
        arrive(cluster, "web01")
        cluster.do("vm.restart", vm="web01", timeout_s=3600)
        arrive(cluster, "web02")
        cluster.flush_step("hv1")
        flush = operation_of(cluster, tmp_path, "node.flush")
        assert (flush.state, flush.done, flush.failed) == (OperationState.SUCCEEDED, 2, 0)

    def test_a_recovery_has_succeeded_though_one_of_its_vms_is_being_stopped_since(self, tmp_path: Path) -> None:
        cluster = a_cluster_with_vms(("hv1", "hv2", "hv3"), "hv2", "web01", "web02")
        cluster.elect("hv1")
        cluster.says_lost("hv2")
        cluster.do("node.confirm_fenced", node="hv2")
        cluster.recover("hv2")
        cluster.says_running("web01")
        cluster.do("vm.stop", vm="web01")
        cluster.says_running("web02")
        recovery = operation_of(cluster, tmp_path, "node.confirm_fenced")
        assert (recovery.state, recovery.done, recovery.failed) == (OperationState.SUCCEEDED, 2, 0)

    def test_a_recovery_does_not_wait_for_the_recovery_from_another_node(self, tmp_path: Path) -> None:
        cluster = a_cluster_with_vms(("hv1", "hv2", "hv3", "hv4"), "hv2", "web01", "web02")
        cluster.elect("hv1")
        cluster.says_lost("hv2")
        cluster.do("node.confirm_fenced", node="hv2")
        cluster.recover("hv2")
        cluster.says_running("web01")
        away = cluster.vm("web01").node
        assert away != cluster.vm("web02").node, "spread over the nodes that are left"
        cluster.lose(away)
        assert cluster.vm("web01").node not in (away, "hv2")
        cluster.says_running("web02")
        recovery = operation_of(cluster, tmp_path, "node.confirm_fenced")
        assert (recovery.state, recovery.done, recovery.failed) == (OperationState.SUCCEEDED, 2, 0)

    def test_a_recovery_goes_on_with_a_vm_whose_migration_was_given_up_before(self, tmp_path: Path) -> None:
        cluster = a_cluster_with_vms(("hv1", "hv2", "hv3"), "hv2", "web01", "web02")
        cluster.elect("hv1")
        cluster.do("vm.migrate", vm="web01", node="hv3")
        cluster.says_lost("hv2")
        cluster.do("node.confirm_fenced", node="hv2")
        cluster.says_not_moved("web01", by_target=True)
        cluster.recover("hv2")
        cluster.says_running("web02")
        assert operation_of(cluster, tmp_path, "node.confirm_fenced").state is OperationState.RUNNING
        cluster.says_running("web01")
        recovery = operation_of(cluster, tmp_path, "node.confirm_fenced")
        assert (recovery.state, recovery.done, recovery.failed) == (OperationState.SUCCEEDED, 2, 0)

    def test_a_flush_goes_on_with_a_vm_whose_migration_failed_at_first(self, tmp_path: Path) -> None:
        cluster = a_cluster_with_vms(("hv1", "hv2"), "hv1", "web01")
        cluster.elect("hv1")
        cluster.do("node.flush", node="hv1")
        cluster.flush_step("hv1")
        cluster.says_not_moved("web01")
        flush = operation_of(cluster, tmp_path, "node.flush")
        assert (flush.state, flush.done, flush.failed) == (OperationState.RUNNING, 1, 1)
        cluster.flush_step("hv1")
        flush = operation_of(cluster, tmp_path, "node.flush")
        assert (flush.state, flush.done, flush.failed) == (OperationState.RUNNING, 0, 0)
        arrive(cluster, "web01")
        cluster.flush_step("hv1")
        flush = operation_of(cluster, tmp_path, "node.flush")
        assert (flush.state, flush.done, flush.failed) == (OperationState.SUCCEEDED, 1, 0)


class TestModifying:
    def test_with_a_restart_is_over_when_the_vm_runs_again(self, tmp_path: Path) -> None:
        cluster = a_cluster_with_vm("running")
        cluster.do("vm.modify", vm="web01", memory_mib=2048, restart=True)
        assert operation_of(cluster, tmp_path, "vm.modify").state is OperationState.PENDING
        cluster.says_ended()
        assert operation_of(cluster, tmp_path, "vm.modify").open, "the end of the run before is no end"
        cluster.says_running()
        assert operation_of(cluster, tmp_path, "vm.modify").state is OperationState.SUCCEEDED

    def test_with_a_restart_that_does_not_come_about_has_failed(self, tmp_path: Path) -> None:
        cluster = a_cluster_with_vm("running")
        cluster.do("vm.modify", vm="web01", memory_mib=2048, restart=True)
        cluster.says_ended()
        cluster.says_start_failed()
        modified = operation_of(cluster, tmp_path, "vm.modify")
        assert (modified.state, modified.code) == (OperationState.FAILED, "driver.failed")

    def test_a_vm_that_was_modified_before_begins_one_by_its_restart_alone(self, tmp_path: Path) -> None:
        cluster = a_cluster_with_vm("running")
        cluster.do("vm.modify", vm="web01", memory_mib=2048)
        assert operations_of(cluster, tmp_path, "vm.modify") == []
        (restart,) = cluster.do("vm.modify", vm="web01", restart=True)
        modified = operation_of(cluster, tmp_path, "vm.modify")
        assert (modified.epoch, modified.open) == (getattr(restart, "epoch", 0), True)

    @pytest.mark.parametrize("state", ["stopped", "running"])
    def test_without_a_restart_is_done_at_once(self, tmp_path: Path, state: str) -> None:
        cluster = a_cluster_with_vm(state)
        cluster.do("vm.modify", vm="web01", memory_mib=2048, restart=state == "stopped")
        assert operations_of(cluster, tmp_path, "vm.modify") == []


def test_the_initialisation_is_over_with_the_first_node_whatever_has_caused_its_report(tmp_path: Path) -> None:
    cluster = TinyCluster()
    cluster.do("cluster.init", name="main")
    cluster.do("cluster.set_maintenance", maintenance=True)
    assert operation_of(cluster, tmp_path, "cluster.init").open
    cluster.says_ready("hv1")
    made = operation_of(cluster, tmp_path, "cluster.init")
    assert (made.state, made.done) == (OperationState.SUCCEEDED, 1)
    assert made.text.startswith("node hv1 ready")
    cluster.add_node("hv2")
    assert operation_of(cluster, tmp_path, "cluster.init") == made
    assert operation_of(cluster, tmp_path, "node.add").state is OperationState.SUCCEEDED


def test_a_new_node_is_not_there_because_another_one_is(tmp_path: Path) -> None:
    cluster = a_cluster("hv1")
    cluster.do("node.add", node="hv2")
    cluster.says_ready("hv1", boot="boot-2")
    assert operation_of(cluster, tmp_path, "node.add").state is OperationState.PENDING
