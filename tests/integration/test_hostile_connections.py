"""Bytes that are no HTTP, or HTTP of two minds, and clients that never read or never end: each is refused or ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from pvc.daemon.crowd import Crowd
from pvc.daemon.patience import PatientProtocol
from pvc.gateway.auth import KNOWN
from tests.integration.served_app import Served, served
from tests.unit.gateway_house import a_house

HOST = b"Host: x\r\n"
UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
LARGE = b"x" * 4_000_000
DEADLINE_S = 0.3


class Hasty(PatientProtocol):
    """The protocol with deadlines that a test can wait for."""

    head_deadline_s = DEADLINE_S


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuses at once on /refuse, gives much on /large, knows the caller on /known; on a WebSocket it echoes."""
    if scope["type"] == "websocket":
        if scope["path"] == "/known":
            scope[KNOWN]("anna")
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            if scope["path"] == "/flood":
                while True:
                    await send({"type": "websocket.send", "bytes": LARGE[:65_536]})
            await send({"type": "websocket.send", "bytes": b"%d" % len(message.get("bytes") or message["text"])})
        return
    if scope["path"] == "/known":
        scope[KNOWN]("anna")
    if scope["path"] == "/read":
        while (await receive()).get("more_body"):
            pass
    body = LARGE if scope["path"] == "/large" else b"ok"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def gateway() -> AsyncIterator[Served]:
    async with served(app, protocol=Hasty) as made:
        yield made


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"GET /\r\n\r\n", ""),
        (b"GET / HTTP/1.1\r\n\r\n", "Host"),
        (b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n", ""),
        (b"\x16\x03\x01\x00\xee\x01\x00\r\n\r\n", ""),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "both"),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "Content-Length"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Authorization: a\r\nAuthorization: b\r\n\r\n", "Authorization 2 times"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"".join(b"X-%d: y\r\n" % n for n in range(101)) + b"\r\n", "100 headers"),
        (b"GET /ws HTTP/1.1\r\n" + HOST + UPGRADE + b"Content-Length: 3\r\n\r\nabc", "body"),
        (b"POST /ws HTTP/1.1\r\n" + HOST + UPGRADE + b"\r\n", "GET"),
        (b"GET /ws HTTP/1.1\r\n" + HOST + UPGRADE + b"X: " + b"y" * 9_000 + b"\r\n\r\n", "longer than"),
        (b"GET /ws HTTP/1.1\r\n" + HOST + UPGRADE.replace(b"13", b"12") + b"\r\n", "version 13"),
        (b"GET /ws HTTP/1.1\r\n" + HOST + UPGRADE.replace(b"dGhl", b"====") + b"\r\n", "key"),
    ],
)
async def test_what_is_no_request_is_refused_as_a_problem_with_a_code(gateway: Served, sent: bytes, says: str) -> None:
    heard = await gateway.say(sent)
    head, _, body = heard.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ") and b"application/problem+json" in head, heard
    problem = json.loads(body)
    assert (problem["code"], problem["status"]) == ("http.malformed", 400)
    assert says in problem["detail"]
    assert not gateway.tracebacks


@pytest.mark.parametrize(
    "parts",
    [
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n", b"ZZ\r\n"),
        (b"POST /read HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n", b"ZZ\r\n"),
        (b"POST /read HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"-1\r\n"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", b"\0\r\n\r\n"),
        (b"GET /large HTTP/1.1\r\n" + HOST + b"\r\n" + b"\0\r\n\r\n",),
    ],
)
async def test_nonsense_behind_a_request_leaves_no_traceback_and_no_connection(
    gateway: Served, parts: tuple[bytes, ...]
) -> None:
    heard = await gateway.say(*parts)
    assert heard.startswith(b"HTTP/1.1 ")
    assert not gateway.tracebacks
    await nobody_is_left(gateway)


@pytest.mark.parametrize("upgrade", [b"", UPGRADE])
async def test_a_head_without_an_end_is_cut_off(gateway: Served, upgrade: bytes) -> None:
    """Most of it is on its way when it is refused, so the client may hear of a reset alone."""
    await gateway.say(b"GET / HTTP/1.1\r\n" + HOST + upgrade + b"X: " + b"y" * 1_000_000)
    await nobody_is_left(gateway)
    assert not gateway.tracebacks


