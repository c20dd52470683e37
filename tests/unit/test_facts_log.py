"""What is decided about keys, checkpoints and anchors: who may say what, and that nothing is said twice."""

from __future__ import annotations

import pytest

from pvc.commands.facts_log import ReportCheckpoint, ReportSigningKey
from pvc.errors import Rejected
from pvc.events.cluster import AnchorFailed, AnchorRecovered, LogCheckpointed, SigningKeyAdded, SigningKeyRetired
from pvc.projections.snapshot import restore, snapshot
from pvc.proof.merkle import EMPTY_ROOT
from tests.support.core import TinyCluster
from tests.support.keys import TestKey


@pytest.fixture
def cluster() -> TinyCluster:
    """hv1 is primary, hv2 a coordinator, hv3 none."""
    cluster = TinyCluster()
    cluster.do("cluster.init", name="main", coordinators=["hv1"])
    cluster.says_ready()
    cluster.elect()
    for node in ("hv2", "hv3"):
        cluster.do("node.add", node=node, coordinator=node == "hv2")
        cluster.says_ready(node)
    return cluster


def checkpoint_of(cluster: TinyCluster, key: TestKey, *, size: int, epoch: int = 1) -> object:
    return cluster.report(ReportCheckpoint(primary="hv1", epoch=epoch, note=key.sign(size, EMPTY_ROOT)))


def refusal(cluster: TinyCluster, report: object) -> str:
    with pytest.raises(Rejected) as refused:
        cluster.report(report)
    return refused.value.code


def test_a_coordinators_key_is_added_once_and_its_next_one_retires_it(cluster: TinyCluster) -> None:
    first = cluster.says_key("hv1", "one")
    assert cluster.report(ReportSigningKey(node="hv1", key=str(first.public))) == ()
    second = TestKey("two", first.public.name)
    added, retired = cluster.report(ReportSigningKey(node="hv1", key=str(second.public)))
    assert isinstance(added, SigningKeyAdded)
    assert isinstance(retired, SigningKeyRetired)
    assert (added.key_id, retired.key_id, retired.reason) == (second.public.id, first.public.id, "replaced")


def test_keys_of_others_retired_ones_and_those_for_another_log_are_refused(cluster: TinyCluster) -> None:
    first = cluster.says_key("hv1", "one")
    origin = first.public.name
    assert refusal(cluster, ReportSigningKey(node="hv2", key=str(first.public))) == "log.key_retired"
    cluster.says_key("hv1", "two")
    assert refusal(cluster, ReportSigningKey(node="hv1", key=str(first.public))) == "log.key_retired"
    other = TestKey("three", origin).public
    assert refusal(cluster, ReportSigningKey(node="hv3", key=str(other))) == "log.key_refused"
    assert refusal(cluster, ReportSigningKey(node="nobody", key=str(other))) == "log.key_refused"
    assert refusal(cluster, ReportSigningKey(node="hv1", key=str(TestKey("x").public))) == "log.key_refused"
    assert refusal(cluster, ReportSigningKey(node="hv1", key="nonsense")) == "log.bad_checkpoint"


def test_only_the_primary_with_its_own_key_and_epoch_vouches(cluster: TinyCluster) -> None:
    key = cluster.says_key("hv1", "one")
    other = cluster.says_key("hv2", "other")
    note = key.sign(3, EMPTY_ROOT)
    for report, code in (
        (ReportCheckpoint(primary="hv2", epoch=1, note=note), "cluster.stale_primary"),
        (ReportCheckpoint(primary="hv1", epoch=2, note=note), "cluster.stale_primary"),
        (ReportCheckpoint(primary="hv1", epoch=1, note=other.sign(3, EMPTY_ROOT)), "log.bad_checkpoint"),
        (ReportCheckpoint(primary="hv1", epoch=1, note=key.sign(3, EMPTY_ROOT, "pvc/x")), "log.bad_checkpoint"),
        (ReportCheckpoint(primary="hv1", epoch=1, note=key.sign(10_000, EMPTY_ROOT)), "log.bad_checkpoint"),
        (ReportCheckpoint(primary="hv1", epoch=1, note=key.sign(0, EMPTY_ROOT)), "log.bad_checkpoint"),
        (ReportCheckpoint(primary="hv1", epoch=1, note=note.replace("\n3\n", "\n4\n")), "log.bad_checkpoint"),
        (ReportCheckpoint(primary="hv1", epoch=1, note="nonsense"), "log.bad_checkpoint"),
    ):
        assert refusal(cluster, report) == code
    (made,) = cluster.report(ReportCheckpoint(primary="hv1", epoch=1, note=note, anchored={"file": 1}))
    assert isinstance(made, LogCheckpointed)
    assert (made.size, made.root, made.key_id) == (3, EMPTY_ROOT.hex(), key.public.id)
    assert checkpoint_of(cluster, key, size=3) == (), "not twice"
    assert checkpoint_of(cluster, key, size=2) == (), "nor an older one"
    assert cluster.state.cluster is not None
    assert cluster.state.cluster.log.checkpoint is not None
    assert cluster.state.cluster.log.checkpoint.anchored == {"file": 1}
    assert restore(snapshot(cluster.state)).state_hash() == cluster.state.state_hash()


