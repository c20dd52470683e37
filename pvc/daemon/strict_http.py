"""HTTP/1.1 and WebSocket at the door, stricter than uvicorn: what can be read in two ways is refused, and so is told.

uvicorn and h11 accept some requests that a proxy in front may take for something else, answer what they cannot read in
plain text, write tracebacks where a client breaks off in a bad moment, and wait for ever for a WebSocket's handshake
that they could not read. None of it needs a token; all of it is mended here. What the limits are for: docs/security.md.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Callable

import h11
import msgspec
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

from pvc.gateway.problems import CONTENT_TYPE, Malformed, problem_of

MAX_HEAD_BYTES = 64 * 1024
"""Of a request's line and headers; the longest query that means something has some kilobytes."""

MAX_HEADERS = 100
"""Of one request. Browsers send some twenty, proxies add five."""

MAX_UPGRADE_LINE_BYTES = 8_000
"""Of one header of a WebSocket's handshake: its library takes 8,192, and goes silent at more."""

MAX_FRAME_BYTES = 64 * 1024
"""Of one message to a console: a pasted file."""

MAX_FRAGMENTS = 1_000
"""Of one message; fragments may be empty, and would then count nothing towards its size."""

ONCE = (b"authorization", b"content-type", b"idempotency-key", b"last-event-id", b"pvc-source", b"transfer-encoding")
"""Headers of which a second one could be the one that somebody in between has looked at."""

_SWITCHES = 13
"""The one version of the WebSocket protocol that was ever standardised."""


class StrictConnection(h11.Connection):
    """h11's state machine, which takes no request that could be read in two ways."""

    fault = ""
    """Why the last request was refused."""

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """As h11. Raises RemoteProtocolError also for what is only doubtful."""
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            self.fault = str(error)
            raise
        if isinstance(event, h11.Request):
            self.fault = fault_of(event)
            if self.fault:
                raise h11.RemoteProtocolError(self.fault)
        return event


class StrictProtocol(H11Protocol):
    """uvicorn's HTTP over `StrictConnection`: every refusal is a problem, and none ends in a traceback."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.conn = StrictConnection(h11.SERVER, MAX_HEAD_BYTES)

    def send_400_response(self, msg: str) -> None:
        """Say why it is refused, where nothing was said yet; hang up in any case."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # what is asked already is answered to nobody
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            fault = self.conn.fault if isinstance(self.conn, StrictConnection) else ""
            body = refusal(fault or msg)
            head = [
                ("Content-Type", CONTENT_TYPE),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
            ]
            events = (h11.Response(status_code=400, headers=head, reason=b"Bad Request"), h11.Data(data=body))
            for event in (*events, h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand it over to who speaks WebSocket, if it is such a handshake."""
        fault = upgrade_fault_of(event)
        if fault:
            self.conn.fault = fault  # type: ignore[attr-defined]
            self.send_400_response(fault)
            return
        super().handle_websocket_upgrade(event)

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing worth telling: the request is answered as if it had not asked."""


class StrictWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, without a traceback for what is no text, nor messages of endlessly many parts."""

    when_lost: Callable[[], None] | None = None
    """Called when the connection is gone."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell of it."""
        if self.when_lost is not None:
            self.when_lost()
        super().connection_lost(exc)

    async def send(self, message: ASGISendEvent) -> None:
        """As uvicorn; what comes too late is for a client who has gone, and no defect."""
        await self.writable.wait()
        if not (self.close_sent or self.disconnected):
            await super().send(message)
        elif message["type"] == "websocket.send":
            raise ClientDisconnected

    def send_500_response(self) -> None:
        """Where somebody is there to hear it."""
        if not (self.close_sent or self.disconnected or self.transport.is_closing()):
            super().send_500_response()

    def handle_parser_exception(self) -> None:
        """Hang up, and say why where that can be said."""
        if self.conn.close_sent is not None:
            super().handle_parser_exception()
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": CloseCode.PROTOCOL_ERROR})
        self.close_sent = True
        self.transport.close()

    def handle_cont(self, event: Frame) -> None:
        """One part more of a message."""
        if len(self.frames) >= MAX_FRAGMENTS:
            self._hang_up(CloseCode.MESSAGE_TOO_BIG)
            return
        super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """Give a whole message on."""
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self._hang_up(CloseCode.INVALID_DATA)
                return
        super().send_receive_event_to_app()

    def _hang_up(self, why: CloseCode) -> None:
        self.frames = []
        if not self.close_sent:
            self.conn.send_close(why)
            self.handle_parser_exception()


def fault_of(request: h11.Request) -> str:
    """Why a request is not to be taken, in words; empty where it is."""
    names = Counter(name.lower() for name, _ in request.headers)
    if len(request.headers) > MAX_HEADERS:
        return f"it has more than {MAX_HEADERS} headers"
    if names[b"content-length"] and names[b"transfer-encoding"]:
        return "it has both Content-Length and Transfer-Encoding"
    for name in ONCE:
        if names[name] > 1:
            return f"it has the header {name.decode().title()} {names[name]} times"
    return ""


def upgrade_fault_of(request: h11.Request) -> str:
    """Why a request is no handshake of a WebSocket; empty where it is one."""
    headers = {name.lower(): value for name, value in request.headers}
    if request.method != b"GET" or request.http_version != b"1.1":
        return "a WebSocket begins with GET and HTTP/1.1"
    if b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0":
        return "a WebSocket does not begin with a body"
    longest = max((len(name) + len(value) for name, value in request.headers), default=0)
    if max(longest, len(request.target)) > MAX_UPGRADE_LINE_BYTES:
        return f"a line of a WebSocket's handshake is longer than {MAX_UPGRADE_LINE_BYTES:,} bytes"
    if headers.get(b"sec-websocket-version") != str(_SWITCHES).encode():
        return f"a WebSocket here is of version {_SWITCHES}"
    try:
        key = base64.b64decode(headers.get(b"sec-websocket-key", b""), validate=True)
    except binascii.Error:
        key = b""
    return "" if len(key) == 16 else "a WebSocket's key has 16 bytes"


def refusal(why: str) -> bytes:
    """The problem's JSON."""
    error = Malformed(
        f"this is no HTTP request that is taken here: {why[:200]}",
        code="http.malformed",
        hint="send HTTP/1.1, each header once, over TLS where the gateway has a certificate",
    )
    return msgspec.json.encode(problem_of(error, 0))
