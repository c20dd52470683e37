"""Two `pvcd` on one ZooKeeper, from their configuration alone: each announces its gateway, and shares its log."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from pvc.archive.base import blob_name
from pvc.archive.directory import DirectoryArchive
from pvc.clock import SystemClock, SystemRng
from pvc.errors import Unavailable
from pvc.log.manifest import describe, encode_blob
from pvc.log.zookeeper_layout import Layout
from pvc.peers.client import Peer, Peers
from pvc.peers.copies import PeerCopies
from pvc.peers.secret import PeerSecret, read_secret
from pvc.presence.zookeeper import ZookeeperPresence
from pvc.projections.snapshot import PROJECTION_VERSION, restore
from tests.integration.daemon_process import DaemonProcess
from tests.integration.zookeeper_clients import zk_client
from tests.integration.zookeeper_server import ZookeeperServer
from tests.support.certificates import a_certificate

pytestmark = pytest.mark.zookeeper

PATIENCE_S = 60.0

SEGMENT_RECORDS = 8


class Two:
    """Two daemons, and what a third node sees of them."""

    def __init__(self, daemons: dict[str, DaemonProcess], peers: Peers) -> None:
        self.daemons = daemons
        self.peers = peers

    async def until_there(self, position: int) -> dict[str, Peer]:
        """Wait until both say that they can be reached and have folded so far."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            found = {peer.name: peer for peer in await self.peers.others() if peer.position >= position}
            if set(found) == set(self.daemons):
                return found
            await asyncio.sleep(0.1)
        raise AssertionError(f"not there: {await self.peers.others()}")


@pytest.fixture
def daemons(own_zookeeper: ZookeeperServer, cluster: str, tmp_path: Path) -> Iterator[dict[str, DaemonProcess]]:
    made = {}
    for name in ("hv1", "hv2"):
        certificate = a_certificate(tmp_path, name)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        made[name] = DaemonProcess(
            tmp_path / name,
            node={"name": name, "address": "127.0.0.1"},
            log={
                "kind": "zookeeper",
                "hosts": own_zookeeper.hosts,
                "cluster": cluster,
                "segment_records": SEGMENT_RECORDS,
                "hot_segments": 1,
            },
            gateway={"listen": f"0.0.0.0:{port}", "tls_cert": str(certificate.cert), "tls_key": str(certificate.key)},
        )
    yield made
    for daemon in made.values():
        daemon.stop()


@pytest.fixture
async def two(own_zookeeper: ZookeeperServer, cluster: str, daemons: dict[str, DaemonProcess]) -> AsyncIterator[Two]:
    await asyncio.to_thread(daemons["hv1"].start)
    with daemons["hv1"].client() as client:
        await asyncio.to_thread(client.command, "cluster.init", {"name": "main", "coordinators": ["hv1"]})
        await asyncio.to_thread(client.command, "node.add", {"node": "hv2", "coordinator": True})
    await asyncio.to_thread(daemons["hv2"].start)
    presence = await ZookeeperPresence.open(own_zookeeper.hosts, cluster, machine="test", session_timeout_s=4)
    secret = PeerSecret(lambda: read_secret(own_zookeeper.hosts, cluster, rng=SystemRng()), SystemClock())
    await secret.load()
    yield Two(daemons, Peers("hv3", presence.members, secret, clock=SystemClock(), rng=SystemRng()))
    await presence.close(expire=False)


async def test_a_third_node_has_records_segments_and_a_snapshot_from_them(two: Two, tmp_path: Path) -> None:
    with two.daemons["hv1"].client() as client:
        for number in range(3):
            reply = await asyncio.to_thread(
                client.command, "vm.define", {"name": f"web{number}", "memory_mib": 64, "vcpus": 1}
            )
    there = await two.until_there(reply["position"])

    ours, theirs = [await two.peers.replica(peer, reply["position"]) for peer in there.values()]
    assert (ours.hash, ours.root, ours.incarnation) == (theirs.hash, theirs.root, theirs.incarnation)
    assert ours.incarnation, "it is the one that is in ZooKeeper"
    records = await two.peers.records(there["hv2"], 1, reply["position"])
    assert len(records) == reply["position"]
    assert await two.peers.records(there["hv1"], 1, reply["position"]) == records

    manifest = describe(1, records, incarnation=ours.incarnation, root=b"", previous=b"", sealed_by="hv1")
    with pytest.raises(Unavailable, match="hv1 does not have it"):
        await PeerCopies(two.peers).fetch(manifest)
    blob = encode_blob(1, records)
    await DirectoryArchive(tmp_path / "hv2" / "data" / "archive").put(blob_name(1, len(records), blob), blob)
    assert await PeerCopies(two.peers).fetch(manifest) == records

    await asyncio.to_thread(two.daemons["hv1"].stop)  # it stores its state then
    await asyncio.to_thread(two.daemons["hv1"].start)
    await two.until_there(reply["position"])
    found = await two.peers.snapshot(after=0, version=PROJECTION_VERSION)
    assert found.node == "hv1"
    state = restore(found.data)
    assert state.position == found.position >= reply["position"]
    assert {"web0", "web1", "web2"} <= set(state.vm_names)


