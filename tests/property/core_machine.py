"""All that an admin or a node can say, in any order: a machine for hypothesis, and a walk at random."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from pvc.commands.facts import (
    Ending,
    ReportEnded,
    ReportNodeReady,
    ReportReset,
    ReportRunning,
    ReportShutdownTimedOut,
    ReportStartFailed,
)
from pvc.commands.facts_moves import LIVE_REFUSED, ReportArrived, ReportMigrationFailed, ReportPrepared
from pvc.errors import Rejected
from pvc.events.types import ShutdownTimeoutAction
from pvc.projections.placed import Load
from pvc.projections.snapshot import restore, snapshot
from pvc.projections.state import ClusterState, Vm, held_mib
from pvc.projections.vm_machine import ACTIVE, AT_REST, TRANSITIONS, VmState
from tests.support.core import SECOND_US, TinyCluster, command, node_ready, replayed, run_that_ends

NAMES = ["web01", "web02", "db01"]
NODES = ["hv1", "hv2"]
MOVING = {type_ for _, type_ in TRANSITIONS}
SIZES = st.sampled_from([16, 1024, 3000, 8192, 9000])
SETTINGS = [
    ("vm.set_autostart", {"autostart": st.booleans()}),
    ("vm.set_selector", {"selector": st.sampled_from(["mem", "vms"])}),
    ("vm.set_node_limits", {"node_limits": st.lists(st.sampled_from([*NODES, "hv9"]), max_size=2)}),
    ("vm.set_migration_method", {"migration_method": st.sampled_from(["live", "none"])}),
    ("vm.add_tag", {"tag": st.sampled_from(["a", "b"]), "protected": st.booleans()}),
    ("vm.remove_tag", {"tag": st.sampled_from(["a", "b"])}),
]
POWER = ["vm.start", "vm.stop", "vm.restart", "vm.reset", "vm.disable", "vm.enable", "vm.remove"]
TRAVEL = ["vm.migrate", "vm.move", "vm.unmigrate", "vm.cancel_migration"]


Say = Callable[[Vm], Any]
"""What a node may report of a VM's present run."""


def _ended(ending: Ending) -> Say:
    return lambda vm: ReportEnded(vm=vm.id, node=vm.node, epoch=run_that_ends(vm), ending=ending)


def _running(vm: Vm) -> Any:
    return ReportRunning(vm=vm.id, node=vm.node, epoch=vm.epoch)


def _unstarted(vm: Vm) -> Any:
    return ReportStartFailed(vm=vm.id, node=vm.node, epoch=vm.epoch, code="driver.failed", message="no such file")


def _timed_out(vm: Vm) -> Any:
    live = vm.migration is not None and vm.migration.live  # then nobody waits for a shutdown yet
    return ReportShutdownTimedOut(vm=vm.id, node=vm.node, epoch=run_that_ends(vm), request="" if live else vm.cause)


def _reset(vm: Vm) -> Any:
    return ReportReset(vm=vm.id, node=vm.node, epoch=vm.epoch, mark=vm.reset_mark)


def _prepared(vm: Vm) -> Any:
    move = vm.migration
    return ReportPrepared(vm=vm.id, node=move.target if move else "hv2", migration=move.id if move else "none")


def _not_moved(code: str, *, by_target: bool = False) -> Say:
    def say(vm: Vm) -> Any:
        move = vm.migration
        node = move.target if move and by_target else vm.node
        migration = move.id if move else "none"
        return ReportMigrationFailed(vm=vm.id, node=node, migration=migration, code=code, message="it cannot be")

    return say


def _arrived(vm: Vm) -> Any:
    return ReportArrived(vm=vm.id, node=vm.node, epoch=vm.epoch)


