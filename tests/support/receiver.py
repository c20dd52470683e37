"""A real receiver of webhooks over HTTP, in a thread: it does what its script says, and remembers what it was sent."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Received(NamedTuple):
    """One request."""

    headers: dict[str, str]
    body: bytes
    answer: str

    @property
    def events(self) -> list[dict[str, Any]]:
        document = json.loads(self.body)
        return document if isinstance(document, list) else [document]


class Receiver:
    """`mood` says how it answers events: ok, fail (500), gone (410), busy (503 with Retry-After), hang, drip, reset,
    redirect, lie (a length that is not true), garbage (no HTTP). Pings it answers with their challenge, unless `rude`.
    """

    def __init__(self, port: int = 0, *, context: ssl.SSLContext | None = None) -> None:
        self.mood = "ok"
        self.moods: list[str] = []
        """Of the next requests, before `mood` counts again."""
        self.rude = False
        self.poison: set[str] = set()
        """Ids of events that are refused with 400."""
        self.received: list[Received] = []
        self.hits = 0
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver._answer(self)

            def do_GET(self) -> None:
                receiver.hits += 1
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", port), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.scheme = "https" if context is not None else "http"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/hook"

    @property
    def allowed(self) -> list[str]:
        return [f"127.0.0.1/32:{self.port}"]

    @property
    def taken(self) -> list[dict[str, Any]]:
        """Events that were answered with success, in the order of arrival, duplicates and all; no pings."""
        with self._lock:
            taken = [event for one in self.received if one.answer == "ok" for event in one.events]
        return [event for event in taken if event["type"] != "webhook.ping"]

    @property
    def ids(self) -> list[str]:
        return [event["id"] for event in self.taken]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
        events = json.loads(body)
        events = events if isinstance(events, list) else [events]
        ping = next((event for event in events if event["type"] == "webhook.ping"), None)
        with self._lock:
            mood = self.moods.pop(0) if self.moods and ping is None else self.mood if ping is None else "ok"
            if any(event["id"] in self.poison for event in events):
                mood = "poison"
            headers = {name.lower(): value for name, value in handler.headers.items()}
            self.received.append(Received(headers, body, mood))
        text = ping["data"]["challenge"].encode() if ping is not None and not self.rude else b"thanks"
        self._say(handler, mood, text)

    def _say(self, handler: BaseHTTPRequestHandler, mood: str, text: bytes) -> None:
        with contextlib.suppress(OSError):
            match mood:
                case "ok":
                    self._send(handler, 200, text)
                case "fail":
                    self._send(handler, 500, b"out of order")
                case "poison":
                    self._send(handler, 400, b"not that one")
                case "gone":
                    self._send(handler, 410, b"never again")
                case "busy":
                    self._send(handler, 503, b"busy", {"Retry-After": "3600"})
                case "redirect":
                    self._send(handler, 307, b"", {"Location": f"http://127.0.0.1:{self.port}/elsewhere"})
                case "hang":
                    time.sleep(30)
                case "drip":
                    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
                    for _ in range(300):
                        handler.wfile.write(b"X")
                        handler.wfile.flush()
                        time.sleep(0.1)
                case "reset":
                    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    handler.connection.close()
                case "lie":
                    handler.wfile.write(b"HTTP/1.1 500 Fine\r\nContent-Length: 99999\r\n\r\nshort")
                    handler.connection.shutdown(socket.SHUT_RDWR)
                case "garbage":
                    handler.wfile.write(b"220 mail.example.com ESMTP\r\n")
                    handler.connection.shutdown(socket.SHUT_RDWR)
        if mood in ("hang", "drip", "reset", "lie", "garbage"):
            handler.close_connection = True

    def _send(
        self, handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


@contextlib.contextmanager
def a_receiver(port: int = 0, *, context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver, closed at the end."""
    receiver = Receiver(port, context=context)
    try:
        yield receiver
    finally:
        receiver.close()