async def test_a_node_that_lost_all_its_files_has_what_left_zookeeper_from_the_other_one(
    two: Two, own_zookeeper: ZookeeperServer, cluster: str, tmp_path: Path
) -> None:
    with two.daemons["hv1"].client() as client:
        for number in range(4 * SEGMENT_RECORDS):
            fields = {"name": f"web{number}", "memory_mib": 64, "vcpus": 1}
            position = (await asyncio.to_thread(client.command, "vm.define", fields))["position"]
    await two.until_there(position)
    with zk_client(own_zookeeper.hosts) as zookeeper:
        async with asyncio.timeout(PATIENCE_S):
            while len(zookeeper.get_children(Layout(cluster).segments)) > 2:
                await asyncio.sleep(0.2)

    await asyncio.to_thread(two.daemons["hv1"].stop)
    data = tmp_path / "hv1" / "data"
    assert list((data / "archive").glob("log-*.pvclog")), "it had them itself"
    shutil.rmtree(data / "archive")
    for file in ("history.db", "history.db-wal", "history.db-shm", "snapshot"):
        (data / file).unlink(missing_ok=True)
    await asyncio.to_thread(two.daemons["hv1"].start)

    there = await two.until_there(position)
    ours, theirs = [await two.peers.replica(there[name], position) for name in ("hv1", "hv2")]
    assert (ours.hash, ours.root) == (theirs.hash, theirs.root)
    with two.daemons["hv1"].client() as client:
        assert len(await asyncio.to_thread(client.vms)) == 4 * SEGMENT_RECORDS


async def test_while_zookeeper_hangs_nodes_still_give_what_they_have(two: Two, own_zookeeper: ZookeeperServer) -> None:
    there = await two.until_there(1)
    own_zookeeper.freeze()
    try:
        info = await two.peers.replica(there["hv2"])
        assert len(await two.peers.records(there["hv2"], 1)) == info.newest
    finally:
        own_zookeeper.thaw()


async def test_neither_the_secret_nor_a_signature_is_in_a_nodes_log(
    two: Two, own_zookeeper: ZookeeperServer, cluster: str
) -> None:
    there = await two.until_there(1)
    await two.peers.replica(there["hv1"])
    secret = await read_secret(own_zookeeper.hosts, cluster, rng=SystemRng())
    stranger = PeerSecret(lambda: asyncio.sleep(0, b"x" * 32), SystemClock())
    await stranger.load()
    wrong = Peers("hv9", two.peers._members, stranger, clock=SystemClock(), rng=SystemRng())
    with pytest.raises(Unavailable) as refusal:
        await wrong.replica(there["hv1"])
    assert refusal.value.code == "peers.refused"
    text = two.daemons["hv1"].log_file.read_text()
    assert "peer refused address=127.0.0.1 code=access.peer_invalid" in text
    assert secret.hex() not in text
    assert "PVC-Peer hv" not in text


async def test_clients_without_a_certificate_are_served_as_ever_and_strangers_certificates_open_nothing(
    two: Two, tmp_path: Path
) -> None:
    there = await two.until_there(1)
    base = there["hv1"].gateway
    async with httpx.AsyncClient(verify=False, base_url=base) as plain:
        assert (await plain.get("/health")).status_code == 200
        assert (await plain.get("/api/v1/whoami")).json()["code"] == "access.unauthenticated"
        again = await plain.get("/api/v1/log/replica")
        assert again.status_code == 401, "on a connection that is kept, too"
    stranger = a_certificate(tmp_path / "stranger", "hv2")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(stranger.cert, stranger.key)
    async with httpx.AsyncClient(verify=context, base_url=base) as liar:
        with pytest.raises(httpx.TransportError):
            await liar.get("/health")
