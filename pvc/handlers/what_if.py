"""What would come of commands and losses: played through to its end on a fork of the state, with the real decisions.

All that would have effects outside succeeds at once: guests start and power off, migrations arrive, fence agents cut
the power. So it tells where VMs would go and what would find no room, and not how long that takes. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from pvc.commands import facts_cluster as f
from pvc.commands.base import Context, Decide, Decision, find_node
from pvc.commands.facts import REPORTS, Ending, Report, ReportEnded, ReportReset, ReportRunning
from pvc.commands.facts_moves import ReportArrived, ReportMigrationFailed, ReportPrepared
from pvc.commands.forecast import (
    Answer,
    Asked,
    Forecast,
    NodeForecast,
    NodeLoss,
    Placement,
    Question,
    Refusal,
    Unplaced,
)
from pvc.errors import Rejected
from pvc.events.node import NodeFlushIncomplete, NodeReturned
from pvc.events.record import CommandRef, Entry, Record, seal
from pvc.events.registry import Event, encode_event
from pvc.events.vm import VmStopped
from pvc.handlers import cluster_plan as plan
from pvc.projections.evolve_vm import concerned_epoch
from pvc.projections.fold import fold_trusted
from pvc.projections.state import ClusterState, Node, NodeState, Vm
from pvc.projections.story import tell
from pvc.projections.vm_machine import AT_REST, WANTED, VmState

MAX_RECORDS = 30_000
"""Played through at most: the recovery of a node with 10,000 VMs. Some 50 us each."""

_LONG_AFTER_S = 1e9
"""All waiting is over by then."""

_SETTLED = AT_REST | {VmState.RUNNING}


def foresee(state: ClusterState, questions: Sequence[Question], context: Context) -> Forecast:
    """What would come of the questions, one after the other. `state` is a fork, and is the worse for it."""
    before = state.fork()
    ahead = _Ahead(state, context)
    answers = []
    for question in questions:
        answers.append(ahead.ask(question))
        ahead.settle()
    return Forecast(
        position=before.position,
        answers=answers,
        placements=_placements(before, state),
        left=_left(before, state, ahead.left),
        nodes=_nodes(before, state),
        records=state.position - before.position,
        notes=ahead.notes,
    )


class _Ahead:
    """A state that runs ahead of the log."""

    def __init__(self, state: ClusterState, context: Context) -> None:
        self.state = state
        self.notes: list[str] = []
        self.left: list[str] = []
        """What flushes and returns would leave, in their words."""
        self._context = context
        self._begun = state.position
        self._lost = {node.name for node in state.nodes.values() if node.state is not NodeState.READY}
        self._tried = plan.Tried(
            failed_s={(node.name, node.lost_at): _LONG_AFTER_S for node in state.nodes.values() if node.unfenced}
        )
        """What could not be fenced until now is not taken for fenced."""
        self._moving = deque(vm.id for vm in state.vms.values() if vm.state not in _SETTLED)

    def ask(self, question: Question) -> Answer:
        """What comes of one question at once."""
        label = question.name if isinstance(question, Asked) else f"node-loss {question.node}"
        try:
            if isinstance(question, NodeLoss):
                return Answer(question=label, refusal=None, events=_told(self._lose(question.node)), notes=[])
            decision = self._decide(question.name, question.decide, question.command)
        except Rejected as error:
            refusal = Refusal(code=error.code, message=error.message, hint=error.hint, field=error.field)
            return Answer(question=label, refusal=refusal, events=[], notes=[])
        return Answer(question=label, refusal=None, events=_told(decision.events), notes=list(decision.notes))

    def settle(self) -> None:
        """Let everything happen that follows by itself."""
        while self.state.position - self._begun < MAX_RECORDS:
            if self._moving:
                self._go_on(self._moving.popleft())
            elif not self._act_as_primary():
                return
        self._note(f"it goes on after these {MAX_RECORDS:,} records")

    def _lose(self, name: str) -> tuple[Event, ...]:
        node = find_node(self.state, name)
        if node.state is not NodeState.READY:
            raise Rejected(
                f"node {name} is {node.state} already",
                code="node.not_ready",
                hint=f"`pvc node info {name}` shows it; only a node that is ready can be lost",
            )
        self._lost.add(name)
        if not self._becomes_primary():
            return ()
        cluster = self.state.cluster
        if cluster is not None and cluster.maintenance:
            self._note("the cluster is in maintenance: no node is declared lost, and nothing is recovered")
            return ()
        events = self._report(
            f.ReportNodeLost(**self._primary(), node=name, reason="its session has ended", ready_at=node.ready_at)
        )
        for vm_id in list(self.state.placed.incoming.get(name, ())):
            vm = self.state.vms[vm_id]
            if vm.state is VmState.MIGRATING and vm.migration is not None and vm.node not in self._lost:
                words = f"{name} is lost"
                self._report(
                    ReportMigrationFailed(
                        vm=vm_id, node=vm.node, migration=vm.migration.id, code="vm.target_silent", message=words
                    )
                )
        return events

    def _becomes_primary(self) -> bool:
        """Whether there is, or would be, a node that acts for the cluster."""
        cluster = self.state.cluster
        coordinators = [node for node in self.state.nodes.values() if node.coordinator]
        there = [node for node in coordinators if node.name not in self._lost]
        if cluster is None or 2 * len(there) <= len(coordinators):
            self._note(
                f"{len(there)} of {len(coordinators)} coordinators would be left, which is no majority: nothing could "
                "be recorded, so nothing would be recovered, until another one is back; running VMs go on"
            )
            return False
        if cluster.primary not in {node.name for node in there}:
            self._report(f.ReportPrimary(node=min(node.name for node in there)))
        return True

    def _act_as_primary(self) -> bool:
        """Do what is due for the cluster; whether that was anything."""
        state = self.state
        names = frozenset(state.nodes)
        watch = plan.Watch(
            since_s=0.0,
            there=names - self._lost,
            seen=set(names),
            gone_s=dict.fromkeys(self._lost, 0.0),
            ready_at={node.name: node.ready_at for node in state.nodes.values()},
            asked_s=_LONG_AFTER_S,
        )
        duties = [duty for duty in plan.plan_cluster(state, watch, self._tried, _LONG_AFTER_S) if self._concerns(duty)]
        if not duties or not self._becomes_primary():
            return False
        position = state.position
        for duty in duties:
            self._do(duty)
        return state.position > position

    def _concerns(self, duty: plan.Duty) -> bool:
        """A node that is switched on again comes back later than this forecast looks."""
        return not isinstance(duty, plan.PowerOn | plan.RaiseLevel | plan.DeclareLost)

    def _do(self, duty: plan.Duty) -> None:
        act = self._primary()
        match duty:
            case plan.Fence(node=node, lost_at=lost_at):
                evidence = "as its fence agent would have it"
                self._report(f.ReportNodeFenced(**act, node=node, lost_at=lost_at, method="agent", evidence=evidence))
            case plan.BelieveSelfFence(node=node, lost_at=lost_at):
                evidence = "as it promised"
                self._report(f.ReportNodeFenced(**act, node=node, lost_at=lost_at, method="self", evidence=evidence))
            case plan.GiveUpFencing(node=node, lost_at=lost_at, why=why):
                self._report(f.ReportFenceFailed(**act, node=node, lost_at=lost_at, message=why))
            case plan.Recover(node=node):
                self._report(f.ReportRecovery(**act, node=node))
            case plan.FlushStep(node=node):
                self._report(f.ReportFlushStep(**act, node=node))

    def _go_on(self, vm_id: str) -> None:
        """Let the VM's node carry out the next step of what is wanted of it."""
        vm = self.state.vms.get(vm_id)
        report = _next_report(vm) if vm is not None else None
        if vm is None or report is None or report.node in self._lost:
            return
        self._report(report)

    def _primary(self) -> dict[str, Any]:
        cluster = self.state.cluster
        assert cluster is not None, "a node acts for it"
        return {"primary": cluster.primary, "epoch": cluster.primary_epoch}

    def _report(self, report: Report) -> tuple[Event, ...]:
        name, decide = REPORTS[type(report)]
        return self._decide(name, decide, report).events

    def _decide(self, name: str, decide: Decide, command: Any) -> Decision:
        number = self.state.position + 1
        context = Context(
            command_id=f"what-if-{number}",
            time_us=self._context.time_us,
            actor=self._context.actor,
            usage=self._context.usage,
        )
        decision = decide(self.state, command, context)
        if decision.events:
            fold_trusted(self.state, self._entry(name, context, decision.events))
            for event in decision.events:
                if vm_id := getattr(event, "vm", ""):
                    self._moving.append(vm_id)
                if isinstance(event, NodeFlushIncomplete | NodeReturned):
                    self.left += event.left
        return decision

    def _entry(self, name: str, context: Context, events: Sequence[Event]) -> Entry:
        head = self.state.head
        return seal(
            Record(
                position=head.position + 1,
                prev=head.hash,
                id=context.command_id,
                time_us=context.time_us,
                actor=context.actor,
                origin="",
                command=CommandRef(id=context.command_id, name=name),
                events=tuple(encode_event(event) for event in events),
            )
        )

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _next_report(vm: Vm) -> Any:
    """What its node, or the one that it goes to, would report of the VM next; None when it is where it should be."""
    about: dict[str, Any] = {"vm": vm.id, "node": vm.node, "epoch": vm.epoch}
    move = vm.migration
    match vm.state:
        case VmState.STARTING:
            return ReportRunning(**about)
        case VmState.SHUTTING_DOWN:
            return ReportEnded(**about, ending=Ending.GUEST)
        case VmState.STOPPING:
            return ReportEnded(**about, ending=Ending.DESTROYED)
        case VmState.RESTARTING:
            return ReportEnded(vm=vm.id, node=vm.node, epoch=concerned_epoch(vm, VmStopped.TYPE), ending=Ending.GUEST)
        case VmState.RESETTING:
            return ReportReset(**about, mark=vm.reset_mark)
        case VmState.ARRIVING:
            return ReportArrived(**about)
        case VmState.MIGRATING if move is not None:
            if not move.prepared:
                return ReportPrepared(vm=vm.id, node=move.target, migration=move.id)
            return ReportEnded(**about, ending=Ending.MIGRATED if move.live else Ending.GUEST)
    return None


