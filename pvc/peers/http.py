"""One GET over TLS to a server that is known by its certificate: bounded in bytes and in time.

No authority vouches for a node's certificate, and no name in it is looked at: it must be exactly the one whose hash is
known. That is looked at before anything is sent, so that nobody in between learns even what was asked. No library for
HTTP does it in this order; so the connection is made here, and `h11` only reads and writes what goes over it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ssl
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import h11
import msgspec

from pvc.errors import Unavailable

CONNECT_S = 5.0
"""For TCP and TLS together, over a network that is there."""

SILENCE_S = 10.0
"""Between two portions of an answer."""

MAX_HEAD_BYTES = 64 * 1024
_CHUNK_BYTES = 256 * 1024


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the server said."""

    status: int
    headers: dict[str, str]
    """With lower-case names."""
    body: bytes


async def fetch(
    url: str,
    certificate: str,
    *,
    target: str,
    headers: Mapping[str, str],
    max_bytes: int,
    deadline_s: float,
    show: Callable[[ssl.SSLContext], None] = lambda _: None,
) -> Answer:
    """GET `target` (path and query) at `url` (`https://HOST:PORT`), whose certificate has this hex SHA-256.

    `show` gives the TLS context one's own certificate. Raises Unavailable: `peers.unreachable` (no connection, silence,
    out of time), `peers.wrong_certificate`, `peers.hung_up` (no answer: perhaps for one's own certificate),
    `peers.bad_answer` (not HTTP, or more than `max_bytes`).
    """
    try:
        async with asyncio.timeout(deadline_s):
            reader, writer = await _connect(url, show)
            try:
                _check_certificate(url, certificate, writer)
                return await _ask(url, reader, writer, target, headers, max_bytes)
            finally:
                writer.transport.abort()  # a farewell in good order could be drawn out for ever
    except TimeoutError as error:
        raise _unreachable(url, "no answer in time") from error
    except ssl.SSLError as error:
        raise _hung_up(url, str(error.reason or error)) from error
    except (OSError, ValueError) as error:
        raise _unreachable(url, str(getattr(error, "strerror", None) or error)) from error
    except h11.ProtocolError as error:
        raise _bad_answer(url, str(error)) from error


async def _connect(
    url: str, show: Callable[[ssl.SSLContext], None]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or not parts.port:
        raise ValueError("it is no address of a gateway")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    show(context)
    async with asyncio.timeout(CONNECT_S):
        return await asyncio.open_connection(parts.hostname, parts.port, ssl=context)


def _check_certificate(url: str, certificate: str, writer: asyncio.StreamWriter) -> None:
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    if not shown or not hmac.compare_digest(hashlib.sha256(shown).hexdigest(), certificate.lower()):
        raise Unavailable(
            f"whoever answers at {url} does not have the certificate that the node there has announced",
            code="peers.wrong_certificate",
            hint="if the certificate was renewed, restart pvcd on that node; else somebody is in between",
        )


async def _ask(
    url: str,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    target: str,
    headers: Mapping[str, str],
    max_bytes: int,
) -> Answer:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    asked = {"Host": urlsplit(url).netloc, "Connection": "close", **headers}
    request = h11.Request(method="GET", target=target, headers=list(asked.items()))
    writer.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    answer: h11.Response | None = None
    body = bytearray()
    connection.receive_data(await _first_word(url, reader, writer))
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            async with asyncio.timeout(SILENCE_S):
                connection.receive_data(await reader.read(_CHUNK_BYTES))
        elif isinstance(event, h11.Response):
            answer = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > max_bytes:
                raise _bad_answer(url, f"it is larger than {max_bytes:,} bytes")
        elif isinstance(event, h11.EndOfMessage) and answer is not None:
            named = {name.decode("ascii"): value.decode("latin-1") for name, value in answer.headers}
            return Answer(status=answer.status_code, headers=named, body=bytes(body))
        elif not isinstance(event, h11.InformationalResponse):
            raise _bad_answer(url, "it ends before it has begun")


async def _first_word(url: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """What it says first. With TLS 1.3 one's certificate is looked at after the handshake: who refuses it says so and
    hangs up, and where the request was still on its way then, the kernel throws those words away for a reset."""
    try:
        async with asyncio.timeout(SILENCE_S):
            await writer.drain()
            data = await reader.read(_CHUNK_BYTES)
    except ConnectionError as error:
        raise _hung_up(url, str(error.strerror or error)) from error
    if not data:
        raise _hung_up(url, "it says nothing")
    return data


def _hung_up(url: str, why: str) -> Unavailable:
    return Unavailable(
        f"the gateway {url} hangs up before it answers: {why}",
        code="peers.hung_up",
        hint="see that the clocks of both nodes are right, and that both are of this cluster",
    )


def _unreachable(url: str, why: str) -> Unavailable:
    return Unavailable(
        f"the gateway {url} cannot be reached: {why}",
        code="peers.unreachable",
        hint="see that pvcd runs there, and that nodes reach each other at gateway.listen",
    )


def _bad_answer(url: str, why: str) -> Unavailable:
    return Unavailable(
        f"the answer of {url} cannot be used: {why}",
        code="peers.bad_answer",
        hint="see that the node there is well and of the same version: `pvc node list`",
    )
