"""One HTTP/1.1 connection to a gateway, over TCP, TLS or a Unix socket, by the standard library.

No retries here and no meaning: bytes out, bytes in. What goes wrong comes out as `Lost` (the request may have been
carried out) or `NoConnection` (it certainly was not); `pvc.client.client` decides what to do about it.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import NamedTuple
from urllib.parse import urlsplit

from pvc.client.connections import UNIX_SCHEME, Connection
from pvc.client.errors import ConfigError
from pvc.client.pins import connect_pinned

CONNECT_TIMEOUT_S = 5.0
"""A gateway on the other side of the world answers a SYN well within this; a dead address never does."""

API_PREFIX = "/api/v1"


class Moment(NamedTuple):
    """A moment of the past that a reply is of."""

    position: int
    time: str
    """ISO 8601, when that position's record was written."""


class Answer(NamedTuple):
    """A reply as it came."""

    status: int
    content_type: str
    position: int
    """The gateway's log position (`PVC-Position`), 0 where it told none."""
    body: bytes
    at: Moment | None = None
    """Of what moment it is, where that is not now."""


class NoConnection(Exception):
    """The connection could not be made; nothing was sent."""


class Lost(Exception):
    """The connection broke, or the time was over, after something had been sent: the outcome is not known."""


class Transport:
    """Makes the connection when it is first needed and keeps it for the next request. Not for several threads."""

    def __init__(self, connection: Connection, source: str, *, connect_timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self._connection = connection
        self._connect_timeout_s = connect_timeout_s
        self._http: http.client.HTTPConnection | None = None
        self._headers = {"Accept": "application/json", "PVC-Source": source}
        if connection.token:
            self._headers["Authorization"] = f"Bearer {connection.token}"

    @property
    def reused(self) -> bool:
        """Whether the next request goes out on a connection that may have gone stale."""
        return self._http is not None

    def request(self, method: str, path: str, *, body: bytes | None = None, key: str = "", timeout_s: float) -> Answer:
        """Send one request below the API's prefix and read the whole reply. Raises NoConnection, Lost."""
        response = self._send(method, path, body, key, timeout_s)
        try:
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Lost(_reason(error)) from error
        if response.will_close:
            self.close()
        return _answer(response, data)

    def stream(
        self, path: str, *, timeout_s: float, accept: str = "", silence_s: float | None = None
    ) -> tuple[Answer, http.client.HTTPResponse | None]:
        """GET something endless: the head as an Answer, and where it succeeded the response to read from.

        Reading raises TimeoutError after `silence_s`; None where silence is no failure: a guest may say nothing for
        days.
        """
        response = self._send("GET", path, None, "", timeout_s, accept)
        if response.status >= http.client.BAD_REQUEST:
            return _answer(response, response.read()), None
        assert self._http is not None and self._http.sock is not None, "a response came over it"
        self._http.sock.settimeout(silence_s)
        return _answer(response, b""), response

    def close(self) -> None:
        """End the connection; the next request makes another."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def _send(
        self, method: str, path: str, body: bytes | None, key: str, timeout_s: float, accept: str = ""
    ) -> http.client.HTTPResponse:
        connected = self._http or self._connect()
        self._http = connected
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        if key:
            headers["Idempotency-Key"] = key
        if accept:
            headers["Accept"] = accept
        assert connected.sock is not None, "connected above, and closed only by forgetting it"
        connected.sock.settimeout(timeout_s)
        try:
            connected.request(method, self._prefix() + path, body=body, headers=headers)
            return connected.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Lost(_reason(error)) from error

    def _prefix(self) -> str:
        base = "" if self._connection.is_unix else urlsplit(self._connection.url).path.rstrip("/")
        return base + API_PREFIX

    def _connect(self) -> http.client.HTTPConnection:
        made = _http_connection(self._connection, self._connect_timeout_s)
        try:
            made.connect()
        except (OSError, http.client.HTTPException) as error:
            made.close()
            raise NoConnection(_reason(error)) from error
        return made


class _PinnedHTTPSConnection(http.client.HTTPConnection):
    """To a gateway that is known by its certificate."""

    def __init__(self, connection: Connection, timeout_s: float) -> None:
        parts = urlsplit(connection.url)
        super().__init__(parts.hostname or "", parts.port, timeout=timeout_s)
        self._pinned = connection
        self._connect_timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = connect_pinned(self._pinned, self._connect_timeout_s)


class _UnixHTTPConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def tls_context(connection: Connection) -> ssl.SSLContext:
    """The TLS settings of a connection: the system's authorities, or its own `ca_file`. Raises ConfigError."""
    try:
        return ssl.create_default_context(cafile=connection.ca_file or None)
    except OSError as error:
        raise ConfigError(
            f"the CA file {connection.ca_file!r} of connection {connection.name!r} cannot be used: {_reason(error)}",
            hint="give a PEM file with the authority's certificate",
        ) from error


def _http_connection(connection: Connection, timeout_s: float) -> http.client.HTTPConnection:
    if connection.is_unix:
        return _UnixHTTPConnection(connection.url.removeprefix(UNIX_SCHEME), timeout_s)
    parts = urlsplit(connection.url)
    host = parts.hostname or ""
    if parts.scheme == "https" and connection.fingerprints:
        return _PinnedHTTPSConnection(connection, timeout_s)
    if parts.scheme == "https":
        context = tls_context(connection)
        return http.client.HTTPSConnection(host, parts.port, timeout=timeout_s, context=context)
    return http.client.HTTPConnection(host, parts.port, timeout=timeout_s)


def _answer(response: http.client.HTTPResponse, data: bytes) -> Answer:
    position = response.headers.get("PVC-Position", "0")
    return Answer(
        status=response.status,
        content_type=response.headers.get_content_type(),
        position=int(position) if position.isdecimal() else 0,
        body=data,
        at=_moment(response),
    )


def _moment(response: http.client.HTTPResponse) -> Moment | None:
    position = response.headers.get("PVC-At", "")
    return Moment(int(position), response.headers.get("PVC-At-Time", "")) if position.isdecimal() else None


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
