"""A gateway on a Unix socket that answers as a test says: for what a real one does only in an accident."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit


class Asked(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    query: dict[str, str]
    key: str
    body: Any


class Say(NamedTuple):
    """An answer."""

    body: Any
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}


class Pour(NamedTuple):
    """A stream of lines, which then breaks off in the middle of one, or ends as it should."""

    lines: tuple[Any, ...]
    broken: bool = True


class Stay(NamedTuple):
    """A stream that says no more after these lines, and stays open until who asked hangs up: `left` tells."""

    lines: tuple[Any, ...]


class Hang(NamedTuple):
    """Say nothing for as long as the test goes on."""


class Drop(NamedTuple):
    """Hang up without a word."""


Said = Say | Pour | Stay | Hang | Drop
Answer = Callable[[Asked], Said]


def problem(status: int, detail: str, *, code: str = "test.problem", hint: str = "") -> Say:
    """An error as the gateway tells it."""
    body = {"type": "about:blank", "title": "", "status": status, "detail": detail, "code": code, "hint": hint}
    return Say({**body, "field": "", "position": 7}, status, "application/problem+json")


def reply(
    name: str,
    *,
    outcomes: dict[str, bool] | None = None,
    events: list[dict[str, Any]] | None = None,
    begins: bool = False,
) -> Say:
    """A command that was accepted at position 10; where it has outcomes, or `begins` something, with an operation."""
    requested = {"type": f"{name}_requested", "subject": "vm/id1", "summary": "start requested on hv1", "data": {}}
    return Say(
        {
            "position": 10,
            "record": "r10",
            "command": "c10",
            "name": name,
            "changed": True,
            "dry_run": False,
            "repeated": False,
            "events": [requested] if events is None else events,
            "notes": [],
            "outcomes": outcomes or {},
            "operation": {"id": "r10", "href": "/api/v1/operations/r10"} if outcomes or begins else None,
        }
    )


def operation(
    state: str,
    *,
    position: int = 11,
    text: str = "",
    code: str = "",
    vms: Sequence[tuple[str, str, str, float]] = (),
) -> Say:
    """How the operation of such a command stands, with `vms` (name, state, text, seconds) where it is about many."""
    members = [
        {"subject": f"vm/{name}", "name": name, "state": at, "text": told, "took_us": round(took_s * 1e6) or None}
        for name, at, told, took_s in vms
    ]
    done = [at for _, at, _, _ in vms if at in ("succeeded", "failed")]
    counts = {"done": len(done), "total": len(vms) or 1, "failed": done.count("failed")}
    return Say(
        {
            "id": "r10",
            "command": "vm.start",
            "state": state,
            "progress": {**counts, "text": text, "transfer": None},
            "problem": {"code": code, "detail": text} if code else None,
            "position": position,
            "vms": members,
        }
    )


def events(*told: tuple[str, str], position: int = 11) -> Say:
    """A page of `/events` with one record of these types and summaries; none: an empty page."""
    record = {
        "position": position,
        "id": f"r{position}",
        "time": "",
        "time_us": 1,
        "actor": {"principal": "node/hv1", "method": "node"},
        "origin": "hv1",
        "command": {"id": "c", "name": "vm.report"},
        "cause": "r10",
        "events": [{"type": kind, "subject": "vm/id1", "summary": text, "data": {}} for kind, text in told],
    }
    return Say({"position": position, "records": [record] if told else [], "next_after": position})


class FakeGateway:
    """Serves while it is open; `asked` has every request that came."""

    def __init__(self, directory: Path, answer: Answer) -> None:
        self.socket = directory / "fake.sock"
        self.asked: list[Asked] = []
        self.over = threading.Event()
        self.left = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                parts = urlsplit(self.path)
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                asked = Asked(
                    self.command,
                    parts.path.removeprefix("/api/v1"),
                    query,
                    self.headers.get("Idempotency-Key", ""),
                    json.loads(data) if data else None,
                )
                outer.asked.append(asked)
                said = answer(asked)
                if isinstance(said, Drop):
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                if isinstance(said, Hang):
                    outer.over.wait()
                    return
                if isinstance(said, Pour | Stay):
                    self._pour(said)
                    return
                body = said.body if isinstance(said.body, bytes) else json.dumps(said.body).encode()
                with contextlib.suppress(BrokenPipeError):  # who asked has left
                    self.send_response(said.status)
                    self.send_header("Content-Type", said.content_type)
                    self.send_header("Content-Length", str(len(body)))
                    for name, value in said.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)

            def _pour(self, said: Pour | Stay) -> None:
                self.close_connection = True
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.send_response(200)
                    self.send_header("Content-Type", "application/x-ndjson")
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    for line in said.lines:
                        self._chunk(json.dumps(line).encode() + b"\n")
                    if isinstance(said, Stay):
                        self.rfile.read(1)
                        outer.left.set()
                        return
                    self._chunk(b'{"position": 99' if said.broken else b"")
                    self.connection.shutdown(socket.SHUT_RDWR)

            def _chunk(self, data: bytes) -> None:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

            do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815 - the standard library's names

            def address_string(self) -> str:
                return "local"

            def log_message(self, *_: Any) -> None:
                return

        class Server(ThreadingMixIn, UnixStreamServer):
            daemon_threads = True

        self._server = Server(os.fspath(self.socket), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> FakeGateway:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.socket.unlink(missing_ok=True)