def _told(events: Sequence[Event]) -> list[Any]:
    return [tell(encode_event(event)) for event in events]


def _placements(before: ClusterState, after: ClusterState) -> list[Placement]:
    """VMs that are elsewhere or otherwise, by name."""
    found = []
    for vm_id in dict.fromkeys((*before.vms, *after.vms)):
        old, new = before.vms.get(vm_id), after.vms.get(vm_id)
        either = new or old
        assert either is not None, "it is in one of the two"
        was = (old.node, old.state) if old else ("", "")
        now = (new.node, new.state) if new else ("", "")
        if was == now and (old is None or new is None or old.home == new.home):
            continue
        found.append(
            Placement(
                vm=vm_id,
                name=either.name,
                source=was[0],
                target=now[0],
                before=str(was[1]),
                after=str(now[1]),
                why=list(new.why) if new and was[0] != now[0] else [],
            )
        )
    return sorted(found, key=lambda placement: placement.name)


def _left(before: ClusterState, after: ClusterState, words: Sequence[str]) -> list[Unplaced]:
    """VMs that would not get where they should: on a node that is gone, or not to be flushed."""
    found = [
        Unplaced(vm=vm.id, name=vm.name, node=vm.node, reason=_why_left(after.nodes[vm.node], vm))
        for vm in after.vms.values()
        if vm.state in WANTED and after.nodes[vm.node].state in (NodeState.LOST, NodeState.FENCED)
    ]
    for text in words:
        name, _, reason = text.partition(": ")
        vm_id = after.vm_names.get(name, "")
        node = after.vms[vm_id].node if vm_id else ""
        found.append(Unplaced(vm=vm_id, name=name, node=node, reason=reason))
    return sorted(found, key=lambda one: one.name)


def _why_left(node: Node, vm: Vm) -> str:
    if node.state is NodeState.FENCED:
        return vm.error or "no node can take it"
    return f"node {node.name} cannot be fenced: {node.unfenced}" if node.unfenced else f"node {node.name} is not fenced"


def _nodes(before: ClusterState, after: ClusterState) -> list[NodeForecast]:
    """Nodes whose state or memory would be another."""
    found = []
    for name in sorted({*before.nodes, *after.nodes}):
        old, new = before.nodes.get(name), after.nodes.get(name)
        either = new or old
        assert either is not None, "it is in one of the two"
        forecast = NodeForecast(
            node=name,
            before=_standing(old),
            after=_standing(new),
            memory_mib=either.memory_mib,
            allocated_before_mib=before.load_of(name).memory_mib,
            allocated_after_mib=after.load_of(name).memory_mib,
        )
        if (forecast.before, forecast.allocated_before_mib) != (forecast.after, forecast.allocated_after_mib):
            found.append(forecast)
    return found


def _standing(node: Node | None) -> str:
    if node is None:
        return ""
    return node.state.value if node.flush.value == "none" else f"{node.state}, {node.flush}"
