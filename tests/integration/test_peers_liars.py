"""Nodes that answer what they like: too much, too slowly, not HTTP, or something that is not what was asked for."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path

import pytest

from pvc.errors import LogDamaged, Unavailable
from pvc.events.record import EMPTY
from pvc.log.manifest import describe, encode_blob
from pvc.peers import client, http
from pvc.peers.copies import PeerCopies
from pvc.peers.parts import content_digest
from pvc.projections.snapshot import PROJECTION_VERSION
from pvc.proof.frames import encode_file
from tests.contract.log_records import a_chain, bytes_of
from tests.integration.peer_gateways import Cluster, Handler, a_liar


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def saying(head: str, body: bytes = b"") -> Handler:
    """Whatever is asked, this is the answer."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        await writer.drain()

    return handle


def replying(body: bytes, *, digest: str | None = None, **headers: str) -> Handler:
    told = {"Content-Length": str(len(body)), "Content-Digest": digest or content_digest(body), **headers}
    return saying("HTTP/1.1 200 OK\n" + "\n".join(f"{name}: {value}" for name, value in told.items()), body)


async def never_ending(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(bytes(1 << 16))
        await writer.drain()


async def endless_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: " + b"x" * 1000 + b"\r\n")
        await writer.drain()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def trickling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def hanging_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As where a certificate was refused while the request was still on its way."""
    await reader.readuntil(b"\r\n\r\n")
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.mark.parametrize(
    ("handle", "code"),
    [
        (never_ending, "peers.bad_answer"),
        (endless_head, "peers.bad_answer"),
        (hanging_up, "peers.hung_up"),
        (resetting, "peers.hung_up"),
        (saying("SSH-2.0-OpenSSH_9.2"), "peers.bad_answer"),
        (saying("HTTP/1.1 200 OK\nContent-Length: 100000", b"short"), "peers.bad_answer"),
        (saying("HTTP/1.1 301 Moved\nLocation: https://elsewhere/\nContent-Length: 0"), "peers.refused"),
        (saying("HTTP/1.1 503 Busy\nContent-Length: 4", b"null"), "peers.refused"),
        (replying(b"{}"), "peers.bad_answer"),
        (replying(b"\xff" * 30), "peers.bad_answer"),
        (silent, "peers.unreachable"),
        (trickling, "peers.unreachable"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_an_answer_that_is_none_is_told_soon_and_takes_no_memory(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handle: Handler, code: str
) -> None:
    monkeypatch.setattr(client, "SHORT_S", 1.0)
    monkeypatch.setattr(http, "SILENCE_S", 0.5)
    async with a_liar(tmp_path, cluster, "hv1", handle):
        with pytest.raises(Unavailable) as refusal:
            await (await cluster.seen_from("hv2")).replica(await cluster.peer("hv1"))
    assert refusal.value.code == code


async def test_a_server_that_speaks_no_tls_is_none(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECT_S", 1.0)

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    cluster.join("hv1", server.sockets[0].getsockname()[1], "0" * 64)
    with pytest.raises(Unavailable) as refusal:
        await (await cluster.seen_from("hv2")).replica(await cluster.peer("hv1"))
    assert refusal.value.code == "peers.unreachable"
    server.close()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "https://127.0.0.1", "https://[::1", "", "https://no.such.host:1"]
)
async def test_an_address_that_is_none_is_told(url: str) -> None:
    with pytest.raises(Unavailable) as refusal:
        await http.fetch(url, "0" * 64, target="/", headers={}, max_bytes=10, deadline_s=5)
    assert refusal.value.code == "peers.unreachable"


ENTRIES = a_chain(EMPTY, 12)
RECORDS = bytes_of(ENTRIES)
OTHER = bytes_of(a_chain(EMPTY, 12))


@pytest.mark.parametrize(
    ("handle", "said"),
    [
        (replying(encode_file(5, RECORDS[4:8]), digest="sha-256=:AAAA:"), "its digest"),
        (saying("HTTP/1.1 200 OK\nContent-Length: 0"), "its digest"),
        (replying(b""), "exported log"),
        (replying(encode_file(5, RECORDS[4:8])[:-3]), "cut off"),
        (replying(encode_file(6, RECORDS[5:8])), "does not begin with record 5"),
        (replying(encode_file(5, RECORDS[5:8])), "does not begin with record 5"),
        (replying(encode_file(5, [RECORDS[4], RECORDS[6]])), "was read where 6 should be"),
        (replying(encode_file(5, [RECORDS[4], OTHER[5]])), "does not continue the chain"),
        (replying(encode_file(5, [b"nonsense"])), "not a record"),
    ],
)
async def test_records_that_are_not_those_asked_for_are_found_out(
    cluster: Cluster, tmp_path: Path, handle: Handler, said: str
) -> None:
    async with a_liar(tmp_path, cluster, "hv1", handle):
        with pytest.raises(Unavailable) as refusal:
            await (await cluster.seen_from("hv2")).records(await cluster.peer("hv1"), 5, 4)
    assert refusal.value.code == "peers.bad_answer"
    assert said in refusal.value.message


async def test_records_that_are_those_asked_for_are_taken_from_the_same_kind_of_server(
    cluster: Cluster, tmp_path: Path
) -> None:
    async with a_liar(tmp_path, cluster, "hv1", replying(encode_file(5, RECORDS[4:8]))):
        assert await (await cluster.seen_from("hv2")).records(await cluster.peer("hv1"), 5, 4) == RECORDS[4:8]


async def test_a_segment_of_other_records_is_passed_over_for_an_honest_nodes(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = describe(1, RECORDS, incarnation="i", root=b"", previous=b"", sealed_by="hv1")
    forged, honest = replying(encode_blob(1, OTHER)), replying(encode_blob(1, RECORDS))
    async with a_liar(tmp_path, cluster, "hv1", forged, archived=12):
        copies = PeerCopies(await cluster.seen_from("hv3"))
        with pytest.raises(Unavailable) as refusal:
            await copies.fetch(manifest)
        assert "hv1: a copy of the records 1 to 12 is damaged" in refusal.value.message
        assert "node=hv1" in caplog.text
        async with a_liar(tmp_path, cluster, "hv2", honest):
            assert await copies.fetch(manifest) == RECORDS


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"PVC-Snapshot-Position": "9"},
        {"PVC-Snapshot-Position": "nine", "PVC-Snapshot-Version": "1"},
        {"PVC-Snapshot-Position": "9" * 40, "PVC-Snapshot-Version": str(PROJECTION_VERSION)},
        {"PVC-Snapshot-Position": "3", "PVC-Snapshot-Version": str(PROJECTION_VERSION)},
        {"PVC-Snapshot-Position": "9", "PVC-Snapshot-Version": str(PROJECTION_VERSION + 1)},
    ],
)
async def test_a_snapshot_that_does_not_say_what_it_is_is_not_taken(
    cluster: Cluster, tmp_path: Path, headers: dict[str, str]
) -> None:
    async with a_liar(tmp_path, cluster, "hv1", replying(b"state", **headers)):
        with pytest.raises(Unavailable) as refusal:
            await (await cluster.seen_from("hv2")).snapshot(after=3, version=PROJECTION_VERSION)
    assert "hv1" in refusal.value.message


async def test_one_node_that_hangs_does_not_keep_the_others_from_being_asked(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "SILENCE_S", 0.3)
    manifest = describe(1, RECORDS, incarnation="i", root=b"", previous=b"", sealed_by="hv1")
    async with (
        a_liar(tmp_path, cluster, "hv1", silent, archived=12),
        a_liar(tmp_path, cluster, "hv2", replying(encode_blob(1, RECORDS))),
    ):
        assert await PeerCopies(await cluster.seen_from("hv3")).fetch(manifest) == RECORDS


async def test_no_more_nodes_are_asked_than_makes_sense(cluster: Cluster, tmp_path: Path) -> None:
    asked: list[str] = []

    def counting(name: str) -> Handler:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(name)
            await saying("HTTP/1.1 404 Not Found\nContent-Length: 2", b"{}")(reader, writer)

        return handle

    def never(data: bytes) -> bytes:
        raise LogDamaged("never good")

    async with a_liar(tmp_path, cluster, "hv1", counting("hv1")) as port:
        fingerprint = cluster.hellos["hv1"].certificate
        for number in range(2, 12):
            cluster.join(f"hv{number}", port, fingerprint)
        with pytest.raises(Unavailable):
            await (await cluster.seen_from("hv99")).segment(1, 12, never)
    assert len(asked) == client.MAX_ASKED
