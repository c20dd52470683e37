"""Anchors on real sockets and files: what arrives can be read as checkpoints again, and trouble is an error of ours."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pvc.drivers.anchors import FileAnchor, SyslogAnchor, WebhookAnchor, check_syslog_target, check_webhook_url
from pvc.errors import DriverError, InvalidInput
from pvc.proof.merkle import EMPTY_ROOT
from pvc.proof.verify import parse_checkpoints
from tests.support.keys import TestKey

KEY = TestKey("anchor")
NOTES = [KEY.sign(size, EMPTY_ROOT) for size in (3, 7)]


def sizes(text: str) -> list[int]:
    return [signed.checkpoint.size for signed in parse_checkpoints(text)]


async def test_a_file_gathers_all_of_them(tmp_path: Path) -> None:
    anchor = FileAnchor(tmp_path / "checkpoints")
    for note in NOTES:
        await anchor.deliver(note)
    assert sizes((tmp_path / "checkpoints").read_text()) == [3, 7]


async def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(DriverError) as refused:
        await FileAnchor(tmp_path / "no" / "folder").deliver(NOTES[0])
    assert (refused.value.code, "No such file" in refused.value.message) == ("anchor.failed", True)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
async def test_the_local_system_log_gets_one_line(tmp_path: Path, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_UNIX, kind) as log:
        log.bind(str(tmp_path / "log"))
        if kind is socket.SOCK_STREAM:
            log.listen()
        await SyslogAnchor(str(tmp_path / "log"), "hv1").deliver(NOTES[0])
        reader = log.accept()[0] if kind is socket.SOCK_STREAM else log
        line = reader.recv(4096).decode()
        if reader is not log:
            reader.close()
    assert line.startswith("<109>pvcd[")
    assert "\n" not in line
    assert sizes(f"Nov 21 12:00:00 hv1 something else\n{line}\n") == [3]


async def test_a_system_log_over_udp_gets_an_rfc_5424_message() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as log:
        log.bind(("127.0.0.1", 0))
        await SyslogAnchor(f"udp://127.0.0.1:{log.getsockname()[1]}", "hv1").deliver(NOTES[1])
        line = log.recv(4096).decode()
    assert line.startswith("<109>1 ")
    assert " hv1 pvcd " in line
    assert sizes(line) == [7]


async def test_a_system_log_over_tcp_gets_a_counted_message_and_its_absence_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as log:
        target = f"tcp://127.0.0.1:{log.getsockname()[1]}"
        got: list[bytes] = []

        def serve() -> None:
            connection, _ = log.accept()
            with connection:
                while data := connection.recv(4096):
                    got.append(data)

        thread = threading.Thread(target=serve)
        thread.start()
        await SyslogAnchor(target, "hv1").deliver(NOTES[0])
        thread.join(5)
    count, _, message = b"".join(got).partition(b" ")
    assert int(count) == len(message)
    assert sizes(message.decode()) == [3]
    with pytest.raises(DriverError):
        await SyslogAnchor(target, "hv1").deliver(NOTES[0])


@contextmanager
def web_server(status: int) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    got: list[tuple[str, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.headers.get("Authorization", ""), body))
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()
            self.wfile.write(b"because\n" * 10_000)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/checkpoints?log=main", got
    finally:
        server.shutdown()
        server.server_close()


async def test_a_web_server_gets_the_note_and_the_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    with web_server(204) as (url, got):
        await WebhookAnchor(url, token_file=str(tmp_path / "token")).deliver(NOTES[0])
    assert got == [("Bearer secret", NOTES[0].encode())]


@pytest.mark.parametrize("status", [301, 307, 404, 500])
async def test_a_web_server_that_refuses_or_sends_elsewhere_has_not_got_it(status: int) -> None:
    with web_server(status) as (url, got), pytest.raises(DriverError) as refused:
        await WebhookAnchor(url).deliver(NOTES[0])
    assert str(status) in refused.value.message
    assert len(got) == 1


async def test_a_web_server_that_is_away_is_told() -> None:
    with pytest.raises(DriverError):
        await WebhookAnchor("http://127.0.0.1:1/x").deliver(NOTES[0])


@pytest.mark.parametrize(
    "url", ["", "ftp://x/y", "http://example.org/x", "https://", "https://u:p@h/x", "https://h:x/"]
)
def test_only_https_or_this_machine_is_posted_to(url: str) -> None:
    with pytest.raises(InvalidInput):
        check_webhook_url(url)
    check_webhook_url("https://example.org/x")
    check_webhook_url("http://127.0.0.1:8080/")


@pytest.mark.parametrize("target", ["", "dev/log", "udp://host", "http://host:1", "udp://host:x"])
def test_only_what_is_a_system_log_is_sent_to(target: str) -> None:
    with pytest.raises(InvalidInput):
        check_syslog_target(target)
    check_syslog_target("/dev/log")
    check_syslog_target("udp://host:514")
