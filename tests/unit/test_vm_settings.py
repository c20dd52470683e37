"""Settings and tags of a VM, and the cluster's own command."""

from __future__ import annotations

from typing import Any

import pytest

from pvc.commands.vm_settings import MAX_TAGS
from pvc.errors import Rejected
from pvc.events.types import MigrationMethod, Role, Selector
from tests.support.core import TinyCluster, a_cluster, a_cluster_with_vm


@pytest.mark.parametrize(
    ("name", "field", "given", "stored"),
    [
        ("vm.set_autostart", "autostart", True, True),
        ("vm.set_selector", "selector", "vms", Selector.VMS),
        ("vm.set_node_limits", "node_limits", ["hv1", "hv1"], ("hv1",)),
        ("vm.set_migration_method", "migration_method", "none", MigrationMethod.NONE),
        ("vm.set_max_downtime", "max_downtime_ms", 50, 50),
        ("vm.set_priority", "priority", 90, 90),
        ("vm.set_affinity", "affinity", ["a", "b", "a"], ("a", "b")),
        ("vm.set_anti_affinity", "anti_affinity", ["a", "a"], ("a",)),
    ],
)
def test_a_setting_is_set_once_and_then_it_is_so(name: str, field: str, given: Any, stored: Any) -> None:
    cluster = a_cluster_with_vm("running")
    assert len(cluster.do(name, vm="web01", **{field: given})) == 1
    assert getattr(cluster.vm(), field) == stored
    assert cluster.do(name, vm="web01", **{field: given}) == ()


def test_limits_name_known_nodes_and_the_present_one() -> None:
    cluster = a_cluster_with_vm()
    cluster.add_node("hv2")
    with pytest.raises(Rejected) as refusal:
        cluster.do("vm.set_node_limits", vm="web01", node_limits=["hv2", "hv9"])
    assert (refusal.value.code, refusal.value.field) == ("node.not_found", "node_limits")
    assert refusal.value.hint.startswith("did you mean hv")
    with pytest.raises(Rejected) as refusal:
        cluster.do("vm.set_node_limits", vm="web01", node_limits=["hv2"])
    assert (refusal.value.code, refusal.value.hint) == ("vm.outside_limits", "add hv1 to the limits")
    cluster.do("vm.set_node_limits", vm="web01", node_limits=["hv2", "hv1"])
    cluster.do("vm.set_node_limits", vm="web01")
    assert cluster.vm().node_limits == ()


def test_a_tag_comes_is_protected_is_freed_and_goes() -> None:
    cluster = a_cluster_with_vm()
    cluster.do("vm.add_tag", vm="web01", tag="prod")
    assert cluster.do("vm.add_tag", vm="web01", tag="prod") == ()
    cluster.do("vm.add_tag", vm="web01", tag="prod", protected=True)
    with pytest.raises(Rejected) as refusal:
        cluster.do("vm.remove_tag", vm="web01", tag="prod")
    assert refusal.value.code == "vm.tag_protected"
    assert "--no-protected" in refusal.value.hint
    cluster.do("vm.add_tag", vm="web01", tag="prod")
    cluster.do("vm.remove_tag", vm="web01", tag="prod")
    assert cluster.vm().tags == {}


def test_a_tag_that_is_not_there_is_refused_with_those_that_are() -> None:
    cluster = a_cluster_with_vm(tags=["b", "a"])
    with pytest.raises(Rejected) as refusal:
        cluster.do("vm.remove_tag", vm="web01", tag="c")
    assert (refusal.value.code, refusal.value.status, refusal.value.hint) == ("vm.tag_not_found", 404, "its tags: a, b")


def test_a_vm_has_only_so_many_tags_but_their_protection_can_still_change() -> None:
    cluster = a_cluster_with_vm(tags=[f"t{number}" for number in range(MAX_TAGS)])
    with pytest.raises(Rejected) as refusal:
        cluster.do("vm.add_tag", vm="web01", tag="one-more")
    assert refusal.value.code == "vm.tags_full"
    assert refusal.value.hint
    cluster.do("vm.add_tag", vm="web01", tag="t0", protected=True)
    assert cluster.vm().tags["t0"] is True


def test_tags_of_one_fork_are_not_those_of_another() -> None:
    cluster = a_cluster_with_vm()
    twin = cluster.state.fork()
    cluster.do("vm.add_tag", vm="web01", tag="prod")
    assert next(iter(twin.vms.values())).tags == {}


def test_init_makes_the_cluster_and_its_first_token() -> None:
    cluster = TinyCluster()
    cluster.do("cluster.init", name="main", token_id="abcdefgh", token_sha256="0" * 64)
    assert cluster.state.cluster is not None and cluster.state.cluster.name == "main"
    token = cluster.state.tokens["abcdefgh"]
    assert (token.principal, token.role, token.secret_sha256) == ("admin", Role.ADMIN, "0" * 64)


def test_init_is_done_once() -> None:
    with pytest.raises(Rejected, match="'main' is initialised already") as refusal:
        a_cluster().do("cluster.init", name="other")
    assert refusal.value.code == "cluster.already_initialised"
    assert refusal.value.hint
