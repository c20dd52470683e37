"""The scrub: what all nodes share is compared with the manifests too, by the node that acts for the cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pvc.archive.memory import MemoryArchive
from pvc.errors import Unavailable
from pvc.events.record import EMPTY
from pvc.log.history import HistoryIndex
from pvc.log.manifest import Manifest, describe
from pvc.log.segments import Chained
from pvc.node.scrub import Scrub
from pvc.runtime.shelves import AllCopies, Shelf
from tests.contract.log_records import a_chain, bytes_of

ENTRIES = a_chain(EMPTY, 12, size=40)
OTHER_WAY = a_chain(EMPTY, 12, size=40)
"""Records of the same positions, which were given up."""


def a_manifest(first: int, last: int) -> Manifest:
    records = bytes_of(ENTRIES[first - 1 : last])
    return describe(first, records, incarnation="x", root=bytes(32), previous=b"", sealed_by="hv1")


MANIFESTS = [Chained(manifest=a_manifest(1, 6), hash=b""), Chained(manifest=a_manifest(7, 12), hash=b"")]


@pytest.fixture
async def history(tmp_path: Path) -> AsyncIterator[HistoryIndex]:
    index = await HistoryIndex.open(tmp_path / "history.db")
    await index.index(ENTRIES)
    yield index
    await index.close()


async def test_what_was_given_up_is_replaced_in_the_archive_that_all_share(history: HistoryIndex) -> None:
    own, pool = Shelf(MemoryArchive("own")), MemoryArchive("pool")
    shared, first = Shelf(pool), MANIFESTS[0].manifest
    await shared.keep(first, bytes_of(OTHER_WAY[:6]))
    told: list[str] = []
    scrub = Scrub(history, own, AllCopies((own, shared)), told)
    await scrub.step(MANIFESTS, archives=True)
    assert told == [], "another node looks after that"
    scrub = Scrub(history, own, AllCopies((own, shared)), told)
    for _ in MANIFESTS:
        await scrub.step(MANIFESTS, archives=True, shared=(shared,))
    assert told == ["records 1 to 6 in the pool"]
    assert await Shelf(pool).fetch(first) == bytes_of(ENTRIES[:6])
    assert await shared.spans() == {(first.first, first.last)}, "what is not there yet, the archivist brings"


async def test_an_archive_that_all_share_and_that_is_down_holds_up_nothing(history: HistoryIndex) -> None:
    own, pool = Shelf(MemoryArchive("own")), MemoryArchive("pool")
    second = MANIFESTS[1].manifest
    await own.keep(second, bytes_of(OTHER_WAY[6:]))
    pool.failure = Unavailable("Ceph is down", code="archive.unreachable")
    told: list[str] = []
    scrub = Scrub(history, own, AllCopies((own,)), told)
    for _ in MANIFESTS:
        await scrub.step(MANIFESTS, archives=True, shared=(Shelf(pool),))
    assert told == ["records 7 to 12 in the own"]
    assert await own.fetch(second) == bytes_of(ENTRIES[6:])
