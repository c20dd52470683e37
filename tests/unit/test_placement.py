"""Where a VM goes: selectors, limits, room, affinities, and the reasons that are given."""

from __future__ import annotations

from typing import Any

import pytest

from pvc.commands.base import Utilisation
from pvc.commands.facts import Ending
from pvc.commands.placement import MAX_REASONS, Choice, Wish, affinity_notes, obstacle_on, place, wish_of
from pvc.errors import Rejected
from pvc.events.types import Selector
from tests.support.core import NODE_MEMORY_MIB, TinyCluster, a_cluster, bring

NODES = ("hv1", "hv2", "hv3")


def a_wish(**fields: Any) -> Wish:
    return Wish(**{"name": "new", "memory_mib": 512, "vcpus": 1, "selector": Selector.MEM} | fields)


def with_vms(*where: tuple[str, str, dict[str, Any]]) -> TinyCluster:
    """A cluster of three nodes; each VM as (node, state, fields)."""
    cluster = a_cluster(*NODES)
    for number, (node, state, fields) in enumerate(where):
        name = fields.pop("name", f"vm{number}")
        cluster.do("vm.define", **{"name": name, "memory_mib": 512, "node": node} | fields)
        bring(cluster, name, state)
    return cluster


def chosen(cluster: TinyCluster, wish: Wish, **how: Any) -> str:
    return place(cluster.state, wish, **how).node


def refusal(cluster: TinyCluster, wish: Wish, **how: Any) -> str:
    with pytest.raises(Rejected) as refused:
        place(cluster.state, wish, **how)
    assert refused.value.code == "node.none_suitable" and refused.value.hint
    return refused.value.message


# What each selector looks for.


@pytest.mark.parametrize(
    ("selector", "best", "why"),
    [
        (Selector.MEM, "hv3", "selector mem: 7168 MiB free"),
        (Selector.MEMPROV, "hv2", "selector memprov: 6144 MiB not provisioned"),
        (Selector.VCPUS, "hv1", "selector vcpus: 7 CPUs not given to VMs"),
        (Selector.VMS, "hv2", "selector vms: 1 run there"),
        (Selector.LOAD, "hv1", "selector load: 0.12"),
        (Selector.NONE, "hv1", "selector none: the first by name"),
    ],
)
def test_each_selector_finds_its_node_and_says_what_it_has_of_it(selector: Selector, best: str, why: str) -> None:
    cluster = with_vms(
        ("hv1", "running", {"memory_mib": 4096}),
        ("hv1", "stopped", {"memory_mib": 4096}),
        ("hv2", "running", {"memory_mib": 2048, "vcpus": 6}),
        ("hv3", "running", {"memory_mib": 512, "vcpus": 2}),
        ("hv3", "running", {"memory_mib": 512, "vcpus": 2}),
        ("hv3", "stopped", {"memory_mib": 8000}),
    )
    if selector is Selector.VMS:
        bring(cluster, "vm1", "running")
    choice = place(cluster.state, a_wish(selector=selector))
    assert choice == Choice(node=best, why=(why,))


def test_nodes_that_are_as_good_are_taken_by_what_is_defined_on_them_and_then_by_name() -> None:
    cluster = a_cluster(*NODES)
    assert chosen(cluster, a_wish()) == "hv1"
    for name in ("a", "b", "c", "d"):
        cluster.do("vm.define", name=name, memory_mib=512)
    assert [cluster.vm(name).node for name in ("a", "b", "c", "d")] == ["hv1", "hv2", "hv3", "hv1"]


def test_a_node_that_says_it_is_short_of_memory_is_passed_over_though_it_has_room_on_paper() -> None:
    cluster = a_cluster(*NODES)
    usage = {"hv1": Utilisation(memory_free_mib=100, load=0.0), "hv2": Utilisation(memory_free_mib=9000, load=0.0)}
    choice = place(cluster.state, a_wish(), usage=usage)
    assert (choice.node, choice.why) == ("hv2", (f"selector mem: {NODE_MEMORY_MIB} MiB free",))


