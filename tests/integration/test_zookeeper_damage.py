"""A ZooKeeper log that others must not touch, and what it does where they did; on a real server."""

from __future__ import annotations

import asyncio

import pytest
from kazoo.exceptions import NoAuthError

from pvc.errors import LogDamaged, Unavailable
from pvc.events.record import EMPTY
from pvc.log.zookeeper import Credentials, Seen, ZookeeperLog
from tests.contract.log_contract import read_all, take, write
from tests.contract.log_records import an_entry
from tests.integration.zookeeper_clients import opened, zk_client
from tests.integration.zookeeper_server import ZookeeperServer, cluster, own_zookeeper, zookeeper

__all__ = ["cluster", "own_zookeeper", "zookeeper"]
pytestmark = pytest.mark.zookeeper


@pytest.mark.parametrize("credentials", [None, Credentials(user="pvc", password="secret")])
async def test_nobody_can_rewrite_or_remove_a_record_not_even_its_writer(
    zookeeper: ZookeeperServer, credentials: Credentials | None
) -> None:
    name = "acl-open" if credentials is None else "acl-digest"
    auth = [("digest", "pvc:secret")] if credentials else None
    with zk_client(zookeeper.hosts, auth_data=auth) as client:
        if not client.exists("/pvc"):
            client.create("/pvc")  # two identities share this server
        archivist = Credentials(user="archivist", password="other")
        async with opened(zookeeper.hosts, name, credentials=credentials, archivist=archivist) as log:
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
