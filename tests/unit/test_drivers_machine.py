"""Looking for a VM's files, on storage that answers and on storage that does not."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pvc.drivers.machine import LOOKS, missing_files
from pvc.events.vm import Disk, VmSpec


def spec(path: Path) -> VmSpec:
    return VmSpec(memory_mib=64, vcpus=1, disks=(Disk(path=str(path)),))


async def test_the_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    assert await missing_files(spec(disk)) == f"{disk} is not there"
    disk.touch()
    assert await missing_files(spec(disk)) == ""


async def test_storage_that_hangs_takes_no_thread_from_anybody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(max_workers=2))
    back = threading.Event()
    monkeypatch.setattr(Path, "exists", lambda path: back.wait(10))
    looks = [asyncio.create_task(missing_files(spec(tmp_path / f"{number}.img"))) for number in range(LOOKS + 4)]
    try:
        _, hanging = await asyncio.wait(looks, timeout=0.2)
        assert len(hanging) == LOOKS + 4
        async with asyncio.timeout(5):
            assert await asyncio.to_thread(lambda: "done") == "done"
    finally:
        back.set()
    assert await asyncio.gather(*looks) == [""] * (LOOKS + 4)
