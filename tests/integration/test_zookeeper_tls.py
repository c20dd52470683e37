"""ZooKeeper by TLS, with certificates on both sides: clients, servers among each other, and a whole node."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pvc.daemon.config import LogConfig
from pvc.daemon.zookeeper_access import server_tls
from pvc.drivers.zookeeper_process import DetachedStarter
from pvc.drivers.zookeeper_server import Member, Mode, ServerConfig, ZookeeperServer
from pvc.zookeeper.bridge import Bridge
from pvc.zookeeper.types import READ, Create, Tls
from tests.integration.cli_cluster import free_port
from tests.integration.daemon_process import DaemonProcess
from tests.integration.test_managed_zookeeper import server_of
from tests.integration.zookeeper_server import require_zookeeper
from tests.support.certificates import Certificate, House, an_authority

pytestmark = [pytest.mark.zookeeper, pytest.mark.timeout(240)]

PATIENCE_S = 60.0
SESSION_S = 4.0


class Ensemble:
    """Three servers on loopback, whose certificates are of one authority, but for those that a test gives."""

    def __init__(self, home: Path, authority: House) -> None:
        self.home = home
        self.authority = authority
        self.members = tuple(
            Member(
                id=one,
                address="127.0.0.1",
                client_port=free_port(),
                secure_port=free_port(),
                peer_port=free_port(),
                election_port=free_port(),
            )
            for one in (1, 2, 3)
        )
        self.made = {one: authority.issue(f"server{one}", "127.0.0.1") for one in (1, 2, 3)}

    def server(self, number: int) -> ZookeeperServer:
        tls = server_tls(
            LogConfig(
                tls_ca=str(self.authority.ca),
                tls_cert=str(self.made[number].cert),
                tls_key=str(self.made[number].key),
            )
        )
        config = ServerConfig(
            home=self.home / str(number), id=number, members=self.members, heap_mib=96, tick_ms=500, tls=tls
        )
        return ZookeeperServer(config, starter=DetachedStarter(config))

    async def start(self) -> None:
        for number in (1, 2, 3):
            server = self.server(number)
            server.ensure_config()
            await server.ensure_running()

    async def comes_to(self, *modes: Mode) -> list[Mode]:
        found: list[Mode] = []
        try:
            async with asyncio.timeout(PATIENCE_S):
                while sorted(found) != sorted(modes):
                    found = [(await self.server(one).health()).mode for one in (1, 2, 3)]
                    await asyncio.sleep(0.2)
        except TimeoutError:
            said = (self.home / "1/zookeeper.0.log").read_text()[-3000:]
            raise AssertionError(f"{found} instead of {modes}: {said}") from None
        return found

    @property
    def hosts(self) -> str:
        return ",".join(f"127.0.0.1:{member.secure_port}" for member in self.members)


@pytest.fixture
async def ensemble(tmp_path: Path) -> AsyncIterator[Ensemble]:
    require_zookeeper()
    made = Ensemble(tmp_path, an_authority(tmp_path / "pki"))
    yield made
    for number in (1, 2, 3):
        pid = DetachedStarter(made.server(number).config).pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)


def shown(authority: House, certificate: Certificate) -> Tls:
    return Tls(ca=str(authority.ca), certificate=str(certificate.cert), key=str(certificate.key))


async def gets_in(hosts: str, tls: Tls | None, within_s: float = PATIENCE_S) -> bool:
    """Whether a client with this certificate comes to a session, and can write."""
    bridge = Bridge(hosts, tls=tls, session_timeout_s=SESSION_S)
    bridge.start()
    try:
        async with asyncio.timeout(within_s):
            await bridge.wait_connected()
            await bridge.multi([Create(f"/by-{os.urandom(4).hex()}", b"x", READ)])
        return True
    except TimeoutError:
        return False
    finally:
        await bridge.close()


async def test_servers_and_clients_know_each_other_by_certificates_of_one_authority(
    ensemble: Ensemble, tmp_path: Path
) -> None:
    await ensemble.start()
    await ensemble.comes_to(Mode.LEADER, Mode.FOLLOWER, Mode.FOLLOWER)
    ours = ensemble.authority.issue("hv1", "127.0.0.1")
    assert await gets_in(ensemble.hosts, shown(ensemble.authority, ours))
    assert (ensemble.home / "1/identity.pem").stat().st_mode & 0o777 == 0o600

    strangers = an_authority(tmp_path / "strangers", "strangers")
    theirs = strangers.issue("hv9", "127.0.0.1")
    mixed = Tls(ca=str(ensemble.authority.ca), certificate=str(theirs.cert), key=str(theirs.key))
    for tls in (mixed, shown(strangers, ours), None):
        assert not await gets_in(ensemble.hosts, tls, within_s=5), "a stranger, a strange server, and no TLS at all"


async def test_a_server_of_another_authority_does_not_come_into_the_ensemble(
    ensemble: Ensemble, tmp_path: Path
) -> None:
    ensemble.made[3] = an_authority(tmp_path / "strangers", "strangers").issue("server3", "127.0.0.1")
    await ensemble.start()
    await ensemble.comes_to(Mode.LEADER, Mode.FOLLOWER, Mode.NO_QUORUM)
    assert (await ensemble.server(3).health()).mode is Mode.NO_QUORUM


async def test_a_server_with_a_certificate_for_another_machine_is_not_believed(ensemble: Ensemble) -> None:
    """kazoo believes every authority of the system too; what is left is that the address must be in the certificate."""
    ensemble.made = {one: ensemble.authority.issue(f"server{one}", "127.0.0.1") for one in (1, 2, 3)}
    await ensemble.start()
    await ensemble.comes_to(Mode.LEADER, Mode.FOLLOWER, Mode.FOLLOWER)
    ours = shown(ensemble.authority, ensemble.authority.issue("hv1", "127.0.0.1"))
    elsewhere = ensemble.hosts.replace("127.0.0.1", "localhost")
    assert not await gets_in(elsewhere, ours, within_s=5), "no certificate is for `localhost`"
    assert await gets_in(ensemble.hosts, ours)


async def test_a_node_runs_on_its_own_server_by_tls(tmp_path: Path) -> None:
    require_zookeeper()
    address = "127.77.0.3"
    authority = an_authority(tmp_path / "pki")
    made = authority.issue("hv1", address)
    daemon = DaemonProcess(
        tmp_path / "hv1",
        log={
            "kind": "zookeeper",
            "tls_ca": str(authority.ca),
            "tls_cert": str(made.cert),
            "tls_key": str(made.key),
        },
        zookeeper={"id": 1, "members": [f"1={address}"], "heap_mib": 128},
    )
    try:
        await asyncio.to_thread(daemon.start)
        with daemon.client() as client:
            await asyncio.to_thread(client.command, "cluster.init", {"name": "main"})
            assert (await asyncio.to_thread(client.cluster))["name"] == "main"
        with pytest.raises(OSError):
            await asyncio.open_connection(address, 2181)  # the plain port is the machine's own
    finally:
        daemon.stop()
        pid = server_of(daemon)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
