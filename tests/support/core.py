"""A cluster in the mind: commands and reports are decided, sealed into chained records and folded; nothing else.

No asyncio, no log, no hypervisor. Time goes on by a second with every record, ids are counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import msgspec

from pvc.commands.base import Context, Decide, Decision, Utilisation
from pvc.commands.facts import (
    REPORTS,
    Ending,
    ReportEnded,
    ReportNodeReady,
    ReportReset,
    ReportRunning,
    ReportShutdownTimedOut,
    ReportStartFailed,
)
from pvc.commands.facts_cluster import (
    ReportDiverged,
    ReportFenceFailed,
    ReportFlushStep,
    ReportLevel,
    ReportNodeFenced,
    ReportNodeLost,
    ReportPrimary,
    ReportRecovery,
)
from pvc.commands.facts_log import ReportAnchor, ReportCheckpoint, ReportLogDiffers, ReportSigningKey
from pvc.commands.facts_moves import ReportArrived, ReportMigrationFailed, ReportPrepared
from pvc.commands.registry import BY_NAME, COMMANDS
from pvc.events.record import Actor, CommandRef, Entry, Record, seal
from pvc.events.registry import Event, encode_event
from pvc.projections.fold import fold
from pvc.projections.state import ClusterState, Migration, Vm
from pvc.proof.merkle import Frontier, leaf_hash
from pvc.proof.note import origin_of
from tests.support.keys import TestKey

ADMIN = Actor(principal="root", method="socket", source="test")
NODE_MEMORY_MIB = 8192
NODE_VCPUS = 8
SECOND_US = 1_000_000
START_US = 1_700_000_000 * SECOND_US

_SPEC_OF = {spec.struct: spec for spec in COMMANDS}


class TinyCluster:
    """State and records of a cluster; `do` and `report` return the events that were recorded."""

    def __init__(self) -> None:
        self.state = ClusterState()
        self.entries: list[Entry] = []
        self.reports: list[Any] = []
        """Every report that was given, in order."""
        self.time_us = START_US
        self.usage: dict[str, Utilisation] = {}
        """What the nodes last said of themselves."""
        self._ids = itertools.count(1)

    def do(self, name: str, /, **fields: Any) -> tuple[Event, ...]:
        """Give the command with this name, its fields converted as the gateway would."""
        return self.decide_and_record(command(name, **fields)).events

    def report(self, report: Any) -> tuple[Event, ...]:
        """Report as a node would."""
        self.reports.append(report)
        return self.decide_and_record(report).events

    def try_out(self, given: Any) -> Decision:
        """Decide and record nothing."""
        _, decide = name_and_decide(given)
        return decide(self.state, given, self._context(f"try-{len(self.entries)}"))

    def decide_and_record(self, given: Any, *, command_id: str = "") -> Decision:
        """Decide a command or report struct and record what follows. Raises Rejected."""
        name, decide = name_and_decide(given)
        context = self._context(command_id or f"command-{next(self._ids)}")
        decision = decide(self.state, given, context)
        if decision.events:
            self.record(*decision.events, name=name, command_id=context.command_id)
        return decision

    def record(self, *events: Event, name: str = "test", command_id: str = "") -> Entry:
        """Append one record with these events, whatever they are, and fold it."""
        self.time_us += SECOND_US
        head = self.state.head
        entry = seal(
            Record(
                position=head.position + 1,
                prev=head.hash,
                id=f"R{head.position + 1:025d}",
                time_us=self.time_us,
                actor=ADMIN,
                origin="hv1",
                command=CommandRef(id=command_id or f"event-{next(self._ids)}", name=name),
                events=tuple(encode_event(event) for event in events),
            )
        )
        fold(self.state, entry)
        self.entries.append(entry)
        return entry

    def vm(self, name: str = "web01") -> Vm:
        """The VM with this name."""
        return self.state.vms[self.state.vm_names[name]]

    # What is said of the log itself.

    def says_key(self, node: str, word: str) -> TestKey:
        """The node has a signing key made from this word."""
        key = TestKey(word, self._origin)
        self.report(ReportSigningKey(node=node, key=str(key.public)))
        return key

    def says_checkpoint(self, key: TestKey, anchored: dict[str, int] | None = None) -> tuple[Event, ...]:
        """The primary vouches for all records there are, with this key."""
        assert self.state.cluster is not None
        tree = Frontier()
        for entry in self.entries:
            tree.append(leaf_hash(entry.data))
        return self.report(
            ReportCheckpoint(
                primary=self.state.cluster.primary,
                epoch=self.state.cluster.primary_epoch,
                note=key.sign(tree.size, tree.root(), self._origin),
                anchored=anchored or {},
            )
        )

    def says_anchor(self, anchor: str, message: str) -> tuple[Event, ...]:
        """The primary says how an anchor is."""
        assert self.state.cluster is not None
        primary, epoch = self.state.cluster.primary, self.state.cluster.primary_epoch
        return self.report(ReportAnchor(primary=primary, epoch=epoch, anchor=anchor, message=message))

    def says_log_differs(self, node: str) -> tuple[Event, ...]:
        """The node has other records than a checkpoint vouches for."""
        return self.report(ReportLogDiffers(node=node, size=3, root="0f" * 32, expected="1e" * 32))

    @property
    def _origin(self) -> str:
        assert self.state.cluster is not None
        return origin_of(self.state.cluster.id)

    # What a node reports of a VM's present run.

    def says_running(self, name: str = "web01") -> tuple[Event, ...]:
        """The node sees the domain run."""
        vm = self.vm(name)
        return self.report(ReportRunning(vm=vm.id, node=vm.node, epoch=vm.epoch))

    def says_ended(self, ending: Ending = Ending.GUEST, name: str = "web01", epoch: int = 0) -> tuple[Event, ...]:
        """The node found the domain off."""
        vm = self.vm(name)
        return self.report(ReportEnded(vm=vm.id, node=vm.node, epoch=epoch or run_that_ends(vm), ending=ending))

    def says_start_failed(self, name: str = "web01") -> tuple[Event, ...]:
        """The node could not start the domain."""
        vm = self.vm(name)
        return self.report(
            ReportStartFailed(vm=vm.id, node=vm.node, epoch=vm.epoch, code="driver.failed", message="no such file")
        )

    def says_timed_out(self, name: str = "web01") -> tuple[Event, ...]:
        """The guest has not powered off in time."""
        return self.report(timed_out(self.vm(name)))

    def says_reset(self, name: str = "web01") -> tuple[Event, ...]:
        """The reset button was pressed."""
        vm = self.vm(name)
        return self.report(ReportReset(vm=vm.id, node=vm.node, epoch=vm.epoch, mark=vm.reset_mark))

    def says_ready(self, node: str = "hv1", **changes: Any) -> tuple[Event, ...]:
        """The node's daemon has started."""
        return self.report(node_ready(node, **changes))

    def add_node(self, node: str, *, coordinator: bool = False, **changes: Any) -> tuple[Event, ...]:
        """Make a node a member, and let it be ready."""
        return (*self.do("node.add", node=node, coordinator=coordinator), *self.says_ready(node, **changes))

    # What nodes report of a VM on its way.

    def says_prepared(self, name: str = "web01") -> tuple[Event, ...]:
        """The target expects the VM."""
        vm, move = self._on_its_way(name)
        return self.report(ReportPrepared(vm=vm.id, node=move.target, migration=move.id))

    def says_not_moved(
        self, name: str = "web01", *, code: str = "driver.failed", by_target: bool = False
    ) -> tuple[Event, ...]:
        """The migration came to nothing."""
        vm, move = self._on_its_way(name)
        node = move.target if by_target else move.source
        return self.report(
            ReportMigrationFailed(vm=vm.id, node=node, migration=move.id, code=code, message="it cannot be")
        )

    def says_arrived(self, name: str = "web01") -> tuple[Event, ...]:
        """The guest runs at the target."""
        vm = self.vm(name)
        return self.report(ReportArrived(vm=vm.id, node=vm.node, epoch=vm.epoch))

    # What the primary reports; before it does, somebody is elected.

    def elect(self, node: str = "hv1") -> dict[str, Any]:
        """Make a coordinator the primary; returns what its reports carry."""
        self.report(ReportPrimary(node=node))
        return self.primary

    @property
    def primary(self) -> dict[str, Any]:
        """What the reports of the present primary carry."""
        assert self.state.cluster is not None, "there is no cluster"
        if not self.state.cluster.primary:
            return self.elect()
        return {"primary": self.state.cluster.primary, "epoch": self.state.cluster.primary_epoch}

    def says_lost(self, node: str, reason: str = "its session has ended") -> tuple[Event, ...]:
        """The primary misses the node."""
        ready_at = self.state.nodes[node].ready_at
        return self.report(ReportNodeLost(**self.primary, node=node, reason=reason, ready_at=ready_at))

    def says_fenced(self, node: str, method: str = "agent") -> tuple[Event, ...]:
        """The primary has fenced the node."""
        lost_at = self.state.nodes[node].lost_at
        return self.report(
            ReportNodeFenced(**self.primary, node=node, lost_at=lost_at, method=method, evidence="power off")
        )

    def says_unfenced(self, node: str, message: str = "the agent does not answer") -> tuple[Event, ...]:
        """The primary could not fence the node."""
        lost_at = self.state.nodes[node].lost_at
        return self.report(ReportFenceFailed(**self.primary, node=node, lost_at=lost_at, message=message))

    def recover(self, node: str) -> tuple[Event, ...]:
        """The primary places what ran on the fenced node."""
        return self.report(ReportRecovery(**self.primary, node=node))

    def lose(self, node: str) -> tuple[Event, ...]:
        """The node is lost, fenced, and its VMs are recovered; returns the last step's events."""
        self.says_lost(node)
        self.says_fenced(node)
        return self.recover(node)

    def flush_step(self, node: str) -> tuple[Event, ...]:
        """The primary looks at a node that is flushed, or gets its VMs back."""
        return self.report(ReportFlushStep(**self.primary, node=node))

    def level_step(self) -> tuple[Event, ...]:
        """The primary looks at what feature level all know."""
        return self.report(ReportLevel(**self.primary))

    def says_diverged(self, node: str) -> tuple[Event, ...]:
        """The primary finds that a node's state is not its own."""
        at = self.state.position
        return self.report(
            ReportDiverged(**self.primary, node=node, position=at, state_hash="0f" * 16, expected="1e" * 16)
        )

    def _on_its_way(self, name: str) -> tuple[Vm, Migration]:
        vm = self.vm(name)
        assert vm.migration is not None, f"{name} is not migrating"
        return vm, vm.migration

    def _context(self, command_id: str) -> Context:
        return Context(command_id=command_id, time_us=self.time_us + SECOND_US, actor=ADMIN, usage=self.usage)


