"""What the ZooKeeper log does when the network, the server or the session misbehaves; on a real server."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from pvc.errors import Conflict, OutcomeUnknown, Unavailable
from pvc.events.record import EMPTY, Head, unseal
from pvc.log.zookeeper import ZookeeperLog
from tests.contract.log_contract import read_all, take, write
from tests.contract.log_records import a_chain, an_entry, bytes_of
from tests.integration.log_crowd import Crowd, assert_exactly
from tests.integration.tcp_proxy import TcpProxy
from tests.integration.zookeeper_clients import SESSION_S, opened, zk_client
from tests.integration.zookeeper_server import ZookeeperServer, cluster, own_zookeeper, zookeeper

__all__ = ["cluster", "own_zookeeper", "zookeeper"]
pytestmark = pytest.mark.zookeeper


# -- Many writers ----------------------------------------------------------------------------------------------------


async def test_four_processes_append_at_once_and_nothing_is_lost_or_doubled(
    zookeeper: ZookeeperServer, cluster: str
) -> None:
    crowd = Crowd("zookeeper", zookeeper.hosts, cluster)
    await crowd.start(processes=4, each=50)
    await crowd.finish()
    assert [len(ids) for ids in crowd.acknowledged] == [50] * 4
    async with opened(zookeeper.hosts, cluster) as log:
        await assert_exactly(log, crowd.acknowledged)


async def test_several_clusters_founded_at_once_on_a_new_ensemble_do_not_take_each_other_for_damage(
    own_zookeeper: ZookeeperServer,
) -> None:
    names = [f"c{number}" for number in range(8)]
    logs = await asyncio.gather(*(ZookeeperLog.open(own_zookeeper.hosts, name) for name in names))
    assert [await log.head() for log in logs] == [EMPTY] * len(logs)
    assert len({log.seen.incarnation for log in logs}) == len(logs)
    await asyncio.gather(*(log.close() for log in logs))


async def test_many_clients_that_found_the_log_at_once_find_the_same_log(
    zookeeper: ZookeeperServer, cluster: str
) -> None:
    logs = await asyncio.gather(*(ZookeeperLog.open(zookeeper.hosts, cluster) for _ in range(8)))
    assert len({log.seen.incarnation for log in logs}) == 1
    await logs[0].append([an_entry(EMPTY)], after=EMPTY)
    assert [(await log.head()).position for log in logs] == [1] * 8
    await asyncio.gather(*(log.close() for log in logs))


# -- A network that loses things -------------------------------------------------------------------------------------


async def test_a_reply_lost_in_mid_append_leaves_no_duplicate(zookeeper: ZookeeperServer, cluster: str) -> None:
    async with TcpProxy.to(zookeeper.port) as proxy, opened(proxy.hosts, cluster) as log:
        head = EMPTY
        for _ in range(3):
            entries = a_chain(head, 2)
            proxy.swallow_replies = True
            append = asyncio.create_task(log.append(entries, after=head))
            await asyncio.sleep(0.2)
            assert not append.done(), "the reply was to be lost"
            proxy.heal()
            head = await append
            assert head == entries[-1].head
        assert len(await read_all(log)) == 6


async def test_a_request_that_never_arrived_is_sent_again(zookeeper: ZookeeperServer, cluster: str) -> None:
    async with TcpProxy.to(zookeeper.port) as proxy, opened(proxy.hosts, cluster) as log:
        first = an_entry(EMPTY)
        proxy.swallow_requests = True
        append = asyncio.create_task(log.append([first], after=EMPTY))
        await asyncio.sleep(0.2)
        async with opened(zookeeper.hosts, cluster) as witness:
            assert await witness.head() == EMPTY
        proxy.heal()
        assert await append == first.head
        assert await read_all(log) == [first.data]


async def test_a_silent_connection_is_given_up_even_while_others_keep_asking(
    zookeeper: ZookeeperServer, cluster: str
) -> None:
    """No cut, no error: the replies just stop coming on this connection; the next one is fine.

    Every request sent postpones kazoo's own ping, so without the bridge's help this is never noticed.
    """
    async with TcpProxy.to(zookeeper.port) as proxy, opened(proxy.hosts, cluster) as log:
        deaf = set(proxy._open)

        def deafen_the_old_connection(chunk: bytes) -> None:
            proxy.swallow_replies = bool(deaf & proxy._open)

        async def keep_asking() -> None:
            while True:
                await asyncio.sleep(0.1)
                asking.append(asyncio.create_task(log.head()))

        proxy.on_request = deafen_the_old_connection
        proxy.swallow_replies = True
        asking: list[asyncio.Task[Head]] = []
        impatient = asyncio.create_task(keep_asking())
        first = an_entry(EMPTY)
        async with asyncio.timeout(3 * SESSION_S):
            assert await log.append([first], after=EMPTY) == first.head
        impatient.cancel()
        assert len(asking) > 5
        for task in asking:
            assert (await task).position in (0, 1)
        assert await read_all(log) == [first.data]


async def test_a_silent_connection_is_given_up_though_all_who_ask_lose_patience_sooner(
    zookeeper: ZookeeperServer, cluster: str
) -> None:
    async with TcpProxy.to(zookeeper.port) as proxy, opened(proxy.hosts, cluster) as log:
        deaf = set(proxy._open)

        def deafen_the_old_connection(chunk: bytes) -> None:
            proxy.swallow_replies = bool(deaf & proxy._open)

        proxy.on_request = deafen_the_old_connection
        proxy.swallow_replies = True
        head = None
        async with asyncio.timeout(3 * SESSION_S):
            while head is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        head = await log.head()
        assert head == EMPTY


async def test_another_record_in_its_place_is_a_conflict_after_a_lost_request(
    zookeeper: ZookeeperServer, cluster: str
) -> None:
    async with (
        TcpProxy.to(zookeeper.port) as proxy,
        opened(proxy.hosts, cluster) as log,
        opened(zookeeper.hosts, cluster) as other,
    ):
        proxy.swallow_requests = True
        append = asyncio.create_task(log.append([an_entry(EMPTY)], after=EMPTY))
        await asyncio.sleep(0.2)
        theirs = an_entry(EMPTY)
        await other.append([theirs], after=EMPTY)
        proxy.heal()
        with pytest.raises(Conflict):
            await append
        assert await read_all(log) == [theirs.data]


async def test_an_append_committed_and_built_upon_by_another_is_still_recognised(
    zookeeper: ZookeeperServer, cluster: str
) -> None:
    async with (
        TcpProxy.to(zookeeper.port) as proxy,
        opened(proxy.hosts, cluster) as log,
        opened(zookeeper.hosts, cluster) as other,
    ):
        mine = an_entry(EMPTY)
        proxy.swallow_replies = True
        append = asyncio.create_task(log.append([mine], after=EMPTY))
        await take(other.follow(0), 1)
        theirs = an_entry(mine.head)
        await other.append([theirs], after=mine.head)
        proxy.heal()
        assert await append == mine.head
        assert await read_all(log) == bytes_of([mine, theirs])


async def test_an_outcome_that_cannot_be_learned_in_time_is_called_unknown(
    zookeeper: ZookeeperServer, cluster: str
) -> None:
    async with TcpProxy.to(zookeeper.port) as proxy, opened(proxy.hosts, cluster, deadline_s=0.5) as log:
        entry = an_entry(EMPTY)
        proxy.swallow_replies = True
        with pytest.raises(OutcomeUnknown) as failure:
            await log.append([entry], after=EMPTY)
        assert failure.value.code == "log.outcome_unknown"
        proxy.heal()
        assert await patient_head(log) == entry.head  # it had arrived


async def test_without_a_server_nothing_is_sent_and_that_is_certain(zookeeper: ZookeeperServer, cluster: str) -> None:
    async with TcpProxy.to(zookeeper.port) as proxy, opened(proxy.hosts, cluster, deadline_s=0.5) as log:
        proxy.refuse = True
        proxy.cut()
        await asyncio.sleep(0.2)
        for call in (log.append([an_entry(EMPTY)], after=EMPTY), log.head(), log.read(1, 1)):
            with pytest.raises(Unavailable) as refusal:
                await call
            assert refusal.value.code == "log.unreachable"
        proxy.heal()
        assert await patient_head(log) == EMPTY


async def test_a_log_that_cannot_be_reached_does_not_open(cluster: str) -> None:
    with pytest.raises(Unavailable) as refusal:
        await ZookeeperLog.open("127.0.0.1:1", cluster, deadline_s=0.5)
    assert refusal.value.code == "log.unreachable"
    assert "127.0.0.1:1" in refusal.value.message


async def test_connections_cut_again_and_again_lose_and_double_nothing(
    zookeeper: ZookeeperServer, cluster: str
) -> None:
    async with TcpProxy.to(zookeeper.port) as proxy, opened(proxy.hosts, cluster) as log:
        crowd = Crowd("zookeeper", proxy.hosts, cluster)
        await crowd.start(processes=3, each=40)
        following = asyncio.create_task(take(log.follow(0), 120))

        async def disturb() -> None:
            while True:
                await asyncio.sleep(0.15)
                proxy.swallow_replies = True
                await asyncio.sleep(0.02)
                proxy.heal()

        disturbing = asyncio.create_task(disturb())
        await crowd.finish()
        disturbing.cancel()
        proxy.heal()
        await assert_exactly(log, crowd.acknowledged)
        assert await following == await read_all(log)


async def test_a_slow_network_is_only_slow(zookeeper: ZookeeperServer, cluster: str) -> None:
    async with TcpProxy.to(zookeeper.port) as proxy, opened(proxy.hosts, cluster) as log:
        proxy.delay_s = 0.1
        ids = await write(log, 3)
        assert [unseal(data).record.id for data in await read_all(log)] == ids


# -- A server that dies, a session that ends -------------------------------------------------------------------------


async def test_a_server_killed_under_load_keeps_all_that_it_acknowledged(
    own_zookeeper: ZookeeperServer, cluster: str
) -> None:
    async with opened(own_zookeeper.hosts, cluster) as log:
        following = asyncio.create_task(take(log.follow(0), 300))
        crowd = Crowd("zookeeper", own_zookeeper.hosts, cluster)
        await crowd.start(processes=3, each=100)
        for goal in (60, 160):
            await crowd.reach(goal)
            await asyncio.to_thread(own_zookeeper.restart)
        await crowd.finish()
        await assert_exactly(log, crowd.acknowledged)
        assert await following == await read_all(log)


async def test_after_its_session_expired_the_log_goes_on_and_its_follower_misses_nothing(
    zookeeper: ZookeeperServer, cluster: str
) -> None:
    async with opened(zookeeper.hosts, cluster) as log, opened(zookeeper.hosts, cluster) as other:
        following = asyncio.create_task(take(log.follow(0), 6))
        await write(log, 2)
        session = log._view.bridge.session
        assert session is not None
        await asyncio.to_thread(_end_session, zookeeper.hosts, session)
        await write(other, 2)
        await write(log, 2)
        assert await following == await read_all(other)
        assert log._view.bridge.session != session


async def test_a_partition_longer_than_the_session_heals(zookeeper: ZookeeperServer, cluster: str) -> None:
    async with (
        TcpProxy.to(zookeeper.port) as proxy,
        opened(proxy.hosts, cluster) as log,
        opened(zookeeper.hosts, cluster) as other,
    ):
        following = asyncio.create_task(take(log.follow(0), 4))
        await write(log, 1)
        session = log._view.bridge.session
        proxy.swallow_requests = proxy.swallow_replies = True
        await asyncio.sleep(2 * SESSION_S)
        await write(other, 2)
        proxy.heal()
        await write(log, 1)
        assert await following == await read_all(other)
        assert log._view.bridge.session != session


# -- Cost ------------------------------------------------------------------------------------------------------------


async def test_an_append_in_the_steady_state_is_one_request(zookeeper: ZookeeperServer, cluster: str) -> None:
    async with TcpProxy.to(zookeeper.port) as proxy, opened(proxy.hosts, cluster, session_timeout_s=20) as log:
        head = await log.append([an_entry(EMPTY)], after=EMPTY)
        requests: list[bytes] = []
        proxy.on_request = requests.append
        for _ in range(10):
            head = await log.append([an_entry(head)], after=head)
        assert len(requests) == 10


async def patient_head(log: ZookeeperLog) -> Head:
    """The head, as soon as the log recovers; its own deadline may be shorter than that takes."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(Unavailable):
                return await log.head()


def _end_session(hosts: str, session: tuple[int, bytes]) -> None:
    """Take the session over and close it, which for its owner is an expiry."""
    with zk_client(hosts, client_id=session):
        pass
