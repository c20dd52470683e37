"""The pure half of the primary's work: from the state and who is there, what is to be done for the cluster now.

All of it is read off the state, so a primary that is cut off at any point is followed by one that goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from pvc.projections.state import ClusterState, FlushState, Node, NodeState
from pvc.projections.vm_machine import ACTIVE

NEVER_SEEN_GRACE_S = 60.0
"""For a node that this coordinator has not seen since it started: after a power cut of the whole site it may still be
booting, and would otherwise be fenced in the middle of that."""

SELF_FENCE_MARGIN_S = 2.0
"""On top of what a node promised, for clocks that run apart; a lease is over before its session, so this is plenty."""

LOOK_GAP_S = 3.0
"""Two looks that are no further apart leave no room for a session in between, whose time-out is always longer."""

FENCE_AGAIN_S = 15.0
"""Between two tries of an agent that failed: a management network may come back."""


UNREADY_S = 60.0
"""For so long a lost node may be there and say what keeps it from being ready: libvirt takes its time to come up."""

UNREADY = "it is there, but cannot say that it is ready: "

UNGUARDED = "it has no fence agent and no watchdog"

NEEDED = "its ZooKeeper server is needed for a majority until another coordinator is back"


class DeclareLost(msgspec.Struct, frozen=True, kw_only=True):
    """The node's session has ended."""

    node: str
    reason: str
    ready_at: int
    """Which of its announcements was its last before it was found to be gone."""


class Fence(msgspec.Struct, frozen=True, kw_only=True):
    """Have the agent cut the node's power."""

    node: str
    lost_at: int


class BelieveSelfFence(msgspec.Struct, frozen=True, kw_only=True):
    """The time is over within which the node promised to have ended its VMs."""

    node: str
    lost_at: int
    waited_s: float


class GiveUpFencing(msgspec.Struct, frozen=True, kw_only=True):
    """There is no way to fence the node, for now or at all."""

    node: str
    lost_at: int
    why: str


class PowerOn(msgspec.Struct, frozen=True, kw_only=True):
    """The node is fenced; it may come back."""

    node: str
    lost_at: int


class Recover(msgspec.Struct, frozen=True, kw_only=True):
    """Place what ran on the fenced node."""

    node: str


class FlushStep(msgspec.Struct, frozen=True, kw_only=True):
    """Go on with a flush, or with bringing VMs home."""

    node: str


class RaiseLevel(msgspec.Struct, frozen=True, kw_only=True):
    """All members know a higher feature level."""


Duty: TypeAlias = DeclareLost | Fence | BelieveSelfFence | GiveUpFencing | PowerOn | Recover | FlushStep | RaiseLevel


class Watch(msgspec.Struct, kw_only=True):
    """What this coordinator has seen of the nodes, in monotonic seconds; lost with the daemon."""

    since_s: float
    """Since when it has been looking."""
    there: frozenset[str] = frozenset()
    seen: set[str] = msgspec.field(default_factory=set)
    """Nodes that it has seen at any time."""
    gone_s: dict[str, float] = msgspec.field(default_factory=dict)
    """Node -> when it was first seen to be gone, and never there since."""
    ready_at: dict[str, int] = msgspec.field(default_factory=dict)
    """Node -> its last announcement when the last look was begun: what it announced later, the look does not know."""
    unready: dict[str, tuple[str, float]] = msgspec.field(default_factory=dict)
    """Node -> what keeps it from saying that it is ready, and since when something has."""
    asked_s: float = float("-inf")
    """When the last look was begun: what it found to be gone was gone then or a moment later."""

    def note(self, there: frozenset[str], asked_s: float, answered_s: float, ready_at: Mapping[str, int]) -> None:
        """Who was there at some time between the two; `ready_at` tells of the nodes as they were before."""
        if answered_s - self.asked_s > LOOK_GAP_S:
            # Whoever is gone may have been back in between, and with a lease.
            self.gone_s.clear()
        self.there, self.asked_s, self.ready_at = there, asked_s, dict(ready_at)
        self.seen |= there
        for node in ready_at:
            if node in there:
                self.gone_s.pop(node, None)
            else:
                self.gone_s.setdefault(node, answered_s)

    def note_unready(self, unready: Mapping[str, str], now_s: float) -> None:
        """What keeps nodes that are there from saying that they are ready, in their own words."""
        before = self.unready
        self.unready = {node: (why, before.get(node, ("", now_s))[1]) for node, why in unready.items() if why}

    def why_unready(self, node: str, now_s: float) -> str:
        """What has kept the node from being ready for so long that it needs help; else empty."""
        why, since_s = self.unready.get(node, ("", now_s))
        return why if now_s - since_s >= UNREADY_S else ""

    def gone_for_s(self, node: str) -> float:
        """For so long it was certainly not there, up to the last look."""
        return max(0.0, self.asked_s - self.gone_s.get(node, self.asked_s))


class Tried(msgspec.Struct, kw_only=True):
    """What this primary has begun and need not begin again; each loss is one of its own."""

    fencing: set[tuple[str, int]] = msgspec.field(default_factory=set)
    """Under way now."""
    failed_s: dict[tuple[str, int], float] = msgspec.field(default_factory=dict)
    powered_on: set[tuple[str, int]] = msgspec.field(default_factory=set)
    power_failed_s: dict[tuple[str, int], float] = msgspec.field(default_factory=dict)


