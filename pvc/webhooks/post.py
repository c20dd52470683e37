"""One request to a receiver, by HTTP: to an address that was checked, bounded in time and bytes, never redirected.

Connections are kept open between the requests to one endpoint, and made anew when it has other settings.
"""

from __future__ import annotations

import asyncio
import email.utils
import ssl
import time
from collections.abc import Collection, Iterable
from typing import Any, Protocol

import anyio
import httpcore
import msgspec

from pvc import __version__
from pvc.commands.webhook_settings import parse_allowed
from pvc.errors import PvcError
from pvc.webhooks.course import Answer
from pvc.webhooks.guard import Guard, Network, Refused

DEADLINE_S = 20.0
"""For a whole request, however slowly its answer drips; Standard Webhooks proposes 15 to 30."""

CONNECT_S = 5.0
"""For TCP and for TLS each."""

BODY_S = 2.0
"""For the beginning of an answer's body, which is shown to admins; whether it is good says the status alone."""

MAX_BODY_BYTES = 8 * 1024
EXCERPT_CHARS = 200
KEEP_S = 10.0
"""How long a connection that nobody uses is kept."""

CONCURRENT = 16
"""Requests under way at once, over all endpoints: one that hangs takes one."""


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """A request to be made."""

    hook: str
    url: str
    allow_private: tuple[str, ...]
    headers: dict[str, str]
    body: bytes


class Post(Protocol):
    """Posts. Never raises but for a cancellation."""

    async def __call__(self, outgoing: Outgoing) -> Answer:
        """Post, and say what came of it."""
        ...

    async def forget(self, hook: str) -> None:
        """Close what is open to an endpoint."""
        ...


class HttpPost:
    """Posts by HTTP/1.1."""

    def __init__(self, guard: Guard, *, context: ssl.SSLContext | None = None, deadline_s: float = DEADLINE_S) -> None:
        self._guard = guard
        self._context = context
        self._deadline_s = deadline_s
        self._slots = asyncio.Semaphore(CONCURRENT)
        self._pools: dict[str, tuple[tuple[str, ...], httpcore.AsyncConnectionPool]] = {}

    async def __call__(self, outgoing: Outgoing) -> Answer:
        """Post, and say what came of it."""
        began = time.monotonic()
        try:
            async with self._slots:
                began = time.monotonic()
                async with asyncio.timeout(self._deadline_s):
                    answer = await self._post(outgoing)
        except TimeoutError:
            answer = Answer(error=f"no answer within {self._deadline_s:g} s")
        except PvcError as error:
            answer = Answer(error=error.message)
        except (httpcore.ConnectTimeout, httpcore.PoolTimeout):
            answer = Answer(error=f"no connection within {CONNECT_S:g} s")
        except httpcore.TimeoutException:
            answer = Answer(error=f"no answer within {self._deadline_s:g} s")
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
            answer = Answer(error=_plain(str(error) or str(error.__cause__ or "") or type(error).__name__))
        except (OSError, ssl.SSLError, ValueError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            answer = Answer(error=_plain(str(error) or type(error).__name__))
        return msgspec.structs.replace(answer, latency_ms=round((time.monotonic() - began) * 1000))

    async def forget(self, hook: str) -> None:
        """Close what is open to an endpoint."""
        _, pool = self._pools.pop(hook, ((), None))
        if pool is not None:
            await pool.aclose()

    async def close(self) -> None:
        """Close all that is open."""
        for hook in list(self._pools):
            await self.forget(hook)

    async def _post(self, outgoing: Outgoing) -> Answer:
        pool = await self._pool(outgoing)
        headers = {
            "User-Agent": f"pvc/{__version__}",
            "Accept-Encoding": "identity",
            "Content-Length": str(len(outgoing.body)),
            **outgoing.headers,
        }
        host = httpcore.URL(outgoing.url)
        sent = [("Host", _host_of(host)), *headers.items()]
        bounds = {"connect": CONNECT_S, "read": self._deadline_s, "write": self._deadline_s, "pool": CONNECT_S}
        async with pool.stream(
            "POST", host, headers=sent, content=outgoing.body, extensions={"timeout": bounds}
        ) as response:
            named = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            body = await _beginning(response)
            status = response.status
        error = ""
        if 300 <= status < 400:
            error = _plain(f"it answered {status} and redirects, which is not followed: {named.get('location', '')}")
        return Answer(status=status, error=error, retry_after_s=_retry_after_s(named.get("retry-after", "")), body=body)

    async def _pool(self, outgoing: Outgoing) -> httpcore.AsyncConnectionPool:
        key = (outgoing.url, *outgoing.allow_private)
        known = self._pools.get(outgoing.hook)
        if known is not None and known[0] == key:
            return known[1]
        await self.forget(outgoing.hook)
        if self._context is None:
            self._context = await asyncio.to_thread(ssl.create_default_context)
        backend = _GuardedBackend(
            self._guard,
            [parse_allowed(text) for text in outgoing.allow_private],
            tls=outgoing.url.startswith("https:"),
        )
        pool = httpcore.AsyncConnectionPool(
            ssl_context=self._context, max_connections=2, keepalive_expiry=KEEP_S, network_backend=backend
        )
        self._pools[outgoing.hook] = (key, pool)
        return pool


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects only to what the guard has checked. TLS still asks for the name that the URL has."""

    def __init__(self, guard: Guard, allowed: Collection[tuple[Network, int]], *, tls: bool) -> None:
        self._guard = guard
        self._allowed = allowed
        self._tls = tls
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """To the first of the addresses that answers."""
        last: Exception | None = None
        for address in await self._guard.addresses(host, port, self._allowed, tls=self._tls):
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
        assert last is not None, "the guard gives at least one"
        raise last

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Never."""
        raise Refused("a webhook is no local socket")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._inner.sleep(seconds)


async def _beginning(response: httpcore.Response) -> str:
    """What an admin is shown of the body. Trouble in it is none: the receiver has said that it has the event."""
    body = b""
    try:
        async with asyncio.timeout(BODY_S):
            async for part in response.aiter_stream():
                body += part
                if len(body) >= MAX_BODY_BYTES:
                    break
    except (TimeoutError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
        pass
    return body[:MAX_BODY_BYTES].decode(errors="replace")


def _retry_after_s(text: str) -> float:
    """`Retry-After`: seconds, or a date; nothing where it makes no sense."""
    if text.isascii() and text.strip().isdigit():
        return float(text.strip()[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _host_of(url: httpcore.URL) -> str:
    host = url.host.decode("ascii")
    shown = f"[{host}]" if ":" in host else host
    return shown if url.port is None else f"{shown}:{url.port}"


def _plain(text: str) -> str:
    """What a stranger has said, for a line of text."""
    return "".join(char if char.isprintable() else "?" for char in text)[:EXCERPT_CHARS]