def command(name: str, /, **fields: Any) -> Any:
    """A command struct made the way the gateway makes it. Raises msgspec.ValidationError."""
    return msgspec.convert(fields, BY_NAME[name].struct)


def example_of(name: str) -> Mapping[str, Any]:
    """The fields of a command's example."""
    return BY_NAME[name].example


def name_and_decide(given: Any) -> tuple[str, Decide]:
    """The name and the decide function of a command or a report."""
    if type(given) in REPORTS:
        return REPORTS[type(given)]
    spec = _SPEC_OF[type(given)]
    return spec.name, spec.decide


def run_that_ends(vm: Vm) -> int:
    """The number of the run that a node would report as ended."""
    return vm.epoch - 1 if vm.state.value == "restarting" else vm.epoch


def timed_out(vm: Vm) -> ReportShutdownTimedOut:
    """The report that the time of the present request is over."""
    return ReportShutdownTimedOut(vm=vm.id, node=vm.node, epoch=run_that_ends(vm), request=vm.cause)


def node_ready(node: str = "hv1", **changes: Any) -> ReportNodeReady:
    """A node of ordinary size."""
    fields: dict[str, Any] = {
        "node": node,
        "memory_mib": NODE_MEMORY_MIB,
        "vcpus": NODE_VCPUS,
        "accelerator": "simulated",
        "hypervisor": "simulated 1",
        "version": "0.1.0",
        "boot": "boot-1",
    }
    return ReportNodeReady(**fields | changes)


