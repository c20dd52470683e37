"""Opens a VM's serial console: a WebSocket with binary frames both ways. `websockets` is loaded only for this."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from pvc.client.connections import UNIX_SCHEME, Connection
from pvc.client.errors import ApiError, ClientError, Unreachable
from pvc.client.pins import connect_pinned
from pvc.client.transport import API_PREFIX, CONNECT_TIMEOUT_S, tls_context

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

MAX_FRAME_BYTES = 1024 * 1024
"""Far above what a console sends at once (the gateway sends what one read of it gives)."""


def open_console(connection: Connection, ref: str, source: str) -> ClientConnection:
    """Connect. Raises ApiError when the gateway refuses, Unreachable when it does not answer."""
    from websockets.exceptions import InvalidHandshake, InvalidStatus
    from websockets.sync import client as websockets_client

    connect: Callable[..., ClientConnection] = websockets_client.connect
    unix_connect: Callable[..., ClientConnection] = websockets_client.unix_connect

    headers = {"PVC-Source": source}
    if connection.token:
        headers["Authorization"] = f"Bearer {connection.token}"
    path = f"{API_PREFIX}/vms/{quote(ref, safe='')}/console"
    options: dict[str, Any] = {
        "additional_headers": headers,
        "open_timeout": CONNECT_TIMEOUT_S * 2,
        "max_size": MAX_FRAME_BYTES,
        "compression": None,
    }
    try:
        if connection.is_unix:
            return unix_connect(connection.url.removeprefix(UNIX_SCHEME), f"ws://localhost{path}", **options)
        parts = urlsplit(connection.url)
        scheme = "ws"
        if parts.scheme == "https" and connection.fingerprints:
            # Secured and looked at already, so that it is no `wss` to the library.
            options["sock"] = connect_pinned(connection, CONNECT_TIMEOUT_S)
        elif parts.scheme == "https":
            scheme = "wss"
            options["ssl"] = tls_context(connection)
        return connect(f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}{path}", proxy=None, **options)
    except InvalidStatus as error:
        raise _refusal(error.response.status_code, error.response.body) from error
    except (OSError, InvalidHandshake) as error:
        raise Unreachable(
            f"the console of {ref} at {connection.url} cannot be reached ({error})",
            hint="see whether the gateway answers: pvc cluster status",
        ) from error


def _refusal(status: int, body: bytes | bytearray | None) -> ClientError:
    try:
        problem = json.loads(bytes(body or b""))
        return ApiError(
            status,
            problem["detail"],
            code=problem.get("code", ""),
            hint=problem.get("hint", ""),
            field=problem.get("field", ""),
        )
    except (ValueError, KeyError, TypeError):
        return ApiError(status, f"the gateway refused the console (HTTP {status})", code="client.console_refused")
