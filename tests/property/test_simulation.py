"""The node's real code on virtual time, under seeded faults: what must hold holds."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from pvc.sim.simulation import Faults, Result, Simulation

SEEDS = int(os.environ.get("PVC_SIM_SEEDS", "300"))
BLOCKS = 10
FEWEST_KILLS = 50
"""Of one undisturbed run: with fewer effects it would not have tried much."""

many_seeds = pytest.mark.many_seeds
"""What runs in these tests runs in the first block as well."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("block", [0, *(pytest.param(block, marks=many_seeds) for block in range(1, BLOCKS))])
def test_whatever_fails_everything_heals_and_nothing_is_lost(block: int) -> None:
    per_block = max(1, SEEDS // BLOCKS)
    lives = 0
    for seed in range(block * per_block, (block + 1) * per_block):
        lives += run(seed).lives
    assert lives > per_block, "no node was ever killed, so nothing was tried"


@many_seeds
@pytest.mark.parametrize("seed", range(1, 6))
def test_a_kill_after_each_single_effect_heals(seed: int) -> None:
    """Without any other fault: first the run undisturbed, then one run per effect of it, killed right after it."""
    calm = Faults(kill=0.0, log=0.0)
    undisturbed = Simulation(seed, faults=calm).run()
    assert undisturbed.effects > FEWEST_KILLS
    for kill_at in range(1, undisturbed.effects + 1):
        try:
            result = Simulation(seed, faults=calm, kill_at=kill_at).run()
        except AssertionError as error:
            pytest.fail(f"seed {seed}, killed after effect {kill_at}: {error}")
        assert result.lives == 2, f"seed {seed}: the node was not killed at effect {kill_at}"


@many_seeds
def test_the_same_seed_gives_the_same_run() -> None:
    assert Simulation(7).run().trace == Simulation(7).run().trace


def run(seed: int) -> Result:
    try:
        return Simulation(seed).run()
    except AssertionError as error:
        pytest.fail(f"seed {seed}: {error}  (again: ./dev sim --only node --seed {seed} --trace)")
