"""The log's quota in a real ZooKeeper: what is over it is refused with a remedy, and what makes room is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from kazoo.exceptions import NoAuthError
from kazoo.security import make_acl

from pvc.errors import Unavailable
from pvc.events.record import EMPTY, Entry, Head
from pvc.log.quota import MIB, Quota, read_quota, set_quota
from pvc.log.zookeeper import Credentials, ZookeeperLog
from pvc.log.zookeeper_layout import Layout
from pvc.zookeeper.bridge import Bridge
from pvc.zookeeper.types import CREATE, DELETE, READ, WRITE, Create, Delete, OverQuota
from tests.contract.log_contract import read_all
from tests.contract.log_records import a_chain, bytes_of
from tests.integration.zookeeper_clients import SESSION_S, opened, zk_client
from tests.integration.zookeeper_server import ZookeeperServer

pytestmark = pytest.mark.zookeeper

PLENTY = Quota(records=100_000, size_bytes=100 * MIB)


@pytest.fixture
async def bridge(zookeeper: ZookeeperServer) -> AsyncIterator[Bridge]:
    bridge = Bridge(zookeeper.hosts, session_timeout_s=SESSION_S)
    bridge.start()
    await bridge.wait_connected()
    yield bridge
    await bridge.close()


async def test_a_log_has_no_quota_until_one_is_set_and_then_that_one(
    zookeeper: ZookeeperServer, bridge: Bridge, cluster: str
) -> None:
    layout = Layout(cluster)
    async with opened(zookeeper.hosts, cluster):
        assert await read_quota(bridge, layout) is None
        await set_quota(bridge, layout, PLENTY)
        assert await read_quota(bridge, layout) == PLENTY
        await set_quota(bridge, layout, PLENTY)
        more = Quota(records=200_000, size_bytes=1)
        await set_quota(bridge, layout, more)
        assert await read_quota(bridge, layout) == more


async def test_nodes_that_start_together_all_set_it(zookeeper: ZookeeperServer, bridge: Bridge, cluster: str) -> None:
    layout = Layout(cluster)
    async with opened(zookeeper.hosts, cluster):
        await asyncio.gather(*(set_quota(bridge, layout, PLENTY) for _ in range(8)))
    assert await read_quota(bridge, layout) == PLENTY


@pytest.mark.parametrize("batch", [1, 50])
async def test_a_writer_that_runs_wild_is_refused_and_nothing_of_it_is_written(
    zookeeper: ZookeeperServer, bridge: Bridge, cluster: str, batch: int
) -> None:
    async with opened(zookeeper.hosts, cluster) as log:
        await set_quota(bridge, Layout(cluster), Quota(records=200, size_bytes=100 * MIB))
        head, written = await fill(log, batch=batch)
        assert 100 < head.position < 300
        assert await log.head() == head
        assert await read_all(log) == bytes_of(written)


async def test_records_that_are_large_are_counted_by_their_bytes(
    zookeeper: ZookeeperServer, bridge: Bridge, cluster: str
) -> None:
    async with opened(zookeeper.hosts, cluster) as log:
        await set_quota(bridge, Layout(cluster), Quota(records=100_000, size_bytes=MIB))
        head, written = await fill(log, batch=2, size=50_000)
        assert sum(len(entry.data) for entry in written) <= MIB + 200_000
        assert head.position < 30


async def test_what_was_there_before_the_quota_counts_too(
    zookeeper: ZookeeperServer, bridge: Bridge, cluster: str
) -> None:
    async with opened(zookeeper.hosts, cluster) as log:
        before = a_chain(EMPTY, 100)
        await log.append(before, after=EMPTY)
        await set_quota(bridge, Layout(cluster), Quota(records=50, size_bytes=100 * MIB))
        with pytest.raises(Unavailable) as refusal:
            await log.append(a_chain(before[-1].head, 1), after=before[-1].head)
        assert refusal.value.code == "log.quota"


async def test_over_the_quota_room_can_be_made_and_then_the_same_append_succeeds(
    zookeeper: ZookeeperServer, bridge: Bridge, cluster: str
) -> None:
    layout = Layout(cluster)
    # A place as that of a sealed segment whose records are deleted one after the other.
    extra = f"{layout.segments}/sealed"
    async with opened(zookeeper.hosts, cluster) as log:
        await bridge.multi([Create(extra, b"", READ | CREATE | DELETE)])
        await bridge.multi([Create(f"{extra}/e-{at}", bytes(100), READ | DELETE) for at in range(100)])
        await set_quota(bridge, layout, Quota(records=200, size_bytes=100 * MIB))
        head, _ = await fill(log, batch=30)
        await bridge.multi([Create(f"{layout.manifests}/1", bytes(300), READ | WRITE)])
        await bridge.multi([Delete(f"{extra}/e-{at}", -1) for at in range(100)])
        following = a_chain(head, 30)
        assert await log.append(following, after=head) == following[-1].head


async def test_a_raised_quota_lets_the_log_go_on_at_once_and_after_a_restart_it_still_holds(
    own_zookeeper: ZookeeperServer, cluster: str
) -> None:
    layout, wider = Layout(cluster), Quota(records=400, size_bytes=100 * MIB)
    async with opened(own_zookeeper.hosts, cluster) as log:
        bridge = Bridge(own_zookeeper.hosts, session_timeout_s=SESSION_S)
        bridge.start()
        await bridge.wait_connected()
        await set_quota(bridge, layout, Quota(records=200, size_bytes=100 * MIB))
        head, _ = await fill(log, batch=20)
        await set_quota(bridge, layout, wider)
        further = a_chain(head, 50)
        await log.append(further, after=head)
        await bridge.close()
    own_zookeeper.restart()
    async with opened(own_zookeeper.hosts, cluster) as log:
        head, _ = await fill(log, batch=20, head=further[-1].head)
        assert 350 < head.position < 450


async def test_a_log_with_an_identity_has_a_quota_that_nobody_else_can_raise(
    own_zookeeper: ZookeeperServer, cluster: str
) -> None:
    credentials, layout = Credentials(user="pvc", password="s3cret"), Layout(cluster)
    async with opened(own_zookeeper.hosts, cluster, credentials=credentials, quota=PLENTY):
        bridge = Bridge(own_zookeeper.hosts, session_timeout_s=SESSION_S, credentials=credentials)
        bridge.start()
        await bridge.wait_connected()
        assert await read_quota(bridge, layout) == PLENTY
        with zk_client(own_zookeeper.hosts) as stranger, pytest.raises(NoAuthError):
            stranger.set(f"/zookeeper/quota{layout.segments}/zookeeper_limits", b"count=-1,bytes=-1")
        assert await read_quota(bridge, layout) == PLENTY
        await bridge.close()


async def test_an_identity_that_may_set_no_quota_has_its_log_all_the_same(
    own_zookeeper: ZookeeperServer, cluster: str, caplog: pytest.LogCaptureFixture
) -> None:
    with zk_client(own_zookeeper.hosts) as admin:
        admin.set_acls("/zookeeper/quota", [make_acl("world", "anyone", read=True)])
    async with opened(own_zookeeper.hosts, cluster, quota=PLENTY) as log:
        assert "no quota" in caplog.text
        entries = a_chain(EMPTY, 3)
        assert await log.append(entries, after=EMPTY) == entries[-1].head


async def fill(log: ZookeeperLog, *, batch: int, size: int = 100, head: Head = EMPTY) -> tuple[Head, list[Entry]]:
    """Append until it is refused, as it must be; the head and what was written."""
    written: list[Entry] = []
    for _ in range(2_000):
        entries = a_chain(head, batch, size=size)
        try:
            head = await log.append(entries, after=head)
        except OverQuota as refusal:
            assert refusal.code == "log.quota"
            assert "archive" in refusal.hint and "log.quota_records" in refusal.hint
            return head, written
        written += entries
    raise AssertionError(f"nothing was refused up to {head.position}")
