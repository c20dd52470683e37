"""Opens what the gateway listens on, so that a Unix socket is root's alone from its first instant."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from pvc.daemon.config import split_listen
from pvc.errors import Unavailable

BACKLOG = 1024


def open_unix_socket(path: Path) -> socket.socket:
    """A listening socket with mode 0600. Takes the place of one that a dead daemon left; Unavailable if it lives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        _remove_dead(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise Unavailable(f"cannot serve on {path}: {error.strerror}", code="gateway.socket_failed") from error
    finally:
        os.umask(before)
    listener.listen(BACKLOG)
    return listener


def close_unix_socket(path: Path) -> None:
    """Remove the socket's file, so that clients see at once that nobody serves there."""
    path.unlink(missing_ok=True)


def open_tcp_socket(listen: str) -> socket.socket:
    """A listening socket on `host:port`. Raises Unavailable that names the address."""
    host, port = split_listen(listen)
    try:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(info[0], socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(info[4])
    except OSError as error:
        raise Unavailable(
            f"cannot listen on {listen}: {error.strerror}",
            code="gateway.listen_failed",
            hint="is another daemon running? gateway.listen in the configuration sets the address",
        ) from error
    listener.listen(BACKLOG)
    return listener


def _remove_dead(path: Path) -> None:
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.closing(probe):
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise Unavailable(
        f"another daemon serves on {path}", code="gateway.socket_taken", hint="stop it, or set gateway.socket"
    )
