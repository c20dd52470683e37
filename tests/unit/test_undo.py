"""The inverse of a command: what it is for each, when there is none, and that it is refused once it would overwrite."""

from __future__ import annotations

from typing import Any

import pytest

from pvc.commands.facts import Ending
from pvc.commands.registry import BY_NAME
from pvc.commands.undo import INVERSES, NO_INVERSE, inverse_of
from pvc.commands.undoing import ChangedSince, Inverse
from pvc.errors import Rejected
from pvc.events.types import Selector
from pvc.projections.diff import diff_states
from pvc.projections.state import ClusterState, FlushState
from tests.support.core import TinyCluster, a_cluster, a_cluster_with_vm, bring, replayed

XML = "<domain><name>web01</name><memory unit='MiB'>256</memory><vcpu>1</vcpu></domain>"
BOOKKEEPING = {"position", "cause", "changed_us"}


def inverse(cluster: TinyCluster, position: int = 0) -> Inverse:
    """That of the record at this position, the last one unless told otherwise."""
    position = position or cluster.state.position
    before = replayed(cluster.entries[: position - 1])
    return inverse_of(before, cluster.entries[position - 1].record, cluster.state)


def undo(cluster: TinyCluster, position: int = 0) -> Inverse:
    found = inverse(cluster, position)
    assert cluster.decide_and_record(found.command).events, "an undo changes something"
    return found


def differences(old: ClusterState, new: ClusterState) -> list[str]:
    """Fields that differ, but for what moves with each record."""
    return [
        f"{change.name}.{field.field}"
        for change in diff_states(old, new)
        for field in change.fields
        if field.field not in BOOKKEEPING
    ]


REVERSIBLE: list[tuple[str, str, dict[str, Any]]] = [
    ("stopped", "vm.modify", {"memory_mib": 2048, "description": "x", "on_crash": "stop"}),
    ("stopped", "vm.modify", {"disks": [{"path": "/images/other.raw"}], "nics": []}),
    ("running", "vm.modify", {"vcpus": 4}),
    ("stopped", "vm.rename", {"name": "web02"}),
    ("stopped", "vm.disable", {}),
    ("disabled", "vm.enable", {}),
    ("running", "vm.set_autostart", {"autostart": True}),
    ("running", "vm.set_selector", {"selector": "vms"}),
    ("running", "vm.set_node_limits", {"node_limits": ["hv1"]}),
    ("running", "vm.set_migration_method", {"migration_method": "none"}),
    ("running", "vm.set_max_downtime", {"max_downtime_ms": 100}),
    ("running", "vm.set_priority", {"priority": 90}),
    ("running", "vm.set_affinity", {"affinity": ["a", "b"]}),
    ("running", "vm.set_anti_affinity", {"anti_affinity": ["a"]}),
    ("running", "vm.add_tag", {"tag": "shop"}),
    ("running", "vm.add_tag", {"tag": "old", "protected": True}),
    ("running", "vm.remove_tag", {"tag": "old"}),
]


@pytest.mark.parametrize(("state", "name", "fields"), REVERSIBLE)
def test_what_is_set_is_set_back_exactly_and_that_can_be_undone_too(
    state: str, name: str, fields: dict[str, Any]
) -> None:
    cluster = a_cluster_with_vm(state, tags=["old"], disks=[{"path": "/images/web01.raw"}])
    before = cluster.state.fork()
    cluster.do(name, vm="web01", **fields)
    done = cluster.state.fork()
    undo(cluster)
    assert differences(before, cluster.state) == []
    undo(cluster)
    assert differences(done, cluster.state) == [], "the undo of an undo does it again"


def test_a_definition_is_taken_out_again_as_long_as_nobody_touched_it() -> None:
    cluster = a_cluster()
    cluster.do("vm.define", name="web01", memory_mib=64)
    defined = cluster.state.position
    assert inverse(cluster).spec.name == "vm.remove"
    cluster.do("vm.add_tag", vm="web01", tag="shop")
    with pytest.raises(ChangedSince, match="web01 was changed since"):
        inverse(cluster, defined)
    cluster.do("vm.remove", vm="web01")
    with pytest.raises(ChangedSince) as refused:
        inverse(cluster, defined)
    assert refused.value.types == ("vm.removed",)


@pytest.mark.parametrize("definition", [{"memory_mib": 512, "disks": [{"path": "/images/a.raw"}]}, {"xml": XML}])
def test_a_removed_vm_is_defined_anew_with_all_its_settings(definition: dict[str, Any]) -> None:
    cluster = a_cluster("hv1", "hv2")
    cluster.do("vm.define", **{"name": "web01", **definition}, node="hv2", tags=["a", "b"], autostart=True, priority=7)
    cluster.do("vm.set_selector", vm="web01", selector="vms")
    old = cluster.vm()
    cluster.do("vm.remove", vm="web01")
    found = undo(cluster)
    new = cluster.vm()
    assert new.id != old.id and "new id" in found.notes[0]
    for field in ("name", "spec", "node", "home", "tags", "autostart", "priority", "selector", "on_crash"):
        assert getattr(new, field) == getattr(old, field), field
    assert new.selector is Selector.VMS


def test_a_start_is_undone_by_a_shutdown_and_the_other_way_round() -> None:
    cluster = a_cluster_with_vm()
    cluster.do("vm.start", vm="web01")
    started = cluster.state.position
    cluster.says_running()
    assert inverse(cluster, started).spec.name == "vm.shutdown"
    cluster.do("vm.shutdown", vm="web01")
    shut = cluster.state.position
    cluster.says_ended()
    with pytest.raises(ChangedSince):
        inverse(cluster, started)
    assert inverse(cluster, shut).spec.name == "vm.start"
    bring(cluster, "web01", "running")
    with pytest.raises(ChangedSince):
        inverse(cluster, shut)
    cluster.do("vm.stop", vm="web01")
    stopped = cluster.state.position
    cluster.says_ended()
    assert "lost" in inverse(cluster, stopped).notes[0]


