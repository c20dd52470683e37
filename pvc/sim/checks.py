"""What must hold after every simulated run, read off the log and the hypervisor alone."""

from __future__ import annotations

from collections import Counter

from pvc.drivers.hypervisor import Domain, DomainState
from pvc.events import vm as e
from pvc.events.record import unseal
from pvc.events.registry import decode_event
from pvc.projections.fold import fold
from pvc.projections.state import ClusterState
from pvc.projections.vm_machine import AT_REST, VmState

Run = tuple[str, int]
"""A VM's id and the epoch of one of its runs."""


def refold(records: list[bytes]) -> ClusterState:
    """The state by replay from nothing; asserts that the log is dense and chained on the way."""
    state = ClusterState()
    for data in records:
        fold(state, unseal(data))
    return state


def check_settled(state: ClusterState, domains: dict[str, Domain]) -> None:
    """Once everything is healed and quiet, what is wanted is so, and nothing is left over."""
    for vm in state.vms.values():
        assert vm.state in AT_REST or vm.state is VmState.RUNNING, f"{vm.name} is still {vm.state}"
        domain = domains.get(vm.id)
        if vm.state is VmState.RUNNING:
            assert domain is not None, f"{vm.name} should run, but has no domain"
            assert domain.state is not DomainState.OFF, f"{vm.name} should run, but its domain is off"
            assert domain.epoch == vm.epoch, f"{vm.name} runs epoch {domain.epoch}, not {vm.epoch}"
        else:
            assert domain is None, f"{vm.name} is at rest, but has a domain: {domain}"
    strays = domains.keys() - state.vms.keys()
    assert not strays, f"domains of no VM: {strays}"


def check_commands(records: list[bytes], acknowledged: dict[str, int], refused: set[str]) -> None:
    """Every acknowledged command stands in the log once, where it was said to; no refused one does."""
    places: dict[str, list[int]] = {}
    for data in records:
        record = unseal(data).record
        places.setdefault(record.command.id, []).append(record.position)
    for command_id, position in acknowledged.items():
        assert places.get(command_id) == [position], f"command {command_id}: {places.get(command_id)}, not {position}"
    for command_id in refused:
        assert command_id not in places, f"refused command {command_id} is in the log at {places[command_id]}"


def check_facts(records: list[bytes], started: Counter[Run]) -> None:
    """No run was started twice, and each run's beginning and end was reported once."""
    doubled = {run: times for run, times in started.items() if times > 1}
    assert not doubled, f"runs started more than once: {doubled}"
    beginnings: Counter[Run] = Counter()
    ends: Counter[Run] = Counter()
    for data in records:
        for raw in unseal(data).record.events:
            event = decode_event(raw)
            if isinstance(event, e.VmStarted):
                beginnings[event.vm, event.epoch] += 1
            elif isinstance(event, e.VmStopped | e.VmCrashed):
                ends[event.vm, event.epoch] += 1
    for what, counts in (("beginning", beginnings), ("end", ends)):
        doubled = {run: times for run, times in counts.items() if times > 1}
        assert not doubled, f"a run's {what} was reported more than once: {doubled}"
    imagined = beginnings.keys() - started.keys()
    assert not imagined, f"runs reported that never began: {imagined}"