def test_a_load_that_was_heard_of_counts_for_more_than_the_one_on_paper() -> None:
    cluster = a_cluster(*NODES)
    usage = {node: Utilisation(memory_free_mib=1, load=load) for node, load in (("hv1", 0.9), ("hv2", 0.3))}
    assert chosen(cluster, a_wish(selector=Selector.LOAD), usage=usage, exclude=("hv3",)) == "hv2"
    assert chosen(cluster, a_wish(selector=Selector.LOAD), usage=usage) == "hv3", "nothing runs there"


def test_a_hint_is_only_a_hint_and_refuses_nothing() -> None:
    usage = {node: Utilisation(memory_free_mib=0, load=99.0) for node in NODES}
    assert chosen(a_cluster(*NODES), a_wish(), usage=usage) == "hv1"


# What decides.


def test_limits_and_exclusions_are_kept() -> None:
    cluster = a_cluster(*NODES)
    assert chosen(cluster, a_wish(limits=("hv2", "hv3"))) == "hv2"
    assert chosen(cluster, a_wish(limits=("hv2", "hv3")), exclude=("hv2",)) == "hv3"
    said = refusal(cluster, a_wish(limits=("hv2",)), exclude=("hv2",))
    assert said == "no node can take new: hv1 is outside its node limits; hv3 is outside its node limits"
    assert refusal(cluster, a_wish(), exclude=NODES) == "no node can take new: there is no other node"
    assert refusal(TinyCluster(), a_wish()) == "no node can take new: the cluster has no node yet"


def test_room_decides_unless_it_is_for_a_vm_at_rest() -> None:
    cluster = with_vms(*((node, "running", {"memory_mib": 8000}) for node in NODES))
    assert "hv2 has 192 MiB free, 512 are needed" in refusal(cluster, a_wish())
    assert chosen(cluster, a_wish(), needs_room=False) == "hv1"
    assert "hv1 has 8192 MiB free" in refusal(cluster, a_wish(memory_mib=8193), needs_room=False)
    assert chosen(cluster, a_wish(memory_mib=192)) == "hv1"


def test_a_vm_needs_as_many_cpus_as_it_has_vcpus() -> None:
    cluster = a_cluster("hv1")
    cluster.add_node("hv2", vcpus=64)
    assert chosen(cluster, a_wish(vcpus=64)) == "hv2"
    assert "hv1 has 8 CPUs, 65 are needed" in refusal(cluster, a_wish(vcpus=65))


def test_a_node_that_is_not_in_service_takes_nothing_and_the_reason_is_told() -> None:
    cluster = a_cluster(*NODES, "hv4", "hv5")
    cluster.do("node.add", node="hv6")
    cluster.says_lost("hv2")
    cluster.says_lost("hv3")
    cluster.says_fenced("hv3")
    cluster.do("node.flush", node="hv4")
    cluster.do("vm.define", name="web01", memory_mib=64, node="hv5")
    bring(cluster, "web01", "running")
    cluster.do("node.flush", node="hv5")
    assert refusal(cluster, a_wish(), exclude=("hv1",)).removeprefix("no node can take new: ").split("; ") == [
        "hv2 is lost",
        "hv3 is fenced",
        "hv4 is flushed",
        "hv5 is being flushed",
        "hv6 has not been heard of",
    ]


def test_a_node_whose_vms_are_coming_home_takes_others_too() -> None:
    cluster = with_vms(("hv1", "running", {"name": "web01"}))
    cluster.do("node.flush", node="hv1")
    cluster.flush_step("hv1")
    cluster.says_prepared()
    cluster.says_ended(Ending.MIGRATED)
    cluster.says_arrived()
    cluster.do("node.ready", node="hv1")
    assert obstacle_on(cluster.state, a_wish(), cluster.state.nodes["hv1"]) == ""


