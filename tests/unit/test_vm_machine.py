"""The table of states, as a whole."""

from __future__ import annotations

from pvc.events.registry import BY_TYPE
from pvc.projections.vm_machine import ACTIVE, AT_REST, TRANSITIONS, VmState, next_state


def reachable(start: VmState) -> set[VmState]:
    found = {start}
    while True:
        more = {target for (state, _), target in TRANSITIONS.items() if state in found} - found
        if not more:
            return found
        found |= more


def test_every_state_is_reached_from_a_new_vm_and_leads_back_to_rest() -> None:
    assert reachable(VmState.STOPPED) == set(VmState)
    assert all(VmState.STOPPED in reachable(state) for state in VmState)


def test_a_state_is_either_at_rest_or_active() -> None:
    assert set(VmState) == AT_REST | ACTIVE
    assert not AT_REST & ACTIVE


def test_the_table_speaks_of_events_that_there_are() -> None:
    assert {event for _, event in TRANSITIONS} <= set(BY_TYPE)


def test_a_disabled_vm_can_only_be_enabled_or_moved() -> None:
    assert {event for state, event in TRANSITIONS if state is VmState.DISABLED} - {"vm.moved"} == {"vm.enabled"}


def test_everything_that_runs_or_is_about_to_can_be_stopped_and_can_end() -> None:
    for state in ACTIVE - {VmState.STOPPING}:
        assert next_state(state, "vm.stop_requested") is VmState.STOPPING
    for state in ACTIVE - {VmState.STARTING}:
        assert next_state(state, "vm.stopped") in (VmState.STOPPED, VmState.STARTING)


def test_a_pair_that_the_table_does_not_have_leads_nowhere() -> None:
    assert next_state(VmState.STOPPED, "vm.started") is None
    assert next_state(VmState.RUNNING, "vm.renamed") is None
