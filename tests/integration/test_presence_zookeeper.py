"""Presence in ZooKeeper keeps the contract of all presences on a real server, and the law of the lease as a process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pvc.clock import BootClock
from pvc.errors import InvalidInput, Unavailable
from pvc.log.zookeeper import ZookeeperLog
from pvc.presence.base import Presence
from pvc.presence.zookeeper import ZookeeperPresence
from pvc.zookeeper.types import Credentials
from tests.contract.presence_contract import PresenceContract, until
from tests.integration.tcp_proxy import TcpProxy
from tests.integration.zookeeper_server import ZookeeperServer, cluster, own_zookeeper, zookeeper

__all__ = ["cluster", "own_zookeeper", "zookeeper"]
pytestmark = pytest.mark.zookeeper

TIMEOUT_S = 2.0
"""Four of the test server's ticks."""

ROOT = Path(__file__).parents[2]


class ZookeeperWorld:
    """A real server, and a proxy before it for each name."""

    poll_s = 0.01

    def __init__(self, server: ZookeeperServer, cluster: str, timeout_s: float = TIMEOUT_S) -> None:
        self.timeout_s = timeout_s
        self.clock = BootClock()
        self.server = server
        self.cluster = cluster
        self.clients: list[ZookeeperPresence] = []
        self._proxies: dict[str, TcpProxy] = {}
        self._open = contextlib.AsyncExitStack()

    async def client(self, name: str, machine: str = "") -> Presence:
        if name not in self._proxies:
            self._proxies[name] = await self._open.enter_async_context(TcpProxy.to(self.server.port))
        client = await ZookeeperPresence.open(
            self._proxies[name].hosts, self.cluster, machine=machine or name, session_timeout_s=self.timeout_s
        )
        self.clients.append(client)
        return client

    def cut(self, name: str) -> None:
        self._proxies[name].swallow_requests = self._proxies[name].swallow_replies = True

    def lose_replies(self, name: str) -> None:
        self._proxies[name].swallow_replies = True

    def restore(self, name: str) -> None:
        self._proxies[name].heal()

    async def close(self) -> None:
        for proxy in self._proxies.values():
            proxy.heal()
        for client in self.clients:
            await client.close(expire=False)
        await self._open.aclose()


class TestZookeeperPresence(PresenceContract):
    @pytest.fixture
    async def world(self, zookeeper: ZookeeperServer, cluster: str) -> AsyncIterator[ZookeeperWorld]:
        world = ZookeeperWorld(zookeeper, cluster)
        yield world
        await world.close()


@pytest.fixture
async def world(zookeeper: ZookeeperServer, cluster: str) -> AsyncIterator[ZookeeperWorld]:
    world = ZookeeperWorld(zookeeper, cluster)
    yield world
    await world.close()


@contextlib.contextmanager
def member_process(hosts: str, cluster: str, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.integration.presence_member", hosts, cluster, "a", "m", str(TIMEOUT_S)]
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=30)


def ends_in(output: Path) -> list[float]:
    return [float(line) for line in output.read_text().split("\n")[:-1]]


async def test_the_lease_of_a_stopped_process_is_over_before_anyone_sees_it_gone(
    world: ZookeeperWorld, tmp_path: Path
) -> None:
    b = await world.client("b")
    output = tmp_path / "ends"
    with member_process(world.server.hosts, world.cluster, output) as process:
        await until(world, lambda: len(ends_in(output)) > 100, patience_s=30)
        os.kill(process.pid, signal.SIGSTOP)
        while "a" in await b.members():
            await asyncio.sleep(world.poll_s)
        gone = world.clock.monotonic()
        before = len(ends_in(output))
        os.kill(process.pid, signal.SIGCONT)
        await asyncio.sleep(TIMEOUT_S)
        assert len(ends_in(output)) == before, "a lease came back without joining again"
        assert max(ends_in(output)) < gone


async def test_the_lease_of_a_killed_process_is_over_before_anyone_sees_it_gone(
    world: ZookeeperWorld, tmp_path: Path
) -> None:
    b = await world.client("b")
    output = tmp_path / "ends"
    with member_process(world.server.hosts, world.cluster, output) as process:
        await until(world, lambda: len(ends_in(output)) > 100, patience_s=30)
        process.kill()
        while "a" in await b.members():
            await asyncio.sleep(world.poll_s)
        assert max(ends_in(output)) < world.clock.monotonic()


async def test_a_server_that_is_killed_and_started_again_costs_nobody_his_place(
    own_zookeeper: ZookeeperServer, cluster: str
) -> None:
    # Longer, for both must have found the server again before the time-out that it begins with is over.
    world = ZookeeperWorld(own_zookeeper, cluster, timeout_s=10.0)
    a, b = await world.client("a"), await world.client("b")
    await a.join("a", b"")
    assert await a.claim_primary("a")
    before = await b.members()
    await asyncio.to_thread(own_zookeeper.restart)
    await until(world, lambda: a.lease_left_s() > world.timeout_s / 2)
    with contextlib.suppress(Unavailable):
        await b.members()  # who meets a server that listens and does not serve yet gives it as long as a call may take
    assert await b.members() == before
    assert await b.primary() == "a"
    await world.close()


async def test_the_granted_timeout_counts_and_not_the_one_asked_for(zookeeper: ZookeeperServer, cluster: str) -> None:
    presence = await ZookeeperPresence.open(zookeeper.hosts, cluster, machine="m", session_timeout_s=60)
    await presence.join("a", b"")
    assert presence.session_timeout_s == 10  # twenty ticks
    assert 9 < presence.lease_left_s() <= 9.5
    await presence.close(expire=False)


async def test_presence_and_log_share_a_cluster_whichever_comes_first(zookeeper: ZookeeperServer, cluster: str) -> None:
    async def log() -> None:
        await (await ZookeeperLog.open(zookeeper.hosts, cluster)).close()

    async def presence() -> None:
        await (await ZookeeperPresence.open(zookeeper.hosts, cluster, machine="m")).close(expire=False)

    await presence()
    await log()
    await asyncio.gather(presence(), log(), presence())


async def test_a_strangers_identity_cannot_take_a_place(zookeeper: ZookeeperServer, cluster: str) -> None:
    ours = await ZookeeperPresence.open(
        zookeeper.hosts, cluster, machine="m", credentials=Credentials(user="pvc", password="right")
    )
    await ours.join("a", b"")
    await ours.join("a", b"again")
    with pytest.raises(Unavailable) as refused:
        stranger = await ZookeeperPresence.open(
            zookeeper.hosts, cluster, machine="m", credentials=Credentials(user="pvc", password="wrong")
        )
        await stranger.join("b", b"")
    assert refused.value.code == "log.not_allowed"
    await stranger.close(expire=False)
    await ours.close(expire=False)


async def test_without_a_server_opening_is_refused(cluster: str) -> None:
    with pytest.raises(Unavailable) as refused:
        await ZookeeperPresence.open("127.0.0.1:1", cluster, machine="m", session_timeout_s=1)
    assert refused.value.code == "presence.unreachable"


async def test_a_clusters_name_must_be_one() -> None:
    with pytest.raises(InvalidInput):
        await ZookeeperPresence.open("127.0.0.1:1", "No/Name", machine="m")
