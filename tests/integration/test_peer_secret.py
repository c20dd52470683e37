"""The nodes' secret in a real ZooKeeper: one for all, whoever comes first, and another one when it was deleted."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest
from kazoo.exceptions import NoAuthError

from pvc.clock import SystemClock, SystemRng
from pvc.errors import Unavailable
from pvc.peers import secret as secrets
from pvc.peers.secret import SECRET_BYTES, PeerSecret, read_secret
from pvc.zookeeper.types import Credentials
from tests.integration.zookeeper_clients import SESSION_S, opened, zk_client
from tests.integration.zookeeper_server import ZookeeperServer

pytestmark = pytest.mark.zookeeper


async def read(server: ZookeeperServer, cluster: str, **options: object) -> bytes:
    return await read_secret(server.hosts, cluster, rng=SystemRng(), session_timeout_s=SESSION_S, **options)  # type: ignore[arg-type]


async def test_nodes_that_start_together_share_one_secret(zookeeper: ZookeeperServer, cluster: str) -> None:
    found = await asyncio.gather(*(read(zookeeper, cluster) for _ in range(6)))
    assert len(set(found)) == 1
    assert len(found[0]) == SECRET_BYTES
    assert await read(zookeeper, cluster) == found[0]


async def test_it_is_made_beside_a_log_and_another_cluster_has_another(
    zookeeper: ZookeeperServer, cluster: str
) -> None:
    async with opened(zookeeper.hosts, cluster):
        mine = await read(zookeeper, cluster)
    assert mine != await read(zookeeper, f"{cluster}b")


async def test_nobody_without_the_clusters_identity_reads_it(own_zookeeper: ZookeeperServer, cluster: str) -> None:
    credentials = Credentials(user="pvc", password="s3cret")
    found = await read(own_zookeeper, cluster, credentials=credentials)
    assert await read(own_zookeeper, cluster, credentials=credentials) == found
    with zk_client(own_zookeeper.hosts) as stranger, pytest.raises(NoAuthError):
        stranger.get(f"/pvc/{cluster}/peers/secret")
    with pytest.raises(Unavailable) as refusal:
        await read(own_zookeeper, cluster)
    assert refusal.value.code == "log.not_allowed"


async def test_it_cannot_be_overwritten_even_by_a_node(own_zookeeper: ZookeeperServer, cluster: str) -> None:
    await read(own_zookeeper, cluster, credentials=Credentials(user="pvc", password="s3cret"))
    with zk_client(own_zookeeper.hosts, auth_data=[("digest", "pvc:s3cret")]) as node:
        with pytest.raises(NoAuthError):
            node.set(f"/pvc/{cluster}/peers/secret", bytes(32))
        assert node.get_acls(f"/pvc/{cluster}/peers/secret")[0][0].acl_list == ["READ"]


async def test_after_it_was_deleted_a_doubting_node_finds_the_new_one_and_logs_neither(
    zookeeper: ZookeeperServer, cluster: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shared = PeerSecret(lambda: read(zookeeper, cluster), SystemClock())
    assert shared.value == b""
    await shared.load()
    before = shared.value
    with zk_client(zookeeper.hosts) as admin:
        admin.delete(f"/pvc/{cluster}/peers/secret")
    shared.doubt()
    assert shared.value == before, "it was read a moment ago: strangers cannot have it read again and again"
    monkeypatch.setattr(secrets, "AGAIN_S", 0.0)
    shared.doubt()
    async with asyncio.timeout(10):
        while shared.value == before:
            await asyncio.sleep(0.01)
    assert await read(zookeeper, cluster) == shared.value
    await shared.close()
    for value in (before, shared.value):
        assert value.hex() not in caplog.text
        assert repr(value) not in caplog.text


async def test_a_znode_that_is_no_secret_is_told(zookeeper: ZookeeperServer, cluster: str) -> None:
    with zk_client(zookeeper.hosts) as admin:
        admin.create(f"/pvc/{cluster}/peers/secret", b"short", makepath=True)
    with pytest.raises(Unavailable) as refusal:
        await read(zookeeper, cluster)
    assert refusal.value.code == "peers.bad_secret"
    assert "short" not in refusal.value.message


async def test_without_a_zookeeper_there_is_none(cluster: str) -> None:
    port = random.randint(20_000, 30_000)
    with pytest.raises(Unavailable) as refusal:
        await read_secret(f"127.0.0.1:{port}", cluster, rng=SystemRng(), deadline_s=0.5)
    assert refusal.value.code == "log.unreachable"
