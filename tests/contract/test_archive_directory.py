"""The archive in a directory passes the archive's contract, and stands by it on a disk that does not do its part."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path

import pytest

from pvc.archive import directory
from pvc.archive.base import Archive, DamagedCopy
from pvc.archive.directory import DirectoryArchive
from pvc.errors import Unavailable
from tests.contract.archive_contract import ArchiveContract, OpenArchive, Spoil, a_blob


class TestDirectoryArchive(ArchiveContract):
    @pytest.fixture
    def open_archive(self, tmp_path: Path) -> OpenArchive:
        async def open_archive() -> Archive:
            return DirectoryArchive(tmp_path / "archive")

        return open_archive

    @pytest.fixture
    def spoil(self, tmp_path: Path) -> Spoil:
        async def spoil(name: str, data: bytes) -> None:
            (tmp_path / "archive" / name).write_bytes(data)

        return spoil


async def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    archive, (name, data) = DirectoryArchive(tmp_path / "archive"), a_blob()
    await archive.put(name, data)
    assert stat.S_IMODE((tmp_path / "archive").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "archive" / name).stat().st_mode) == 0o600


async def test_the_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acts: list[str] = []
    really_fsync, really_replace = os.fsync, Path.replace

    def fsync(number: int) -> None:
        acts.append("flush directory" if stat.S_ISDIR(os.fstat(number).st_mode) else "flush file")
        really_fsync(number)

    def replace(path: Path, target: Path) -> Path:
        acts.append("name")
        return really_replace(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    archive, (name, data) = DirectoryArchive(tmp_path / "archive"), a_blob()
    await archive.put(name, data)
    assert acts == ["flush file", "name", "flush directory", "flush directory"]
    acts.clear()
    await archive.put(name, data)
    assert acts == ["flush directory"], "whoever put it first may have died before that"


async def test_a_removed_copy_is_kept_aside(tmp_path: Path) -> None:
    archive, (name, data) = DirectoryArchive(tmp_path / "archive"), a_blob()
    await archive.put(name, data)
    (tmp_path / "archive" / name).write_bytes(b"bad")
    await archive.remove(name)
    assert (tmp_path / "archive" / f"{name}.damaged").read_bytes() == b"bad"


async def test_a_file_that_is_far_too_large_is_not_read_into_memory(tmp_path: Path) -> None:
    archive, (name, data) = DirectoryArchive(tmp_path / "archive"), a_blob()
    await archive.put(name, data)
    os.truncate(tmp_path / "archive" / name, 1 << 40)
    with pytest.raises(DamagedCopy):
        await archive.get(name)


async def test_what_a_killed_process_left_is_swept_away_once_it_is_surely_nobodys(tmp_path: Path) -> None:
    folder, (name, data), (later, more) = tmp_path / "archive", a_blob(), a_blob(21)
    folder.mkdir()
    old, young = folder / f".{name}.77", folder / f".{name}.78"
    for half in (old, young):
        half.write_bytes(data[:50])
    os.utime(old, (time.time() - directory.LEFTOVER_S - 1,) * 2)
    archive = DirectoryArchive(folder)
    assert await archive.names() == []
    await archive.put(later, more)
    assert not old.exists()
    assert young.exists(), "it may be another node's, in the middle of its work"


async def test_a_disk_that_does_not_answer_is_told_and_waited_for_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(directory, "replace_file", lambda *_, **__: go_on.wait(60))
    archive, (name, data) = DirectoryArchive(tmp_path / "archive", deadline_s=0.05), a_blob()
    before = threading.active_count()
    try:
        for _ in range(5):
            with pytest.raises(Unavailable) as refusal:
                await archive.put(name, data)
            assert refusal.value.code == "archive.unreachable"
        assert threading.active_count() <= before + 1, "one thread is stuck, not one for each call"
        assert await DirectoryArchive(tmp_path / "archive").names() == []
    finally:
        go_on.set()


async def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    archive, (name, data) = DirectoryArchive(tmp_path / "file" / "archive"), a_blob()
    with pytest.raises(Unavailable) as refusal:
        await archive.put(name, data)
    assert refusal.value.code == "archive.io_error"
    assert "file/archive" in refusal.value.message
