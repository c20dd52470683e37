"""./dev sim as a person meets it: seeds, traces, failures that can be repeated, mutants, and the loss of a rack."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from pvc.sim import __main__ as command
from pvc.sim.mutants_log import LOG_MUTANTS
from pvc.sim.mutation import Caught, Kind, mutated
from pvc.sim.scale import Scale, ScaleSimulation


@pytest.fixture(autouse=True)
def loud_again() -> Iterator[None]:
    yield
    logging.disable(logging.NOTSET)


def sim(*arguments: str) -> Result:
    return CliRunner().invoke(command.main, list(arguments))


def test_a_seed_alone_names_a_run_and_its_last_digit_says_of_what() -> None:
    result = sim("--seed", "14")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("seed 14, log: ") and "all checks hold" in result.output
    assert [command.run_one(seed, None).kind for seed in (2, 4)] == [Kind.NODE, Kind.LOG]


def test_a_trace_shows_what_happened_and_is_the_same_each_time() -> None:
    once, again = (sim("--only", "log", "--seed", "3", "--trace").output for _ in range(2))
    assert once == again
    assert "leads, epoch 1" in once
    assert "healed" in once


def test_many_seeds_are_counted() -> None:
    result = sim("--only", "log", "--seed", "1", "--count", "5", "--jobs", "1")
    assert result.exit_code == 0, result.output
    assert "5 seeds from 1 on (5 log)" in result.output


def test_a_seed_that_fails_is_named_with_the_command_that_repeats_it() -> None:
    with mutated(LOG_MUTANTS[0]):
        result = sim("--only", "log", "--count", "20", "--jobs", "1")
    assert result.exit_code == 1
    assert "log, fails: " in result.output
    [seed] = re.findall(r"again: ./dev sim --only log --seed (\d+) --trace", result.output)
    assert f"seed {seed}, log, fails: " in result.output


@pytest.mark.parametrize(
    ("caught", "status", "said"), [(Caught(seeds=2, by="it showed"), 0, "2 of 10"), (None, 1, "it ESCAPED")]
)
def test_a_mutant_that_escapes_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, caught: Caught | None, status: int, said: str
) -> None:
    monkeypatch.setattr(command, "MUTANTS", LOG_MUTANTS[:1])
    monkeypatch.setattr(command, "hunt", lambda mutant, seeds: caught)
    result = sim("--mutants", "--jobs", "1")
    assert result.exit_code == status
    assert LOG_MUTANTS[0].name in result.output and said in result.output


def test_the_help_has_examples() -> None:
    result = sim("--help")
    assert "./dev sim --seed 123 --trace" in result.output


def test_a_small_cluster_loses_a_rack_and_everything_runs_again() -> None:
    result = ScaleSimulation(Scale(nodes=9, vms=90, rack=2)).run()
    assert result.lost == 20
    assert 0 < result.noticed_s < result.fenced_s <= result.placed_s < result.running_s
    assert "nothing ran twice" in result.table()


def test_a_trace_is_there_also_of_a_run_that_fails() -> None:
    with mutated(LOG_MUTANTS[0]):
        runs = [command.run_one(seed, Kind.LOG) for seed in range(10)]
    broken = [run for run in runs if run.broken]
    assert broken and all(any("BROKEN" in line for line in run.trace) for run in broken)