def test_of_a_hundred_nodes_that_cannot_only_some_are_told_of() -> None:
    cluster = a_cluster("hv1")
    for number in range(2, 100):
        cluster.do("node.add", node=f"hv{number}")
    said = refusal(cluster, a_wish(memory_mib=9000))
    assert said.count(";") == MAX_REASONS and said.endswith(f"; and {99 - MAX_REASONS} more")


# What is preferred.


def test_a_vm_goes_where_none_of_those_it_keeps_away_from_is() -> None:
    cluster = with_vms(("hv1", "running", {"tags": ["db"]}), ("hv3", "stopped", {"tags": ["db"]}))
    choice = place(cluster.state, a_wish(anti_affinity=("db",)))
    assert (choice.node, choice.why[1:]) == ("hv2", ("anti-affinity to db: kept",))


def test_a_vm_that_must_keep_away_still_runs_where_only_one_node_is_left() -> None:
    cluster = with_vms(("hv1", "running", {"tags": ["db"]}))
    choice = place(cluster.state, a_wish(anti_affinity=("db",), limits=("hv1",)))
    assert (choice.node, choice.why[1:]) == ("hv1", ("anti-affinity to db: 1 there", "the only node that can"))


def test_a_vm_goes_to_those_it_is_close_to_though_there_is_less_room() -> None:
    cluster = with_vms(
        ("hv2", "running", {"tags": ["web"], "memory_mib": 4096}), ("hv3", "running", {"tags": ["web", "db"]})
    )
    cluster.do("vm.define", name="also", memory_mib=64, node="hv2", tags=["web"])
    choice = place(cluster.state, a_wish(affinity=("web",)))
    assert (choice.node, choice.why[1:]) == ("hv2", ("affinity to web: 2 there",))
    assert chosen(cluster, a_wish(affinity=("web",), anti_affinity=("db",))) == "hv2"
    assert chosen(cluster, a_wish(affinity=("db",), anti_affinity=("db",))) == "hv1", "keeping away comes first"


def test_a_vm_with_two_of_the_tags_counts_once_and_never_for_itself() -> None:
    cluster = with_vms(("hv2", "running", {"tags": ["a", "b"]}), ("hv1", "stopped", {"name": "web01", "tags": ["a"]}))
    cluster.do("vm.set_affinity", vm="web01", affinity=["a", "b"])
    wish = wish_of(cluster.vm())
    assert place(cluster.state, wish).why[1:] == ("affinity to a, b: 1 there",)
    assert affinity_notes(cluster.state, wish, cluster.state.nodes["hv1"]) == ("affinity to a, b: 0 there",)


def test_a_vm_on_its_way_counts_where_it_will_be() -> None:
    cluster = with_vms(("hv1", "running", {"name": "web01", "tags": ["db"]}))
    cluster.do("vm.migrate", vm="web01", node="hv2")
    assert chosen(cluster, a_wish(anti_affinity=("db",), memory_mib=16)) == "hv3"
    assert chosen(cluster, a_wish(affinity=("db",))) == "hv2"
    assert chosen(cluster, a_wish(selector=Selector.VMS), exclude=("hv1",)) == "hv3"


def test_a_running_vm_wishes_for_what_it_has_or_would_have_next_whichever_is_more() -> None:
    cluster = with_vms(("hv1", "running", {"name": "web01", "memory_mib": 2048, "vcpus": 2}))
    cluster.do("vm.modify", vm="web01", memory_mib=1024, vcpus=4)
    wish = wish_of(cluster.vm())
    assert (wish.memory_mib, wish.vcpus) == (2048, 4)


def test_what_an_admin_asks_for_by_name_counts_for_new_vms_too() -> None:
    cluster = with_vms(("hv1", "running", {"tags": ["db"]}))
    cluster.do("vm.define", name="db02", memory_mib=64, anti_affinity=["db"], selector="none")
    assert cluster.vm("db02").node == "hv2"
