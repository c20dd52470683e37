"""Evening out the nodes: each move an improvement, within the room and the limits, and of each VM at most one."""

from __future__ import annotations

import random

import pytest

from pvc.commands.rebalance import MIN_GAIN
from pvc.events.vm_moves import VmMigrationRequested
from pvc.projections.state import ClusterState, held_mib
from pvc.projections.vm_machine import VmState
from tests.support.core import NODE_MEMORY_MIB, TinyCluster, a_cluster, bring, command


def define(
    cluster: TinyCluster, name: str, node: str, memory_mib: int, state: str = "running", **fields: object
) -> None:
    cluster.do("vm.define", name=name, node=node, memory_mib=memory_mib, **fields)
    bring(cluster, name, state)


def proposed(cluster: TinyCluster, moves: int = 10) -> list[VmMigrationRequested]:
    decision = cluster.try_out(command("cluster.rebalance", moves=moves))
    assert bool(decision.notes) == (not decision.events)
    return [event for event in decision.events if isinstance(event, VmMigrationRequested)]


def spread(fills: dict[str, float]) -> float:
    """What a move is to lessen: how far apart the nodes are."""
    mean = sum(fills.values()) / len(fills)
    return sum((fill - mean) ** 2 for fill in fills.values())


def fills_of(state: ClusterState) -> dict[str, float]:
    return {node.name: state.load_of(node.name).memory_mib / node.memory_mib for node in state.nodes.values()}


def test_the_fullest_gives_to_the_emptiest_what_evens_them_out_best() -> None:
    cluster = a_cluster("hv1", "hv2", "hv3")
    for name, memory_mib in (("a", 1000), ("b", 2000), ("c", 3000)):
        define(cluster, name, "hv1", memory_mib)
    define(cluster, "d", "hv2", 2000)
    (first,) = proposed(cluster)
    assert (cluster.state.vms[first.vm].name, first.source, first.target) == ("c", "hv1", "hv3")
    assert first.reason == "rebalance" and first.away == "migrate"
    assert first.why == ("hv1 is 73% full, hv3 is not",)


def test_even_nodes_are_left_alone_and_that_is_said() -> None:
    cluster = a_cluster("hv1", "hv2")
    define(cluster, "a", "hv1", 2000)
    define(cluster, "b", "hv2", 2000)
    assert proposed(cluster) == []
    assert proposed(a_cluster("hv1")) == []


def test_one_large_vm_is_not_carried_from_one_node_to_the_other() -> None:
    cluster = a_cluster("hv1", "hv2")
    define(cluster, "a", "hv1", 6000)
    assert proposed(cluster) == []


@pytest.mark.parametrize(
    "fields", [{"migration_method": "shutdown"}, {"migration_method": "none"}, {"node_limits": ["hv1"]}], ids=str
)
def test_what_may_not_go_live_or_not_there_stays(fields: dict[str, object]) -> None:
    cluster = a_cluster("hv1", "hv2")
    define(cluster, "a", "hv1", 2000, **fields)
    define(cluster, "b", "hv1", 2000, **fields)
    assert proposed(cluster) == []


def broken(state: ClusterState, nodes: dict[str, str]) -> int:
    """How many anti-affinities are not kept, with the VMs on these nodes."""
    return sum(
        one is not other and nodes[one.id] == nodes[other.id] and bool(set(one.anti_affinity) & set(other.tags))
        for one in state.vms.values()
        for other in state.vms.values()
    )


def test_vms_that_keep_away_from_each_other_are_not_brought_together() -> None:
    cluster = a_cluster("hv1", "hv2")
    define(cluster, "web01", "hv1", 2000, tags=["web"], anti_affinity=["web"])
    define(cluster, "db01", "hv1", 3000)
    define(cluster, "web02", "hv2", 500, tags=["web"])
    (move,) = proposed(cluster)
    assert cluster.state.vms[move.vm].name == "db01", "web01 would have evened them out better"
    cluster = a_cluster("hv1", "hv2")
    define(cluster, "web01", "hv1", 2000, tags=["web"])
    define(cluster, "web03", "hv1", 2000, tags=["web"])
    define(cluster, "shy", "hv2", 500, anti_affinity=["web"])
    assert proposed(cluster) == [], "the other one is the one that keeps away"


