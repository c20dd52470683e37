"""Several nodes that are lost, fenced, recovered, flushed and balanced, in any order: what must hold of the whole."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from pvc.commands.facts import ReportEnded
from pvc.commands.facts_cluster import (
    ReportFenceFailed,
    ReportFlushStep,
    ReportNodeFenced,
    ReportNodeLost,
    ReportPrimary,
    ReportRecovery,
)
from pvc.errors import Rejected
from pvc.projections.snapshot import restore, snapshot
from pvc.projections.state import ClusterState, FlushState, NodeState, Vm
from pvc.projections.vm_machine import ACTIVE, VmState
from tests.property.core_machine import FITTING, NAMES, Core
from tests.support.core import NODE_MEMORY_MIB, node_ready

NODES = ["hv1", "hv2", "hv3", "hv4"]
COORDINATORS = NODES[:2]
WALKS = 40
WALK_STEPS = 300
STEPS = ["lost", "fenced", "unfenced", "recover", "flush", "elect"]


class ClusterCore(Core):
    """The core's machine with more nodes, and a primary that does its work."""

    epoch = 0
    boots = 1

    @initialize()
    def begin(self) -> None:
        self.cluster.do("cluster.init", name="main", coordinators=[NODES[0]])
        self.cluster.says_ready(NODES[0])
        for node in NODES[1:]:
            self.cluster.add_node(node, coordinator=node in COORDINATORS)
        for number, name in enumerate(NAMES):
            tags = ["a"] if number % 2 else []
            self.give("vm.define", name=name, memory_mib=3000, node=NODES[number % 2], tags=tags, on_crash="restart")
            self.give("vm.start", vm=name)
        self.primary_does("elect", NODES[0])

    # Nodes come and go.

    @rule(step=st.sampled_from(STEPS), node=st.sampled_from(NODES))
    def primary_does(self, step: str, node: str) -> None:
        info, by = self.cluster.state.nodes.get(node), self.by()
        if info is None:
            return
        about: dict[str, Any] = {**by, "node": node}
        reports = {
            "lost": ReportNodeLost(**about, reason="gone", ready_at=info.ready_at),
            "fenced": ReportNodeFenced(**about, lost_at=info.lost_at, method="agent", evidence="off"),
            "unfenced": ReportFenceFailed(**about, lost_at=info.lost_at, message="no answer"),
            "recover": ReportRecovery(**about),
            "flush": ReportFlushStep(**about),
            "elect": ReportPrimary(node=node),
        }
        self.decided(reports[step])

    @rule(step=st.sampled_from(["lost", "recover", "flush"]), node=st.sampled_from(NODES), behind=st.integers(1, 3))
    def a_stale_primary_does(self, step: str, node: str, behind: int) -> None:
        by = {"primary": COORDINATORS[behind % 2], "epoch": self.by()["epoch"] - behind}
        report = {
            "lost": ReportNodeLost(**by, node=node, reason="gone", ready_at=0),
            "recover": ReportRecovery(**by, node=node),
            "flush": ReportFlushStep(**by, node=node),
        }[step]
        with pytest.raises(Rejected) as refusal:
            self.cluster.report(report)
        assert refusal.value.code == "cluster.stale_primary"

    @rule(node=st.sampled_from(NODES), dies=st.booleans())
    def loses(self, node: str, dies: bool) -> None:
        """The whole way, as it mostly goes."""
        for step in ("lost", "fenced", "recover", "recover"):
            self.primary_does(step, node)
        if not dies:
            self.comes_back(node)

    @rule(node=st.sampled_from(NODES))
    def comes_back(self, node: str) -> None:
        self.boots += 1
        self.decided(node_ready(node, boot=f"boot-{self.boots}"))

    # The small nodes of the simpler machine would be overfull by themselves.
    @rule(node=st.sampled_from(NODES), boot=st.integers(1, 3))
    def says_ready(self, node: str, boot: int, memory_mib: int = NODE_MEMORY_MIB) -> None:
        self.decided(node_ready(node, boot=f"boot-{boot}"))

    # What admins do with nodes.

    @rule(node=st.sampled_from(NODES), name=st.sampled_from(["node.flush", "node.ready", "node.confirm_fenced"]))
    def service(self, node: str, name: str) -> None:
        self.give(name, node=node)

    @rule(node=st.sampled_from(NODES[2:]), comes=st.booleans())
    def membership(self, node: str, comes: bool) -> None:
        self.give("node.add" if comes else "node.remove", node=node)

    @rule(moves=st.integers(1, 4))
    def rebalance(self, moves: int) -> None:
        self.give("cluster.rebalance", moves=moves)

    @rule(on=st.booleans())
    def maintenance(self, on: bool) -> None:
        self.give("cluster.set_maintenance", maintenance=on)

    @rule(vm=st.sampled_from(NAMES), node=st.sampled_from([None, *NODES]), permanent=st.booleans())
    def travel(self, vm: str, node: str | None, permanent: bool) -> None:
        self.give("vm.move" if permanent else "vm.migrate", vm=vm, node=node)

    @rule(
        vm=st.sampled_from(NAMES),
        priority=st.integers(0, 100),
        affinity=st.lists(st.sampled_from(["a", "b"]), max_size=1),
        method=st.sampled_from(["live", "live", "shutdown"]),
    )
    def prefer(self, vm: str, priority: int, affinity: list[str], method: str) -> None:
        self.give("vm.set_priority", vm=vm, priority=priority)
        self.give("vm.set_affinity", vm=vm, affinity=affinity)
        self.give("vm.set_anti_affinity", vm=vm, anti_affinity=affinity[::-1])
        self.give("vm.set_migration_method", vm=vm, migration_method=method)

    @rule(node=st.sampled_from(NODES), times=st.integers(1, 4))
    def flushes(self, node: str, times: int) -> None:
        """A flush as it goes when migrations succeed."""
        self.give("node.flush", node=node)
        for _ in range(times):
            self.primary_does("flush", node)
            self.all_arrive()

    @rule()
    def all_arrive(self) -> None:
        for name in NAMES:
            for pick in (0, 1, 0):
                vm_id = self.cluster.state.vm_names.get(name)
                if vm_id is None:
                    break
                fitting = FITTING[self.cluster.state.vms[vm_id].state]
                if self.cluster.state.vms[vm_id].state in (VmState.MIGRATING, VmState.ARRIVING, VmState.STARTING):
                    self.tell(name, fitting[pick])

    # What must always hold.

    @invariant()
    def indexes_are_those_of_a_state_made_afresh(self) -> None:
        state = self.cluster.state
        again = restore(snapshot(state))
        for name in ("on_node", "tagged", "away_from", "incoming"):
            assert as_sets(getattr(state.placed, name)) == as_sets(getattr(again.placed, name)), name
        assert state.placed.counts == again.placed.counts
        for node in {*NODES, *state.nodes}:
            assert state.load_of(node) == again.load_of(node)

    @invariant()
    def faults_are_those_that_there_are(self) -> None:
        state = self.cluster.state
        expected = {f"node.lost/{n.name}" for n in state.nodes.values() if n.lost_at}
        expected |= {f"node.unfenced/{n.name}" for n in state.nodes.values() if n.unfenced}
        for vm in state.vms.values():
            if vm.error:
                expected.add(f"vm.{'unplaced' if vm.state in ACTIVE else 'failed'}/{vm.id}")
        flushes = {f"node.flush_incomplete/{name}" for name in state.nodes}
        assert {fault for fault in state.faults if fault not in flushes} == expected
        for node in state.nodes.values():
            if f"node.flush_incomplete/{node.name}" in state.faults:
                assert node.flush is FlushState.FLUSHED

    @invariant()
    def the_primarys_epoch_only_rises(self) -> None:
        assert self.cluster.state.cluster is not None
        assert self.cluster.state.cluster.primary_epoch >= self.epoch
        self.epoch = self.cluster.state.cluster.primary_epoch

    @invariant()
    def every_vm_is_on_a_node_and_goes_to_one(self) -> None:
        state = self.cluster.state
        for vm in state.vms.values():
            assert vm.node in state.nodes and vm.home in state.nodes
            if vm.migration is not None:
                assert vm.migration.target in state.nodes
                assert (vm.migration.target == vm.node) == (vm.state is VmState.ARRIVING)

    # How it is done.

    def by(self) -> dict[str, Any]:
        assert self.cluster.state.cluster is not None
        return {
            "primary": self.cluster.state.cluster.primary or "hv1",
            "epoch": self.cluster.state.cluster.primary_epoch,
        }

    def decided(self, given: Any) -> None:
        before = self.cluster.state.fork()
        position = self.cluster.state.position
        super().decided(given)
        if self.cluster.state.position > position:
            self.no_node_was_overfilled(before)
            self.placements_were_allowed(before, given)

    def no_node_was_overfilled(self, before: ClusterState) -> None:
        for node in self.cluster.state.nodes.values():
            held_mib = self.cluster.state.load_of(node.name).memory_mib
            if held_mib > before.load_of(node.name).memory_mib:
                assert held_mib <= node.memory_mib, f"{node.name} holds {held_mib} MiB now"

    def placements_were_allowed(self, before: ClusterState, given: Any) -> None:
        after = self.cluster.state
        for vm in after.vms.values():
            old = before.vms.get(vm.id)
            if old is None:
                continue
            if vm.migration is not None and (old.migration is None or old.migration.target != vm.migration.target):
                self.may_take(before, old, vm.migration.target)
                assert before.nodes[old.node].state is NodeState.READY, "somebody is there to send it"
            if vm.epoch > old.epoch and old.state in ACTIVE and vm.node != old.node:
                if old.state is VmState.MIGRATING and isinstance(given, ReportEnded):
                    assert given.node == old.node, "the source has said that it is off there"
                else:
                    assert before.nodes[old.node].state is NodeState.FENCED, "nothing runs there any more"
                    self.may_take(before, old, vm.node)
            if vm.node != old.node and vm.epoch == old.epoch and old.state in ACTIVE:
                assert isinstance(given, ReportEnded) and given.node == old.node, "the source is rid of it"

    def may_take(self, before: ClusterState, vm: Vm, node: str) -> None:
        assert before.nodes[node].ready, f"{node} takes no VMs"
        assert not vm.node_limits or node in vm.node_limits