MOVES = [_prepared, _not_moved("driver.failed"), _not_moved("vm.target_unable", by_target=True), _arrived]
ENDED = [_ended(ending) for ending in Ending]
FITTING: dict[VmState, list[str | Say]] = {
    VmState.STOPPED: ["vm.start", "vm.start", "vm.start", "vm.disable"],
    VmState.STARTING: [_running, _running, _running, _unstarted, *ENDED, "vm.stop"],
    VmState.RUNNING: [
        *["vm.shutdown", "vm.restart", "vm.migrate", "vm.move"] * 2,
        "vm.unmigrate",
        "vm.reset",
        "vm.stop",
        *ENDED,
    ],
    VmState.SHUTTING_DOWN: [*[_timed_out] * 5, *ENDED, "vm.stop"],
    VmState.STOPPING: [*ENDED],
    VmState.RESTARTING: [_timed_out, *ENDED, "vm.stop"],
    VmState.RESETTING: [_reset, _reset, *ENDED, "vm.stop"],
    VmState.MIGRATING: [
        *[_prepared, _ended(Ending.MIGRATED)] * 3,
        _timed_out,
        _not_moved("driver.failed"),
        *[_not_moved(LIVE_REFUSED)] * 2,
        _not_moved("vm.target_unable", by_target=True),
        "vm.cancel_migration",
        "vm.stop",
        *ENDED,
    ],
    VmState.ARRIVING: [*[_arrived] * 6, "vm.stop", "vm.cancel_migration", *ENDED],
    VmState.FAILED: ["vm.start", "vm.start", "vm.disable"],
    VmState.DISABLED: ["vm.enable"],
}


