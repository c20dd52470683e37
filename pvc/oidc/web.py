"""One request to the configured issuer: no redirect is followed, and bytes and time are bounded.

The issuer is chosen by the admin, and its own documents name the other addresses; so it is trusted to be well-meaning,
and yet a broken or taken-over one must not hold the gateway up.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

import msgspec

from pvc.errors import InvalidInput, Unavailable
from pvc.thread_pool import DaemonPool

DEADLINE_S = 10.0
"""For one request, name resolution included: a person waits for the login."""

STEP_S = 5.0
"""For each step of it."""

MAX_BYTES = 256 * 1024
"""Discovery documents and key sets have some KB."""

THREADS = 4
"""Requests at once; further ones wait, within their deadline."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered."""

    status: int
    body: bytes


class Web:
    """Requests, each on a connection of its own."""

    def __init__(self, *, ca_file: str = "", deadline_s: float = DEADLINE_S) -> None:
        self._ca_file = ca_file
        self._deadline_s = deadline_s
        self._pool = DaemonPool("oidc", THREADS)

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> Reply:
        """GET. Raises Unavailable."""
        return await self._send("GET", url, None, headers or {})

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Reply:
        """POST a form. Raises Unavailable."""
        return await self._send("POST", url, form, headers)

    async def _send(self, method: str, url: str, form: Mapping[str, str] | None, headers: Mapping[str, str]) -> Reply:
        parts = urlsplit(check_url(url))
        made: list[http.client.HTTPConnection] = []
        give_up = time.monotonic() + self._deadline_s

        def work() -> Reply:
            host = parts.hostname or ""
            if parts.scheme == "https":
                context = ssl.create_default_context(cafile=self._ca_file or None)
                connection = http.client.HTTPSConnection(host, parts.port, timeout=STEP_S, context=context)
            else:
                connection = http.client.HTTPConnection(host, parts.port, timeout=STEP_S)  # type: ignore[assignment]
            made.append(connection)
            with contextlib.closing(connection):
                body = urlencode(form).encode() if form is not None else None
                sent = {"Accept": "application/json", "User-Agent": "pvcd", **headers}
                if body is not None:
                    sent["Content-Type"] = "application/x-www-form-urlencoded"
                target = parts.path or "/"
                connection.request(method, f"{target}?{parts.query}" if parts.query else target, body, sent)
                answer = connection.getresponse()
                return Reply(status=answer.status, body=_bounded(answer, give_up))

        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._pool.run(work)
        except TimeoutError as error:
            raise _unreachable(url, "no answer in time") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise _unreachable(url, str(getattr(error, "strerror", None) or error) or type(error).__name__) from error
        finally:
            for connection in made:  # who drips its head would keep the thread
                if connection.sock is not None:
                    with contextlib.suppress(OSError):
                        connection.sock.shutdown(socket.SHUT_RDWR)


def check_url(url: str) -> str:
    """The URL, where it may be asked: https, or this very machine. Raises InvalidInput."""
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and (parts.port or 1) > 0 and not parts.username and not parts.fragment
    except ValueError:
        usable = False
    if not usable or not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)):
        raise InvalidInput(f"{url[:200]!r} is no address of an issuer", code="config.invalid", hint="https://HOST/PATH")
    return url


def _bounded(answer: http.client.HTTPResponse, give_up: float) -> bytes:
    body = bytearray()
    while chunk := answer.read1(65_536):
        body += chunk
        if len(body) > MAX_BYTES:
            raise ValueError(f"the answer is larger than {MAX_BYTES:,} bytes")
        if time.monotonic() > give_up:
            raise ValueError("the answer comes too slowly")
    return bytes(body)


def _unreachable(url: str, why: str) -> Unavailable:
    return Unavailable(
        f"the issuer cannot be asked at {url[:200]}: {why}",
        code="oidc.unreachable",
        hint="tokens open as before; see that the issuer is up, and that this node reaches it",
    )
