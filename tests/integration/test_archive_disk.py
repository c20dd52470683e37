"""The archive in a directory on a disk that is really full. Needs root, for the mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.archive.base import blob_name
from pvc.archive.directory import DirectoryArchive
from pvc.errors import NotFound, Unavailable


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        (pytest.fail if "root" in os.environ.get("PVC_TEST_REQUIRE", "") else pytest.skip)("mounting needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def a_large_blob(first: int) -> tuple[str, bytes]:
    data = os.urandom(300_000)
    return blob_name(first, first + 9, data), data


async def test_a_full_disk_keeps_what_it_has_and_takes_the_next_blob_once_there_is_room(small_disk: Path) -> None:
    archive = DirectoryArchive(small_disk / "archive")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(500_000))
    (kept, kept_data), (name, data) = a_large_blob(1), a_large_blob(11)
    await archive.put(kept, kept_data)
    for _ in range(3):  # asking again does no harm
        with pytest.raises(Unavailable) as refusal:
            await archive.put(name, data)
        assert refusal.value.code == "archive.disk_full"
        assert "free some space" in refusal.value.hint
    assert sorted(path.name for path in (small_disk / "archive").iterdir()) == [kept], "no half is left lying about"
    assert await archive.get(kept) == kept_data
    with pytest.raises(NotFound):
        await archive.get(name)
    ballast.unlink()
    await archive.put(name, data)
    assert await archive.get(name) == data


async def test_a_damaged_copy_can_be_set_aside_on_a_full_disk(small_disk: Path) -> None:
    archive = DirectoryArchive(small_disk / "archive")
    name, data = a_large_blob(1)
    await archive.put(name, data)
    (small_disk / "archive" / name).write_bytes(data[:-1])
    with pytest.raises(OSError, match="No space"):
        (small_disk / "ballast").write_bytes(bytes(1 << 20))
    await archive.remove(name)
    assert await archive.names() == []