def test_a_checkpoint_of_what_is_yet_to_come_is_not_believed(cluster: TinyCluster) -> None:
    key = cluster.says_key("hv1", "one")
    forged = LogCheckpointed(node="hv1", epoch=1, size=10**12, root="0" * 64, key_id=key.public.id, note="")
    cluster.record(forged)
    assert cluster.state.cluster is not None
    assert cluster.state.cluster.log.checkpoint is None
    assert checkpoint_of(cluster, key, size=3), "true ones still follow"


def test_an_only_coordinator_vouches_without_an_election() -> None:
    cluster = TinyCluster()
    cluster.do("cluster.init", name="main", coordinators=["hv1"])
    cluster.says_ready()
    key = cluster.says_key("hv1", "one")
    assert checkpoint_of(cluster, key, size=2, epoch=0)
    assert refusal(cluster, ReportCheckpoint(primary="hv1", epoch=1, note=key.sign(3, EMPTY_ROOT)))


def test_a_removed_nodes_key_ends_with_it(cluster: TinyCluster) -> None:
    key = cluster.says_key("hv2", "two")
    cluster.do("node.flush", node="hv2")
    cluster.flush_step("hv2")
    removed = cluster.do("node.remove", node="hv2")
    retired = [event for event in removed if isinstance(event, SigningKeyRetired)]
    assert [(event.key_id, event.reason) for event in retired] == [(key.public.id, "node removed")]


def test_a_rotation_is_asked_of_one_or_of_all_that_have_a_key(cluster: TinyCluster) -> None:
    with pytest.raises(Rejected) as refused:
        cluster.do("log.rotate_key")
    assert refused.value.code == "log.no_key"
    cluster.says_key("hv1", "one")
    cluster.says_key("hv2", "two")
    assert len(cluster.do("log.rotate_key", node="hv2")) == 1
    assert [getattr(event, "node", "") for event in cluster.do("log.rotate_key")] == ["hv1"]
    assert cluster.do("log.rotate_key") == ()
    with pytest.raises(Rejected):
        cluster.do("log.rotate_key", node="hv3")


def test_an_anchors_trouble_and_its_end_are_each_told_once(cluster: TinyCluster) -> None:
    assert cluster.says_anchor("webhook", "") == ()
    (failed,) = cluster.says_anchor("webhook", "no answer")
    assert isinstance(failed, AnchorFailed)
    assert "log.anchor_failing/webhook" in cluster.state.faults
    assert cluster.says_anchor("webhook", "another reason") == ()
    (recovered,) = cluster.says_anchor("webhook", "")
    assert isinstance(recovered, AnchorRecovered)
    assert cluster.state.faults == {}


def test_a_copy_that_differs_is_a_fault_until_the_node_starts_anew(cluster: TinyCluster) -> None:
    assert len(cluster.says_log_differs("hv3")) == 1
    assert cluster.says_log_differs("hv3") == ()
    fault = cluster.state.faults["node.log_differs/hv3"]
    assert "records 1 to 3" in fault.message
    cluster.says_ready("hv3", boot="boot-2")
    assert cluster.state.faults == {}
