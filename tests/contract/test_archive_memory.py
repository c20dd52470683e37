"""The archive in memory passes the archive's contract."""

from __future__ import annotations

import pytest

from pvc.archive.base import Archive
from pvc.archive.memory import MemoryArchive
from pvc.errors import Unavailable
from tests.contract.archive_contract import ArchiveContract, OpenArchive, Spoil, a_blob


class OneMemory(MemoryArchive):
    """Several clients of one memory."""

    def __init__(self, blobs: dict[str, bytes]) -> None:
        super().__init__()
        self.blobs = blobs


class TestMemoryArchive(ArchiveContract):
    @pytest.fixture
    def blobs(self) -> dict[str, bytes]:
        return {}

    @pytest.fixture
    def open_archive(self, blobs: dict[str, bytes]) -> OpenArchive:
        async def open_archive() -> Archive:
            return OneMemory(blobs)

        return open_archive

    @pytest.fixture
    def spoil(self, blobs: dict[str, bytes]) -> Spoil:
        async def spoil(name: str, data: bytes) -> None:
            blobs[name] = data

        return spoil


async def test_it_fails_when_it_is_told_to_and_works_again() -> None:
    archive, (name, data) = MemoryArchive(), a_blob()
    archive.failure = Unavailable("away", code="archive.unreachable")
    with pytest.raises(Unavailable):
        await archive.put(name, data)
    archive.failure = None
    await archive.put(name, data)
    assert await archive.get(name) == data
