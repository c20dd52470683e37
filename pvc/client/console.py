"""Opens a VM's serial console: a WebSocket with binary frames both ways. `websockets` is loaded only for this."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from pvc.client.connections import UNIX_SCHEME, Connection
from pvc.client.errors import ApiError, ClientError, Unreachable, refusal
from pvc.client.pins import connect_pinned
from pvc.client.tls import tls_context
from pvc.client.transport import API_PREFIX, CONNECT_TIMEOUT_S

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection as AsyncClientConnection
    from websockets.sync.client import ClientConnection

MAX_FRAME_BYTES = 1024 * 1024
"""Far above what a console sends at once (the gateway sends what one read of it gives)."""


def open_console(connection: Connection, ref: str, source: str) -> ClientConnection:
    """Connect. Raises ApiError when the gateway refuses, Unreachable when it does not answer."""
    from websockets.exceptions import InvalidHandshake, InvalidStatus
    from websockets.sync import client as websockets_client

    connect: Callable[..., ClientConnection] = websockets_client.connect
    unix_connect: Callable[..., ClientConnection] = websockets_client.unix_connect
    try:
        options = _options(connection, source)
        if connection.is_unix:
            return unix_connect(connection.url.removeprefix(UNIX_SCHEME), _url(connection, ref), **options)
        return connect(_url(connection, ref), proxy=None, **options)
    except InvalidStatus as error:
        raise _refusal(error.response.status_code, error.response.body) from error
    except (OSError, InvalidHandshake) as error:
        raise _unreachable(connection, ref, error) from error


async def open_console_async(connection: Connection, ref: str, source: str) -> AsyncClientConnection:
    """The same for asyncio."""
    import asyncio

    from websockets.asyncio import client as websockets_client
    from websockets.exceptions import InvalidHandshake, InvalidStatus

    connect: Callable[..., Awaitable[AsyncClientConnection]] = websockets_client.connect
    unix_connect: Callable[..., Awaitable[AsyncClientConnection]] = websockets_client.unix_connect
    try:
        # Where the certificate is looked at first, that blocks for as long as one handshake takes.
        options = await asyncio.to_thread(_options, connection, source)
        if connection.is_unix:
            return await unix_connect(connection.url.removeprefix(UNIX_SCHEME), _url(connection, ref), **options)
        return await connect(_url(connection, ref), proxy=None, **options)
    except InvalidStatus as error:
        raise _refusal(error.response.status_code, error.response.body) from error
    except (OSError, InvalidHandshake) as error:
        raise _unreachable(connection, ref, error) from error


def _options(connection: Connection, source: str) -> dict[str, Any]:
    headers = {"PVC-Source": source}
    if connection.token:
        headers["Authorization"] = f"Bearer {connection.token}"
    options: dict[str, Any] = {
        "additional_headers": headers,
        "open_timeout": CONNECT_TIMEOUT_S * 2,
        "max_size": MAX_FRAME_BYTES,
        "compression": None,
    }
    if _is_pinned(connection):
        # Secured and looked at already, so that it is no `wss` to the library.
        options["sock"] = connect_pinned(connection, CONNECT_TIMEOUT_S)
    elif _scheme(connection) == "https":
        options["ssl"] = tls_context(connection)
    return options


def _url(connection: Connection, ref: str) -> str:
    path = f"{API_PREFIX}/vms/{quote(ref, safe='')}/console"
    if connection.is_unix:
        return f"ws://localhost{path}"
    parts = urlsplit(connection.url)
    scheme = "wss" if parts.scheme == "https" and not _is_pinned(connection) else "ws"
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}{path}"


def _scheme(connection: Connection) -> str:
    return urlsplit(connection.url).scheme


def _is_pinned(connection: Connection) -> bool:
    return _scheme(connection) == "https" and bool(connection.fingerprints)


def _unreachable(connection: Connection, ref: str, error: Exception) -> Unreachable:
    return Unreachable(
        f"the console of {ref} at {connection.url} cannot be reached ({error})",
        hint="see whether the gateway answers: pvc cluster status",
    )


def _refusal(status: int, body: bytes | bytearray | None) -> ClientError:
    try:
        return refusal(status, json.loads(bytes(body or b"")))
    except (ValueError, KeyError, TypeError):
        return ApiError(status, f"the gateway refused the console (HTTP {status})", code="client.console_refused")
