"""The client's ports for programs that block: sockets of the standard library."""

from __future__ import annotations

import contextlib
import socket
import time
from urllib.parse import urlsplit

from pvc.client.connections import UNIX_SCHEME, Connection
from pvc.client.ports import Line, finish
from pvc.client.transport import CONNECT_TIMEOUT_S, Answer, Request, connect

RECEIVE_BYTES = 65536


class BlockingIo:
    """Network and time, blocking. May be shared by threads."""

    async def connect(self, connection: Connection, timeout_s: float) -> Line:
        """See `pvc.client.ports`."""
        return BlockingLine(_connected(connection, timeout_s))

    async def sleep(self, seconds: float) -> None:
        """See `pvc.client.ports`."""
        time.sleep(seconds)  # noqa: ASYNC251 - that it blocks is the point

    def now(self) -> float:
        """See `pvc.client.ports`."""
        return time.monotonic()


class BlockingLine:
    """A socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def send(self, data: bytes, timeout_s: float) -> None:
        """See `pvc.client.ports`."""
        self._sock.settimeout(_positive(timeout_s))
        self._sock.sendall(data)

    async def receive(self, timeout_s: float | None) -> bytes:
        """See `pvc.client.ports`."""
        try:
            self._sock.settimeout(None if timeout_s is None else _positive(timeout_s))
            return self._sock.recv(RECEIVE_BYTES)
        except (ValueError, AttributeError) as error:  # what TLS says where another thread closes it at this moment
            raise ConnectionAbortedError(f"the connection was closed ({error})") from error

    def close(self) -> None:
        """See `pvc.client.ports`."""
        with contextlib.suppress(OSError):  # it may have ended
            # To close it would not wake a thread that waits for it, and what it waits for would stay open.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)  # not that of TLS, which takes the layer from under it
        self._sock.close()


class Transport:
    """Single requests to one gateway, without retries: for who wants to see what one of them says."""

    def __init__(self, connection: Connection, source: str, *, connect_timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self._connection = connection
        self._source = source
        self._connect_timeout_s = connect_timeout_s

    def request(self, method: str, path: str, *, body: bytes | None = None, key: str = "", timeout_s: float) -> Answer:
        """Send one request below the API's prefix and read the whole reply. Raises NoConnection, Lost."""
        request = Request(method, path, body=body, key=key)
        return finish(self._request(request, timeout_s))

    async def _request(self, request: Request, timeout_s: float) -> Answer:
        wire = await connect(BlockingIo(), self._connection, self._source, self._connect_timeout_s)
        try:
            return await wire.exchange(request, timeout_s)
        finally:
            wire.close()


def _connected(connection: Connection, timeout_s: float) -> socket.socket:
    if connection.is_unix:
        return _at_socket(connection.url.removeprefix(UNIX_SCHEME), timeout_s)
    parts = urlsplit(connection.url)
    if parts.scheme == "https" and connection.fingerprints:
        from pvc.client.pins import connect_pinned

        return connect_pinned(connection, timeout_s)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    plain = socket.create_connection((parts.hostname or "", port), timeout=timeout_s)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if parts.scheme != "https":
        return plain
    from pvc.client.tls import tls_context

    try:
        return tls_context(connection).wrap_socket(plain, server_hostname=parts.hostname)
    except BaseException:
        plain.close()
        raise


def _at_socket(path: str, timeout_s: float) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(timeout_s)
    try:
        made.connect(path)
    except BaseException:
        made.close()
        raise
    return made


def _positive(timeout_s: float) -> float:
    """What a socket takes: 0 would mean not to wait at all, and to say so by another error."""
    return max(timeout_s, 0.001)
