"""What must hold after a run, read off the log, the clients' memories and what was seen of the guests. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pvc.errors import PvcError
from pvc.events.cluster import CommandRejected
from pvc.events.node import NodeFenced
from pvc.events.record import unseal
from pvc.events.vm_moves import VmRecovered
from pvc.lab.chaos.gateway import Asked
from pvc.lab.chaos.logbook import Told
from pvc.lab.chaos.windows import Run
from pvc.projections.fold import fold
from pvc.projections.state import ClusterState, NodeState
from pvc.projections.vm_machine import AT_REST, VmState

_SLACK_S = 1.0
"""What a record's time and what we saw may differ by."""
_CLOCKS_APART_S = 60.0
"""A record whose time differs by more from when it came here was written by a node with a wrong clock."""


def check_log(stored: Sequence[bytes], told: Sequence[Told]) -> list[str]:
    """The log reads the same as when it was followed, and folds from nothing: dense and chained."""
    wrong = []
    if [one.entry.data for one in told] != list(stored[: len(told)]):
        wrong.append("the log is not what it was while it was followed")
    state = ClusterState()
    try:
        for data in stored:
            fold(state, unseal(data))
    except PvcError as error:
        wrong.append(f"the log cannot be folded from nothing: {error}")
    return wrong


def check_commands(asked: Iterable[Asked], told: Sequence[Told]) -> tuple[list[str], list[str]]:
    """Every acknowledged command stands in the log once, where it was said to; one that was refused does not.

    Gives what is wrong, and what is worth a look.
    """
    wrong, odd = [], []
    places: dict[str, list[int]] = {}
    for one in told:
        if not all(isinstance(event, CommandRejected) for event in one.events):
            places.setdefault(one.entry.record.command.id, []).append(one.entry.position)
    for command in asked:
        found = places.get(command.key, [])
        if command.verdict == "acknowledged":
            if found != [command.position]:
                wrong.append(f"{command.sentence}: it is in the log at {found}")
        elif command.verdict == "unknown":
            if len(found) > 1:
                wrong.append(f"{command.sentence}: it is in the log at {found}")
        elif command.verdict == "unchanged" and len(command.by) > 1 and found:
            odd.append(f"{command.sentence}: an earlier try is in the log at {found}")
        elif found:
            wrong.append(f"{command.sentence}: it is in the log at {found}")
    return wrong, odd


def check_hashes(own: Mapping[int, str], said: Mapping[tuple[str, int], str]) -> list[str]:
    """Every node's fold was at every position that it told of what ours is."""
    return [
        f"{node} at position {position} has state {state_hash}, it should be {own[position]}"
        for (node, position), state_hash in sorted(said.items())
        if position in own and own[position] != state_hash
    ]


def check_fencing(told: Sequence[Told], runs: Sequence[Run]) -> list[str]:
    """Nothing was recovered but from fenced nodes, with evidence; and where one was said to be fenced nothing ran."""
    wrong = []
    state = ClusterState()
    for one in told:
        before = {name: node.state for name, node in state.nodes.items()}
        fold(state, one.entry)
        for event in one.events:
            if isinstance(event, NodeFenced):
                before[event.node] = NodeState.FENCED
                if not event.evidence:
                    wrong.append(f"{one.sentence}: without evidence")
                wrong += _alive_though_fenced(one, event.node, runs)
            if isinstance(event, VmRecovered) and before[event.source] is not NodeState.FENCED:
                wrong.append(f"{one.sentence}: {event.source} was {before[event.source]}")
    return wrong


def _alive_though_fenced(one: Told, node: str, runs: Sequence[Run]) -> list[str]:
    at_s = one.entry.record.time_us / 1e6
    if abs(at_s - one.arrived_s) > _CLOCKS_APART_S:
        at_s = one.arrived_s
    return [
        f"{one.sentence}: VM {run.vm} had its process on {run.place} all the same"
        for run in runs
        if run.host == node and run.born_s < at_s - _SLACK_S and (run.gone_s is None or run.gone_s > at_s + _SLACK_S)
    ]


def check_settled(state: ClusterState, present: Sequence[Run], beating: Sequence[Run]) -> list[str]:
    """What is not yet as the log wants it: nodes, VMs that should run or should not, and where."""
    wrong = [
        f"node {node.name} is {node.state.value}" for node in state.nodes.values() if node.state is not NodeState.READY
    ]
    alive = {(run.vm, run.host, run.pid) for run in beating}
    for vm in state.vms.values():
        places = [run for run in present if run.vm == vm.id]
        here = ", ".join(run.place for run in places) or "nowhere"
        if vm.state is VmState.RUNNING:
            if [run.host for run in places] != [vm.node]:
                wrong.append(f"VM {vm.name} should run on {vm.node}, but its process is {here}")
            elif (vm.id, vm.node, places[0].pid) not in alive:
                wrong.append(f"VM {vm.name} has its process on {here}, but makes no progress")
        elif vm.state not in AT_REST:
            wrong.append(f"VM {vm.name} is still {vm.state.value} on {vm.node}; its process is {here}")
        elif places:
            wrong.append(f"VM {vm.name} is {vm.state.value}, but has a process on {here}")
    wrong += [f"{run.place} runs {run.vm}, which is no VM" for run in present if run.vm not in state.vms]
    return wrong
