"""Several processes share one SQLite log."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from pvc.log.sqlite import SqliteLog
from tests.contract.log_contract import read_all, take
from tests.contract.log_records import an_entry
from tests.integration.log_crowd import Crowd, assert_exactly


async def test_four_processes_append_at_once_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    crowd = Crowd("sqlite", str(path), "-")
    await crowd.start(processes=4, each=50)
    await crowd.finish()
    log = await SqliteLog.open(path)
    assert [len(ids) for ids in crowd.acknowledged] == [50] * 4
    await assert_exactly(log, crowd.acknowledged)
    await log.close()


async def test_a_follower_sees_what_other_processes_append(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    log = await SqliteLog.open(path)
    following = asyncio.create_task(take(log.follow(0), 60))
    crowd = Crowd("sqlite", str(path), "-")
    await crowd.start(processes=2, each=30)
    await crowd.finish()
    assert await following == await read_all(log)
    await log.close()


async def test_a_writer_killed_in_mid_append_leaves_whole_records_only(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    for _ in range(5):
        crowd = Crowd("sqlite", str(path), "-")
        await crowd.start(processes=1, each=100_000)
        await crowd.reach(40)
        assert await crowd.kill() == [-signal.SIGKILL]
        log = await SqliteLog.open(path)  # verifies the tail
        stored = await read_all(log)  # verifies the chain
        head = await log.head()
        assert head.position == len(stored) >= 40
        await log.append([an_entry(head)], after=head)  # the dead writer holds no lock
        await log.close()
