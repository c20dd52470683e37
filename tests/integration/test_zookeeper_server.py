"""A coordinator's own ZooKeeper server, real: alone, and three of them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kazoo.client import KazooClient

from pvc.drivers.zookeeper_process import DetachedStarter
from pvc.drivers.zookeeper_server import Health, Member, Mode, ServerConfig, ZookeeperServer
from tests.integration.zookeeper_server import require_zookeeper

pytestmark = pytest.mark.zookeeper

PATIENCE_S = 60.0
TICK_MS = 500


class Ensemble:
    """Servers on loopback, each with ports of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        ports = iter(_free_ports(9))
        self.members = tuple(
            Member(
                id=one,
                address="127.0.0.1",
                client_port=next(ports),
                peer_port=next(ports),
                election_port=next(ports),
            )
            for one in (1, 2, 3)
        )

    def server(self, number: int, size: int = 3) -> ZookeeperServer:
        """A daemon's view of it; each call is a daemon that was started anew."""
        config = ServerConfig(
            home=self.home / str(number), id=number, members=self.members[:size], heap_mib=96, tick_ms=TICK_MS
        )
        return ZookeeperServer(config, starter=DetachedStarter(config))

    def pid(self, number: int) -> int | None:
        return DetachedStarter(self.server(number).config).pid()

    async def start(self, size: int) -> None:
        for number in range(1, size + 1):
            server = self.server(number, size)
            assert server.ensure_config()
            assert await server.ensure_running()

    async def modes(self, size: int = 3) -> list[Mode]:
        return [(await self.server(number, size).health()).mode for number in range(1, size + 1)]

    async def comes_to(self, *modes: Mode) -> list[Mode]:
        """Wait until the servers are in these modes, in any order. Returns them in the servers' order."""
        found: list[Mode] = []
        try:
            async with asyncio.timeout(PATIENCE_S):
                while sorted(found) != sorted(modes):
                    found = await self.modes(len(modes))
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{found} instead of {modes}") from None
        return found


@pytest.fixture
async def ensemble(tmp_path: Path) -> AsyncIterator[Ensemble]:
    require_zookeeper()
    ensemble = Ensemble(tmp_path)
    yield ensemble
    for number in (1, 2, 3):
        pid = ensemble.pid(number)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)


async def test_one_server_alone_serves_and_ends_when_asked(ensemble: Ensemble) -> None:
    assert await ensemble.modes(1) == [Mode.DOWN]
    await ensemble.start(1)
    await ensemble.comes_to(Mode.STANDALONE)
    health = await ensemble.server(1, 1).health()
    assert health.version.startswith("3.") and health.connections >= 1
    await ensemble.server(1, 1).stop()
    assert await ensemble.modes(1) == [Mode.DOWN]
    assert ensemble.pid(1) is None


async def test_a_daemon_started_anew_adopts_the_server_that_runs(ensemble: Ensemble) -> None:
    await ensemble.start(1)
    await ensemble.comes_to(Mode.STANDALONE)
    pid = ensemble.pid(1)
    again = ensemble.server(1, 1)
    assert not again.ensure_config()
    assert not await again.ensure_running()
    assert ensemble.pid(1) == pid


async def test_a_server_that_was_killed_is_started_again_whatever_its_pid_file_says(ensemble: Ensemble) -> None:
    await ensemble.start(1)
    await ensemble.comes_to(Mode.STANDALONE)
    pid = ensemble.pid(1)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await ensemble.comes_to(Mode.DOWN)
    # As if the number had gone to an innocent process meanwhile.
    (ensemble.home / "1/zookeeper.pid").write_text(f"{os.getpid()}\n")
    assert ensemble.pid(1) is None
    await ensemble.server(1, 1).stop()
    assert await ensemble.server(1, 1).ensure_running()
    await ensemble.comes_to(Mode.STANDALONE)


async def test_starts_at_once_make_one_server(ensemble: Ensemble) -> None:
    servers = [ensemble.server(1, 1) for _ in range(3)]
    servers[0].ensure_config()
    await asyncio.gather(*(server.starter.start() for server in servers))
    await ensemble.comes_to(Mode.STANDALONE)
    assert "BindException" not in (ensemble.home / "1/zookeeper.0.log").read_text()


async def test_a_minority_serves_nobody_and_says_so(ensemble: Ensemble) -> None:
    server = ensemble.server(1)
    server.ensure_config()
    await server.ensure_running()
    async with asyncio.timeout(PATIENCE_S):
        while (await server.health()).mode is not Mode.NO_QUORUM:
            await asyncio.sleep(0.1)
    assert not (await server.health()).serves


async def test_when_the_leader_is_killed_another_leads_and_nothing_is_forgotten(ensemble: Ensemble) -> None:
    await ensemble.start(3)
    modes = await ensemble.comes_to(Mode.LEADER, Mode.FOLLOWER, Mode.FOLLOWER)
    leader = modes.index(Mode.LEADER) + 1
    before = await health_of(ensemble, leader)
    hosts = ",".join(f"127.0.0.1:{member.client_port}" for member in ensemble.members)
    await asyncio.to_thread(write, hosts, b"kept")
    pid = ensemble.pid(leader)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    modes = await ensemble.comes_to(Mode.LEADER, Mode.FOLLOWER, Mode.DOWN)
    assert modes[leader - 1] is Mode.DOWN
    assert (await health_of(ensemble, modes.index(Mode.LEADER) + 1)).epoch > before.epoch
    assert await asyncio.to_thread(read, hosts) == b"kept"
    assert await ensemble.server(leader).ensure_running()
    modes = await ensemble.comes_to(Mode.LEADER, Mode.FOLLOWER, Mode.FOLLOWER)
    assert modes[leader - 1] is Mode.FOLLOWER


async def test_an_ensemble_grows_from_one_server_and_keeps_its_data(ensemble: Ensemble) -> None:
    await ensemble.start(1)
    await ensemble.comes_to(Mode.STANDALONE)
    await asyncio.to_thread(write, f"127.0.0.1:{ensemble.members[0].client_port}", b"kept")
    for size in (2, 3):
        for number in range(1, size + 1):
            server = ensemble.server(number, size)
            assert server.ensure_config()
            await server.restart()
        await ensemble.comes_to(Mode.LEADER, *[Mode.FOLLOWER] * (size - 1))
    assert await asyncio.to_thread(read, f"127.0.0.1:{ensemble.members[2].client_port}") == b"kept"


async def health_of(ensemble: Ensemble, number: int) -> Health:
    return await ensemble.server(number).health()


def write(hosts: str, value: bytes) -> None:
    client = KazooClient(hosts, timeout=10)
    client.start(timeout=PATIENCE_S)
    try:
        client.create("/kept", value)
    finally:
        client.stop()
        client.close()


def read(hosts: str) -> bytes:
    client = KazooClient(hosts, timeout=10)
    client.start(timeout=PATIENCE_S)
    try:
        value: bytes = client.retry(client.get, "/kept")[0]
        return value
    finally:
        client.stop()
        client.close()


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