def test_a_migration_is_given_up_or_brought_home() -> None:
    cluster = a_cluster_with_vm("migrating")
    asked = cluster.state.position
    assert inverse(cluster, asked).spec.name == "vm.cancel_migration"
    cluster.says_prepared()
    cluster.says_ended(Ending.MIGRATED)
    cluster.says_arrived()
    assert inverse(cluster, asked).spec.name == "vm.unmigrate"
    cluster.do("vm.unmigrate", vm="web01")
    with pytest.raises(ChangedSince):
        inverse(cluster, asked)


def test_a_vm_at_rest_goes_back_to_where_it_was() -> None:
    cluster = a_cluster("hv1", "hv2", "hv3")
    cluster.do("vm.define", name="web01", memory_mib=64, node="hv1")
    before = cluster.state.fork()
    cluster.do("vm.move", vm="web01", node="hv2")
    assert cluster.vm().home == "hv2"
    undo(cluster)
    assert {name for name in differences(before, cluster.state) if not name.startswith("web01.why")} == set()
    cluster.do("vm.migrate", vm="web01", node="hv3")
    migrated = cluster.state.position
    assert undo(cluster).spec.name == "vm.unmigrate"
    assert undo(cluster).spec.name == "vm.migrate"
    assert cluster.vm().node == "hv3"
    cluster.do("vm.move", vm="web01", node="hv2")
    with pytest.raises(Rejected, match="was not at home") as refused:
        inverse(cluster)
    assert refused.value.code == "undo.no_inverse"
    with pytest.raises(ChangedSince):
        inverse(cluster, migrated)


def test_nodes_and_the_cluster_have_their_inverses() -> None:
    cluster = a_cluster("hv1", "hv2")
    cluster.do("node.add", node="hv3")
    assert undo(cluster).spec.name == "node.remove"
    assert "hv3" not in cluster.state.nodes
    agent = {"agent": "fence_ipmilan", "option": ["ip=10.0.1.2"], "password_file": "/etc/pvc/fence-password"}
    cluster.do("node.set_fence", node="hv2", **agent)
    fenced = cluster.state.nodes["hv2"].fence
    undo(cluster)
    assert cluster.state.nodes["hv2"].fence is None
    undo(cluster)
    assert cluster.state.nodes["hv2"].fence == fenced
    cluster.do("node.flush", node="hv2")
    assert cluster.state.nodes["hv2"].flush is FlushState.FLUSHED
    undo(cluster)
    assert cluster.state.nodes["hv2"].flush is FlushState.NONE
    assert inverse(cluster).spec.name == "node.flush"
    cluster.do("cluster.set_maintenance", maintenance=True, reason="switches")
    undo(cluster)
    assert cluster.state.cluster is not None and not cluster.state.cluster.maintenance
    undo(cluster)
    assert cluster.state.cluster.maintenance_reason == "switches"


def test_what_was_set_again_since_is_not_overwritten() -> None:
    cluster = a_cluster_with_vm()
    cluster.do("vm.set_priority", vm="web01", priority=90)
    first = cluster.state.position
    cluster.do("vm.add_tag", vm="web01", tag="shop")
    assert inverse(cluster, first).spec.name == "vm.set_priority", "something else about it is no conflict"
    cluster.do("vm.set_priority", vm="web01", priority=10)
    with pytest.raises(ChangedSince, match="priority of web01 was changed since") as refused:
        inverse(cluster, first)
    assert (refused.value.subject, refused.value.types) == (f"vm/{cluster.vm().id}", ("vm.priority_set",))
    undo(cluster)
    assert inverse(cluster, first).spec.name == "vm.set_priority", "once the later one is undone, it can be"


def test_a_kernel_cannot_be_taken_out_by_a_command_so_that_undo_is_refused() -> None:
    cluster = a_cluster_with_vm()
    cluster.do("vm.modify", vm="web01", kernel="/boot/vmlinuz")
    with pytest.raises(Rejected, match="brings back exactly") as refused:
        inverse(cluster)
    assert refused.value.code == "undo.no_inverse"


@pytest.mark.parametrize("name", ["vm.reset", "vm.restart"])
def test_what_cannot_be_taken_back_says_why(name: str) -> None:
    cluster = a_cluster_with_vm("running")
    cluster.do(name, vm="web01")
    with pytest.raises(Rejected, match=r"cannot be undone: .*gone") as refused:
        inverse(cluster)
    assert refused.value.code == "undo.no_inverse"


def test_facts_and_refusals_are_no_commands() -> None:
    cluster = a_cluster_with_vm("running")
    with pytest.raises(Rejected) as refused:
        inverse(cluster)
    assert refused.value.code == "undo.is_fact"


def test_asking_for_an_inverse_changes_nothing() -> None:
    cluster = a_cluster_with_vm()
    cluster.do("vm.rename", vm="web01", name="web02")
    before = cluster.state.state_hash()
    inverse(cluster)
    assert cluster.state.state_hash() == before


def test_the_tables_name_commands_that_there_are() -> None:
    assert set(INVERSES) | set(NO_INVERSE) == set(BY_NAME), "each command has one, or a reason why not"
    assert not set(INVERSES) & set(NO_INVERSE)
