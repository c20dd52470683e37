"""The inbox in memory keeps the contract of all inboxes."""

from __future__ import annotations

import pytest

from pvc.log.base import Log
from pvc.log.inbox import Inbox
from pvc.log.inbox_memory import MemoryInbox
from pvc.log.memory import MemoryLog
from tests.contract.inbox_contract import InboxContract, Place


class OneInstance:
    """Shared by its clients."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.inbox = MemoryInbox(self.log)

    async def client(self) -> tuple[Log, Inbox]:
        return self.log, self.inbox


class TestMemoryInbox(InboxContract):
    @pytest.fixture
    def place(self) -> Place:
        return OneInstance()
