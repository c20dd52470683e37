"""Bugs in how a cluster guards against two nodes running one VM, for the simulator to notice."""

from __future__ import annotations

import contextlib

from msgspec.structs import replace

from pvc.commands import facts, facts_cluster
from pvc.commands.base import Context, Decision
from pvc.commands.vm_ref import NOTHING
from pvc.drivers.fence_simulated import SimulatedFence
from pvc.drivers.hypervisor import Domain, DomainState
from pvc.errors import DriverError
from pvc.events import vm_moves as m
from pvc.events.fence import FenceSettings
from pvc.events.registry import Event
from pvc.handlers import cluster_plan, vm_plan
from pvc.node.standing import Standing
from pvc.presence.lease import Lease
from pvc.presence.memory import MemoryPresence
from pvc.presence.zookeeper import ZookeeperPresence
from pvc.projections.state import Cluster, ClusterState, Node, NodeState, Vm
from pvc.sim.cluster_nemesis import Faults
from pvc.sim.mutation import Kind, Mutant

real_plan = vm_plan._plan
real_recover = facts_cluster._recover
real_guard = cluster_plan._guard
real_connected = Lease.connected
recovery_name, _ = facts.REPORTS[facts_cluster.ReportRecovery]


def resume_what_has_come(
    vm: Vm | None, domain: Domain | None, node: str, patience: vm_plan.Patience
) -> vm_plan.Step | None:
    """The target lets the guest run when it is there, not when the log says so."""
    coming = vm is not None and vm.migration is not None and vm.migration.target == node
    if coming and domain is not None and domain.state is DomainState.PAUSED:
        return vm_plan.Start(epoch=domain.epoch)
    return real_plan(vm, domain, node, patience)


def leave_what_is_not_ours(
    vm: Vm | None, domain: Domain | None, node: str, patience: vm_plan.Patience
) -> vm_plan.Step | None:
    """Domains that belong elsewhere are left alone."""
    if vm is not None and vm.node != node and (vm.migration is None or vm.migration.target != node):
        return None
    return real_plan(vm, domain, node, patience)


def same_epoch(ahead: ClusterState, vm: Vm, context: Context) -> tuple[Event, ...]:
    """What is recovered keeps its run's number."""
    return tuple(
        replace(event, epoch=vm.epoch) if isinstance(event, m.VmRecovered) else event
        for event in real_recover(ahead, vm, context)
    )


async def believe_the_order(self: SimulatedFence, node: str, settings: FenceSettings) -> str:
    """That the device was told is enough."""
    with contextlib.suppress(DriverError):
        await self._switch(node, settings, "off")
    return "told to switch off"


def whoever_says_so(state: ClusterState, report: object) -> Cluster:
    """Acts of an earlier primary count."""
    assert state.cluster is not None
    return state.cluster


def believe_at_once(self: object, node: str) -> float:
    """A promise is believed without waiting."""
    return 1e9


def any_run(vm: Vm | None, node: str, epoch: int) -> bool:
    """The last question before a guest runs is not asked."""
    return True


def no_lease_needed(self: Standing) -> bool:
    """Starts need no lease."""
    return True


def endless(self: MemoryPresence) -> float:
    """Leases never end."""
    return 10.0


def recover_what_is_lost(state: ClusterState, report: facts_cluster.ReportRecovery, context: Context) -> Decision:
    """Recovery does not wait for the fence."""
    facts_cluster._require_primary(state, report)
    node = state.nodes.get(report.node)
    if node is None or node.state not in (NodeState.LOST, NodeState.FENCED):
        return NOTHING
    return Decision(events=facts_cluster.recoveries(state, node, context))


def recover_first(
    state: ClusterState,
    node: Node,
    watch: cluster_plan.Watch,
    tried: cluster_plan.Tried,
    now_s: float,
    before: list[cluster_plan.Duty],
) -> list[cluster_plan.Duty]:
    """A lost node's VMs are placed at once."""
    duties = real_guard(state, node, watch, tried, now_s, before)
    if node.state is NodeState.LOST:
        duties.append(cluster_plan.Recover(node=node.name))
    return duties


