"""Keys in ZooKeeper keep the contract of all keyrings on a real server, through lost requests and replies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from pvc.clock import SystemRng
from pvc.errors import Unavailable
from pvc.keyring.base import Keyring, new_key
from pvc.keyring.zookeeper import ZookeeperKeyring
from pvc.zookeeper.bridge import Bridge
from pvc.zookeeper.types import READ, Create, Credentials, Delete, NotAllowed, SetData
from tests.contract.keyring_contract import KeyringContract, Open
from tests.integration.tcp_proxy import TcpProxy
from tests.integration.zookeeper_server import ZookeeperServer, cluster, own_zookeeper, zookeeper

__all__ = ["cluster", "own_zookeeper", "zookeeper"]
pytestmark = pytest.mark.zookeeper

TIMEOUT_S = 2.0
RNG = SystemRng()


class TestZookeeperKeyring(KeyringContract):
    @pytest.fixture
    async def open_keyring(self, zookeeper: ZookeeperServer, cluster: str) -> AsyncIterator[Open]:
        opened: list[ZookeeperKeyring] = []

        async def another() -> Keyring:
            opened.append(await ZookeeperKeyring.open(zookeeper.hosts, cluster, session_timeout_s=TIMEOUT_S))
            return opened[-1]

        yield another
        for keyring in opened:
            await keyring.close()


@contextlib.asynccontextmanager
async def keyring_at(hosts: str, cluster: str, **options: object) -> AsyncIterator[ZookeeperKeyring]:
    keyring = await ZookeeperKeyring.open(hosts, cluster, session_timeout_s=TIMEOUT_S, **options)  # type: ignore[arg-type]
    try:
        yield keyring
    finally:
        await keyring.close()


@contextlib.asynccontextmanager
async def bridge_at(hosts: str, credentials: Credentials | None = None) -> AsyncIterator[Bridge]:
    bridge = Bridge(hosts, credentials=credentials, session_timeout_s=TIMEOUT_S)
    bridge.start()
    await bridge.wait_connected()
    try:
        yield bridge
    finally:
        await bridge.close()


async def test_a_key_whose_reply_was_lost_is_kept_once(zookeeper: ZookeeperServer, cluster: str) -> None:
    async with TcpProxy.to(zookeeper.port) as proxy, keyring_at(proxy.hosts, cluster) as keyring:
        await keyring.make(new_key("bert", RNG))
        key = new_key("anna", RNG)

        def lose_the_reply(chunk: bytes) -> None:
            proxy.swallow_replies = proxy.swallow_replies or (key.id.encode() in chunk and b'"principal"' in chunk)

        proxy.on_request = lose_the_reply
        making = asyncio.create_task(keyring.make(key))
        await asyncio.wait_for(until_set(lambda: proxy.swallow_replies), 10)
        await asyncio.sleep(0.2)
        proxy.on_request = lambda chunk: None
        proxy.heal()
        assert await making == key
        assert len(await keyring.ids()) == 2


async def test_an_end_whose_reply_was_lost_is_an_end(zookeeper: ZookeeperServer, cluster: str) -> None:
    async with TcpProxy.to(zookeeper.port) as proxy, keyring_at(proxy.hosts, cluster) as keyring:
        key = await keyring.make(new_key("anna", RNG))
        proxy.swallow_replies = True
        ending = asyncio.create_task(keyring.destroy(key.id))
        await asyncio.sleep(0.3)
        proxy.heal()
        await ending
        assert await keyring.find("anna") is None and await keyring.ids() == []


async def test_without_a_server_a_call_ends_in_time_and_says_so(zookeeper: ZookeeperServer, cluster: str) -> None:
    async with TcpProxy.to(zookeeper.port) as proxy:
        proxy.refuse = True
        async with keyring_at(proxy.hosts, cluster, deadline_s=0.5) as keyring:
            for call in (keyring.find("anna"), keyring.make(new_key("anna", RNG)), keyring.destroy("3f2a91c0")):
                with pytest.raises(Unavailable) as refusal:
                    await call
                assert refusal.value.code == "keyring.unreachable"
            proxy.heal()
            keyring._deadline_s = 10.0
            assert await keyring.find("anna") is None


async def test_a_name_whose_key_was_deleted_by_hand_gets_another(zookeeper: ZookeeperServer, cluster: str) -> None:
    async with keyring_at(zookeeper.hosts, cluster) as keyring, bridge_at(zookeeper.hosts) as bridge:
        lost = await keyring.make(new_key("anna", RNG))
        await bridge.multi([Delete(f"/pvc/{cluster}/keys/{lost.id}", -1)])
        assert await keyring.find("anna") is None
        again = await keyring.make(new_key("anna", RNG))
        assert await keyring.find("anna") == again


async def test_what_is_no_key_is_said_to_be_damaged_and_not_quoted(zookeeper: ZookeeperServer, cluster: str) -> None:
    async with keyring_at(zookeeper.hosts, cluster) as keyring, bridge_at(zookeeper.hosts) as bridge:
        await keyring.make(new_key("anna", RNG))
        await bridge.multi([Create(f"/pvc/{cluster}/keys/00000000", b'{"secret": "sesame"}', READ)])
        with pytest.raises(Unavailable) as refusal:
            await keyring.read(["00000000"])
        assert refusal.value.code == "keyring.damaged" and "sesame" not in str(refusal.value)


async def test_only_the_clusters_identity_reads_keys_and_nobody_changes_them(
    zookeeper: ZookeeperServer, cluster: str
) -> None:
    identity = Credentials(user="pvc", password="sesame")
    async with keyring_at(zookeeper.hosts, cluster, credentials=identity) as keyring:
        key = await keyring.make(new_key("anna", RNG))
        path = f"/pvc/{cluster}/keys/{key.id}"
        async with bridge_at(zookeeper.hosts) as stranger:
            for reading in (stranger.get(path), stranger.children(f"/pvc/{cluster}/keys")):
                with pytest.raises(NotAllowed):
                    await reading
            with pytest.raises(NotAllowed):
                await stranger.multi([Delete(path, -1)])
        async with bridge_at(zookeeper.hosts, identity) as member:
            with pytest.raises(NotAllowed):
                await member.multi([SetData(path, b"other", -1)])
        assert await keyring.find("anna") == key


async def until_set(holds: object) -> None:
    while not holds():  # type: ignore[operator]
        await asyncio.sleep(0.01)
