"""The simulated ensemble under faults: it keeps ZooKeeper's promises, breaks none that it has, and keeps no others."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from pvc.sim.loop import run_virtual
from pvc.sim.zookeeper_ensemble import TICK_S, Ensemble
from pvc.sim.zookeeper_server import Role, Txn
from pvc.zookeeper.port import ZookeeperSession
from pvc.zookeeper.types import CREATE, DELETE, READ, WRITE, Create, Lost, NoNode, NoSession, SetData
from tests.support.virtual import virtual

ALL = READ | WRITE | CREATE | DELETE
TIMEOUT_S = 10.0
ANY = -1


def ensemble_of(size: int = 3, seed: int = 1) -> Ensemble:
    return Ensemble(random.Random(seed), [f"s{number}" for number in range(1, size + 1)])


async def client_of(ensemble: Ensemble, name: str, server: str = "", timeout_s: float = TIMEOUT_S) -> ZookeeperSession:
    """A session; at that server if one is named."""
    others = [other for other in ensemble.servers if server and other != server]
    for other in others:
        ensemble.cut(name, other)
    session = ensemble.client(name)("simulated", session_timeout_s=timeout_s)
    session.start()
    await session.wait_connected()
    for other in others:
        ensemble.mend(name, other)
    return session


async def led(ensemble: Ensemble) -> str:
    """The leader's name, once there is one."""
    while ensemble.leader is None:
        await asyncio.sleep(0.1)
    return ensemble.leader.name


def followers_of(ensemble: Ensemble) -> list[str]:
    return [name for name, server in ensemble.servers.items() if server.role is Role.FOLLOWING]


def part(ensemble: Ensemble, name: str) -> None:
    """Cut a server off from the other servers."""
    for other in ensemble.servers:
        if other != name:
            ensemble.cut(name, other)


async def insist(session: ZookeeperSession, path: str) -> bool:
    """Whether it is there, asked until there is an answer."""
    async with asyncio.timeout(120):
        while True:
            with contextlib.suppress(Lost, NoSession):
                await session.sync("/")
                return await session.exists(path)
            await asyncio.sleep(0.1)


@virtual
async def test_what_was_acknowledged_survives_the_leader() -> None:
    ensemble = ensemble_of()
    leader = await led(ensemble)
    a = await client_of(ensemble, "a")
    await a.multi([Create("/x", b"", ALL)])
    ensemble.stop(leader)
    assert await led(ensemble) != leader
    assert await insist(a, "/x")
    ensemble.start(leader)
    await asyncio.sleep(5)
    assert [server.role for server in ensemble.servers.values()].count(Role.FOLLOWING) == 2
    assert all("/x" in server.tree.nodes for server in ensemble.servers.values())


@virtual
async def test_what_only_a_deposed_leader_has_is_lost_and_was_never_acknowledged() -> None:
    ensemble = ensemble_of()
    leader = await led(ensemble)
    a = await client_of(ensemble, "a", leader)
    part(ensemble, leader)
    with pytest.raises(Lost):
        await a.multi([Create("/x", b"", ALL)])
    await asyncio.sleep(ensemble.sync_limit_s)
    assert await led(ensemble) != leader
    assert not await insist(a, "/x")
    ensemble.cuts.clear()
    await asyncio.sleep(5)
    assert all("/x" not in server.tree.nodes for server in ensemble.servers.values())
    assert ensemble.servers[leader].role is Role.FOLLOWING


@virtual
async def test_what_a_follower_has_on_its_disk_may_be_committed_by_the_next_leader() -> None:
    ensemble = ensemble_of()
    leader = await led(ensemble)
    a = await client_of(ensemble, "a", leader)
    writing = asyncio.ensure_future(a.multi([Create("/x", b"", ALL)]))
    while not any(txn.steps for name in followers_of(ensemble) for txn in ensemble.servers[name].log):
        await asyncio.sleep(0.0001)
    ensemble.stop(leader, silently=True)
    with pytest.raises(Lost):
        await writing
    assert await insist(a, "/x")


