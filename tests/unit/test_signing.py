"""A coordinator's signing key: made once, announced, rotated, and found again after a crash between any two steps."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pvc.errors import DriverError, Unavailable
from pvc.node.signing import KeyFiles, KeyKeeper
from pvc.projections.state import Cluster
from pvc.proof.note import check_signature, parse_checkpoint, parse_key
from tests.support.core import TinyCluster


class Coordinator:
    """A cluster of one coordinator, and what its node sees of it."""

    def __init__(self, folder: Path) -> None:
        self.cluster = TinyCluster()
        self.cluster.do("cluster.init", name="main", coordinators=["hv1"])
        self.cluster.says_ready()
        self.folder = folder
        self.deaf = 0
        """So many reports fail before they are recorded."""
        self.dies_after_report = False

    async def submit(self, report: Any, cause: str) -> Any:
        if self.deaf:
            self.deaf -= 1
            raise Unavailable("the log does not answer")
        self.cluster.report(report)
        if self.dies_after_report:
            self.dies_after_report = False
            raise Unavailable("killed")
        return None

    def keeper(self) -> KeyKeeper:
        """As after a start."""
        world: Any = SimpleNamespace(state=self.cluster.state)
        submit: Any = self.submit
        return KeyKeeper("hv1", world, KeyFiles(self.folder / "key"), submit)

    @property
    def known(self) -> Cluster:
        assert self.cluster.state.cluster is not None
        return self.cluster.state.cluster

    async def key_id(self) -> str:
        signer = await self.keeper().signer()
        assert signer is not None
        own = self.known.log.key_of("hv1")
        assert own is not None
        assert signer.public.id == own.id
        note = signer.sign(1, bytes(32))
        assert check_signature(parse_checkpoint(note), [parse_key(own.key)]) == signer.public
        return own.id


@pytest.fixture
def node(tmp_path: Path) -> Coordinator:
    return Coordinator(tmp_path)


async def test_a_key_is_made_once_announced_and_found_again(node: Coordinator) -> None:
    first = await node.key_id()
    assert await node.key_id() == first
    assert len(node.known.log.keys) == 1
    assert stat.S_IMODE(os.stat(node.folder / "key").st_mode) == 0o600
    assert not (node.folder / "key.next").exists()


async def test_a_rotation_retires_the_old_key_in_the_same_record(node: Coordinator) -> None:
    first = await node.key_id()
    node.cluster.do("log.rotate_key", node="hv1")
    node.cluster.do("log.rotate_key")
    second = await node.key_id()
    old, new = node.known.log.keys
    assert (old.id, new.id) == (first, second)
    assert old.retired_at == new.added_at > 0
    assert first != second


@pytest.mark.parametrize("rotating", [False, True])
@pytest.mark.parametrize("step", ["before the report", "after the report"])
async def test_after_a_crash_at_any_step_the_node_signs_with_what_the_log_names(
    node: Coordinator, rotating: bool, step: str
) -> None:
    if rotating:
        await node.key_id()
        node.cluster.do("log.rotate_key")
    if step == "before the report":
        node.deaf = 1
    else:
        node.dies_after_report = True
    with pytest.raises(Unavailable):
        await node.keeper().signer()
    made = (node.folder / "key.next").read_bytes()
    await node.key_id()
    assert (node.folder / "key").read_bytes() == made, "the key that was made before the crash is used"
    assert len(node.known.log.keys) == 1 + rotating
    assert sum(not key.retired_at for key in node.known.log.keys) == 1


async def test_a_key_that_was_lost_or_damaged_is_replaced(node: Coordinator) -> None:
    ids = [await node.key_id()]
    (node.folder / "key").unlink()
    ids.append(await node.key_id())
    (node.folder / "key").write_bytes(b"-----BEGIN nonsense")
    ids.append(await node.key_id())
    assert len(set(ids)) == 3
    assert [bool(key.retired_at) for key in node.known.log.keys] == [True, True, False]


async def test_a_retired_key_that_a_backup_brings_back_is_not_used_again(node: Coordinator) -> None:
    first = await node.key_id()
    kept = (node.folder / "key").read_bytes()
    node.cluster.do("log.rotate_key")
    second = await node.key_id()
    (node.folder / "key").write_bytes(kept)
    third = await node.key_id()
    assert len({first, second, third}) == 3


async def test_a_disk_without_room_is_told_and_tried_again(node: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pvc.node.signing.replace_file", full)
    with pytest.raises(DriverError) as refused:
        await node.keeper().signer()
    assert refused.value.code == "log.key_unusable"
    monkeypatch.undo()
    assert await node.key_id()


async def test_a_node_that_is_no_coordinator_signs_nothing(node: Coordinator) -> None:
    node.cluster.elect()
    node.cluster.do("node.add", node="hv2")
    node.cluster.says_ready("hv2")
    world: Any = SimpleNamespace(state=node.cluster.state)
    submit: Any = node.submit
    assert await KeyKeeper("hv2", world, KeyFiles(node.folder / "other"), submit).signer() is None
