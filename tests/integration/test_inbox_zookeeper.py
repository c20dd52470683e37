"""The inbox in ZooKeeper keeps the contract of all inboxes on a real server, also when its network does not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from pvc.errors import OutcomeUnknown, Unavailable
from pvc.log.base import Log
from pvc.log.inbox import Inbox
from pvc.log.inbox_zookeeper import ZookeeperInbox
from pvc.log.zookeeper import ZookeeperLog
from tests.contract.inbox_contract import InboxContract, Place, a_report
from tests.integration.tcp_proxy import TcpProxy
from tests.integration.zookeeper_clients import SESSION_S, zk_client
from tests.integration.zookeeper_server import ZookeeperServer, cluster, own_zookeeper, zookeeper

__all__ = ["cluster", "own_zookeeper", "zookeeper"]
pytestmark = pytest.mark.zookeeper


class OneServer:
    """Each client has sessions of its own."""

    def __init__(self, server: ZookeeperServer, cluster: str) -> None:
        self.server = server
        self.cluster = cluster
        self._opened: list[ZookeeperLog | ZookeeperInbox] = []

    async def client(self, hosts: str = "") -> tuple[ZookeeperLog, ZookeeperInbox]:
        log = await ZookeeperLog.open(self.server.hosts, self.cluster)
        inbox = await ZookeeperInbox.open(
            hosts or self.server.hosts, self.cluster, log, session_timeout_s=SESSION_S if hosts else 10.0
        )
        self._opened += [log, inbox]
        return log, inbox

    async def close(self) -> None:
        for port in self._opened:
            await port.close()


@pytest.fixture
async def one_server(zookeeper: ZookeeperServer, cluster: str) -> AsyncIterator[OneServer]:
    server = OneServer(zookeeper, cluster)
    yield server
    await server.close()


class TestZookeeperInbox(InboxContract):
    @pytest.fixture
    def place(self, one_server: OneServer) -> Place:
        class Clients:
            async def client(self) -> tuple[Log, Inbox]:
                return await one_server.client()

        return Clients()


async def test_reports_whose_reply_was_lost_are_there_once(one_server: OneServer) -> None:
    async with TcpProxy.to(one_server.server.port) as proxy:
        _, inbox = await one_server.client(proxy.hosts)
        for number in range(3):
            proxy.swallow_replies = True
            put = asyncio.create_task(inbox.put([a_report(2 * number), a_report(2 * number + 1)]))
            await asyncio.sleep(0.2)
            assert not put.done(), "the reply was to be lost"
            proxy.heal()
            await put
        assert [at.report.seen for at in await inbox.waiting() if at.report] == list(range(6))


async def test_reports_that_never_arrived_are_sent_again(one_server: OneServer) -> None:
    async with TcpProxy.to(one_server.server.port) as proxy:
        _, inbox = await one_server.client(proxy.hosts)
        proxy.swallow_requests = True
        put = asyncio.create_task(inbox.put([a_report(1)]))
        await asyncio.sleep(0.2)
        assert not put.done(), "the request was to be lost"
        proxy.heal()
        await put
        assert await inbox.keys() == [a_report(1).key]


async def test_what_is_taken_out_is_certainly_out_though_the_reply_was_lost(one_server: OneServer) -> None:
    async with TcpProxy.to(one_server.server.port) as proxy:
        _, inbox = await one_server.client(proxy.hosts)
        await inbox.put([a_report(1)])
        proxy.swallow_replies = True
        remove = asyncio.create_task(inbox.remove([a_report(1).key]))
        await asyncio.sleep(0.2)
        assert not remove.done(), "the reply was to be lost"
        proxy.heal()
        await remove
        assert await inbox.keys() == []


async def test_without_a_server_it_is_told_whether_something_may_have_been_laid_in(one_server: OneServer) -> None:
    async with TcpProxy.to(one_server.server.port) as proxy:
        _, inbox = await one_server.client(proxy.hosts)
        proxy.swallow_replies = True
        with pytest.raises(OutcomeUnknown):
            await inbox.put([a_report(1)])
        proxy.refuse = True
        proxy.cut()
        with pytest.raises(Unavailable) as refusal:
            await inbox.put([a_report(2)])
        assert refusal.value.code == "log.unreachable"
        proxy.heal()
        assert await inbox.keys() == [a_report(1).key]


async def test_a_new_report_is_noticed_after_the_connection_was_lost(one_server: OneServer) -> None:
    async with TcpProxy.to(one_server.server.port) as proxy:
        _, inbox = await one_server.client(proxy.hosts)
        _, other = await one_server.client()
        assert await inbox.waiting() == []
        proxy.cut()
        await inbox.keys()
        await other.put([a_report(1)])
        async with asyncio.timeout(20):
            while not await inbox.waiting():
                await inbox.changed(20)
        assert await inbox.keys() == [a_report(1).key]


async def test_what_somebody_else_put_there_is_shown_as_unreadable(one_server: OneServer) -> None:
    _, inbox = await one_server.client()
    await inbox.put([a_report(1)])
    with zk_client(one_server.server.hosts) as client:
        client.create(f"/pvc/{one_server.cluster}/inbox/hv1-JUNK", b"{}")
    found = {at.key: at.report is not None for at in await inbox.waiting()}
    assert found == {a_report(1).key: True, "hv1-JUNK": False}
    await inbox.remove(["hv1-JUNK"])
    assert await inbox.keys() == [a_report(1).key]


async def test_an_inbox_that_is_no_more_comes_back_with_the_next_report(own_zookeeper: ZookeeperServer) -> None:
    own_zookeeper.stop()
    own_zookeeper.save_data("empty")
    own_zookeeper.start()
    log = await ZookeeperLog.open(own_zookeeper.hosts, "main")
    inbox = await ZookeeperInbox.open(own_zookeeper.hosts, "main", log, session_timeout_s=SESSION_S)
    await inbox.put([a_report(1)])
    own_zookeeper.stop()
    own_zookeeper.set_back_to("empty")
    own_zookeeper.start()
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(Unavailable, OutcomeUnknown):
                await inbox.put([a_report(2)])
                break
    assert [at.key for at in await inbox.waiting()] == [a_report(2).key]
    await inbox.close()
    await log.close()
