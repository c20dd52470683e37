"""The tree in the replica: the same as over all records at any size, made anew after damage, and what it shows."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pvc.events.record import unseal
from pvc.log.history import HistoryIndex
from pvc.proof.findings import Kind, Unproven
from pvc.proof.merkle import check_consistency, check_inclusion, leaf_hash, subtree_of, tree_root
from tests.support.keys import TestKey
from tests.support.signed_log import SignedLog

KEY = TestKey("replica")


@pytest.fixture(scope="module")
def log() -> SignedLog:
    log = SignedLog().begin(KEY)
    for _ in range(6):
        log.live(300)
        log.checkpoint(KEY)
    return log


@pytest.fixture
async def index(log: SignedLog, tmp_path: Path) -> AsyncIterator[HistoryIndex]:
    opened = await filled(log, tmp_path)
    yield opened
    await opened.close()


async def filled(log: SignedLog, folder: Path) -> HistoryIndex:
    """In portions, and by two processes one after the other."""
    rng = random.Random(3)
    at = 0
    while at < len(log.records):
        index = await HistoryIndex.open(folder / "history.db")
        for _ in range(3):
            count = rng.randrange(1, 200)
            await index.index([unseal(data) for data in log.records[at : at + count]])
            at += count
        if at >= len(log.records):
            return index
        await index.close()
    raise AssertionError("it ends above")


async def test_its_root_at_any_size_is_that_of_all_records(log: SignedLog, index: HistoryIndex) -> None:
    subtree = subtree_of([leaf_hash(data) for data in log.records])
    for size in (0, 1, 2, 255, 256, 257, 511, 512, 1_000, 1_024, 1_025, len(log.records)):
        assert await index.root(size) == tree_root(size, subtree)
    assert await index.root(len(log.records)) == log.tree.root()


async def test_its_proofs_verify(log: SignedLog, index: HistoryIndex) -> None:
    rng = random.Random(4)
    for _ in range(60):
        old, new = sorted((rng.randrange(1, len(log.records)), rng.randrange(1, len(log.records) + 1)))
        position = rng.randrange(1, new + 1)
        root = await index.root(new)
        leaf = leaf_hash(log.records[position - 1])
        check_inclusion(position - 1, new, leaf, await index.inclusion(position, new), root)
        check_consistency(old, new, await index.root(old), root, await index.consistency(old, new))
    with pytest.raises(Unproven):
        await index.inclusion(9, 8)


async def test_a_look_at_everything_finds_nothing_and_tells_of_the_checkpoints(
    log: SignedLog, index: HistoryIndex
) -> None:
    seen = 0
    for first in range(1, len(log.records) + 1, 512):
        look = await index.look(first, 512)
        assert look.findings == ()
        assert look.data == log.records[first - 1 : first + 511]
        seen += len(look.checkpoints)
        for checkpoint in look.checkpoints:
            assert checkpoint.root
    assert seen == 6


@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.parametrize("position", [1, 256, 257, 700])
async def test_a_record_changed_in_the_file_is_named(
    log: SignedLog, index: HistoryIndex, tmp_path: Path, position: int, chained: bool
) -> None:
    with sqlite3.connect(tmp_path / "history.db") as db:
        for at, data in enumerate(log.rewritten(position, chained=chained), start=1):
            db.execute("UPDATE record SET data = ? WHERE position = ?", (data, at))
    db.close()
    findings = [found for first in range(1, 1_793, 256) for found in (await index.look(first, 256)).findings]
    kinds = {found.kind for found in findings}
    tile = (position - 1) // 256 * 256 + 1
    assert (tile, Kind.TREE) in {(found.position, found.kind) for found in findings}
    assert (Kind.CHAIN in kinds) == (not chained)
    if not chained:
        assert next(found.position for found in findings if found.kind is Kind.CHAIN) == position


@pytest.mark.parametrize("level", [8, 9, 10])
async def test_a_changed_hash_of_the_tree_is_named(index: HistoryIndex, tmp_path: Path, level: int) -> None:
    with sqlite3.connect(tmp_path / "history.db") as db:
        db.execute("UPDATE subtree SET hash = ? WHERE level = ? AND number = 0", (bytes(32), level))
    db.close()
    findings = [found for first in range(1, 1_793, 256) for found in (await index.look(first, 256)).findings]
    assert {found.kind for found in findings} == {Kind.TREE}
    assert (1, 1 << level) in {(found.position, found.last) for found in findings}


async def test_a_record_missing_in_the_file_is_named(index: HistoryIndex, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "history.db") as db:
        db.execute("DELETE FROM record WHERE position = 300")
    db.close()
    look = await index.look(257, 256)
    assert [(found.position, found.kind) for found in look.findings] == [(300, Kind.GAP)]
