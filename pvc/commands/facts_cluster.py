"""What the primary reports and does for the whole cluster. Each report carries the epoch it was elected with; one of an
earlier epoch is refused, so that of two nodes that both believe to be primary only the newer has its way.

Flushes and recoveries are sagas without a memory of their own: each step is decided from the state alone, so the next
primary goes on where the last one was cut off.
"""

from __future__ import annotations

import re
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from pvc.commands.base import Context, Decision
from pvc.commands.placement import place, wish_of
from pvc.commands.vm_move import migration_of
from pvc.commands.vm_ref import NOTHING
from pvc.errors import Rejected
from pvc.events import node as n
from pvc.events import vm as e
from pvc.events import vm_moves as m
from pvc.events.cluster import FeatureLevelRaised, PrimaryElected
from pvc.events.registry import Event
from pvc.events.types import MigrationMethod, NodeName
from pvc.projections.evolve_moves import way_of
from pvc.projections.state import Cluster, ClusterState, FlushState, Node, NodeState, Vm
from pvc.projections.vm_machine import ACTIVE, WANTED, VmState

RECOVERY_BATCH = 200
"""VMs that one record recovers: they fit into it, and the nodes begin to start the first ones at once."""

PARALLEL_MOVES = 4
"""Migrations off or home to one node at a time: more would share its network, and each take longer."""

MAX_LEFT = 20
"""VMs that the end of a flush names: each with the reason that every node has, and all in one record."""

MOVE_TRIES = 3
"""Migrations of a VM that a flush tries before it leaves the VM to the admin."""


class ReportPrimary(Struct, frozen=True, kw_only=True):
    """This node was elected."""

    node: NodeName
    silent_s: int = 0


class ReportNodeLost(Struct, frozen=True, kw_only=True):
    """A node's session has ended."""

    primary: NodeName
    epoch: int
    node: NodeName
    reason: str
    ready_at: int
    """Which of its announcements that session was of: the node may be back and have said so."""


class ReportNodeFenced(Struct, frozen=True, kw_only=True):
    """Nothing runs on a lost node any more."""

    primary: NodeName
    epoch: int
    node: NodeName
    lost_at: int
    """Which loss it was about: the node may have come back and be lost again."""
    method: str
    evidence: str


class ReportFenceFailed(Struct, frozen=True, kw_only=True):
    """A lost node could not be fenced."""

    primary: NodeName
    epoch: int
    node: NodeName
    lost_at: int
    message: str


class ReportRecovery(Struct, frozen=True, kw_only=True):
    """The VMs of a fenced node are to be placed."""

    primary: NodeName
    epoch: int
    node: NodeName


class ReportFlushStep(Struct, frozen=True, kw_only=True):
    """A node that is being flushed, or gets its VMs back, is to be looked at."""

    primary: NodeName
    epoch: int
    node: NodeName


class ReportDiverged(Struct, frozen=True, kw_only=True):
    """A node says another state hash for a position than the primary has."""

    primary: NodeName
    epoch: int
    node: NodeName
    position: int
    state_hash: str
    expected: str


class ReportLevel(Struct, frozen=True, kw_only=True):
    """All nodes may know a higher feature level."""

    primary: NodeName
    epoch: int


PrimaryReport: TypeAlias = (
    ReportNodeLost
    | ReportNodeFenced
    | ReportFenceFailed
    | ReportRecovery
    | ReportFlushStep
    | ReportDiverged
    | ReportLevel
)


def primary_elected(state: ClusterState, report: ReportPrimary, context: Context) -> Decision:
    """A coordinator, with the next epoch."""
    node = state.nodes.get(report.node)
    if state.cluster is None or node is None or not node.coordinator:
        return NOTHING
    epoch = state.cluster.primary_epoch + 1
    return Decision(events=(PrimaryElected(node=report.node, epoch=epoch, silent_s=report.silent_s),))


