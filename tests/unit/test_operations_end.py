"""What ends operations, and what does not: read off the records of a cluster in the mind."""

from __future__ import annotations

from pathlib import Path

from pvc.projections.operations import PARTLY_FAILED, Operation, OperationState
from pvc.runtime.operation_file import OperationFile, OperationQuery
from pvc.runtime.operations import KINDS
from tests.support.core import TinyCluster, a_cluster


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