def plan_cluster(state: ClusterState, watch: Watch, tried: Tried, now_s: float) -> list[Duty]:
    """All that is due now, in the order in which it is to be done."""
    cluster = state.cluster
    if cluster is None:
        return []
    duties: list[Duty] = []
    for node in state.nodes.values():
        if not cluster.maintenance:
            duties.extend(_guard(state, node, watch, tried, now_s, duties))
        if node.state is NodeState.READY and node.flush in (FlushState.FLUSHING, FlushState.RETURNING):
            duties.append(FlushStep(node=node.name))
    heard_of = [node.level for node in state.nodes.values() if node.state is not NodeState.JOINING]
    if heard_of and min(heard_of) > cluster.level:
        duties.append(RaiseLevel())
    return sorted(duties, key=lambda duty: _URGENCY.index(type(duty)))


def _guard(state: ClusterState, node: Node, watch: Watch, tried: Tried, now_s: float, before: list[Duty]) -> list[Duty]:
    """What the loss of a node asks for, step by step."""
    if node.state is NodeState.READY:
        reason = _why_lost(node, watch, now_s)
        return [DeclareLost(node=node.name, reason=reason, ready_at=node.ready_at)] if reason else []
    loss = (node.name, node.lost_at)
    if node.state is NodeState.LOST:
        needed = node.coordinator and _is_needed(state, node, watch, tried, before)
        return _fence(node, loss, watch, tried, now_s, needed=needed)
    if node.state is NodeState.FENCED:
        duties: list[Duty] = []
        if any(state.vms[vm].state in ACTIVE for vm in state.placed.ids_on(node.name)):
            duties.append(Recover(node=node.name))
        failed_s = tried.power_failed_s.get(loss)
        due = loss not in tried.powered_on and (failed_s is None or now_s - failed_s >= FENCE_AGAIN_S)
        if node.fence is not None and due and node.name not in watch.there:
            duties.append(PowerOn(node=node.name, lost_at=node.lost_at))
        return duties
    return []


def _why_lost(node: Node, watch: Watch, now_s: float) -> str:
    if node.name in watch.there or watch.ready_at.get(node.name) != node.ready_at:
        return ""
    if node.name in watch.seen:
        return "its session has ended"
    if now_s - watch.since_s >= NEVER_SEEN_GRACE_S:
        return f"it has no session, and had none for {NEVER_SEEN_GRACE_S:.0f} s"
    return ""


def _is_needed(state: ClusterState, node: Node, watch: Watch, tried: Tried, before: list[Duty]) -> bool:
    """Whether the coordinators would have no majority of servers without this one.

    As there is a majority now, its server must then be running, whatever its daemon does. Cutting its power would stop
    the whole cluster, and nobody could even record that it was fenced, or switch it on again. Of those that are not
    there only one may be counted on whose daemon alone may be down: not one that was never installed, nor one that
    could not be fenced, for that may be dead, with its device, for days.
    """
    coordinators = [other for other in state.nodes.values() if other.coordinator]
    begun = {duty.node for duty in before if isinstance(duty, Fence)}
    left = [
        other
        for other in coordinators
        if other.name != node.name
        and (other.name in watch.there or (other.state in (NodeState.READY, NodeState.LOST) and not other.unfenced))
        and other.name not in begun
        and (other.name, other.lost_at) not in tried.fencing
    ]
    return len(left) <= len(coordinators) // 2


def _fence(node: Node, loss: tuple[str, int], watch: Watch, tried: Tried, now_s: float, *, needed: bool) -> list[Duty]:
    there = node.name in watch.there
    unready = watch.why_unready(node.name, now_s) if there else ""
    if there and not unready:
        return []  # it is back, and will say so
    if node.self_fence_s and not there:
        waited_s = watch.gone_for_s(node.name)
        if waited_s >= node.self_fence_s + SELF_FENCE_MARGIN_S:
            return [BelieveSelfFence(node=node.name, lost_at=node.lost_at, waited_s=waited_s)]
    if node.fence is not None and not needed:
        failed_s = tried.failed_s.get(loss)
        due = loss not in tried.fencing and (failed_s is None or now_s - failed_s >= FENCE_AGAIN_S)
        return [Fence(node=node.name, lost_at=node.lost_at)] if due else []
    if loss in tried.fencing:
        return []
    why = ""
    if there:
        # Its reasons may change with each of its tries; the first one is enough.
        why = "" if node.unfenced.startswith(UNREADY) else UNREADY + unready
    elif node.fence is not None:
        why = NEEDED if node.unfenced != NEEDED else ""
    elif not node.self_fence_s and (not node.unfenced or node.unfenced.startswith(UNREADY)):
        why = UNGUARDED
    return [GiveUpFencing(node=node.name, lost_at=node.lost_at, why=why)] if why else []


_URGENCY: tuple[type[Duty], ...] = (
    DeclareLost,
    Fence,
    BelieveSelfFence,
    Recover,
    GiveUpFencing,
    PowerOn,
    FlushStep,
    RaiseLevel,
)