def as_sets(index: dict[str, dict[str, None]]) -> dict[str, set[str]]:
    return {key: set(ids) for key, ids in index.items()}


TestCluster = ClusterCore.TestCase


@pytest.mark.parametrize("seed", range(WALKS))
def test_a_cluster_in_trouble_for_long_breaks_nothing_either(seed: int) -> None:
    rng = random.Random(seed)
    core = ClusterCore()
    core.begin()
    crowd = [*NAMES, *(f"vm{number}" for number in range(6))]
    for name in crowd:
        core.give("vm.define", name=name, memory_mib=rng.choice([500, 1500, 3000]), node=rng.choice(NODES))
    for step in range(WALK_STEPS):
        walk(core, rng, rng.choice(crowd), rng.choice(NODES))
        for name in crowd:
            if rng.random() < 0.2:
                go_on(core, rng, name)
        core.indexes_are_those_of_a_state_made_afresh()
        core.faults_are_those_that_there_are()
        core.each_vm_makes_sense()
        core.every_vm_is_on_a_node_and_goes_to_one()
        if step % 20 == 0:
            core.fork()
            core.snapshot()
            core.forks_stay_as_they_were()
    core.the_hash_is_that_of_a_fresh_state()
    core.teardown()


def walk(core: ClusterCore, rng: random.Random, name: str, node: str) -> None:
    """Something happens to a VM or a node."""
    match rng.randrange(14):
        case 0:
            core.loses(node, rng.random() < 0.7)
        case 1 | 2:
            core.comes_back(node)
        case 3:
            core.flushes(node, rng.randrange(1, 4))
        case 4:
            core.service(node, rng.choice(["node.flush", "node.ready", "node.ready", "node.confirm_fenced"]))
        case 5 | 6:
            core.travel(name, rng.choice([None, node]), rng.random() < 0.5)
        case 7:
            core.primary_does(rng.choice(STEPS), node)
        case 8 | 9:
            core.modify(vm=name, memory_mib=rng.choice([500, 3000, 5000]), restart=rng.random() < 0.2)
        case 10 | 11:
            core.rebalance(3)
        case 12:
            core.membership(rng.choice(NODES[2:]), rng.random() < 0.7)
        case _:
            core.prefer(name, rng.randrange(100), [rng.choice("ab")], rng.choice(["live", "live", "shutdown"]))


def go_on(core: ClusterCore, rng: random.Random, name: str) -> None:
    """What its node would report next of a VM, or now and then something else; what is off is started again."""
    vm_id = core.cluster.state.vm_names.get(name)
    if vm_id is None:
        return
    state = core.cluster.state.vms[vm_id].state
    fitting = FITTING[state]
    step = fitting[0] if rng.random() < 0.5 else rng.choice(fitting)
    if state is VmState.RUNNING and rng.random() < 0.8:
        return
    if isinstance(step, str):
        core.give(step, vm=name)
    else:
        core.tell(name, step)
