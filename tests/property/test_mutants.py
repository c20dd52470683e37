"""Known bugs, put into the real code one at a time: the simulation notices each of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from pvc.sim.mutants import MUTANTS
from pvc.sim.mutation import Kind, Mutant, hunt, simulate

FEWEST = 12
"""Of mutants; with fewer the list would have lost some."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


# Each begins with the first seed that is known to notice it; when the code around it changes it may take some more.
@pytest.mark.many_seeds
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_the_simulation_notices(mutant: Mutant) -> None:
    caught = hunt(mutant, first=mutant.known, seeds=mutant.within)
    assert caught is not None, f"{mutant.within} seeds did not notice that {mutant.name}"


@pytest.mark.many_seeds
def test_a_mutant_leaves_no_trace() -> None:
    [mutant] = [mutant for mutant in MUTANTS if mutant.name == "a lost reply is taken for success"]
    assert hunt(mutant, seeds=mutant.within) is not None
    simulate(Kind.LOG, 0)


def test_there_are_mutants_of_every_kind_and_no_two_of_one_name() -> None:
    assert {mutant.kind for mutant in MUTANTS} == set(Kind)
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) > FEWEST
