"""The daemon's sockets: private from their first instant, never in somebody else's place, gone with the daemon."""

from __future__ import annotations

import contextlib
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.daemon.sockets import open_tcp_socket, open_unix_socket
from pvc.errors import Unavailable


@contextlib.contextmanager
def somebody_at(path: Path, *, backlog: int = 8) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(backlog)
        yield


def test_the_unix_socket_is_roots_alone_and_goes_with_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "run" / "pvc.sock"
    with open_unix_socket(path), socket.socket(socket.AF_UNIX) as client:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        client.connect(str(path))
    assert not path.exists()


def test_the_socket_goes_too_when_the_daemon_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), open_unix_socket(tmp_path / "pvc.sock"):
        raise RuntimeError("another part of the daemon cannot start")
    assert not (tmp_path / "pvc.sock").exists()


def test_a_dead_daemons_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pvc.sock"
    with somebody_at(path):
        pass
    assert path.is_socket(), "its file outlives it"
    with open_unix_socket(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_living_daemon_keeps_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "pvc.sock"
    with somebody_at(path):
        with pytest.raises(Unavailable) as taken, open_unix_socket(path):
            pass
        assert taken.value.code == "gateway.socket_taken"
        assert path.is_socket()


def test_a_daemon_too_busy_to_answer_keeps_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "pvc.sock"
    with somebody_at(path, backlog=0), contextlib.ExitStack() as waiting:
        for _ in range(4):
            client = waiting.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect_ex(str(path))
        with pytest.raises(Unavailable) as taken, open_unix_socket(path):
            pass
    assert taken.value.code == "gateway.socket_taken"


def test_a_file_that_is_no_socket_is_left_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(Unavailable) as failed, open_unix_socket(path):
        pass
    assert failed.value.code == "gateway.socket_failed"
    assert failed.value.hint
    assert path.read_text() == "data"


def test_a_taken_address_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        address = f"127.0.0.1:{somebody.getsockname()[1]}"
        with pytest.raises(Unavailable, match=address) as failed, open_tcp_socket(address):
            pass
    assert failed.value.code == "gateway.listen_failed"
