"""No sequence of commands and reports, late and doubled ones too, breaks what must always hold."""

from __future__ import annotations

import random

import pytest

from tests.property.core_machine import Core, walk

WALKS = 80
WALK_STEPS = 400

TestCore = Core.TestCase


@pytest.mark.parametrize("seed", range(WALKS))
def test_a_long_life_breaks_nothing_either(seed: int) -> None:
    core = Core()
    core.begin()
    for step in walk(core, random.Random(seed), WALK_STEPS):
        if step % 10 == 0:
            core.snapshot()
        core.indexes_are_exact()
        core.each_vm_makes_sense()
    core.the_hash_is_that_of_a_fresh_state()
    core.teardown()
