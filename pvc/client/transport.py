"""One HTTP/1.1 connection to a gateway, over TCP, TLS or a Unix socket. HTTP itself is h11's, the bytes are a port's.

No retries here and no meaning: requests out, answers in. What goes wrong comes out as `Lost` (the request may have been
carried out) or `NoConnection` (it certainly was not); `pvc.client.core` decides what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import h11

from pvc.client.connections import Connection
from pvc.client.errors import ReplyTooLarge
from pvc.client.ports import Io, Line

CONNECT_TIMEOUT_S = 5.0
"""A gateway on the other side of the world answers a SYN well within this; a dead address never does."""

API_PREFIX = "/api/v1"

MAX_REPLY_BYTES = 64 << 20
"""Of a reply that is read whole. The longest that gateways give in earnest, a thousand records or VMs, have a few MiB;
what has more is told by something that wants to fill our memory."""


class Moment(NamedTuple):
    """A moment of the past that a reply is of."""

    position: int
    time: str
    """ISO 8601, when that position's record was written."""


class Request(NamedTuple):
    """A request below the API's prefix."""

    method: str
    path: str
    """With the query."""
    body: bytes | None = None
    """JSON."""
    key: str = ""
    """The idempotency key."""
    accept: str = "application/json"
    if_match: str = ""
    """The tag of what it is for, in the only state in which it is to be done."""


class Answer(NamedTuple):
    """A reply as it came."""

    status: int
    content_type: str
    position: int
    """The gateway's log position (`PVC-Position`), 0 where it told none."""
    body: bytes
    at: Moment | None = None
    """Of what moment it is, where that is not now."""
    retry_after_s: float | None = None
    """When to come back, where the gateway says so."""


class NoConnection(Exception):
    """The connection could not be made; nothing was sent."""


class Lost(Exception):
    """The connection broke, or the time was over, after something had been sent: the outcome is not known."""

    stale = False
    """Whether the connection had been kept from an earlier request: the gateway may have hung up long before."""


async def connect(io: Io, connection: Connection, source: str, timeout_s: float) -> Wire:
    """Raises NoConnection, and ConfigError where the gateway is not who it should be."""
    try:
        return Wire(io, await io.connect(connection, timeout_s), connection, source)
    except OSError as error:
        raise NoConnection(_reason(error)) from error


class Wire:
    """One request at a time; close it unless it is `fit` for the next."""

    def __init__(self, io: Io, line: Line, connection: Connection, source: str) -> None:
        self._io = io
        self._line = line
        self._where = connection.url
        self._http = h11.Connection(h11.CLIENT)
        parts = urlsplit("http://localhost" if connection.is_unix else connection.url)
        self._prefix = parts.path.rstrip("/") + API_PREFIX
        self._headers = {"Host": parts.netloc, "PVC-Source": source}
        if connection.token:
            self._headers["Authorization"] = f"Bearer {connection.token}"

    @property
    def fit(self) -> bool:
        """Whether another request can follow."""
        return self._http.our_state is h11.IDLE

    async def exchange(self, request: Request, timeout_s: float) -> Answer:
        """Send a request and read the whole reply. Raises Lost, ReplyTooLarge."""
        until = self._io.now() + timeout_s
        head = await self.begin(request, timeout_s)
        return head._replace(body=await self.rest(until - self._io.now()))

    async def begin(self, request: Request, timeout_s: float) -> Answer:
        """Send a request and read the head of the reply; its body follows by `piece`. Raises Lost."""
        until = self._io.now() + timeout_s
        headers = {**self._headers, "Accept": request.accept}
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        if request.body is not None or request.method not in ("GET", "DELETE"):
            headers["Content-Length"] = str(len(request.body or b""))
        if request.key:
            headers["Idempotency-Key"] = request.key
        if request.if_match:
            headers["If-Match"] = request.if_match
        head = h11.Request(method=request.method, target=self._prefix + request.path, headers=list(headers.items()))
        data = (self._http.send(head) or b"") + (self._http.send(h11.Data(data=request.body or b"")) or b"")
        data += self._http.send(h11.EndOfMessage()) or b""
        try:
            await self._line.send(data, until - self._io.now())
        except OSError as error:
            raise Lost(_reason(error)) from error
        while not isinstance(event := await self._event(until - self._io.now()), h11.Response):
            if self._io.now() > until:  # an interim one, and another, and so on without an end
                raise Lost("no answer in time")
        return _answer(event)

    async def rest(self, timeout_s: float) -> bytes:
        """The whole of the reply's body, within that time. Raises Lost, ReplyTooLarge."""
        until = self._io.now() + timeout_s
        body = bytearray()
        while piece := await self.piece(until - self._io.now()):
            if len(body) + len(piece) > MAX_REPLY_BYTES:
                raise ReplyTooLarge(f"the reply of {self._where} has more than {MAX_REPLY_BYTES >> 20} MiB")
            body += piece
            if self._io.now() > until:  # something always came in time, but never the end
                raise Lost("no end of the answer in time")
        return bytes(body)

    async def piece(self, timeout_s: float | None) -> bytes:
        """The next piece of the reply's body, nothing at its end. Raises Lost."""
        while isinstance(event := await self._event(timeout_s), h11.Data):
            if event.data:
                return bytes(event.data)
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        return b""

    def close(self) -> None:
        """End the connection."""
        self._line.close()

    async def _event(self, timeout_s: float | None) -> object:
        data = b"?"
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                data = await self._line.receive(timeout_s)
                self._http.receive_data(data)
        except (OSError, h11.RemoteProtocolError) as error:
            raise Lost(_reason(error) if data else "the gateway hung up") from error
        if isinstance(event, h11.ConnectionClosed):
            raise Lost("the gateway hung up")
        return event


def _answer(response: h11.Response) -> Answer:
    headers = {name.decode().lower(): value.decode("latin-1") for name, value in response.headers}
    position, later = headers.get("pvc-position", "0"), headers.get("retry-after", "")
    return Answer(
        status=response.status_code,
        content_type=headers.get("content-type", "").partition(";")[0].strip().lower(),
        position=int(position) if position.isdecimal() else 0,
        body=b"",
        at=_moment(headers),
        retry_after_s=float(later) if later.isdecimal() else None,
    )


def _moment(headers: Mapping[str, str]) -> Moment | None:
    position = headers.get("pvc-at", "")
    return Moment(int(position), headers.get("pvc-at-time", "")) if position.isdecimal() else None


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
