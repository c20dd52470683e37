"""The fold of operations: the same whatever the batches, over everything that can happen to a cluster."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.commands.registry import COMMANDS
from pvc.projections.operations import OPEN, Operation, OperationState
from pvc.runtime.operation_file import GONE, OperationFile, OperationQuery
from pvc.runtime.operations import KINDS
from tests.support.core import TinyCluster
from tests.support.story_of_a_cluster import live

EVERYTHING = OperationQuery(limit=10_000, ascending=True)


@pytest.fixture(scope="module")
def story() -> TinyCluster:
    cluster = TinyCluster()
    for _ in live(cluster):
        pass
    return cluster


def folded(path: Path, story: TinyCluster, size: int) -> OperationFile:
    file = OperationFile(path, KINDS)
    entries = iter(story.entries)
    while batch := [entry.data for entry in itertools.islice(entries, size)]:
        file.fold(batch)
    return file


def test_the_batches_make_no_difference(story: TinyCluster, tmp_path: Path) -> None:
    files = [folded(tmp_path / f"{size}.db", story, size) for size in (1, 7, 100_000)]
    told = [list(everything(file)) for file in files]
    assert told[0] == told[1] == told[2]
    assert len(told[0]) > 10
    assert {file.reached().position for file in files} == {story.state.position}
    for file in files:
        file.close()


def everything(file: OperationFile) -> Iterator[object]:
    for operation in file.find(EVERYTHING):
        yield operation, file.members(operation.position, 1_000)


def test_what_was_folded_is_not_folded_again(story: TinyCluster, tmp_path: Path) -> None:
    file = folded(tmp_path / "o.db", story, 50)
    before = list(everything(file))
    assert file.fold([entry.data for entry in story.entries]) == set()
    assert list(everything(file)) == before
    file.close()


def test_each_operation_adds_up(story: TinyCluster, tmp_path: Path) -> None:
    file = folded(tmp_path / "o.db", story, 50)
    operations = file.find(EVERYTHING)
    for operation in operations:
        check(operation)
        members = file.members(operation.position, 1_000)
        if members:
            assert operation.total == len(members), operation
            assert operation.done == sum(bool(one.ended_us) for one in members), operation
            assert operation.failed == sum(bool(one.ended_us) and not one.success for one in members), operation
        if not operation.open:
            assert all(one.ended_us for one in members), operation
    states = {operation.state for operation in operations}
    assert {OperationState.SUCCEEDED, OperationState.FAILED} <= states
    file.close()


def check(operation: Operation) -> None:
    assert operation.changed >= operation.position
    assert operation.done <= operation.total and operation.failed <= operation.done
    assert bool(operation.ended_us) == (operation.state not in OPEN)
    assert bool(operation.code) == (operation.state in (OperationState.FAILED, OperationState.CANCELLED)) or (
        operation.open and operation.verdict is not None
    )
    assert operation.text, "it says what happened last"


def test_where_vms_are_is_followed_as_the_state_has_it(story: TinyCluster, tmp_path: Path) -> None:
    """The fold knows of VMs only what events say; that must not drift away from the state."""
    file = folded(tmp_path / "o.db", story, 50)
    for vm_id, name, node, state in file.places():
        vm = story.state.vms.get(vm_id)
        if vm is None:
            assert state == GONE
        else:
            assert (name, node, state) == (vm.name, vm.node, vm.state.value)
    assert {vm_id for vm_id, *_ in file.places()} >= set(story.state.vms)
    file.close()


def test_every_command_that_takes_time_is_known() -> None:
    assert {spec.name for spec in COMMANDS if spec.outcomes} <= KINDS.keys()
    assert {"cluster.rebalance", "node.confirm_fenced", "node.flush", "node.ready"} <= KINDS.keys()
