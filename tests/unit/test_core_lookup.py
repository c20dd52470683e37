"""Finding a VM or node by a name that may be mistyped."""

from __future__ import annotations

import time

import pytest

from pvc.commands.base import find_node, find_vm, near_names
from pvc.errors import NotFound
from tests.support.core import a_cluster

NAMES = {f"web{number:05d}-production": "" for number in range(10_000)} | {"db-main": ""}


@pytest.mark.parametrize("typo", ["db-mian", "db-mai", "bd-main", "db-main1", "dbmain", "xdb-main", "db-mxin"])
def test_a_name_one_slip_away_is_found_among_ten_thousand(typo: str) -> None:
    assert near_names(typo, NAMES)[0] == "db-main"


def test_at_most_three_names_are_suggested() -> None:
    assert len(near_names("web00000-productio", NAMES)) == 3


def test_among_few_names_one_further_away_is_suggested_too() -> None:
    assert near_names("webserver", {"webserver-01": "", "db": ""}) == ["webserver-01"]


def test_looking_for_near_names_does_not_grow_with_their_number() -> None:
    typo = "web99999-prodcution"  # one slip from nothing there is
    few = dict(list(NAMES.items())[:1_000])
    assert _seconds(typo, NAMES) < 3 * _seconds(typo, few) + 0.01


def test_an_unknown_node_is_refused_with_near_names() -> None:
    with pytest.raises(NotFound, match="there is no node 'hv11'") as refusal:
        find_node(a_cluster("hv1", "hv2").state, "hv11", field="target")
    assert (refusal.value.code, refusal.value.field) == ("node.not_found", "target")
    assert refusal.value.hint.startswith("did you mean hv1")


def test_a_name_longer_than_any_is_compared_with_none() -> None:
    # Every text one slip away from it would fill the memory of a node: 65,000 characters have 5 million neighbours.
    began = time.perf_counter()
    assert near_names("a" * 65_000, NAMES) == []
    assert time.perf_counter() - began < 0.1


def test_a_refusal_quotes_no_more_of_a_name_than_a_person_reads() -> None:
    with pytest.raises(NotFound) as refusal:
        find_vm(a_cluster("hv1").state, "a" * 65_000)
    assert len(refusal.value.message) < 120


def _seconds(typo: str, names: dict[str, str]) -> float:
    best = 1.0
    for _ in range(3):
        begin = time.perf_counter()
        near_names(typo, names)
        best = min(best, time.perf_counter() - begin)
    return best