def test_vms_that_share_a_node_though_they_should_not_may_be_parted() -> None:
    cluster = a_cluster("hv1", "hv2")
    define(cluster, "web01", "hv1", 2000, tags=["web"], anti_affinity=["web"])
    define(cluster, "web02", "hv1", 2000, tags=["web"], anti_affinity=["web"])
    (move,) = proposed(cluster)
    assert cluster.state.vms[move.vm].name == "web01"


@pytest.mark.parametrize("state", sorted(set(VmState) - {VmState.RUNNING, VmState.ARRIVING}))
def test_only_what_plainly_runs_is_moved(state: VmState) -> None:
    cluster = a_cluster("hv1", "hv2")
    define(cluster, "a", "hv1", 2000, state)
    define(cluster, "b", "hv1", 2000, state)
    assert proposed(cluster) == []


def test_a_node_out_of_service_gives_and_takes_nothing() -> None:
    cluster = a_cluster("hv1", "hv2", "hv3")
    for name in ("a", "b"):
        define(cluster, name, "hv1", 2000)
    cluster.says_lost("hv2")
    cluster.do("node.flush", node="hv3")
    assert proposed(cluster) == []


def test_a_move_that_leads_home_is_not_away() -> None:
    cluster = a_cluster("hv1", "hv2")
    define(cluster, "a", "hv2", 2000, "stopped")
    define(cluster, "b", "hv1", 2000)
    cluster.do("vm.migrate", vm="a")
    bring(cluster, "a", "running")
    (move,) = proposed(cluster)
    assert (cluster.state.vms[move.vm].name, move.away) == ("a", "")


def test_so_many_moves_are_made_and_no_more() -> None:
    cluster = a_cluster("hv1", "hv2")
    for number in range(8):
        define(cluster, f"vm{number}", "hv1", 1000)
    assert [len(proposed(cluster, moves)) for moves in (1, 2, 100)] == [1, 2, 4]


def test_room_that_a_move_will_free_is_not_given_away_before() -> None:
    cluster = a_cluster("hv1", "hv2", "hv3")
    cluster.says_ready("hv2", memory_mib=64_000)
    cluster.says_ready("hv3", memory_mib=4_000)
    define(cluster, "large", "hv1", 7000)
    define(cluster, "medium", "hv3", 1900)
    define(cluster, "small", "hv3", 2000)
    define(cluster, "other", "hv2", 20_000)
    cluster.do("cluster.rebalance")
    for node in cluster.state.nodes.values():
        assert cluster.state.load_of(node.name).memory_mib <= node.memory_mib


@pytest.mark.parametrize("seed", range(40))
def test_whatever_there_is_each_move_is_an_improvement_and_nothing_overflows(seed: int) -> None:
    rng = random.Random(seed)
    cluster = a_cluster(*(f"hv{number}" for number in range(1, rng.randint(2, 5) + 1)))
    for node in cluster.state.nodes:
        cluster.says_ready(node, memory_mib=NODE_MEMORY_MIB * rng.randint(1, 3))
    for number in range(rng.randint(1, 20)):
        node = cluster.state.nodes[rng.choice(list(cluster.state.nodes))]
        free_mib = node.memory_mib - cluster.state.load_of(node.name).memory_mib
        memory_mib = rng.choice([200, 500, 1500, 4000])
        if memory_mib <= free_mib:
            tags, away = (rng.sample(["a", "b", "c"], rng.choice([0, 0, 1, 2])) for _ in range(2))
            define(cluster, f"vm{number}", node.name, memory_mib, tags=tags, anti_affinity=away)
    moves = proposed(cluster, 100)
    assert len({move.vm for move in moves}) == len(moves)
    fills = fills_of(cluster.state)
    nodes = {vm.id: vm.node for vm in cluster.state.vms.values()}
    for move in moves:
        kept = broken(cluster.state, nodes)
        nodes[move.vm] = move.target
        assert broken(cluster.state, nodes) <= kept
        before = abs(fills[move.source] - fills[move.target])
        held = held_mib(cluster.state.vms[move.vm])
        fills[move.source] -= held / cluster.state.nodes[move.source].memory_mib
        fills[move.target] += held / cluster.state.nodes[move.target].memory_mib
        assert before - abs(fills[move.source] - fills[move.target]) >= MIN_GAIN - 1e-9
    if moves:
        cluster.record(*moves)
    for node in cluster.state.nodes.values():
        assert cluster.state.load_of(node.name).memory_mib <= node.memory_mib, "while they are under way, too"
