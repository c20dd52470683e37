"""Keys in a file keep the contract of all keyrings; the file is private, replaced as a whole, and never begun anew."""

from __future__ import annotations

import asyncio
import stat
import threading
from pathlib import Path

import msgspec
import pytest

from pvc.clock import SystemRng
from pvc.errors import Unavailable
from pvc.keyring.base import Keyring, new_key
from pvc.keyring.file import FileKeyring
from tests.contract.keyring_contract import KeyringContract, Open

RNG = SystemRng()


class TestFileKeyring(KeyringContract):
    """Each on the same file, one after the other: several at once there never are, so those at once are one."""

    @pytest.fixture
    def open_keyring(self, tmp_path: Path) -> Open:
        opened: list[FileKeyring] = []

        async def another() -> Keyring:
            if not opened or opened[0]._closed:
                opened[:] = [FileKeyring(tmp_path / "keyring")]
            return opened[0]

        return another


async def test_the_next_daemon_finds_what_the_last_one_kept(tmp_path: Path) -> None:
    key = await FileKeyring(tmp_path / "keyring").make(new_key("anna", RNG))
    assert await FileKeyring(tmp_path / "keyring").find("anna") == key


async def test_the_file_is_its_owners_alone_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    keyring = FileKeyring(tmp_path / "keyring")
    for name in ("anna", "bert"):
        key = await keyring.make(new_key(name, RNG))
    await keyring.destroy(key.id)
    assert [path.name for path in tmp_path.iterdir()] == ["keyring"]
    assert stat.S_IMODE((tmp_path / "keyring").stat().st_mode) == 0o600


async def test_a_destroyed_key_is_not_in_the_file(tmp_path: Path) -> None:
    keyring = FileKeyring(tmp_path / "keyring")
    key = await keyring.make(new_key("anna", RNG))
    secret = msgspec.json.encode(key.secret).strip(b'"')
    assert secret in (tmp_path / "keyring").read_bytes()
    await keyring.destroy(key.id)
    left = (tmp_path / "keyring").read_bytes()
    assert secret not in left and b"anna" not in left


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"format": 2, "keys": []}', b'{"format":1,"keys":[{"id":"sesame"}]}']
)
async def test_a_damaged_file_is_left_as_it_is_and_said_to_be_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "keyring").write_bytes(content)
    keyring = FileKeyring(tmp_path / "keyring")
    for call in (keyring.find("anna"), keyring.make(new_key("anna", RNG)), keyring.ids(), keyring.destroy("0")):
        with pytest.raises(Unavailable) as refusal:
            await call
        assert refusal.value.code == "keyring.damaged"
        assert "sesame" not in str(refusal.value)
    assert (tmp_path / "keyring").read_bytes() == content


async def test_a_folder_that_is_gone_is_said_to_be_unreachable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as refusal:
        await FileKeyring(tmp_path / "nowhere" / "keyring").make(new_key("anna", RNG))
    assert refusal.value.code == "keyring.unreachable"


async def test_a_change_that_nobody_waits_for_any_more_is_over_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring, slow = FileKeyring(tmp_path / "keyring"), threading.Event()
    store = keyring._store
    monkeypatch.setattr(keyring, "_store", lambda keys: (slow.wait(), store(keys)))
    making = asyncio.create_task(keyring.make(new_key("anna", RNG)))
    await asyncio.sleep(0.05)
    making.cancel()
    other = asyncio.create_task(keyring.make(new_key("bert", RNG)))
    await asyncio.sleep(0.05)
    slow.set()
    await other
    assert len(await keyring.ids()) == 2
    assert await keyring.find("anna") is not None
