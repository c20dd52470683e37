"""Connections that bring no request: the daemon hangs up on them, and on nobody who only waits for a reply."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from pvc.daemon.patience import PatientProtocol

DEADLINE_S = 0.3


class Hasty(PatientProtocol):
    """The protocol with a deadline that a test can wait for."""

    head_deadline_s = DEADLINE_S


async def slow_app(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await asyncio.sleep(4 * DEADLINE_S)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    door = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(slow_app, http=Hasty, lifespan="off", log_config=None))
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment]
    serving = asyncio.create_task(server.serve(sockets=[door]))
    yield door.getsockname()[1]
    server.should_exit = True
    await serving


@pytest.mark.parametrize("sent", [b"", b"GET /", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_a_connection_without_a_whole_request_is_ended(port: int, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    async with asyncio.timeout(10 * DEADLINE_S):
        await hears_the_end(reader)
    writer.close()


async def test_a_second_request_that_stays_half_is_ended_too(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(10):
        assert b"200" in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(2) == b"ok"
        writer.write(b"GET /")
        await hears_the_end(reader)
    writer.close()


async def test_a_slow_reply_leaves_the_whole_deadline_for_the_next_request(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(10):
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(2) == b"ok"
        began = asyncio.get_running_loop().time()
        await hears_the_end(reader)
        assert asyncio.get_running_loop().time() - began >= DEADLINE_S
    writer.close()


async def test_who_waits_for_a_slow_reply_is_left_alone(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(10):
        assert (await reader.read()).endswith(b"ok")
    writer.close()


async def hears_the_end(reader: asyncio.StreamReader) -> None:
    """The kernel says so by a reset where the daemon had not yet read the last bytes."""
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