@virtual
async def test_a_server_that_is_behind_answers_with_what_it_has_until_it_is_asked_to_sync() -> None:
    ensemble = ensemble_of()
    await led(ensemble)
    slow, quick = followers_of(ensemble)
    a, b = await client_of(ensemble, "a", quick), await client_of(ensemble, "b", slow)
    ensemble.lag_s[slow] = 3.0
    await a.multi([Create("/x", b"", ALL)])
    assert await a.exists("/x")
    assert not await b.exists("/x")
    began = ensemble.now()
    await b.sync("/")
    assert await b.exists("/x")
    assert ensemble.now() - began > 2


@virtual
async def test_a_follower_that_lost_its_leader_is_behind_and_answers_no_sync() -> None:
    ensemble = ensemble_of()
    leader = await led(ensemble)
    lonely = followers_of(ensemble)[0]
    a, b = await client_of(ensemble, "a", leader), await client_of(ensemble, "b", lonely)
    part(ensemble, lonely)
    await a.multi([Create("/x", b"", ALL)])
    syncing = asyncio.ensure_future(b.sync("/"))
    await asyncio.sleep(1)
    assert not syncing.done()
    assert "/x" not in ensemble.servers[lonely].tree.nodes
    with pytest.raises(Lost):
        await syncing
    await asyncio.sleep(2 * ensemble.sync_limit_s)
    assert ensemble.servers[lonely].role is Role.LOOKING
    assert await insist(b, "/x"), "at another server"


def test_a_deposed_leader_that_has_not_noticed_answers_even_a_sync() -> None:
    stale: list[bool] = []
    for seed in range(10):
        run_virtual(_ask_a_deposed_leader(seed, stale))
    assert any(stale), "whoever counts on a sync counts on what ZooKeeper does not promise"


async def _ask_a_deposed_leader(seed: int, stale: list[bool]) -> None:
    ensemble = ensemble_of(seed=seed)
    leader = await led(ensemble)
    a = await client_of(ensemble, "a", leader, timeout_s=40.0)
    b = await client_of(ensemble, "b", followers_of(ensemble)[0])
    ensemble.freeze(leader)
    while ensemble.leader is ensemble.servers[leader]:
        await asyncio.sleep(0.1)
    await insist(b, "/")
    await b.multi([Create("/x", b"", ALL)])
    ensemble.thaw(leader)
    part(ensemble, leader)
    assert ensemble.servers[leader].role is Role.LEADING
    with contextlib.suppress(Lost):
        await a.sync("/")
        stale.append(not await a.exists("/x"))
        await a.multi([Create("/y", b"", ALL)])
        raise AssertionError("a write needs a majority")
    assert await insist(a, "/x")
    assert not await insist(a, "/y")


@virtual
async def test_without_a_majority_nothing_is_written_and_nobody_expires() -> None:
    ensemble = ensemble_of()
    await led(ensemble)
    a = await client_of(ensemble, "a")
    await a.multi([Create("/x", b"", ALL, ephemeral=True)])
    stopped = followers_of(ensemble)
    for name in stopped:
        ensemble.stop(name)
    await asyncio.sleep(5 * TIMEOUT_S)
    assert not a.connected
    for name in stopped:
        ensemble.start(name)
    assert await insist(a, "/x"), "a new leader gives everyone the full time-out"


@virtual
async def test_a_session_lives_as_long_as_it_pings_and_dies_of_silence_in_time() -> None:
    ensemble = ensemble_of()
    a, b = await client_of(ensemble, "a"), await client_of(ensemble, "b")
    await a.multi([Create("/x", b"", ALL, ephemeral=True)])
    session = a.session
    await asyncio.sleep(10 * TIMEOUT_S)
    assert a.session == session
    ensemble.swallow("a", "both")
    silent_s = ensemble.now()
    while await insist(b, "/x"):
        await asyncio.sleep(0.05)
    # Pings are a third of the time-out apart, the leader hears of them a half tick late, and looks once in a half tick.
    assert TIMEOUT_S * 2 / 3 - 1 < ensemble.now() - silent_s < TIMEOUT_S + 2 * TICK_S