def a_cluster(*nodes: str) -> TinyCluster:
    """An initialised cluster with ready nodes (`hv1` if none is named)."""
    cluster = TinyCluster()
    cluster.do("cluster.init", name="main")
    first, *others = nodes or ("hv1",)
    cluster.says_ready(first)
    for node in others:
        cluster.add_node(node)
    return cluster


def a_cluster_with_vm(state: str = "stopped", **fields: Any) -> TinyCluster:
    """A cluster with the VM `web01`, brought into `state` by the shortest honest way."""
    cluster = a_cluster()
    cluster.do("vm.define", **{"name": "web01", "memory_mib": 1024} | fields)
    bring(cluster, "web01", state)
    return cluster


def bring(cluster: TinyCluster, name: str, state: str) -> None:
    """Bring a stopped VM into `state`; to migrate it needs a second node, which is added if there is none."""
    if state == "disabled":
        cluster.do("vm.disable", vm=name)
    elif state != "stopped":
        cluster.do("vm.start", vm=name)
        if state == "failed":
            cluster.says_start_failed(name)
        elif state != "starting":
            cluster.says_running(name)
    leading = {"shutting-down": "shutdown", "stopping": "stop", "restarting": "restart", "resetting": "reset"}
    if state in leading:
        cluster.do(f"vm.{leading[state]}", vm=name)
    if state in ("migrating", "arriving"):
        if len(cluster.state.nodes) == 1:
            cluster.add_node("hv2")
        cluster.do("vm.migrate", vm=name)
    if state == "arriving":
        cluster.says_prepared(name)
        cluster.says_ended(Ending.MIGRATED, name)
    assert cluster.vm(name).state.value == state, f"the way to {state} is no longer right"


def replayed(entries: list[Entry], onto: ClusterState | None = None) -> ClusterState:
    """The fold of these entries, from zero or onto a state."""
    state = onto or ClusterState()
    for entry in entries:
        fold(state, entry)
    return state
