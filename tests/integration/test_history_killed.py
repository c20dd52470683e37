"""The history index is killed (-9) again and again while it follows a log, and never misses or repeats a record."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path

from pvc.events.record import unseal
from pvc.log.history import HistoryIndex, HistoryQuery
from pvc.log.sqlite import SqliteLog
from tests.contract.log_records import a_chain

FOLLOWER = """
import asyncio, sys
from pvc.log.history import HistoryIndex
from pvc.log.sqlite import SqliteLog
import pvc.log.history as module
module._BATCH = 20
async def main():
    log = await SqliteLog.open(sys.argv[1])
    index = await HistoryIndex.open(sys.argv[2])
    print("open", flush=True)
    await index.run(log)
asyncio.run(main())
"""
ROOT = Path(__file__).resolve().parents[2]


async def test_a_killed_index_goes_on_without_gap_or_repeat(tmp_path: Path) -> None:
    log = await SqliteLog.open(tmp_path / "log.db")
    written = 0
    rng = random.Random(3)
    for _ in range(8):
        follower = subprocess.Popen(
            [sys.executable, "-c", FOLLOWER, str(tmp_path / "log.db"), str(tmp_path / "history.db")],
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        assert follower.stdout is not None
        assert await asyncio.to_thread(follower.stdout.readline) == b"open\n"
        until = time.monotonic() + rng.random() * 0.3
        while time.monotonic() < until:
            await log.append(a_chain(await log.head(), 50, size=200), after=await log.head())
            written += 50
        follower.kill()
        follower.wait()
    index = await HistoryIndex.open(tmp_path / "history.db")
    assert 0 < index.position <= written
    running = asyncio.create_task(index.run(log))
    await index.reach(written, 30)
    found = await index.query(HistoryQuery(types=("test.written",), ascending=True, limit=written + 1))
    assert [unseal(one.data).position for one in found] == list(range(1, written + 1))
    assert [one.data for one in found[-50:]] == await log.read(written - 49, 50)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await index.close()
    await log.close()
