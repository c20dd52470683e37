"""Ways to be a nuisance to a gateway, each for a given time: many, slow, silent, half there, or shouting.

An attack returns how many inputs it has tried. What it hears is judged at once: no reply of the kind 5xx that is not
documented, and every refusal a problem with a code.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

from tests.fuzz.raw_http import HOST, JSON, UPGRADE, chance
from tests.fuzz.target import Target

ANSWER_S = 2.0
AT_ONCE = 25
MAX_HEARD = 2_000_000

_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n(.*?)\r\n\r\n", re.DOTALL)
_MAY_BE = {b"503", b"504"}


class Attackers:
    """Who attacks one target, with what comes of a seed."""

    def __init__(self, target: Target, seed: int) -> None:
        self.target = target
        self.rng = random.Random(seed)
        self.statuses = Counter[str]()
        self.wrong: list[str] = []
        """Replies that may not be."""
        self.token = target.token.encode()

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection, which is dropped at the end."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.target.port, ssl=self.target.context, limit=MAX_HEARD
        )
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def say(self, *parts: bytes, wait_s: float = ANSWER_S) -> bytes:
        """Send these parts; what is heard until the gateway hangs up, or is silent for so long."""
        heard = b""
        with contextlib.suppress(OSError, TimeoutError):
            async with self.connected() as (reader, writer):
                for part in parts:
                    writer.write(part)
                    await asyncio.wait_for(writer.drain(), wait_s)
                    await asyncio.sleep(0)
                while data := await asyncio.wait_for(reader.read(65_536), wait_s):
                    heard += data
                    if len(heard) > MAX_HEARD:
                        break
        self.judge(heard, parts)
        return heard

    def judge(self, heard: bytes, said: object) -> None:
        """Note what may not be."""
        for found in _HEAD.finditer(heard):
            status, head = found[1], found[2].lower()
            self.statuses[status.decode()] += 1
            problem = b"content-type: application/problem+json" in head
            if (status >= b"500" and status not in _MAY_BE) or (status >= b"400" and not problem):
                self.wrong.append(f"{found[0][:200]!r} to {str(said)[:300]}")

    def until(self, seconds: float) -> Callable[[], bool]:
        """Whether there is time left."""
        end = time.monotonic() + seconds
        return lambda: time.monotonic() < end


async def malformed(who: Attackers, seconds: float) -> int:
    """HTTP that is none."""
    return await _by_many(who, seconds, lambda: who.say(*chance(who.rng, who.token), wait_s=0.3))


async def bodies(who: Attackers, seconds: float) -> int:
    """Bodies that are too much of something: long, deep, packed, announced and never sent."""
    bomb = gzip.compress(bytes(20_000_000))
    signed = b"Authorization: Bearer " + who.token + b"\r\n"
    shapes: list[tuple[bytes, bytes]] = [
        (JSON + b"Content-Encoding: gzip\r\n", bomb),
        (JSON + b"Content-Encoding: deflate, br\r\n", b"x" * 100),
        (JSON, b"[" * 900_000),
        (JSON, b'{"a":' * 150_000),
        (JSON, b'{"name": "' + b"x" * 1_000_000 + b'"}'),
        (JSON, b'{"memory_mib": ' + b"9" * 900_000 + b"}"),
        (JSON, b"{" + b",".join(b'"a%d":1' % n for n in range(90_000)) + b"}"),
        (JSON, b'{"tags": [' + b'"a",' * 200_000 + b'"a"]}'),
        (JSON, json.dumps({"xml": "<domain>" + "<a>" * 100_000}).encode()),
        (
            JSON,
            json.dumps({"xml": "<!DOCTYPE x [" + "<!ENTITY a '&a;&a;'>" * 99}).encode(),
        ),
        (b"Content-Type: application/x-www-form-urlencoded\r\n", b"a=1&" * 250_000),
        (b"Content-Type: multipart/form-data; boundary=b\r\n", b"--b\r\n" * 150_000),
        (b"Content-Type: multipart/form-data; boundary=b\r\n", b"--b\r\nX: " + b"y" * 900_000),
        (JSON, b"x" * 3_000_000),
    ]

    async def once() -> None:
        kind, body = who.rng.choice(shapes)
        caller = signed if who.rng.random() < 0.7 else b""
        told = who.rng.choice((len(body), 1 << 40)) if who.rng.random() < 0.2 else len(body)
        head = b"POST /api/v1/vms HTTP/1.1\r\n" + HOST + caller + kind + b"Content-Length: %d\r\n\r\n" % told
        await who.say(head + body, wait_s=0.7)

    return await _by_many(who, seconds, once, at_once=6)


async def tokens(who: Attackers, seconds: float) -> int:
    """Wrong tokens, as fast as they are refused."""

    async def once() -> None:
        wrong = b"pvc_%012x_%064x" % (who.rng.randrange(1 << 48), who.rng.randrange(1 << 256))
        token = wrong if who.rng.random() < 0.5 else who.token[:-4] + b"%04x" % who.rng.randrange(1 << 16)
        asked = b"GET /api/v1/vms HTTP/1.1\r\n" + HOST + b"Authorization: Bearer " + token + b"\r\n\r\n"
        await who.say(asked * 19 + asked.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

    return 20 * await _by_many(who, seconds, once)


async def websockets(who: Attackers, seconds: float) -> int:
    """Frames that are none, to a console that was opened with a good token, and to one that was not."""

    async def once() -> None:
        signed = b"Authorization: Bearer " + who.token + b"\r\n" if who.rng.random() < 0.8 else b""
        head = b"GET /api/v1/vms/web01/console HTTP/1.1\r\n" + HOST + signed + UPGRADE + b"\r\n"
        frames = b""
        for _ in range(who.rng.randrange(1, 30)):
            first, length = who.rng.randrange(256), who.rng.choice((0, 1, 5, 125, 126, 127))
            size = {126: struct.pack(">H", 60_000), 127: struct.pack(">Q", 1 << who.rng.randrange(10, 64))}
            frames += (
                bytes((first, 0x80 | length)) + size.get(length, b"") + b"\0\0\0\0" + who.rng.randbytes(length % 126)
            )
        good = b"\x81\x82\0\0\0\0ok" * who.rng.randrange(20)
        await who.say(head, good, frames, wait_s=0.3)

    return await _by_many(who, seconds, once)


async def filters(who: Attackers, seconds: float) -> int:
    """Streams of events with all kinds of filters, opened and dropped."""
    texts = ("vm.*", "*", "", "a" * 99, "vm/web01", "cluster", "node/hv1", "%00", "%E2%80%AE", "\u00e9".encode().hex())

    async def once() -> None:
        names = who.rng.sample(("types", "subject", "actor", "tag", "correlation", "after", "limit", "wait_s"), 3)
        query = "&".join(f"{name}={who.rng.choice((*texts, '0', '1', str(1 << 61)))}" for name in names)
        form = who.rng.choice((b"text/event-stream", b"application/x-ndjson", b"application/json"))
        head = f"GET /api/v1/events?{query} HTTP/1.1\r\n".encode() + HOST
        head += b"Accept: " + form + b"\r\nAuthorization: Bearer " + who.token + b"\r\n\r\n"
        await who.say(head, wait_s=0.2)

    return await _by_many(who, seconds, once, at_once=60)


async def churn(who: Attackers, seconds: float) -> int:
    """Connections that come and go as fast as they can: closed, reset, in the middle of a word."""
    left, tried = who.until(seconds), 0
    starts = (
        b"",
        b"G",
        b"GET /health HTTP/1.1\r\nHost: pvc\r\n\r\n",
        b"\x16\x03\x01\x00\xee\x01",
        b"POST / HTTP/1.1\r\n",
    )
    while left():
        for _ in range(50):
            one = socket.socket()
            with contextlib.suppress(OSError), one:
                one.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    one.connect(("127.0.0.1", who.target.port))
                await asyncio.sleep(0)
                if who.rng.random() < 0.5:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                with contextlib.suppress(BlockingIOError):
                    one.send(who.rng.choice(starts))
            tried += 1
        await asyncio.sleep(0.005)
    return tried


async def silent(who: Attackers, seconds: float, count: int = 2_500) -> int:
    """Thousands who connect and say nothing, or half a line, a byte at a time; all at once."""
    left, held, tried = who.until(seconds), list[socket.socket](), 0
    word = b"\x16\x03\x01\x02\x00\x01" if who.target.tls else b"GET /api/v1/vms HTTP/1.1\r\nHost: p"
    try:
        while left():
            while len(held) < count and left():
                one = socket.socket()
                one.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    one.connect(("127.0.0.1", who.target.port))
                held.append(one)
                tried += 1
                if tried % 50 == 0:
                    await asyncio.sleep(0.005)
            for number, one in enumerate(held):
                if number % 3:
                    with contextlib.suppress(OSError):
                        one.send(word[tried % len(word) :][:1])
                if number % 200 == 0:
                    await asyncio.sleep(0.01)
            gone = [one for one in held if _is_gone(one)]
            for one in gone:
                one.close()
            held = [one for one in held if one.fileno() >= 0]
            await asyncio.sleep(0.2)
    finally:
        for one in held:
            one.close()
    return tried


async def dripping(who: Attackers, seconds: float, count: int = 150) -> int:
    """Who is known and sends a body a byte at a time, or a head."""

    async def one() -> None:
        with contextlib.suppress(OSError, TimeoutError):
            async with who.connected() as (_, writer):
                signed = b"Authorization: Bearer " + who.token + b"\r\n"
                head = b"POST /api/v1/vms HTTP/1.1\r\n" + HOST + signed + JSON + b"Content-Length: 9000\r\n\r\n"
                writer.write(head if who.rng.random() < 0.7 else head[:-30])
                while left():
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.3)

    left = who.until(seconds)
    await asyncio.gather(*(one() for _ in range(count)))
    return count


async def never_reading(who: Attackers, seconds: float, count: int = 120) -> int:
    """Who asks for much, and takes none of it: lists, events, the log, and answer upon answer."""
    paths = (b"/api/v1/openapi.json", b"/api/v1/events?after=0", b"/api/v1/log/records?first=1", b"/api/v1/history")

    async def one() -> None:
        with contextlib.suppress(OSError, TimeoutError):
            _, writer = await asyncio.open_connection("127.0.0.1", who.target.port, ssl=who.target.context, limit=1)
            transport = writer.transport
            assert isinstance(transport, asyncio.ReadTransport)
            transport.pause_reading()
            signed = b"Authorization: Bearer " + who.token + b"\r\n" if who.rng.random() < 0.7 else b""
            form = b"Accept: text/event-stream\r\n" if who.rng.random() < 0.4 else b""
            asked = b"GET " + who.rng.choice(paths) + b" HTTP/1.1\r\n" + HOST + signed + form + b"\r\n"
            try:
                writer.write(asked * 300)
                while left():
                    await asyncio.sleep(0.2)
            finally:
                writer.transport.abort()

    left = who.until(seconds)
    await asyncio.gather(*(one() for _ in range(count)))
    return count * 300


ATTACKS: dict[str, Callable[[Attackers, float], Awaitable[int]]] = {
    "malformed HTTP": malformed,
    "bodies": bodies,
    "wrong tokens": tokens,
    "WebSocket frames": websockets,
    "event filters": filters,
    "connection churn": churn,
    "silent and slow heads": silent,
    "dripping bodies": dripping,
    "never reading": never_reading,
}


def _is_gone(one: socket.socket) -> bool:
    try:
        return one.recv(4_096) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


async def _by_many(
    who: Attackers, seconds: float, once: Callable[[], Awaitable[object]], at_once: int = AT_ONCE
) -> int:
    left, tried = who.until(seconds), 0

    async def again() -> None:
        nonlocal tried
        while left():
            await once()
            tried += 1

    await asyncio.gather(*(again() for _ in range(at_once)))
    return tried
