"""What nodes fetch from each other, over real gateways with TLS: who may, from whom, and what is made of it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
import msgspec
import pytest

from pvc.archive.base import blob_name
from pvc.clock import SystemClock, SystemRng
from pvc.errors import LogDamaged, NotFound, Unavailable
from pvc.events.record import unseal
from pvc.events.types import Role
from pvc.gateway import log_parts
from pvc.log.manifest import Manifest, describe, encode_blob
from pvc.peers import client
from pvc.peers.certificates import NodeCertificate
from pvc.peers.client import Peers
from pvc.peers.copies import PeerCopies
from pvc.peers.credentials import Question, sign
from pvc.peers.secret import PeerSecret
from pvc.presence.base import Member
from pvc.presence.hello import Hello
from pvc.projections.snapshot import PROJECTION_VERSION, Snapshot, restore, snapshot
from tests.integration.peer_gateways import SECRET, Cluster, PeerNode, a_node, a_secret, served
from tests.support.certificates import a_certificate

PARTS = ("/log/segments/1-3", "/log/snapshot", "/log/replica", "/log/replica/records")


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
async def hv1(tmp_path: Path, cluster: Cluster) -> AsyncIterator[PeerNode]:
    async with a_node(tmp_path / "hv1", cluster) as node:
        yield node


async def archived(node: PeerNode, last: int = 3) -> tuple[Manifest, list[bytes]]:
    """Let the node have its first records in its archive."""
    await node.house.services.history.reach(last, 10)
    records = await node.house.services.history.read(1, last)
    data = encode_blob(1, records)
    await node.archive.put(blob_name(1, last, data), data)
    return describe(1, records, incarnation="i", root=b"", previous=b"", sealed_by="hv1"), records


async def test_a_segment_comes_from_another_nodes_archive(cluster: Cluster, hv1: PeerNode) -> None:
    manifest, records = await archived(hv1)
    assert await PeerCopies(await cluster.seen_from("hv2")).fetch(manifest) == records


async def test_a_snapshot_comes_with_its_position_and_restores_to_the_same_state(
    cluster: Cluster, hv1: PeerNode
) -> None:
    await hv1.house.define()
    state = hv1.house.state
    await asyncio.to_thread(hv1.snapshots.save, snapshot(state))
    found = await (await cluster.seen_from("hv2")).snapshot(after=0, version=PROJECTION_VERSION)
    assert (found.node, found.position) == ("hv1", state.position)
    assert restore(found.data).state_hash() == state.state_hash()


@pytest.mark.parametrize(("after", "version"), [(10_000, PROJECTION_VERSION), (0, PROJECTION_VERSION + 1)])
async def test_a_snapshot_that_is_of_no_use_is_not_taken(
    cluster: Cluster, hv1: PeerNode, after: int, version: int
) -> None:
    await asyncio.to_thread(hv1.snapshots.save, snapshot(hv1.house.state))
    with pytest.raises(Unavailable) as refusal:
        await (await cluster.seen_from("hv2")).snapshot(after=after, version=version)
    assert refusal.value.code == "peers.none"
    assert "of the fold" in refusal.value.message


async def test_a_node_without_a_snapshot_says_so(cluster: Cluster, hv1: PeerNode) -> None:
    with pytest.raises(Unavailable) as refusal:
        await (await cluster.seen_from("hv2")).snapshot(after=0, version=PROJECTION_VERSION)
    assert "hv1 does not have it" in refusal.value.message


async def test_a_damaged_snapshot_is_not_given_away(cluster: Cluster, hv1: PeerNode, tmp_path: Path) -> None:
    await asyncio.to_thread(hv1.snapshots.save, snapshot(hv1.house.state))
    file = tmp_path / "hv1" / "snapshot"
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    with pytest.raises(Unavailable) as refusal:
        await (await cluster.seen_from("hv2")).snapshot(after=0, version=PROJECTION_VERSION)
    assert "hv1 does not have it" in refusal.value.message


async def test_two_replicas_can_be_compared_at_any_position(cluster: Cluster, hv1: PeerNode) -> None:
    peers, peer, history = await cluster.seen_from("hv2"), await cluster.peer("hv1"), hv1.house.services.history
    await history.reach(hv1.house.state.position, 10)
    newest = await peers.replica(peer)
    assert newest.position == newest.newest == hv1.house.state.position > 1
    assert newest.hash == hv1.house.state.head.hash.hex()
    assert newest.root == (await history.root(newest.position)).hex()
    assert newest.incarnation == "the-incarnation"
    first = await peers.replica(peer, 1)
    assert (first.position, first.newest) == (1, newest.newest)
    assert first.hash == hashlib.sha256((await history.read(1, 1))[0]).hexdigest()
    with pytest.raises(NotFound):
        await peers.replica(peer, 10_000)


async def test_records_come_from_another_nodes_replica_in_portions(cluster: Cluster, hv1: PeerNode) -> None:
    for number in range(5):
        await hv1.house.define(name=f"vm{number}")
    last = hv1.house.state.position
    await hv1.house.services.history.reach(last, 10)
    peers, peer = await cluster.seen_from("hv2"), await cluster.peer("hv1")
    found: list[bytes] = []
    while len(found) < last:
        found += await peers.records(peer, len(found) + 1, 3)
    assert found == await hv1.house.services.history.read(1, last)
    assert [unseal(data).position for data in found] == list(range(1, last + 1))
    with pytest.raises(NotFound):
        await peers.records(peer, last + 1)


async def test_with_another_secret_nothing_is_had_and_the_secret_is_read_again(
    cluster: Cluster, hv1: PeerNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pvc.peers.secret.AGAIN_S", 0.0)
    await archived(hv1)
    current = b"?" * 32

    async def read() -> bytes:
        return current

    secret = PeerSecret(read, SystemClock())
    await secret.load()
    peers = Peers("hv2", cluster.members, secret, clock=SystemClock(), rng=SystemRng())
    peer = await cluster.peer("hv1")
    current = SECRET  # it was replaced meanwhile
    with pytest.raises(Unavailable) as refusal:
        await peers.replica(peer)
    assert refusal.value.code == "peers.refused"
    assert "not signed by a node of this cluster" in refusal.value.message
    async with asyncio.timeout(5):
        while secret.value != SECRET:
            await asyncio.sleep(0.01)
    assert (await peers.replica(peer)).position > 0


@pytest.mark.parametrize("ahead_s", [-3600, 3600])
async def test_what_was_signed_an_hour_ago_is_refused_and_the_clocks_are_blamed(
    cluster: Cluster, hv1: PeerNode, ahead_s: int
) -> None:
    peers = await cluster.seen_from("hv2", clock_ahead_s=ahead_s)
    with pytest.raises(Unavailable) as refusal:
        await peers.replica(await cluster.peer("hv1"))
    assert refusal.value.code == "peers.refused"
    assert "by this node's clock" in refusal.value.message


async def test_a_signature_opens_only_what_is_for_nodes(cluster: Cluster, hv1: PeerNode) -> None:
    async with httpx.AsyncClient(verify=await as_hv2(), base_url=f"https://127.0.0.1:{hv1.port}") as client:

        async def get(path: str, method: str = "GET") -> int:
            return (await client.request(method, path, headers={"Authorization": signed(path, method)})).status_code

        assert await get("/api/v1/log/replica") == 200
        for path in ("/api/v1/vms", "/api/v1/log/records", "/api/v1/log/keys", "/api/v1/whoami", "/api/v1/history"):
            assert await get(path) == 401, path
        assert await get("/api/v1/vms", "POST") == 401
        assert await get("/api/v1/log/replica", "POST") == 405


async def test_only_admins_and_nodes_may_ask(cluster: Cluster, hv1: PeerNode) -> None:
    await archived(hv1)
    await asyncio.to_thread(hv1.snapshots.save, snapshot(hv1.house.state))
    wanted = {None: 401, Role.VIEWER: 403, Role.OPERATOR: 403, Role.ADMIN: 200}
    for role, status in wanted.items():
        headers = {"Authorization": f"Bearer {await hv1.house.token(role)}"} if role else {}
        async with httpx.AsyncClient(
            verify=False, base_url=f"https://127.0.0.1:{hv1.port}/api/v1", headers=headers
        ) as client:
            for path in PARTS:
                reply = await client.get(path)
                assert reply.status_code == status, (role, path, reply.text)
                if status == 200 and path != "/log/replica":
                    digest = base64.b64encode(hashlib.sha256(reply.content).digest()).decode()
                    assert reply.headers["Content-Digest"] == f"sha-256=:{digest}:"


async def test_a_man_in_the_middle_learns_not_even_the_question(
    cluster: Cluster, hv1: PeerNode, tmp_path: Path
) -> None:
    peer = await cluster.peer("hv1")
    heard: list[str] = []

    async def app(scope: Mapping[str, object], receive: object, send: object) -> None:
        heard.append(str(scope))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with served(app, listener, a_certificate(tmp_path / "evil", "hv1")):
            cluster.join("hv1", listener.getsockname()[1], peer.certificate)
            with pytest.raises(Unavailable) as refusal:
                await (await cluster.seen_from("hv2")).replica(await cluster.peer("hv1"))
    assert refusal.value.code == "peers.wrong_certificate"
    assert heard == []


async def test_a_node_whose_copy_is_damaged_is_passed_over(cluster: Cluster, hv1: PeerNode, tmp_path: Path) -> None:
    manifest, records = await archived(hv1)
    async with a_node(tmp_path / "hv2", cluster, "hv2", archived=3) as hv2:
        data = encode_blob(1, records)
        name = blob_name(1, 3, data)
        await hv2.archive.put(name, data)
        (tmp_path / "hv2" / "archive" / name).write_bytes(data[:-10] + b"0123456789")
        for _ in range(4):
            assert await PeerCopies(await cluster.seen_from("hv3")).fetch(manifest) == records
        # Another copy of the same records, by a node that compresses in another way.
        other = b"PVCLOG1\n" + b"nonsense"
        await hv2.archive.put(blob_name(1, 3, other), other)
        for _ in range(4):
            assert await PeerCopies(await cluster.seen_from("hv3")).fetch(manifest) == records


async def test_nodes_that_say_that_they_have_it_are_asked_first(
    cluster: Cluster, hv1: PeerNode, tmp_path: Path
) -> None:
    manifest, records = await archived(hv1)
    cluster.join("hv1", hv1.port, (await cluster.peer("hv1")).certificate, archived=3)
    with socket.create_server(("127.0.0.1", 0)) as dead:
        for name in ("hv4", "hv5", "hv6", "hv7", "hv8", "hv9"):
            cluster.join(name, dead.getsockname()[1], "0" * 64, archived=2)
        began = asyncio.get_running_loop().time()
        assert await PeerCopies(await cluster.seen_from("hv3")).fetch(manifest) == records
        assert asyncio.get_running_loop().time() - began < 4, "nobody else was waited for"


async def test_when_nobody_has_it_each_node_asked_is_named_with_its_reason(cluster: Cluster, hv1: PeerNode) -> None:
    cluster.join("hv4", 1, "0" * 64)

    def never(data: bytes) -> bytes:
        raise LogDamaged("never good")

    with pytest.raises(Unavailable) as refusal:
        await (await cluster.seen_from("hv2")).segment(1, 4096, never)
    assert refusal.value.code == "peers.none"
    assert "hv1 does not have it" in refusal.value.message
    assert "hv4: the gateway https://127.0.0.1:1 cannot be reached" in refusal.value.message


async def test_while_zookeeper_is_away_the_nodes_of_the_last_time_are_asked(
    cluster: Cluster, hv1: PeerNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, records = await archived(hv1)
    peers = await cluster.seen_from("hv2")
    assert [peer.name for peer in await peers.others()] == ["hv1"]

    async def away() -> Mapping[str, Member]:
        raise Unavailable("away", code="presence.unreachable")

    peers._members = away
    assert await PeerCopies(peers).fetch(manifest) == records

    async def hanging() -> Mapping[str, Member]:
        await asyncio.sleep(60)
        return {}

    monkeypatch.setattr(client, "MEMBERS_S", 0.1)
    peers._members = hanging
    assert await PeerCopies(peers).fetch(manifest) == records


async def test_neither_itself_nor_those_without_a_gateway_are_asked(cluster: Cluster, hv1: PeerNode) -> None:
    cluster.hellos["hv2"] = Hello(version="0", position=1, state_hash="x")
    assert [peer.name for peer in await (await cluster.seen_from("hv2")).others()] == ["hv1"]
    assert await (await cluster.seen_from("hv1")).others() == ()


async def test_more_readers_than_there_are_slots_are_told_to_come_again(cluster: Cluster, hv1: PeerNode) -> None:
    await archived(hv1)
    slots = hv1.house.services.peers.slots
    while not slots.locked():
        await slots.acquire()
    peers, peer = await cluster.seen_from("hv2"), await cluster.peer("hv1")
    with pytest.raises(Unavailable) as refusal:
        await peers.records(peer, 1)
    assert "as many parts of the log" in refusal.value.message
    assert (await peers.replica(peer)).position > 0, "what is small is always told"
    slots.release()
    assert await peers.records(peer, 1)


async def test_a_reader_that_takes_nothing_is_cut_off_and_its_slot_is_free_again(
    cluster: Cluster, hv1: PeerNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_parts, "PORTION_S", 0.3)
    huge = msgspec.structs.replace(_snapshot_of(hv1), recent=[("c" * 1000, at) for at in range(40_000)])
    hv1.snapshots.save(msgspec.msgpack.encode(huge))
    context = await as_hv2()
    reader, writer = await asyncio.open_connection("127.0.0.1", hv1.port, ssl=context, limit=1024)
    target, free = "/api/v1/log/snapshot", hv1.house.services.peers.slots._value
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: {signed(target)}\r\n\r\n".encode())
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    assert hv1.house.services.peers.slots._value == free - 1
    async with asyncio.timeout(10):
        while hv1.house.services.peers.slots._value < free:
            await asyncio.sleep(0.02)
    assert "reply cut short" in caplog.text
    assert "peers.too_slow" in caplog.text
    writer.transport.abort()


async def as_hv2(secret: bytes = SECRET, node: str = "hv2") -> ssl.SSLContext:
    """TLS as hv2 begins it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    NodeCertificate(node, await a_secret(secret), SystemClock()).show_in(context)
    return context


async def test_a_signature_needs_the_certificate_of_the_same_node(cluster: Cluster, hv1: PeerNode) -> None:
    """Whoever has overheard a signature cannot repeat it, and no node can speak for another by its certificate."""
    path = "/api/v1/log/replica"

    async def asked(context: ssl.SSLContext) -> str:
        async with httpx.AsyncClient(verify=context, base_url=f"https://127.0.0.1:{hv1.port}") as client:
            reply = await client.get(path, headers={"Authorization": signed(path)})
        return reply.json().get("code", "") if reply.status_code != 200 else "200"

    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
    assert await asked(await as_hv2()) == "200"
    assert await asked(bare) == "access.peer_certificate"
    assert await asked(await as_hv2(node="hv3")) == "access.peer_certificate"
    with pytest.raises(httpx.TransportError):
        await asked(await as_hv2(secret=b"?" * 32))


def signed(target: str, method: str = "GET") -> str:
    """What hv2 would send along."""
    return sign(SECRET, Question(method=method, target=target, to="hv1"), node="hv2", now_s=int(time.time()))


def _snapshot_of(node: PeerNode) -> Snapshot:
    return msgspec.msgpack.decode(snapshot(node.house.state), type=Snapshot)
