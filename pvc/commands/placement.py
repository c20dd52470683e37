"""Where a VM goes: which nodes could take it, which of them its selector and affinities prefer, and why. Pure.

Room, node limits and readiness decide; affinities only prefer, because a VM that must keep away from all others of its
kind still has to run somewhere when but one node is left. Looks at each node once and at the VMs that share a tag.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import msgspec

from pvc.commands.base import Utilisation
from pvc.errors import Rejected
from pvc.events.types import Selector
from pvc.projections.state import ClusterState, FlushState, Node, NodeState, Vm, held_mib

MAX_REASONS = 8
"""Nodes that a refusal says the reason of: one record tells of the refusals of many VMs."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be placed."""

    vm: str = ""
    """Its id; empty for one that is not defined yet."""
    name: str
    memory_mib: int
    vcpus: int
    selector: Selector
    limits: tuple[str, ...] = ()
    affinity: tuple[str, ...] = ()
    anti_affinity: tuple[str, ...] = ()


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The node, and what the choice rested on."""

    node: str
    why: tuple[str, ...]


def wish_of(vm: Vm) -> Wish:
    """The wish to place a VM that there is, with what its run takes, or the next one would if that is more."""
    running = vm.running_spec or vm.spec
    return Wish(
        vm=vm.id,
        name=vm.name,
        memory_mib=max(held_mib(vm), vm.spec.memory_mib),
        vcpus=max(running.vcpus, vm.spec.vcpus),
        selector=vm.selector,
        limits=vm.node_limits,
        affinity=vm.affinity,
        anti_affinity=vm.anti_affinity,
    )


def place(
    state: ClusterState,
    wish: Wish,
    *,
    exclude: Collection[str] = (),
    usage: Mapping[str, Utilisation] | None = None,
    needs_room: bool = True,
) -> Choice:
    """The best node. Raises Rejected (`node.none_suitable`) that says for each node why it is none."""
    fit: list[Node] = []
    unfit: list[str] = []
    for node in state.nodes.values():
        if node.name in exclude:
            continue
        obstacle = obstacle_on(state, wish, node, needs_room=needs_room)
        if obstacle:
            unfit.append(f"{node.name} {obstacle}")
        else:
            fit.append(node)
    if not fit:
        told = sorted(unfit)
        if len(told) > MAX_REASONS:
            told[MAX_REASONS:] = [f"and {len(told) - MAX_REASONS} more"]
        reasons = "; ".join(told) or ("there is no other node" if state.nodes else "the cluster has no node yet")
        raise Rejected(
            f"no node can take {wish.name}: {reasons}",
            code="node.none_suitable",
            hint="make room, lift its node limits, or bring a node back: `pvc node list`",
        )
    score, explain = _SCORES[wish.selector]
    keep_away, keep_close = crowd(state, wish.vm, wish.anti_affinity), crowd(state, wish.vm, wish.affinity)

    def rank(node: Node) -> tuple[float, float, float, int, str]:
        rating = -score(state, node, (usage or {}).get(node.name))
        # Of nodes that are as good, the one with least defined on it: new VMs take no memory before they are started.
        provisioned_mib = 0 if wish.selector is Selector.NONE else state.load_of(node.name).provisioned_mib
        return (keep_away.get(node.name, 0), -keep_close.get(node.name, 0), rating, provisioned_mib, node.name)

    ranked = sorted(fit, key=rank)
    best = ranked[0]
    why = [explain(state, best, (usage or {}).get(best.name)), *_affinity_notes(wish, best, keep_away, keep_close)]
    if len(ranked) == 1:
        why.append("the only node that can")
    return Choice(node=best.name, why=tuple(why))


def obstacle_on(state: ClusterState, wish: Wish, node: Node, *, needs_room: bool = True) -> str:
    """Why the node cannot take the VM, to follow the node's name in a sentence; empty when it can."""
    if not node.ready:
        return _UNREADY[node.state] if node.state is not NodeState.READY else f"is {_FLUSH[node.flush]}"
    if wish.limits and node.name not in wish.limits:
        return "is outside its node limits"
    if wish.vcpus > node.vcpus:
        return f"has {node.vcpus} CPUs, {wish.vcpus} are needed"
    free_mib = node.memory_mib - state.load_of(node.name).memory_mib if needs_room else node.memory_mib
    if wish.memory_mib > free_mib:
        return f"has {free_mib} MiB free, {wish.memory_mib} are needed"
    return ""