class Core(RuleBasedStateMachine):
    """Everything an admin or a node can say, in any order."""

    reports = Bundle("reports")

    def __init__(self) -> None:
        super().__init__()
        self.cluster = TinyCluster()
        self.epochs: dict[str, int] = {}
        self.stays: dict[str, int] = {}
        """How often a VM came to another node."""
        self.forks: list[tuple[ClusterState, str]] = []
        self.snapshots: list[tuple[int, bytes]] = []

    @initialize()
    def begin(self) -> None:
        self.cluster.do("cluster.init", name="main")
        self.cluster.says_ready(NODES[0])
        for node in NODES[1:]:
            self.cluster.add_node(node)
        for name in NAMES[:2]:
            self.give("vm.define", name=name, memory_mib=1024, node="hv1", on_poweroff="restart", autostart=True)

    # What has an effect most of the time, so that every state is seen often.

    @rule(target=reports, vm=st.sampled_from(NAMES[:2]), picks=st.lists(st.integers(0, 11), min_size=3, max_size=12))
    def lives_on(self, vm: str, picks: list[int]) -> Any:
        told = []
        for pick in picks:
            vm_id = self.cluster.state.vm_names.get(vm)
            if vm_id is None:
                break
            fitting = FITTING[self.cluster.state.vms[vm_id].state]
            step = fitting[pick % len(fitting)]
            if isinstance(step, str):
                self.give(step, vm=vm)
            else:
                told.append(self.tell(vm, step))
        return multiple(*told)

    # Commands.

    @rule(
        name=st.sampled_from(NAMES),
        memory_mib=SIZES,
        node=st.sampled_from([None, *NODES]),
        on_poweroff=st.sampled_from(["stop", "restart"]),
        on_crash=st.sampled_from(["stop", "restart"]),
        autostart=st.booleans(),
    )
    def define(self, **fields: Any) -> None:
        self.give("vm.define", **fields)

    @rule(
        vm=st.sampled_from(NAMES),
        memory_mib=st.none() | SIZES,
        description=st.none() | st.sampled_from(["", "x"]),
        restart=st.booleans(),
    )
    def modify(self, **fields: Any) -> None:
        self.give("vm.modify", **fields)

    @rule(vm=st.sampled_from(NAMES), name=st.sampled_from(NAMES))
    def rename(self, vm: str, name: str) -> None:
        self.give("vm.rename", vm=vm, name=name)

    @rule(vm=st.sampled_from(NAMES), name=st.sampled_from([*POWER, *TRAVEL]))
    def press(self, vm: str, name: str) -> None:
        self.give(name, vm=vm)

    @rule(vm=st.sampled_from(NAMES), on_timeout=st.sampled_from(list(ShutdownTimeoutAction)))
    def shutdown(self, vm: str, on_timeout: ShutdownTimeoutAction) -> None:
        self.give("vm.shutdown", vm=vm, on_timeout=on_timeout)

    @rule(vm=st.sampled_from(NAMES), which=st.sampled_from(SETTINGS), data=st.data())
    def set(self, vm: str, which: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
        name, fields = which
        self.give(name, vm=vm, **{field: data.draw(strategy) for field, strategy in fields.items()})

    # Reports about the present run, as an honest node gives them.

    @rule(
        target=reports,
        vm=st.sampled_from(NAMES),
        say=st.sampled_from([*ENDED, *MOVES, _running, _unstarted, _timed_out, _reset]),
    )
    def says(self, vm: str, say: Say) -> Any:
        return self.tell(vm, say)

    @rule(node=st.sampled_from(NODES), boot=st.integers(1, 3), memory_mib=st.sampled_from([8192, 4096]))
    def says_ready(self, node: str, boot: int, memory_mib: int) -> None:
        self.decided(node_ready(node, boot=f"boot-{boot}", memory_mib=memory_mib))

    # What must be harmless.

    @rule(report=reports)
    def a_report_comes_once_more(self, report: Any) -> None:
        if report is None or self.has_come_back(report.vm):
            return
        before = self.cluster.state.vms.copy()
        self.decided(report)
        assert self.cluster.state.vms == before, "a report that was heard before changes no VM"

    @rule(seconds=st.sampled_from([1, 60, 700]))
    def time_passes(self, seconds: int) -> None:
        self.cluster.time_us += seconds * SECOND_US

    @rule()
    def fork(self) -> None:
        twin = self.cluster.state.fork()
        self.forks = [*self.forks[-2:], (twin, twin.state_hash())]

    @rule()
    def snapshot(self) -> None:
        self.snapshots = [*self.snapshots[-2:], (self.cluster.state.position, snapshot(self.cluster.state))]

    # What must always hold.

    @invariant()
    def indexes_are_exact(self) -> None:
        state = self.cluster.state
        assert state.vm_names == {vm.name: vm.id for vm in state.vms.values()}
        assert state.placed.counts == Counter((vm.node, vm.state) for vm in state.vms.values())
        for node in NODES:
            mine = [vm for vm in state.vms.values() if vm.node == node]
            active = [vm for vm in mine if vm.state in ACTIVE]
            coming = [vm for vm in state.vms.values() if vm.migration and vm.migration.target == node != vm.node]
            assert state.load_of(node) == Load(
                memory_mib=sum(held_mib(vm) for vm in active) + sum(kept_mib(vm) for vm in coming),
                vcpus=sum((vm.running_spec or vm.spec).vcpus for vm in [*active, *coming]),
                running=len(active),
                vms=len(mine),
                provisioned_mib=sum(vm.spec.memory_mib for vm in mine),
            )
            assert set(state.placed.ids_on(node)) == {vm.id for vm in mine}
            assert set(state.placed.incoming.get(node, ())) >= {vm.id for vm in coming}

    @invariant()
    def each_vm_makes_sense(self) -> None:
        for vm in self.cluster.state.vms.values():
            assert (vm.running_spec is None) == (vm.state in AT_REST)
            assert bool(vm.error) == (vm.state is VmState.FAILED or f"vm.unplaced/{vm.id}" in self.cluster.state.faults)
            forcible = (VmState.RESTARTING, VmState.STOPPING, VmState.MIGRATING)
            assert vm.forced <= (vm.state in forcible or vm.state in AT_REST)
            assert (vm.migration is not None) == (vm.state in (VmState.MIGRATING, VmState.ARRIVING))
            assert bool(vm.away) <= (vm.node != vm.home)
            assert vm.epoch >= self.epochs.get(vm.id, 0), "epochs never go down"
            self.epochs[vm.id] = vm.epoch
            assert vm.state in AT_REST or vm.epoch > 0

    @invariant()
    def the_hash_is_that_of_a_fresh_state(self) -> None:
        state = self.cluster.state
        assert restore(snapshot(state)).state_hash() == state.state_hash()

    @invariant()
    def forks_stay_as_they_were(self) -> None:
        for twin, then in self.forks:
            assert twin.state_hash() == then
            assert restore(snapshot(twin)).state_hash() == then

    def teardown(self) -> None:
        entries = self.cluster.entries
        want = self.cluster.state
        whole = replayed(entries)
        assert (whole.state_hash(), whole.recent) == (want.state_hash(), want.recent), "fold twice is fold once"
        for position, stored in self.snapshots:
            later = replayed(entries[position:], restore(stored))
            assert later.state_hash() == want.state_hash(), "from a snapshot as from zero"

    # How it is done.

    def give(self, command_name: str, /, **fields: Any) -> None:
        given = {field: value for field, value in fields.items() if value is not None}
        self.decided(command(command_name, **given))

    def tell(self, name: str, report_of: Any) -> Any:
        vm_id = self.cluster.state.vm_names.get(name)
        if vm_id is None:
            return multiple()
        report = report_of(self.cluster.state.vms[vm_id])
        self.decided(report)
        return report

    def decided(self, given: Any) -> None:
        cluster = self.cluster
        before = cluster.state.vms.copy()
        head, hash_before = cluster.state.head, cluster.state.state_hash()
        try:
            first = cluster.try_out(given)
            assert cluster.try_out(given) == first, "deciding is deterministic"
            assert cluster.state.state_hash() == hash_before, "deciding changes nothing"
            decision = cluster.decide_and_record(given)
        except Rejected as refusal:
            assert refusal.message and refusal.code and refusal.hint
            assert cluster.state.head == head
            return
        if decision.events and type(given) not in (ReportNodeReady,):
            assert cluster.state.state_hash() != hash_before, "an event is only emitted where it changes something"
        self.follow_table(decision.events, before)
        self.follow_owners(decision.events, before)

    def follow_table(self, events: tuple[Any, ...], vms: dict[str, Vm]) -> None:
        states = {vm.id: vm.state for vm in vms.values()}
        for event in events:
            if event.TYPE == "vm.defined":
                states[event.vm] = VmState.STOPPED
            elif event.TYPE in MOVING:
                assert (states[event.vm], event.TYPE) in TRANSITIONS, f"{event.TYPE} in state {states[event.vm]}"
                if event.TYPE == "vm.start_requested":
                    assert states[event.vm] is not VmState.DISABLED, "a disabled VM never starts"
                    assert event.epoch == vms[event.vm].epoch + 1
                states[event.vm] = TRANSITIONS[states[event.vm], event.TYPE]
        for vm in self.cluster.state.vms.values():
            assert vm.state is states[vm.id], "the fold goes where the table says"

    def follow_owners(self, events: tuple[Any, ...], vms: dict[str, Vm]) -> None:
        owners = {vm.id: vm.node for vm in vms.values()}
        for event in events:
            if event.TYPE in ("vm.migrated", "vm.relocated", "vm.moved", "vm.recovered"):
                assert owners[event.vm] == event.source
                owners[event.vm] = event.target
                self.stays[event.vm] = self.stays.get(event.vm, 0) + 1
        for vm in self.cluster.state.vms.values():
            assert vm.node == owners.get(vm.id, vm.node), "a VM changes its node by these events only"

    def has_come_back(self, vm_id: str) -> bool:
        """A live migration keeps the run's number, so a report of an earlier stay could not be told from a new one;
        no node gives one, because it has seen the VM go in between."""
        return self.stays.get(vm_id, 0) > 1


def kept_mib(vm: Vm) -> int:
    """What the target of a VM's migration keeps for it."""
    assert vm.migration is not None
    return held_mib(vm) if vm.migration.live and not vm.migration.fallback else max(held_mib(vm), vm.spec.memory_mib)


def walk(core: Core, rng: random.Random, steps: int) -> Iterator[int]:
    """Live on at random, so many steps; the number of each after it."""
    told: list[Any] = []
    for step in range(steps):
        vm = rng.choice(NAMES)
        match rng.randrange(10):
            case 0:
                core.define(name=vm, memory_mib=rng.choice([64, 3000]), node=rng.choice(NODES), autostart=True)
            case 1:
                core.modify(vm=vm, memory_mib=rng.choice([64, 1024, 3000]), restart=rng.random() < 0.5)
            case 2 if told:
                core.a_report_comes_once_more(rng.choice(told[-8:]))
            case 3:
                core.says_ready(rng.choice(NODES), rng.randrange(3), 8192)
            case 4:
                core.cluster.time_us += rng.choice([1, 700]) * SECOND_US
            case 5:
                core.shutdown(vm, rng.choice(list(ShutdownTimeoutAction)))
            case 6:
                core.rename(vm, rng.choice(NAMES))
            case 7 if rng.random() < 0.1:
                core.press(vm, "vm.remove")
            case _ if vm_id := core.cluster.state.vm_names.get(vm):
                fitting = rng.choice(FITTING[core.cluster.state.vms[vm_id].state])
                if fitting == "vm.shutdown":
                    core.shutdown(vm, rng.choice(list(ShutdownTimeoutAction)))
                elif isinstance(fitting, str):
                    core.give(fitting, vm=vm)
                else:
                    told.append(core.tell(vm, fitting))
        yield step