def node_lost(state: ClusterState, report: ReportNodeLost, context: Context) -> Decision:
    """A node that was well, outside of maintenance."""
    cluster = _require_primary(state, report)
    node = state.nodes.get(report.node)
    if node is None or node.state is not NodeState.READY or node.ready_at != report.ready_at or cluster.maintenance:
        return NOTHING
    return Decision(events=(n.NodeLost(node=node.name, epoch=report.epoch, reason=report.reason),))


def node_fenced(state: ClusterState, report: ReportNodeFenced, context: Context) -> Decision:
    """The node that is still lost since then."""
    _require_primary(state, report)
    node = state.nodes.get(report.node)
    if node is None or node.state is not NodeState.LOST or node.lost_at != report.lost_at:
        return NOTHING
    return Decision(events=(n.NodeFenced(node=node.name, method=report.method, evidence=report.evidence),))


def fence_failed(state: ClusterState, report: ReportFenceFailed, context: Context) -> Decision:
    """Said once for each reason."""
    _require_primary(state, report)
    node = state.nodes.get(report.node)
    if node is None or node.state is not NodeState.LOST or node.lost_at != report.lost_at:
        return NOTHING
    if node.unfenced == report.message:
        return NOTHING
    return Decision(events=(n.NodeFenceFailed(node=node.name, message=report.message),))


def recovery(state: ClusterState, report: ReportRecovery, context: Context) -> Decision:
    """What runs nowhere is to run elsewhere, the most important first; what was to end has ended."""
    _require_primary(state, report)
    node = state.nodes.get(report.node)
    if node is None or node.state is not NodeState.FENCED:
        return NOTHING
    return Decision(events=recoveries(state, node, context))


def recoveries(state: ClusterState, node: Node, context: Context) -> tuple[Event, ...]:
    """The events that recover the VMs of a node on which nothing runs, as many as fit into one record."""
    events: list[Event] = []
    vms = (state.vms[vm] for vm in state.placed.ids_on(node.name))
    active = sorted((vm for vm in vms if vm.state in ACTIVE), key=lambda vm: (-vm.priority, vm.name))
    ahead: ClusterState | None = None
    for vm in active:
        if len(events) >= RECOVERY_BATCH:
            break
        if vm.state not in WANTED:
            events.append(e.VmStopped(vm=vm.id, node=node.name, epoch=vm.epoch, how="fenced"))
            continue
        # Each placement counts the ones before it.
        ahead = ahead or state.fork()
        events.extend(_recover(ahead, vm, context))
    return tuple(events)


def flush_step(state: ClusterState, report: ReportFlushStep, context: Context) -> Decision:
    """The next migrations, or that all is done."""
    _require_primary(state, report)
    node = state.nodes.get(report.node)
    if node is None or node.state is not NodeState.READY:
        return NOTHING
    if node.flush is FlushState.FLUSHING:
        here_or_coming = dict.fromkeys((*state.placed.ids_on(node.name), *state.placed.incoming.get(node.name, ())))
        vms = [state.vms[vm] for vm in here_or_coming]
        events, left, busy = _moves(state, node, [vm for vm in vms if vm.state in ACTIVE], context)
        if events or busy:
            return Decision(events=events)
        done: Event = n.NodeFlushIncomplete(node=node.name, left=left) if left else n.NodeFlushed(node=node.name)
        return Decision(events=(done,))
    if node.flush is FlushState.RETURNING:
        vms = [state.vms[vm] for vm in state.placed.away_from.get(node.name, ())]
        to_come = [vm for vm in vms if vm.away in ("flush", "recovery")]
        events, left, busy = _moves(state, node, to_come, context, home=node)
        if events or busy:
            return Decision(events=events)
        return Decision(events=(n.NodeReturned(node=node.name, left=left),))
    return NOTHING


def node_diverged(state: ClusterState, report: ReportDiverged, context: Context) -> Decision:
    """Said once, until the node is started anew."""
    _require_primary(state, report)
    if report.node not in state.nodes or f"{n.NodeDiverged.TYPE}/{report.node}" in state.faults:
        return NOTHING
    diverged = n.NodeDiverged(
        node=report.node, position=report.position, state_hash=report.state_hash, expected=report.expected
    )
    return Decision(events=(diverged,))


