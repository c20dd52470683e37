"""The memory log keeps the contract of all logs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pvc.log.memory import MemoryLog
from tests.contract.log_contract import LogContract, OpenLog


class TestMemoryLog(LogContract):
    @pytest.fixture
    async def open_log(self) -> AsyncIterator[OpenLog]:
        log = MemoryLog()

        async def open_log() -> MemoryLog:
            return log  # one instance is shared by its clients

        yield open_log
        await log.close()
