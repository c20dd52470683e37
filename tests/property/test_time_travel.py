"""Time travel, for any history: the state at a position, by replay and from any stored state, is the state then."""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pvc.log.history import HistoryIndex
from pvc.projections.diff import FieldChange, ObjectChange, diff_states
from pvc.projections.snapshot import restore, snapshot_to_read
from pvc.runtime.past import PastStates
from pvc.runtime.past_files import PastFiles
from tests.property.core_machine import Core, walk
from tests.support.core import replayed

SPACING = 8


class Past:
    """A random life of a cluster: its records, and at each position the hash and what would be stored of the state."""

    def __init__(self, seed: int, steps: int) -> None:
        core = Core()
        core.begin()
        self.hashes: dict[int, str] = {}
        self.stored: dict[int, bytes] = {}
        for _ in walk(core, random.Random(seed), steps):
            state = core.cluster.state
            self.hashes[state.position] = state.state_hash()
            self.stored[state.position] = snapshot_to_read(state)
        self.entries = core.cluster.entries


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 120), data=st.data())
def test_the_state_at_a_position_is_the_state_then(seed: int, steps: int, data: st.DataObject) -> None:
    past = Past(seed, steps)
    positions = data.draw(st.lists(st.sampled_from(sorted(past.hashes)), min_size=1, max_size=12))
    asyncio.run(_check(past, positions))


async def _check(past: Past, positions: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        index = await HistoryIndex.open(Path(folder) / "history.db")
        try:
            await index.index(past.entries)
            travel = PastStates(index, PastFiles(Path(folder) / "snapshots", spacing=SPACING))
            for position in positions:
                state = await travel.at(position)
                assert (state.position, state.state_hash()) == (position, past.hashes[position])
        finally:
            await index.close()


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 60), data=st.data())
def test_two_states_differ_exactly_where_their_hashes_do(seed: int, steps: int, data: st.DataObject) -> None:
    past = Past(seed, steps)
    for _ in range(10):
        old, new = (data.draw(st.sampled_from(sorted(past.stored))) for _ in range(2))
        changes = diff_states(restore(past.stored[old]), restore(past.stored[new]))
        assert bool(changes) == (past.hashes[old] != past.hashes[new])
        back = diff_states(restore(past.stored[new]), restore(past.stored[old]))
        turned = {(one.kind, one.id): [(field.field, field.old, field.new) for field in one.fields] for one in changes}
        assert turned == {
            (one.kind, one.id): [(field.field, field.new, field.old) for field in sorted_as(one, changes)]
            for one in back
        }


def sorted_as(one: ObjectChange, changes: list[ObjectChange]) -> list[FieldChange]:
    """The fields of an object in the order that another diff tells them in."""
    other = next(change for change in changes if (change.kind, change.id) == (one.kind, one.id))
    order = [field.field for field in other.fields]
    return sorted(one.fields, key=lambda field: order.index(field.field))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 80))
def test_from_any_stored_state_replay_leads_to_every_later_one(seed: int, steps: int) -> None:
    past = Past(seed, steps)
    last = max(past.hashes)
    for position, stored in past.stored.items():
        state = restore(stored)
        assert state.state_hash() == past.hashes[position]
        assert replayed(past.entries[position:last], state).state_hash() == past.hashes[last]
