"""The command that evens out what the nodes carry: a few migrations, each of which is an improvement."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from pvc.commands.access_table import Action
from pvc.commands.base import CommandSpec, Context, Decision
from pvc.commands.placement import Choice, crowd, obstacle_on, wish_of
from pvc.commands.vm_move import migration_of
from pvc.events import vm_moves as m
from pvc.events.types import MigrationMethod
from pvc.projections.evolve_moves import way_of
from pvc.projections.operations import Course
from pvc.projections.state import ClusterState, Node, Vm, held_mib
from pvc.projections.vm_machine import VmState

MIN_GAIN = 0.05
"""Of a node's memory: what the gap between two nodes has to shrink by, or the move is not worth its load."""


Shy = dict[str, list[str]]
"""Tag -> the VMs that keep away from those that have it."""


class RebalanceCluster(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Migrate VMs from the fullest nodes to the emptiest, until that gains nothing more.

    Full means memory held by running VMs. Only VMs that can migrate live are moved; node limits are kept, and no VM
    gets closer to those that it is to keep away from. With `--dry-run` it shows what it would do.
    """

    moves: Annotated[int, Meta(ge=1, le=100, description="Migrations at most.")] = 10


def rebalance(state: ClusterState, command: RebalanceCluster, context: Context) -> Decision:
    """Greedy: one move at a time, each from the fullest node that has a VM to give."""
    # As it will be when all is done, and as it is on the way, when both nodes still hold the VM.
    ahead, meanwhile = state.fork(), state.fork()
    shy = _shy(state)
    events: list[m.VmMigrationRequested] = []
    for number in range(command.moves):
        found = _best_move(ahead, meanwhile, shy)
        if found is None:
            break
        vm, target, why = found
        request = migration_of(
            vm,
            Choice(node=target.name, why=(why,)),
            f"{context.command_id}.{number}",
            away="" if target.name == vm.home else "migrate",
            reason="rebalance",
        )
        events.append(request)
        # The next move is chosen after this one, and of another VM.
        ahead.put_vm(replace(vm, node=target.name, state=VmState.MIGRATING))
        meanwhile.put_vm(replace(vm, state=VmState.MIGRATING, migration=way_of(request)))
    notes = () if events else ("the nodes carry about the same already",)
    return Decision(events=tuple(events), notes=notes)


def _best_move(state: ClusterState, meanwhile: ClusterState, shy: Shy) -> tuple[Vm, Node, str] | None:
    nodes = sorted(
        (node for node in state.nodes.values() if node.ready and node.memory_mib),
        key=lambda node: (-_fill(state, node), node.name),
    )
    for source in nodes:
        for target in reversed(nodes):
            gap = _fill(state, source) - _fill(state, target)
            if gap < MIN_GAIN:
                break
            vm = _to_give(state, meanwhile, shy, source, target, gap)
            if vm is not None:
                return vm, target, f"{source.name} is {_fill(state, source):.0%} full, {target.name} is not"
    return None


def _to_give(
    state: ClusterState, meanwhile: ClusterState, shy: Shy, source: Node, target: Node, gap: float
) -> Vm | None:
    """The VM whose move leaves the smallest gap."""
    best: tuple[float, str, Vm] | None = None
    for vm_id in state.placed.ids_on(source.name):
        vm = state.vms[vm_id]
        if vm.state is not VmState.RUNNING or vm.migration_method is not MigrationMethod.LIVE:
            continue
        shift = held_mib(vm) / source.memory_mib + held_mib(vm) / target.memory_mib
        left = abs(gap - shift)
        if gap - left < MIN_GAIN or obstacle_on(meanwhile, wish_of(vm), target):
            continue
        if best is not None and (left, vm.name) >= best[:2]:
            continue
        crowds = _crowds(state, vm, shy)
        if crowds.get(target.name, 0) <= crowds.get(source.name, 0):
            best = (left, vm.name, vm)
    return best[2] if best else None


def _shy(state: ClusterState) -> Shy:
    found: Shy = {}
    for vm in state.vms.values():
        for tag in vm.anti_affinity:
            found.setdefault(tag, []).append(vm.id)
    return found


def _crowds(state: ClusterState, vm: Vm, shy: Shy) -> dict[str, int]:
    """Node -> how many anti-affinities are broken by this VM's being there: its own, and those of others towards it."""
    crowds = crowd(state, vm.id, vm.anti_affinity)
    for other_id in dict.fromkeys(other_id for tag in vm.tags for other_id in shy.get(tag, ())):
        if other_id != vm.id:
            other = state.vms[other_id]
            node = other.migration.target if other.migration is not None else other.node
            crowds[node] = crowds.get(node, 0) + 1
    return crowds


def _fill(state: ClusterState, node: Node) -> float:
    return state.load_of(node.name).memory_mib / node.memory_mib


SPECS = (
    CommandSpec(
        name="cluster.rebalance",
        struct=RebalanceCluster,
        decide=rebalance,
        action=Action.CLUSTER_MANAGE,
        path="/cluster/rebalance",
        cli=("cluster", "rebalance"),
        example={"moves": 10},
        course=Course.MOVES,
    ),
)