@virtual
async def test_what_was_on_its_way_when_the_connection_broke_may_be_done_later() -> None:
    ensemble = ensemble_of(1)
    a, b = await client_of(ensemble, "a"), await client_of(ensemble, "b")
    ensemble.cut("a", "s1")
    late = asyncio.ensure_future(a.multi([Create("/late", b"", ALL)]))
    with pytest.raises(Lost):
        await late
    assert not await insist(b, "/late")
    ensemble.mend("a", "s1")
    await asyncio.sleep(1)
    assert await insist(b, "/late")


@virtual
async def test_what_comes_late_from_a_server_that_the_session_has_left_is_not_done() -> None:
    ensemble = ensemble_of()
    leader = await led(ensemble)
    old = followers_of(ensemble)[0]
    a = await client_of(ensemble, "a", old)
    ensemble.cut("a", old)
    late = asyncio.ensure_future(a.multi([Create("/late", b"", ALL)]))
    with pytest.raises(Lost):
        await late
    await a.wait_connected()
    session = a.session
    ensemble.mend("a", old)
    await asyncio.sleep(2)
    assert not await insist(a, "/late")
    assert (a.session, await led(ensemble)) == (session, leader)


@virtual
async def test_a_client_never_reads_less_than_it_has_seen_whatever_server_it_comes_to() -> None:
    ensemble = ensemble_of()
    leader = await led(ensemble)
    slow = followers_of(ensemble)[0]
    ensemble.lag_s[slow] = 4.0
    a = await client_of(ensemble, "a", leader)
    for number in range(20):
        await a.multi([Create(f"/x{number}", b"", ALL)])
        ensemble.wires["a"][-1].client.hung_up(ensemble.wires["a"][-1])
        await a.wait_connected()
        assert await a.exists(f"/x{number}")


@virtual
async def test_a_lost_tail_is_gone_and_sessions_that_knew_it_are_not_taken_up_again() -> None:
    lost: list[Txn] = []
    ensemble = Ensemble(random.Random(1), ["s1", "s2", "s3"], lost=lost.extend)
    a = await client_of(ensemble, "a")
    await a.multi([Create("/kept", b"", ALL)])
    await a.multi([Create("/lost", b"", ALL)])
    session = a.session
    assert ensemble.lose_tail(1) == 1
    assert [path for txn in lost for path, _ in txn.steps] == ["/lost"]
    assert await insist(a, "/kept")
    with pytest.raises(NoNode):
        await a.get("/lost")
    assert a.session != session


@virtual
async def test_a_frozen_leader_is_replaced_and_what_it_says_when_it_thaws_is_not_heard() -> None:
    ensemble = ensemble_of()
    leader = await led(ensemble)
    b = await client_of(ensemble, "b", followers_of(ensemble)[0])
    await b.multi([Create("/x", b"0", ALL)])
    ensemble.freeze(leader)
    await asyncio.sleep(3 * ensemble.sync_limit_s)
    assert await led(ensemble) != leader
    assert await insist(b, "/x")
    await b.multi([SetData("/x", b"1", 0)])
    ensemble.thaw(leader)
    await asyncio.sleep(5)
    assert ensemble.servers[leader].role is Role.FOLLOWING
    assert ensemble.servers[leader].tree.nodes["/x"].data == b"1"


def test_the_same_seed_gives_the_same_history() -> None:
    assert a_history(3) == a_history(3)
    assert a_history(3) != a_history(4)


def a_history(seed: int) -> list[float]:
    times: list[float] = []

    @virtual
    async def happens() -> None:
        ensemble = ensemble_of(seed=seed)
        a = await client_of(ensemble, "a")
        for number in range(5):
            await a.multi([Create(f"/x{number}", b"", ALL)])
            times.append(ensemble.now())

    happens()
    return times
