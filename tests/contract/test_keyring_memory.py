"""Keys in memory keep the contract of all keyrings."""

from __future__ import annotations

import pytest

from pvc.keyring.base import Keyring
from pvc.keyring.memory import MemoryKeyring
from tests.contract.keyring_contract import KeyringContract, Open


class TestMemoryKeyring(KeyringContract):
    @pytest.fixture
    def open_keyring(self) -> Open:
        first = MemoryKeyring()

        async def another() -> Keyring:
            return MemoryKeyring(first)

        return another
