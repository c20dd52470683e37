"""The SQLite log on a disk that is really full, really read-only, really gone. Needs root, for the mounts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.errors import Unavailable
from pvc.events.record import EMPTY, MAX_RECORD_BYTES
from pvc.log.sqlite import SqliteLog
from tests.contract.log_contract import read_all
from tests.contract.log_records import a_chain, an_entry, bytes_of


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


async def test_a_full_disk_loses_nothing_and_the_same_append_succeeds_once_there_is_room(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(400 * 1024))
    log = await SqliteLog.open(small_disk / "log.db")
    kept: list[bytes] = []
    head = EMPTY
    with pytest.raises(Unavailable) as refusal:
        while True:
            entries = a_chain(head, 2, size=20_000)
            head = await log.append(entries, after=head)
            kept += bytes_of(entries)
    assert refusal.value.code == "log.disk_full"
    assert "free some space" in refusal.value.hint
    assert kept, "some fitted"
    assert await log.head() == head
    assert await read_all(log) == kept

    with pytest.raises(Unavailable):  # still full; asking again does no harm
        await log.append(entries, after=head)
    ballast.unlink()
    assert await log.append(entries, after=head) == entries[-1].head
    await log.close()

    log = await SqliteLog.open(small_disk / "log.db")
    assert await read_all(log) == [*kept, *bytes_of(entries)]
    await log.close()


async def test_a_log_on_a_full_disk_still_opens_and_reads(small_disk: Path) -> None:
    log = await SqliteLog.open(small_disk / "log.db")
    entries = a_chain(EMPTY, 3)
    await log.append(entries, after=EMPTY)
    await log.close()
    with pytest.raises(OSError, match="No space"):
        (small_disk / "ballast").write_bytes(bytes(2 << 20))
    with pytest.raises(Unavailable) as refusal:
        log = await SqliteLog.open(small_disk / "log.db")
        await log.append([an_entry(entries[-1].head, size=MAX_RECORD_BYTES // 2)], after=entries[-1].head)
    assert refusal.value.code == "log.disk_full"
    (small_disk / "ballast").unlink()
    log = await SqliteLog.open(small_disk / "log.db")
    assert await read_all(log) == bytes_of(entries)
    await log.close()


async def test_a_full_disk_refuses_a_new_log_and_says_why(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        (small_disk / "ballast").write_bytes(bytes(2 << 20))
    with pytest.raises(Unavailable) as refusal:
        await SqliteLog.open(small_disk / "log.db")
    assert refusal.value.code == "log.disk_full"


async def test_a_read_only_disk_is_said_to_be_that(small_disk: Path) -> None:
    log = await SqliteLog.open(small_disk / "log.db")
    await log.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(Unavailable) as refusal:
        await SqliteLog.open(small_disk / "log.db")
    assert refusal.value.code == "log.cannot_open"
    assert "writable" in refusal.value.message