async def test_a_request_hidden_in_the_body_of_another_is_not_answered(gateway: Served) -> None:
    hidden = b"0\r\n\r\nGET /large HTTP/1.1\r\n" + HOST + b"\r\n"
    head = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % len(hidden)
    heard = await gateway.say(head + hidden)
    assert heard.count(b"HTTP/1.1 ") == 1 and len(heard) < 1_000


@pytest.mark.parametrize("path", [b"/large", b"/"])
async def test_who_asks_and_never_reads_is_hung_up_on(gateway: Served, path: bytes) -> None:
    asked = b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n"
    silent = never_reading(gateway.port)
    with silent:
        with contextlib.suppress(BlockingIOError):
            for _ in range(20_000 if path == b"/" else 10):
                silent.send(asked)
        assert len(gateway.crowd) <= 1
        await nobody_is_left(gateway)


async def test_who_reads_slowly_gets_all_of_it() -> None:
    class Slow(PatientProtocol):
        head_deadline_s = 0.2
        min_taken_bytes = 1_000

    async with served(app, protocol=Slow) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=4_096)
        writer.write(b"GET /large HTTP/1.1\r\n" + HOST + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
        taken = 0
        async with asyncio.timeout(30):
            while taken < len(LARGE):
                taken += len(await reader.read(100_000))
                await asyncio.sleep(0.005)
        assert taken == len(LARGE)
        writer.transport.abort()


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(b"\x81\x82\0\0\0\0\xff\xfe", id="text that is no UTF-8"),
        pytest.param(b"\x82\xff" + (1 << 40).to_bytes(8, "big") + b"\0\0\0\0", id="a frame of a terabyte"),
        pytest.param(b"\x02\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 5_000, id="a message of endless parts"),
        pytest.param(b"\x82\x01x", id="a frame without a mask"),
        pytest.param(b"\xff\x80\0\0\0\0", id="an opcode that there is not"),
        pytest.param(b"\x88\x81\0\0\0\0x", id="half a code to close with"),
        pytest.param(b"\xc2\x85\0\0\0\0hello", id="compressed, without having agreed on it"),
    ],
)
async def test_frames_that_are_none_end_a_websocket_without_a_traceback(gateway: Served, frames: bytes) -> None:
    heard = await gateway.say(b"GET /ws HTTP/1.1\r\n" + HOST + UPGRADE + b"\r\n", frames)
    assert heard.startswith(b"HTTP/1.1 101 ")
    assert b"\x88" in heard.partition(b"\r\n\r\n")[2], "it says why it closes"
    assert not gateway.tracebacks
    await nobody_is_left(gateway)


@pytest.mark.parametrize(
    "after", [b"\x88\x80\0\0\0\0" + b"\x81\x82\0\0\0\0ok", b"\xf1\x80\0\0\0\0" + b"\x81\x82\0\0\0\0ok"]
)
async def test_what_is_said_to_who_has_just_closed_a_websocket_is_no_defect(gateway: Served, after: bytes) -> None:
    for _ in range(20):
        head = b"GET /ws HTTP/1.1\r\n" + HOST + UPGRADE + b"\r\n"
        await gateway.say(head, b"\x81\x82\0\0\0\0ok" * 3 + after, pause_s=0.005)
        await gateway.say(head + after, b"\0" * 100, pause_s=0.001)
    assert not gateway.tracebacks


async def test_a_websocket_that_never_reads_is_hung_up_on(gateway: Served) -> None:
    with never_reading(gateway.port) as silent:
        silent.send(b"GET /flood HTTP/1.1\r\n" + HOST + UPGRADE + b"\r\n")
        await asyncio.sleep(0.1)
        silent.send(b"\x82\x81\0\0\0\0x")
        await nobody_is_left(gateway)
    assert not gateway.tracebacks


