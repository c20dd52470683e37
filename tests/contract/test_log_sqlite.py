"""The SQLite log keeps the contract of all logs, with every client a connection of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pvc.log.sqlite import SqliteLog
from tests.contract.log_contract import LogContract, OpenLog


class TestSqliteLog(LogContract):
    @pytest.fixture
    async def open_log(self, tmp_path: Path) -> AsyncIterator[OpenLog]:
        opened: list[SqliteLog] = []

        async def open_log() -> SqliteLog:
            opened.append(await SqliteLog.open(tmp_path / "log.db"))
            return opened[-1]

        yield open_log
        for log in opened:
            await log.close()
