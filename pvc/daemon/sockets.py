"""Opens what the gateway listens on, so that a Unix socket is root's alone from its first instant."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from pvc.daemon.config import split_listen
from pvc.daemon.crowd import Crowd, Door
from pvc.errors import Unavailable

BACKLOG = 1024


@contextlib.contextmanager
def open_unix_socket(path: Path) -> Iterator[socket.socket]:
    """A listening socket with mode 0600, within the block; its file goes with it, so that clients see at once that
    nobody serves there. Takes the place of one that a dead daemon left; raises Unavailable if that lives."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.closing(listener):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_dead(path)
            _bind_privately(listener, path)
            listener.listen(BACKLOG)
        except OSError as error:
            raise Unavailable(
                f"cannot serve on {path}: {error.strerror or error}",
                code="gateway.socket_failed",
                hint="see that its directory can be written to, or set gateway.socket",
            ) from error
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def open_tcp_socket(listen: str, crowd: Crowd | None = None) -> Iterator[socket.socket]:
    """A listening socket on `host:port`, within the block, that lets in whom the crowd has room for. Raises Unavailable
    that names the address."""
    host, port = split_listen(listen)
    with contextlib.ExitStack() as opened:
        try:
            info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            listener = opened.enter_context(Door(info[0], socket.SOCK_STREAM))
            listener.crowd = crowd
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(info[4])
            listener.listen(BACKLOG)
        except OSError as error:
            raise Unavailable(
                f"cannot listen on {listen}: {error.strerror}",
                code="gateway.listen_failed",
                hint="is another daemon running? gateway.listen in the configuration sets the address",
            ) from error
        yield listener


def _remove_dead(path: Path) -> None:
    """Remove a socket that nobody listens on any more. What is no socket is not ours to remove."""
    if not path.is_socket():
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.closing(probe):
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # a full backlog: somebody is there, however busy
    raise Unavailable(
        f"another daemon serves on {path}", code="gateway.socket_taken", hint="stop it, or set gateway.socket"
    )


def _bind_privately(listener: socket.socket, path: Path) -> None:
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
