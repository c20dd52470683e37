"""A whole cluster on virtual time, under seeded faults: what must hold holds."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from pvc.sim.cluster import ClusterResult, ClusterSimulation
from pvc.sim.mutants_cluster import LATE, SHARP

SEEDS = int(os.environ.get("PVC_SIM_CLUSTER_SEEDS", "40"))
BLOCKS = 8
ZOOKEEPER_SEEDS = int(os.environ.get("PVC_SIM_ZOOKEEPER_SEEDS", "6"))

many_seeds = pytest.mark.many_seeds
"""What runs in these tests runs in the first block as well."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("block", [0, *(pytest.param(block, marks=many_seeds) for block in range(1, BLOCKS))])
def test_whatever_fails_no_vm_runs_twice_and_all_that_should_run_do(block: int) -> None:
    per_block = max(1, SEEDS // BLOCKS)
    results = [run(seed) for seed in range(block * per_block, (block + 1) * per_block)]
    assert sum(result.lives - result.nodes for result in results) > 0, "nothing was tried"


@many_seeds
def test_the_same_seed_gives_the_same_run() -> None:
    assert ClusterSimulation(7).run().trace == ClusterSimulation(7).run().trace


def run(seed: int, *, zookeeper: bool = False) -> ClusterResult:
    try:
        return ClusterSimulation(seed, zookeeper=zookeeper).run()
    except AssertionError as error:
        kind = "zookeeper" if zookeeper else "cluster"
        pytest.fail(f"seed {seed}: {error}  (again: ./dev sim --only {kind} --seed {seed} --trace)")


@many_seeds
def test_over_zookeeper_the_same_holds_and_of_the_log_and_the_leases_more() -> None:
    results = [run(seed, zookeeper=True) for seed in range(ZOOKEEPER_SEEDS)]
    assert sum(result.lives - result.nodes for result in results) > 0, "nothing was tried"


@many_seeds
def test_the_same_seed_gives_the_same_run_over_zookeeper() -> None:
    first = ClusterSimulation(3, operations=15, zookeeper=True).run()
    assert first.trace == ClusterSimulation(3, operations=15, zookeeper=True).run().trace


@many_seeds
def test_what_the_mutants_are_tried_with_does_no_harm_without_them() -> None:
    for seed in range(SEEDS // BLOCKS):
        ClusterSimulation(seed, faults=SHARP).run()
    for seed in range(2):
        ClusterSimulation(seed, faults=LATE, zookeeper=True).run()
