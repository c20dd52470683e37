"""What the ZooKeeper log does when the network, the server, the session or the admin misbehaves; on a real server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError

from pvc.errors import Conflict, LogDamaged, OutcomeUnknown, Unavailable
from pvc.events.record import EMPTY, Head, unseal
from pvc.log.zookeeper import Credentials, Seen, ZookeeperLog
from tests.contract.log_contract import read_all, take, write
from tests.contract.log_records import a_chain, an_entry, bytes_of
from tests.integration.log_crowd import Crowd, assert_exactly
from tests.integration.tcp_proxy import TcpProxy
from tests.integration.zookeeper_server import ZookeeperServer, cluster, own_zookeeper, zookeeper

__all__ = ["cluster", "own_zookeeper", "zookeeper"]
pytestmark = pytest.mark.zookeeper

SESSION_S = 2.0
"""Short, so that a lost reply is noticed after 1.3 s and a session expires in a test's patience."""


@contextlib.asynccontextmanager
async def opened(hosts: str, cluster: str, **options: object) -> AsyncIterator[ZookeeperLog]:
    log = await ZookeeperLog.open(hosts, cluster, **({"session_timeout_s": SESSION_S} | options))  # type: ignore[arg-type]
    try:
        yield log
    finally:
        await log.close()


@contextlib.contextmanager
def zk_client(hosts: str, **options: object) -> Iterator[KazooClient]:
    """A client that is not PVC's."""
    client = KazooClient(hosts, timeout=SESSION_S, **options)
    client.start()
    try:
        yield client
    finally:
        client.stop()
        client.close()


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


# -- A log that must not be touched ----------------------------------------------------------------------------------


@pytest.mark.parametrize("credentials", [None, Credentials(user="pvc", password="secret")])
async def test_nobody_can_rewrite_or_remove_a_record_not_even_its_writer(
    zookeeper: ZookeeperServer, credentials: Credentials | None
) -> None:
    name = "acl-open" if credentials is None else "acl-digest"
    auth = [("digest", "pvc:secret")] if credentials else None
    with zk_client(zookeeper.hosts, auth_data=auth) as client:
        if not client.exists("/pvc"):
            client.create("/pvc")  # two identities share this server
        async with opened(zookeeper.hosts, name, credentials=credentials) as log:
            entry = an_entry(EMPTY)
            await log.append([entry], after=EMPTY)
            path = f"/pvc/{name}/log/s/{1:020d}/e-{0:010d}"
            assert client.get(path)[0] == entry.data
            with pytest.raises(NoAuthError):
                client.set(path, b"forged")
            with pytest.raises(NoAuthError):
                client.delete(path)
            with pytest.raises(NoAuthError):
                client.set_acls(path, client.get_acls(f"/pvc/{name}/log/s/{1:020d}")[0])
            assert await read_all(log) == [entry.data]


async def test_a_stranger_can_neither_read_nor_write_a_log_with_credentials(
    zookeeper: ZookeeperServer, cluster: str
) -> None:
    credentials = Credentials(user="pvc", password="secret")
    with zk_client(zookeeper.hosts) as stranger:
        if not stranger.exists("/pvc"):
            stranger.create("/pvc")
        async with opened(zookeeper.hosts, cluster, credentials=credentials) as log:
            await log.append([an_entry(EMPTY)], after=EMPTY)
            segment = f"/pvc/{cluster}/log/s/{1:020d}"
            for act in (
                lambda: stranger.get(f"{segment}/e-{0:010d}"),
                lambda: stranger.get(segment),
                lambda: stranger.set(segment, b"{}"),
                lambda: stranger.create(f"{segment}/e-", b"forged", sequence=True),
            ):
                with pytest.raises(NoAuthError):
                    act()  # type: ignore[no-untyped-call]
        wrong = Credentials(user="pvc", password="guess")
        with pytest.raises(Unavailable) as refusal:
            await ZookeeperLog.open(zookeeper.hosts, cluster, credentials=wrong)
        assert refusal.value.code == "log.not_allowed"


async def test_a_server_set_back_to_an_older_state_is_found_out_and_not_written_to(
    own_zookeeper: ZookeeperServer, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pvc.log.zookeeper_view.REWIND_GRACE_S", 0.5)
    async with opened(own_zookeeper.hosts, cluster) as log:
        await write(log, 3)
        own_zookeeper.stop()
        own_zookeeper.save_data("older")
        own_zookeeper.start()
        await write(log, 3)
        seen = log.seen
        following = asyncio.create_task(take(log.follow(6), 1))
        own_zookeeper.stop()
        own_zookeeper.set_back_to("older")
        own_zookeeper.start()

        # The live client, whose session the set-back server refuses until it is renewed.
        with pytest.raises(LogDamaged) as damage:
            await log.append([an_entry(seen.head)], after=seen.head)
        assert damage.value.code == "log.rewound"
        with pytest.raises(LogDamaged):
            await following

        # A node that restarts with what it remembers.
        with pytest.raises(LogDamaged) as damage:
            await ZookeeperLog.open(own_zookeeper.hosts, cluster, seen=seen)
        assert damage.value.code == "log.rewound"

    # Another, that remembers nothing, writes on and overtakes: the first must still see that it is not the same log.
    async with opened(own_zookeeper.hosts, cluster) as innocent:
        assert (await innocent.head()).position == 3
        await write(innocent, 4)
    with pytest.raises(LogDamaged) as damage:
        await ZookeeperLog.open(own_zookeeper.hosts, cluster, seen=seen)
    assert damage.value.code == "log.rewritten"


async def test_a_wiped_server_and_a_log_made_anew_are_found_out(zookeeper: ZookeeperServer, cluster: str) -> None:
    remembered = Seen(incarnation="11111111-1111-1111-1111-111111111111", head=EMPTY)
    with pytest.raises(LogDamaged) as damage:
        await ZookeeperLog.open(zookeeper.hosts, cluster, seen=remembered)
    assert damage.value.code == "log.gone"
    async with opened(zookeeper.hosts, cluster):
        with pytest.raises(LogDamaged) as damage:
            await ZookeeperLog.open(zookeeper.hosts, cluster, seen=remembered)
    assert damage.value.code == "log.other_incarnation"


async def test_a_restarted_node_recognises_its_log(zookeeper: ZookeeperServer, cluster: str) -> None:
    async with opened(zookeeper.hosts, cluster) as log:
        await write(log, 3)
        seen = log.seen
        await write(log, 2)
    async with opened(zookeeper.hosts, cluster, seen=seen) as log:
        assert (await log.head()).position == 5


async def test_a_foreign_znode_among_the_records_stops_the_writing(zookeeper: ZookeeperServer, cluster: str) -> None:
    async with opened(zookeeper.hosts, cluster) as log:
        await write(log, 1)
        with zk_client(zookeeper.hosts) as stranger:
            stranger.create(f"/pvc/{cluster}/log/s/{1:020d}/e-", b"stray", sequence=True)
        head = await log.head()
        with pytest.raises(LogDamaged) as damage:
            await log.append([an_entry(head)], after=head)
        assert damage.value.code == "log.misnumbered"
        with pytest.raises(LogDamaged):
            await log.append([an_entry(head)], after=head)


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