def own_clock(self: Lease) -> float:
    """Once there was an answer, the lease is kept by the client's own clock, from now on for ever."""
    return self._timeout_s if self._heard is not None else 0.0


def believe_any_answer(self: Lease, sent: float) -> None:
    """An answered write is taken for a sign of life that the leader had when it was answered."""
    self._heard = self._clock.monotonic()


def survive_expiry(self: ZookeeperPresence, why: str) -> None:
    """A place outlives the session that it was of."""


def lease_survives_expiry(self: Lease, began: float, timeout_s: float, *, same_session: bool) -> None:
    """So does the lease."""
    real_connected(self, began, timeout_s, same_session=True)


SHARP = Faults(
    kill=0.0,
    freeze=0.04,
    befalls=(("isolate", 4), ("bmc", 4), ("freeze_primary", 4), ("freeze_daemon", 2), ("mute", 2), ("slow", 1)),
)
"""What tries the guards against lost nodes and late primaries, and nothing else."""

LATE = Faults(kill=0.0, freeze=0.0, log=0.0, befalls=(("lag", 6), ("isolate", 4), ("freeze_machine", 3)))
"""Servers that hear of everything late, and are then cut off: what a lease must allow for."""

CLUSTER_MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="the target resumes before the log says so",
        kind=Kind.CLUSTER,
        within=20,
        changes=((vm_plan, "_plan", resume_what_has_come), (vm_plan, "may_run", any_run)),
    ),
    Mutant(
        name="what is not a node's own is left alone",
        kind=Kind.CLUSTER,
        within=20,
        changes=((vm_plan, "_plan", leave_what_is_not_ours),),
    ),
    Mutant(
        name="starts need no lease",
        kind=Kind.CLUSTER,
        within=150,
        known=25,
        faults=SHARP,
        changes=((Standing, "may_start", no_lease_needed),),
    ),
    Mutant(
        name="leases never end",
        kind=Kind.CLUSTER,
        within=150,
        known=14,
        faults=SHARP,
        changes=((MemoryPresence, "lease_left_s", endless),),
    ),
    Mutant(
        name="fencing is not verified",
        kind=Kind.CLUSTER,
        within=60,
        known=2,
        faults=SHARP,
        changes=((SimulatedFence, "off", believe_the_order),),
    ),
    Mutant(
        name="a promise is believed at once",
        kind=Kind.CLUSTER,
        within=60,
        known=6,
        faults=SHARP,
        changes=((cluster_plan.Watch, "gone_for_s", believe_at_once),),
    ),
    Mutant(
        name="what is recovered keeps its epoch",
        kind=Kind.CLUSTER,
        within=20,
        known=1,
        changes=((facts_cluster, "_recover", same_epoch),),
    ),
    Mutant(
        name="a stale primary is obeyed",
        kind=Kind.CLUSTER,
        within=60,
        known=6,
        faults=SHARP,
        changes=((facts_cluster, "_require_primary", whoever_says_so),),
    ),
    Mutant(
        name="recovery does not wait for the fence",
        kind=Kind.CLUSTER,
        within=20,
        changes=(
            (facts.REPORTS, facts_cluster.ReportRecovery, (recovery_name, recover_what_is_lost)),
            (cluster_plan, "_guard", recover_first),
        ),
    ),
    Mutant(
        name="a lease is kept by the client's own clock",
        kind=Kind.ZOOKEEPER,
        within=10,
        changes=((Lease, "left_s", own_clock),),
    ),
    Mutant(
        name="a lease counts from when a write was answered",
        kind=Kind.ZOOKEEPER,
        within=120,
        known=35,
        faults=LATE,
        changes=((Lease, "answered", believe_any_answer),),
    ),
    Mutant(
        name="a place outlives its session",
        kind=Kind.ZOOKEEPER,
        within=20,
        changes=((ZookeeperPresence, "_lose_place", survive_expiry), (Lease, "connected", lease_survives_expiry)),
    ),
)
