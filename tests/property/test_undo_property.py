"""For any history: an undo that is granted brings the VM's settings back, and may itself be undone."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from pvc.commands.undo import inverse_of
from pvc.errors import Rejected
from pvc.projections.diff import diff_states
from pvc.projections.state import ClusterState
from tests.property.core_machine import Core, walk
from tests.support.core import replayed

EXACT = {"vm.modify", "vm.rename", "vm.add_tag", "vm.remove_tag", "vm.set_autostart", "vm.disable", "vm.enable"}
BOOKKEEPING = {"position", "cause", "changed_us"}
MAX_TRIED = 25


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(5, 60))
def test_undo_of_the_last_command_leads_back_and_undo_of_that_leads_forth(seed: int, steps: int) -> None:
    core = Core()
    core.begin()
    rng = random.Random(seed)
    tried = 0
    for _ in walk(core, rng, steps):
        cluster = core.cluster
        last = cluster.entries[-1].record
        if last.command.name not in EXACT or tried >= MAX_TRIED:
            continue
        tried += 1
        before, done = replayed(cluster.entries[:-1]), cluster.state.fork()
        try:
            inverse = inverse_of(before, last, cluster.state)
            cluster.decide_and_record(inverse.command)
        except Rejected as refused:
            assert refused.code and refused.message and refused.hint
            assert cluster.state.head == done.head
            continue
        if any(event.type == "vm.restart_requested" for event in last.events):
            continue  # the definition is back, the run is another
        assert differences(before, cluster.state) == []
        forth = inverse_of(done, cluster.entries[-1].record, cluster.state)
        cluster.decide_and_record(forth.command)
        assert differences(done, cluster.state) == []


def differences(old: ClusterState, new: ClusterState) -> list[str]:
    return [
        f"{change.name}.{field.field}"
        for change in diff_states(old, new)
        for field in change.fields
        if field.field not in BOOKKEEPING
    ]