def affinity_notes(state: ClusterState, wish: Wish, node: Node) -> tuple[str, ...]:
    """What a given node means for the VM's affinities."""
    keep_away, keep_close = crowd(state, wish.vm, wish.anti_affinity), crowd(state, wish.vm, wish.affinity)
    return _affinity_notes(wish, node, keep_away, keep_close)


def crowd(state: ClusterState, own: str, tags: tuple[str, ...]) -> dict[str, int]:
    """Node -> how many VMs but `own` with any of the tags are on it, or on their way to it."""
    found: dict[str, int] = {}
    for vm_id in dict.fromkeys(vm_id for tag in tags for vm_id in state.placed.tagged.get(tag, ())):
        if vm_id != own:
            vm = state.vms[vm_id]
            node = vm.migration.target if vm.migration is not None else vm.node
            found[node] = found.get(node, 0) + 1
    return found


def _affinity_notes(
    wish: Wish, node: Node, keep_away: Mapping[str, int], keep_close: Mapping[str, int]
) -> tuple[str, ...]:
    notes = []
    if keep_away:
        tags, here = ", ".join(wish.anti_affinity), keep_away.get(node.name, 0)
        notes.append(f"anti-affinity to {tags}: {here} there" if here else f"anti-affinity to {tags}: kept")
    if keep_close:
        notes.append(f"affinity to {', '.join(wish.affinity)}: {keep_close.get(node.name, 0)} there")
    return tuple(notes)


_UNREADY = {
    NodeState.JOINING: "has not been heard of",
    NodeState.LOST: "is lost",
    NodeState.FENCED: "is fenced",
}
_FLUSH = {FlushState.FLUSHING: "being flushed", FlushState.FLUSHED: "flushed"}

Score = Callable[[ClusterState, Node, Utilisation | None], float]
Explain = Callable[[ClusterState, Node, Utilisation | None], str]


def _free_mib(state: ClusterState, node: Node, usage: Utilisation | None) -> float:
    """Never more than is unallocated: VMs that have just been placed do not use their memory yet."""
    unallocated = node.memory_mib - state.load_of(node.name).memory_mib
    return min(unallocated, usage.memory_free_mib) if usage else unallocated


def _unprovisioned_mib(state: ClusterState, node: Node, usage: Utilisation | None) -> float:
    return node.memory_mib - state.load_of(node.name).provisioned_mib


def _free_vcpus(state: ClusterState, node: Node, usage: Utilisation | None) -> float:
    return node.vcpus - state.load_of(node.name).vcpus


def _fewest_vms(state: ClusterState, node: Node, usage: Utilisation | None) -> float:
    coming = sum(state.vms[vm].node != node.name for vm in state.placed.incoming.get(node.name, ()))
    return -state.load_of(node.name).running - coming


def _least_load(state: ClusterState, node: Node, usage: Utilisation | None) -> float:
    """What it says of itself, or before it has said anything the part of its CPUs that VMs have."""
    return -usage.load if usage else -state.load_of(node.name).vcpus / max(node.vcpus, 1)


_SCORES: dict[Selector, tuple[Score, Explain]] = {
    Selector.MEM: (_free_mib, lambda s, n, u: f"selector mem: {_free_mib(s, n, u):.0f} MiB free"),
    Selector.MEMPROV: (
        _unprovisioned_mib,
        lambda s, n, u: f"selector memprov: {_unprovisioned_mib(s, n, u):.0f} MiB not provisioned",
    ),
    Selector.VCPUS: (_free_vcpus, lambda s, n, u: f"selector vcpus: {_free_vcpus(s, n, u):.0f} CPUs not given to VMs"),
    Selector.VMS: (_fewest_vms, lambda s, n, u: f"selector vms: {-_fewest_vms(s, n, u):.0f} run there"),
    Selector.LOAD: (_least_load, lambda s, n, u: f"selector load: {-_least_load(s, n, u):.2f}"),
    Selector.NONE: (lambda s, n, u: 0.0, lambda s, n, u: "selector none: the first by name"),
}
