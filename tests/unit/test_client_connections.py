"""Which gateway is meant, and that tokens stay with their owner."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.client.connections import (
    Connection,
    Stored,
    change_connections,
    check_name,
    check_token,
    check_url,
    choose_connection,
    connections_file,
    load_connections,
    read_token_file,
    save_connections,
)
from pvc.client.errors import ConfigError

MAIN = Connection("main", "http://hv1:7370", "pvc_0123abcd_secret")
EDGE = Connection("edge", "https://edge:7370", "pvc_4567cdef_secret", "/etc/ca.pem")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"PVC_CONFIG_DIR": str(tmp_path / "config")}


@pytest.fixture
def local_socket(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "pvc.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        yield path


def store(env: dict[str, str], *connections: Connection, in_use: str = "") -> None:
    save_connections(Stored({connection.name: connection for connection in connections}, in_use), env)


def test_what_is_stored_is_read_again(env: dict[str, str]) -> None:
    store(env, MAIN, EDGE, in_use="edge")
    assert load_connections(env) == Stored({"main": MAIN, "edge": EDGE}, "edge")


def test_the_file_and_its_directory_are_the_owners_alone_whatever_the_umask(env: dict[str, str]) -> None:
    before = os.umask(0)
    try:
        store(env, MAIN)
        store(env, MAIN, EDGE)
    finally:
        os.umask(before)
    path = connections_file(env)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_file_that_others_may_read_is_refused(env: dict[str, str]) -> None:
    store(env, MAIN)
    connections_file(env).chmod(0o640)
    with pytest.raises(ConfigError) as caught:
        load_connections(env)
    assert caught.value.code == "client.config_exposed"
    assert "chmod 600" in caught.value.hint


def test_a_damaged_file_is_named(env: dict[str, str]) -> None:
    store(env, MAIN)
    connections_file(env).write_text("[]")
    with pytest.raises(ConfigError, match="damaged"):
        load_connections(env)


def test_the_name_that_is_typed_goes_before_everything(env: dict[str, str], local_socket: str) -> None:
    store(env, MAIN, EDGE, in_use="edge")
    busy = {**env, "PVC_URL": "http://other:1", "PVC_CONNECTION": "edge", "PVC_SOCKET": local_socket}
    assert choose_connection("main", busy) == MAIN
    assert choose_connection("local", busy).url == f"unix://{local_socket}"


def test_the_environment_goes_before_what_is_stored(env: dict[str, str], local_socket: str) -> None:
    store(env, MAIN, EDGE, in_use="edge")
    assert choose_connection("", {**env, "PVC_CONNECTION": "main"}) == MAIN
    assert choose_connection("", {**env, "PVC_SOCKET": local_socket}).name == "local"
    url = choose_connection("", {**env, "PVC_URL": "hv9", "PVC_TOKEN": " pvc_aa_bb\n", "PVC_CONNECTION": "main"})
    assert (url.url, url.token) == ("https://hv9:7370", "pvc_aa_bb")


def test_the_connection_in_use_else_the_only_one(env: dict[str, str]) -> None:
    store(env, MAIN)
    assert choose_connection("", env) == MAIN
    store(env, MAIN, EDGE, in_use="edge")
    assert choose_connection("", env) == EDGE
    store(env, MAIN, EDGE)
    with pytest.raises(ConfigError) as caught:
        choose_connection("", env)
    assert caught.value.code == "client.connection_ambiguous"
    assert "main, edge" in caught.value.message


def test_without_any_the_way_to_one_is_told(env: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        choose_connection("", env)
    assert caught.value.code == "client.no_connection"
    assert "pvc connection add" in caught.value.hint


def test_a_name_that_is_not_there_is_answered_with_one_that_is_near(env: dict[str, str]) -> None:
    store(env, MAIN)
    with pytest.raises(ConfigError) as caught:
        choose_connection("mian", env)
    assert caught.value.hint == "did you mean main?"


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("hv1", "https://hv1:7370"),
        ("hv1:80", "https://hv1:80"),
        ("https://hv1/", "https://hv1:7370"),
        ("https://proxy:443/pvc/", "https://proxy:443/pvc"),
        ("http://[::1]:7370", "http://[::1]:7370"),
        ("unix:///run/pvc/pvc.sock", "unix:///run/pvc/pvc.sock"),
    ],
)
def test_a_url_is_completed(typed: str, kept: str) -> None:
    assert check_url(typed) == kept


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "ftp://x",
        "http://",
        "http://user:pw@host",
        "http://h:99999",
        "unix://relative",
        "http://a b",
        "http://h?x=1",
    ],
)
def test_what_is_no_url_of_a_gateway_is_refused(typed: str) -> None:
    with pytest.raises(ConfigError):
        check_url(typed)


def test_a_token_that_is_none_is_never_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        check_token("hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "local", "Main", "a b", "-x", "a" * 64])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        check_name(name)


def test_several_gateways_of_a_cluster_are_kept_in_order(env: dict[str, str]) -> None:
    several = MAIN._replace(others=("http://hv2:7370", "http://hv3:7370"))
    store(env, several)
    assert load_connections(env).connections["main"] == several
    assert [one.url for one in several.each()] == ["http://hv1:7370", "http://hv2:7370", "http://hv3:7370"]
    assert {one.token for one in several.each()} == {MAIN.token}
    chosen = choose_connection(env={**env, "PVC_URL": "hv1,https://hv2"})
    assert (chosen.url, chosen.others) == ("https://hv1:7370", ("https://hv2:7370",))


def test_a_token_file_is_read_where_it_is_its_owners_alone(env: dict[str, str], tmp_path: Path) -> None:
    store(env, MAIN)
    file = tmp_path / "token"
    file.write_text("pvc_aaaabbbb_other\n")
    file.chmod(0o600)
    assert choose_connection("main", {**env, "PVC_TOKEN_FILE": str(file)}).token == "pvc_aaaabbbb_other"
    both = {**env, "PVC_TOKEN_FILE": str(file), "PVC_TOKEN": "pvc_ccccdddd_third"}
    assert choose_connection("main", both).token == "pvc_ccccdddd_third"


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o602])
def test_a_token_file_that_others_can_read_or_change_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "token"
    file.write_text("pvc_aaaabbbb_other\n")
    file.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        read_token_file(file)
    assert caught.value.code == "client.token_exposed"
    assert f"chmod 600 {file}" in caught.value.hint
    assert "aaaabbbb" not in str(caught.value)


def test_a_file_of_another_user_is_refused(env: dict[str, str]) -> None:
    store(env, MAIN)
    os.chown(connections_file(env), 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to another user"):
        load_connections(env)


def test_a_token_comes_through_a_pipe_too(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"pvc_aaaabbbb_other\n")
    os.close(writer)
    assert read_token_file(Path(f"/dev/fd/{reader}")) == "pvc_aaaabbbb_other"
    os.close(reader)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token_file(tmp_path / "none")


def test_no_connection_is_called_like_all_of_them() -> None:
    with pytest.raises(ConfigError, match="stands for all connections"):
        check_name("all")


def test_two_who_store_at_once_do_not_undo_each_other(env: dict[str, str]) -> None:
    def store_one(i: int) -> None:
        one = MAIN._replace(name=f"c{i}")
        change_connections(lambda known: known._replace(connections={**known.connections, one.name: one}), env)

    threads = [threading.Thread(target=store_one, args=(i,)) for i in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(load_connections(env).connections) == {f"c{i}" for i in range(24)}
    folder = connections_file(env).parent
    assert {path.name for path in folder.iterdir()} == {"connections.json", "connections.lock"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
