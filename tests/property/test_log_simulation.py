"""The log's protocol over a simulated ZooKeeper, under seeded faults: what must hold holds."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from pvc.sim.log_simulation import LogFaults, LogResult, LogSimulation

SEEDS = int(os.environ.get("PVC_SIM_LOG_SEEDS", "320"))
BLOCKS = 20

many_seeds = pytest.mark.many_seeds
"""What runs in these tests runs in the first block as well."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("block", [0, *(pytest.param(block, marks=many_seeds) for block in range(1, BLOCKS))])
def test_whatever_fails_the_log_is_whole_and_everyone_sees_the_same(block: int) -> None:
    per_block = max(1, SEEDS // BLOCKS)
    results = [run(seed) for seed in range(block * per_block, (block + 1) * per_block)]
    assert sum(result.acknowledged for result in results) > per_block, "nothing was appended, so nothing was tried"


@many_seeds
def test_who_knows_what_an_ensemble_has_lost_finds_out() -> None:
    found_out = 0
    for seed in range(40):
        trace = run(seed, LogFaults(lossy=1.0)).trace
        found_out += sum("finds the log damaged" in line for line in trace)
    assert found_out > 20, "hardly anybody lost anything that he knew of"


@many_seeds
def test_the_same_seed_gives_the_same_run() -> None:
    assert LogSimulation(7).run().trace == LogSimulation(7).run().trace


def run(seed: int, faults: LogFaults | None = None) -> LogResult:
    try:
        return LogSimulation(seed, faults=faults).run()
    except AssertionError as error:
        pytest.fail(f"seed {seed}: {error}  (again: ./dev sim --only log --seed {seed} --trace)")
