"""Places outside of the cluster where signed checkpoints are kept: a file, a system log, a web server.

An anchor takes a note and returns when the place has it. How often to try again is its caller's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http.client
import os
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from pvc.errors import DriverError, InvalidInput
from pvc.proof.verify import SYSLOG_MARK

DEADLINE_S = 15.0
"""For one delivery; a place that takes longer is as good as away."""

NETWORK_S = 10.0
"""For each step of a delivery over the network."""

FAREWELL_S = 1.0
"""How long a system log may take to close its side."""

MAX_ANSWER_BYTES = 4_096
"""Of a web server's answer that are read, for the message."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")

_FACILITY_SEVERITY = 13 * 8 + 5
"""Log audit, notice (RFC 5424)."""


class Anchor(Protocol):
    """A place for checkpoints."""

    name: str
    """`file`, `syslog` or `webhook`."""

    async def deliver(self, note: str) -> None:
        """Return when the place has the note. Raises DriverError; it may or may not have it then."""
        ...


class FileAnchor:
    """Appends to a file: on another machine's disk, or one that can only be written once."""

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    async def deliver(self, note: str) -> None:
        """Append the note and an empty line; it is on the disk then."""
        await _in_time(self.name, lambda: self._append(f"{note}\n".encode()))

    def _append(self, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        with contextlib.closing(_Descriptor(os.open(self._path, flags, 0o644))) as file:
            before = os.fstat(file.number).st_size
            if os.write(file.number, data) != len(data):
                with contextlib.suppress(OSError):  # where only appending is allowed, the rest stays and is skipped
                    os.ftruncate(file.number, before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.number)


class SyslogAnchor:
    """Sends to a system log: `/dev/log`, `udp://HOST:PORT` or `tcp://HOST:PORT` (RFC 5424, RFC 6587).

    Nobody confirms what a system log is sent; over UDP not even that anybody listens.
    """

    name = "syslog"

    def __init__(self, target: str, host: str) -> None:
        self._target = target
        self._host = host

    async def deliver(self, note: str) -> None:
        """Send the note as one line."""
        await _in_time(self.name, lambda: self._send(SYSLOG_MARK + note.replace("\n", "\\n")))

    def _send(self, text: str) -> None:
        if self._target.startswith("/"):
            with _unix_socket(self._target) as local:
                local.send(f"<{_FACILITY_SEVERITY}>pvcd[{os.getpid()}]: {text}".encode())
            return
        scheme, host, port = _address(self._target)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        message = f"<{_FACILITY_SEVERITY}>1 {stamp} {self._host} pvcd {os.getpid()} checkpoint - {text}".encode()
        if scheme == "tcp":
            with socket.create_connection((host, port), NETWORK_S) as connection:
                connection.sendall(b"%d %s" % (len(message), message))
                # Who went away in between says so now; who goes on listening says nothing, and has it.
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(FAREWELL_S)
                with contextlib.suppress(TimeoutError):
                    connection.recv(1)
            return
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as sender:
            sender.settimeout(NETWORK_S)
            sender.sendto(message, where)


class WebhookAnchor:
    """Posts to a web server, which answers with a status from 200 to 299 when it has stored the note."""

    name = "webhook"

    def __init__(self, url: str, *, ca_file: str = "", token_file: str = "") -> None:
        self._url = url
        self._ca_file = ca_file
        self._token_file = token_file

    async def deliver(self, note: str) -> None:
        """Post the note. A redirection is a refusal: the place is the one that was configured."""
        await _in_time(self.name, lambda: self._post(note.encode()))

    def _post(self, body: bytes) -> None:
        parts = urlsplit(self._url)
        headers = {"Content-Type": "text/plain; charset=utf-8", "User-Agent": "pvcd"}
        if self._token_file:
            headers["Authorization"] = f"Bearer {Path(self._token_file).read_text().strip()}"
        host = parts.hostname or ""
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=self._ca_file or None)
            connection = http.client.HTTPSConnection(host, parts.port, timeout=NETWORK_S, context=context)
        else:
            connection = http.client.HTTPConnection(host, parts.port, timeout=NETWORK_S)
        with contextlib.closing(connection):
            connection.request("POST", _path(parts.path, parts.query), body=body, headers=headers)
            answer = connection.getresponse()
            text = answer.read(MAX_ANSWER_BYTES)
        if not 200 <= answer.status < 300:
            said = text.decode(errors="replace").strip().splitlines()
            raise OSError(0, f"it answered {answer.status} {answer.reason}{': ' + said[0][:100] if said else ''}")


def check_syslog_target(target: str) -> None:
    """Raise InvalidInput unless it is a path, or a scheme, host and port."""
    if target.startswith("/"):
        return
    scheme, host, port = _address(target)
    if scheme not in ("udp", "tcp") or not host or not port:
        raise InvalidInput(
            f"{target!r} is no system log", code="config.invalid", hint="/dev/log, udp://HOST:PORT or tcp://HOST:PORT"
        )


def check_webhook_url(url: str) -> None:
    """Raise InvalidInput unless it is https, or this very machine."""
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and (parts.port or 1) > 0 and not parts.username
    except ValueError:
        usable = False
    if not usable or not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)):
        raise InvalidInput(f"{url!r} is no address to post to", code="config.invalid", hint="https://HOST/PATH")


def _address(target: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(target)
        return parts.scheme, parts.hostname or "", parts.port or 0
    except ValueError:
        return "", "", 0


def _path(path: str, query: str) -> str:
    return f"{path or '/'}?{query}" if query else path or "/"


def _unix_socket(path: str) -> socket.socket:
    """A connected socket to a local system log, of whichever kind it is."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        local = socket.socket(socket.AF_UNIX, kind)
        local.settimeout(NETWORK_S)
        try:
            local.connect(path)
        except OSError as error:
            local.close()
            if error.errno != errno.EPROTOTYPE:
                raise
        else:
            return local
    raise OSError(errno.EPROTOTYPE, f"{path} is no system log")


class _Descriptor:
    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        os.close(self.number)


async def _in_time(name: str, work: Callable[[], None]) -> None:
    try:
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.to_thread(work)
    except TimeoutError as error:
        raise _failed(name, f"no answer within {DEADLINE_S:g} s") from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise _failed(name, str(reason)) from error


def _failed(name: str, reason: str) -> DriverError:
    return DriverError(
        f"the anchor {name} cannot take checkpoints: {reason}",
        code="anchor.failed",
        hint="see that the place is there and has room; all checkpoints are delivered then",
    )