async def test_of_strangers_the_oldest_go_and_who_is_known_stays() -> None:
    crowd = Crowd(most=50, strangers=20, strangers_each=10)
    async with served(app, crowd=crowd) as gateway:
        known, hello = await asyncio.open_connection("127.0.0.1", gateway.port)
        hello.write(b"GET /known HTTP/1.1\r\n" + HOST + b"\r\n")
        async with asyncio.timeout(5):
            await known.readuntil(b"ok")
        flood = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(40)]
        async with asyncio.timeout(5):
            assert await flood[0][0].read() == b"", "the first of the flood has made room for the others"
        assert crowd.strangers <= 10 and crowd.sent_away >= 30
        hello.write(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        async with asyncio.timeout(5):
            await known.readuntil(b"ok")
        for _, writer in (*flood, (known, hello)):
            writer.transport.abort()
        await nobody_is_left(gateway)


async def test_who_has_shown_a_token_on_a_websocket_is_no_stranger() -> None:
    async with served(app) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET /known HTTP/1.1\r\n" + HOST + UPGRADE + b"\r\n")
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert len(gateway.crowd) == 1 and gateway.crowd.strangers == 0
        writer.transport.abort()


async def test_where_too_many_are_known_the_oldest_of_who_has_most_goes_though_it_reads_nothing() -> None:
    crowd = Crowd(most=4, strangers=4, strangers_each=4)
    async with served(app, crowd=crowd) as gateway:
        known = []
        for number in range(4):
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(b"GET /known HTTP/1.1\r\n" + HOST + b"\r\n")
            async with asyncio.timeout(5):
                await reader.readuntil(b"ok")
            if number == 0:
                writer.write(b"GET /large HTTP/1.1\r\n" + HOST + b"\r\n")  # and never reads it
            known.append(writer)
        await until(lambda: len(crowd) == crowd.known == 3)
        assert b"200 OK" in await gateway.say(b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        assert crowd.known == 3, "a stranger takes nobody's place"
        for writer in known:
            writer.transport.abort()
        await nobody_is_left(gateway)


@pytest.mark.parametrize("path", ["/api/v1/whoami", "/api/v1/health", "/api/v1/nothing", "while it waits"])
async def test_a_token_that_was_revoked_keeps_no_place(tmp_path: Path, path: str) -> None:
    crowd = Crowd(most=8, strangers=8, strangers_each=8)
    async with a_house(tmp_path) as house, served(house.app, crowd=crowd) as gateway:
        token = await house.member("mallory", {"role": "viewer", "tag": "none"})
        held = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(3)]

        async def ask(what: str) -> list[bytes]:
            request = f"GET {what} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
            heads = []
            for _, writer in held:
                writer.write(request.encode())
            for reader, _ in held:
                async with asyncio.timeout(5):
                    heads.append(await reader.readuntil(b"\r\n\r\n"))
                    await reader.readexactly(int(heads[-1].lower().partition(b"content-length: ")[2].split()[0]))
            return heads

        assert all(b"200 OK" in head for head in await ask("/api/v1/whoami"))
        assert (crowd.known, crowd.strangers) == (3, 0)
        await house.settle()  # the use of the token is recorded
        waits, at = path == "while it waits", house.services.world.position
        asked = asyncio.create_task(ask(f"/api/v1/whoami?min_position={at + 1}" if waits else path))
        if waits:
            await asyncio.sleep(0.1)
        reply = await house.root.delete(f"/tokens/{token.split('_')[1]}")
        assert reply.status_code == 200, reply.text
        assert len(await asked) == 3
        if not waits:
            await ask(path)
        assert (crowd.known, crowd.strangers) == (0, 3)
        for _, writer in held:
            writer.transport.abort()
        await nobody_is_left(gateway)


def never_reading(port: int) -> socket.socket:
    """A connection with little room for what comes."""
    silent = socket.socket()
    silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    silent.connect(("127.0.0.1", port))
    silent.setblocking(False)
    return silent


async def nobody_is_left(gateway: Served) -> None:
    await until(lambda: not len(gateway.crowd))


async def until(holds: object) -> None:
    async with asyncio.timeout(10):
        while not holds():  # type: ignore[operator]
            await asyncio.sleep(0.02)