def raise_level(state: ClusterState, report: ReportLevel, context: Context) -> Decision:
    """As high as the lowest of the members."""
    cluster = _require_primary(state, report)
    heard_of = [node for node in state.nodes.values() if node.state is not NodeState.JOINING]
    level = min((node.level for node in heard_of), default=cluster.level)
    return Decision(events=(FeatureLevelRaised(level=level),)) if level > cluster.level else NOTHING


def _recover(ahead: ClusterState, vm: Vm, context: Context) -> tuple[Event, ...]:
    try:
        choice = place(ahead, wish_of(vm), exclude=(vm.node,), usage=context.usage)
    except Rejected as refusal:
        delayed = m.VmRecoveryDelayed(vm=vm.id, reason=refusal.message)
        return (delayed,) if _but_figures(vm.error) != _but_figures(refusal.message) else ()
    ahead.put_vm(replace(vm, node=choice.node, state=VmState.STARTING, migration=None, running_spec=vm.spec))
    recovered = m.VmRecovered(vm=vm.id, source=vm.node, target=choice.node, epoch=vm.epoch + 1, why=choice.why)
    return (recovered,)


def _but_figures(reason: str) -> str:
    """How much is free changes with every VM; that is no other reason."""
    return re.sub(r"[0-9]+ MiB free", "MiB free", reason)


def _moves(
    state: ClusterState, node: Node, vms: list[Vm], context: Context, *, home: Node | None = None
) -> tuple[tuple[Event, ...], tuple[str, ...], bool]:
    """The migrations to begin now, the VMs that cannot go with the reason, and whether something is under way."""
    under_way = sum(vm.state in (VmState.MIGRATING, VmState.ARRIVING) for vm in vms)
    busy = under_way > 0
    events: list[Event] = []
    left: list[str] = []
    ahead = state.fork()
    for vm in sorted(vms, key=lambda vm: (-vm.priority, vm.name)):
        if len(events) >= RECOVERY_BATCH:
            busy = True
            break
        if vm.state not in ACTIVE:
            events.append(m.VmMoved(vm=vm.id, source=vm.node, target=node.name))
        elif vm.state is not VmState.RUNNING or state.nodes[vm.node].state is not NodeState.READY:
            busy = True  # it will be running, off or failed in a moment, or recovered
        elif vm.migration_method is MigrationMethod.NONE:
            left.append(f"{vm.name}: its migration method is none")
        elif vm.failed_moves >= MOVE_TRIES:
            left.append(f"{vm.name}: {vm.failed_moves} migrations failed")
        elif under_way < PARALLEL_MOVES:
            try:
                exclude = (vm.node,) if home is None else [other for other in state.nodes if other != home.name]
                choice = place(ahead, wish_of(vm), exclude=exclude, usage=context.usage)
            except Rejected as refusal:
                left.append(f"{vm.name}: {refusal.message}")
                continue
            under_way += 1
            away, reason = ("flush", f"flush of {node.name}") if home is None else ("", f"{node.name} is back")
            if choice.node == vm.home:
                away = ""
            # Which attempt it is: a step that is decided twice asks for the same migration.
            name = f"{context.command_id}.{vm.id[:8]}"
            request = migration_of(vm, choice, name, away=away, reason=reason)
            events.append(request)
            ahead.put_vm(replace(vm, state=VmState.MIGRATING, migration=way_of(request)))
    if len(left) > MAX_LEFT:
        left[MAX_LEFT:] = [f"and {len(left) - MAX_LEFT} more"]
    return tuple(events), tuple(left), busy or under_way >= PARALLEL_MOVES


def _require_primary(state: ClusterState, report: PrimaryReport) -> Cluster:
    cluster = state.cluster
    if cluster is None or (cluster.primary, cluster.primary_epoch) != (report.primary, report.epoch):
        now = f"{cluster.primary} with epoch {cluster.primary_epoch}" if cluster else "nobody"
        raise Rejected(
            f"{report.primary} is not the primary of epoch {report.epoch}: that is {now}",
            code="cluster.stale_primary",
            hint="another coordinator has taken over; nothing needs to be done",
        )
    return cluster
