"""What the chaos suite judges by: it must see a VM that runs twice, and repeat a seed's faults."""

from __future__ import annotations

import random

import pytest
from click.testing import CliRunner

from pvc.lab.chaos.__main__ import main as chaos
from pvc.lab.chaos.checks import check_commands, check_hashes
from pvc.lab.chaos.gateway import Asked
from pvc.lab.chaos.schedule import KINDS, NAMES, Planned, draw
from pvc.lab.chaos.windows import Run, Sign, add_beat, add_work, doubles

HOSTS = ("hv1", "hv2", "hv3")


def run_of(host: str, *times: float, token: str, first: int = 1, pid: int = 1) -> Run:
    run = Run(vm="web", host=host, pid=pid, born_s=times[0])
    for number, time_s in enumerate(times, first):
        add_beat(run, Sign(after_s=time_s - 0.1, until_s=time_s), token, number)
    return run


def kinds_of(planned: list[Planned]) -> list[str]:
    return [one.kind for first in planned for one in (first, first.second) if one is not None]


def test_two_runs_one_after_the_other_are_no_double() -> None:
    assert doubles([run_of("hv1", 1, 2, 3, token="a"), run_of("hv2", 4, 5, token="b")]) == []


def test_two_runs_whose_beats_are_interleaved_are_a_double() -> None:
    [found] = doubles([run_of("hv1", 1, 2, 5, token="a"), run_of("hv2", 3, 4, 6, token="b")])
    assert "hv1" in found and "hv2" in found


def test_a_second_that_only_began_before_the_first_had_surely_ended_is_not_held_against_anyone() -> None:
    assert doubles([run_of("hv1", 1, 2, token="a"), run_of("hv2", 2.05, 3, token="b")]) == []


def test_the_same_heartbeat_in_two_places_is_a_double_at_any_time() -> None:
    moved = run_of("hv2", 10, 11, token="a", first=3)
    assert doubles([run_of("hv1", 1, 2, token="a"), moved]) == []
    assert len(doubles([run_of("hv1", 1, 2, 3, token="a"), moved])) == 1


def test_a_silent_copy_that_uses_a_cpu_is_a_double() -> None:
    silent = Run(vm="web", host="hv2", pid=2, born_s=0)
    talking = Run(vm="web", host="hv1", pid=1, born_s=0)
    for time_s in (1.0, 2.0, 3.0):
        add_work(silent, Sign(after_s=time_s - 0.1, until_s=time_s))
        add_work(talking, Sign(after_s=time_s - 0.1, until_s=time_s))
    assert len(doubles([talking, silent])) == 1


def test_a_seed_draws_the_same_faults_again() -> None:
    one = draw(random.Random(7), HOSTS)
    assert one == draw(random.Random(7), HOSTS)
    assert one != draw(random.Random(8), HOSTS)


def test_each_kind_comes_as_often_as_it_weighs_and_one_that_must_be_alone_is() -> None:
    for seed in range(50):
        planned = draw(random.Random(seed), HOSTS)
        assert sorted(kinds_of(planned)) == sorted(kind.name for kind in KINDS for _ in range(kind.weight))
        alone = {kind.name for kind in KINDS if kind.alone}
        assert not [one for one in planned if one.second and alone & {one.kind, one.second.kind}]
    only = draw(random.Random(1), HOSTS, only=[NAMES[0]], overlaps=False)
    assert set(kinds_of(only)) == {NAMES[0]}


def test_an_acknowledged_command_that_is_not_in_the_log_is_found() -> None:
    lost = Asked(key="k", name="vm.start", fields={"vm": "web"}, asked_s=0, verdict="acknowledged", position=4)
    wrong, _ = check_commands([lost], [])
    assert len(wrong) == 1


def test_a_node_whose_fold_went_astray_is_found() -> None:
    assert check_hashes({1: "a", 2: "b"}, {("hv1", 1): "a", ("hv2", 2): "b", ("hv3", 9): "?"}) == []
    [found] = check_hashes({1: "a"}, {("hv2", 1): "x"})
    assert "hv2" in found


@pytest.mark.parametrize("words", [["--name", "UPPER"], ["--self-fencing", "hv9"]])
def test_a_lab_that_cannot_be_is_refused_before_anything_begins(words: list[str]) -> None:
    done = CliRunner().invoke(chaos, words)
    assert done.exit_code == 1
    assert done.output.startswith("Error: ")
    assert words[1] in done.output
    assert "begins" not in done.output
