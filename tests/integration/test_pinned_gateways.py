"""A gateway by TLS with a certificate of its own, and clients that know it by that: pvcd and pvc as processes."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.client import Client
from pvc.client.connections import Connection
from pvc.client.console import open_console
from pvc.client.errors import ConfigError
from pvc.client.json_client import JsonClient
from pvc.client.pins import check_fingerprint
from tests.integration.cli_cluster import free_port
from tests.integration.cli_process import Cli
from tests.integration.daemon_process import DaemonProcess
from tests.support.both_clients import KINDS, clients


class Cluster:
    """A node that serves all addresses, and the fingerprint that it tells its admin."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.daemon = DaemonProcess(
            directory, gateway={"socket": str(directory / "pvc.sock"), "listen": f"0.0.0.0:{self.port}"}
        )
        self.daemon.start()
        self.root = Cli(directory, {"PVC_SOCKET": str(self.daemon.socket)})
        self.token = json.loads(self.root("cluster", "init", "lab", "-o", "json").out)["token"]
        self.url = f"https://127.0.0.1:{self.port}"

    def fingerprint(self) -> str:
        command = [sys.executable, "-m", "pvc.daemon.main", "--config", str(self.daemon.config), "--fingerprint"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("pinned"))
    yield made
    made.daemon.stop()


def test_by_its_fingerprint_a_gateway_is_known_and_used(cluster: Cluster, tmp_path: Path) -> None:
    cli = Cli(tmp_path, {})
    spelt = ":".join(cluster.fingerprint().upper()[at : at + 2] for at in range(0, 64, 2))
    pinned = ("--fingerprint", spelt, "--token-file", "-")
    added = cli("connection", "add", "lab", cluster.url, *pinned, text=cluster.token)
    assert added.code == 0 and "There you are admin (admin)" in added.out, added
    assert cli("cluster", "status").code == 0
    stored = json.loads((tmp_path / "config" / "connections.json").read_text())["connections"][0]
    assert stored["fingerprints"] == [cluster.fingerprint()]


def test_another_thread_can_close_what_is_read_by_tls(cluster: Cluster) -> None:
    ended: list[object] = []
    with Client(cluster.url, token=cluster.token, fingerprints=[cluster.fingerprint()]) as client:
        events = client.events(after=0)
        client.access.whoami()
        while events.position < client.position:
            next(events)
        reader = threading.Thread(target=lambda: ended.append(next(events, "the end")), daemon=True)
        reader.start()
        reader.join(0.3)  # by then it waits
        events.close()
        reader.join(10)  # the gateway says something every 15 s
    assert ended == ["the end"]


def test_without_a_terminal_an_unknown_certificate_is_told_and_refused(cluster: Cluster, tmp_path: Path) -> None:
    cli = Cli(tmp_path, {})
    refused = cli("connection", "add", "lab", cluster.url, "--token-file", "-", "-v", text=cluster.token)
    assert refused.code == 2 and cluster.fingerprint() in refused.err and "client.unknown_certificate" in refused.err
    assert not (tmp_path / "config" / "connections.json").exists()


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2)])
def test_at_a_terminal_it_is_shown_and_asked_once(cluster: Cluster, tmp_path: Path, answer: str, code: int) -> None:
    cli = Cli(tmp_path, {})
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(cluster.token)
    asked = cli.on_terminal(
        "connection", "add", "lab", cluster.url, "--token-file", str(token), typing=[("[y/N]", answer)]
    )
    assert asked.code == code and cluster.fingerprint() in asked.out, asked
    if code == 0:
        assert cli("access", "info").code == 0


def test_whoever_has_another_certificate_is_sent_nothing(cluster: Cluster, tmp_path: Path) -> None:
    connection = Connection("lab", cluster.url, token=cluster.token, fingerprints=("5f" * 32,))
    with JsonClient(connection) as client, pytest.raises(ConfigError) as refused:
        client.whoami()
    assert refused.value.code == "client.wrong_certificate" and cluster.fingerprint() in refused.value.message
    with pytest.raises(ConfigError):
        open_console(connection, "web01", "test")
    assert "login" not in cluster.daemon.log_file.read_text()


def test_a_console_goes_over_a_pinned_connection_too(cluster: Cluster) -> None:
    cluster.root("vm", "define", "web01", "--memory", "64")
    cluster.root("vm", "start", "web01", "--wait")
    connection = Connection("lab", cluster.url, token=cluster.token, fingerprints=(cluster.fingerprint(),))
    with open_console(connection, "web01", "test") as console:
        console.send(b"hello\n")
        seen = b""
        while b"hello" not in seen:
            received = console.recv(10)
            assert isinstance(received, bytes)
            seen += received


def test_the_certificate_outlives_a_restart_and_a_new_one_is_noticed(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "node")
    try:
        before = cluster.fingerprint()
        connection = Connection("lab", cluster.url, token=cluster.token, fingerprints=(before,))
        cluster.daemon.stop()
        cluster.daemon.start()
        with JsonClient(connection) as client:
            assert client.whoami()["principal"] == "admin"
        cluster.daemon.stop()
        (tmp_path / "node" / "data" / "tls" / "gateway.pem").unlink()
        cluster.daemon.start()
        assert cluster.fingerprint() != before
        with JsonClient(connection) as client, pytest.raises(ConfigError):
            client.whoami()
    finally:
        cluster.daemon.stop()


def test_what_would_never_work_is_not_said_to_be_stored_by_another_option(cluster: Cluster, tmp_path: Path) -> None:
    cli, ending = Cli(tmp_path, {}), ("--token-file", "-")
    mistyped = cli("connection", "add", "lab", cluster.url, *ending, "--fingerprint", "5f" * 32, text=cluster.token)
    assert mistyped.code == 2 and "has another certificate" in mistyped.err and "--no-check" not in mistyped.err
    plain = cluster.url.replace("https://", "http://")
    hung_up = cli("connection", "add", "lab", plain, *ending, text=cluster.token)
    assert hung_up.code == 5 and f"Hint: TLS is spoken there: give {cluster.url}\n" in hung_up.err
    nobody = cli("connection", "add", "lab", "http://127.0.0.1:1", *ending, text=cluster.token)
    assert nobody.code == 5 and "--no-check stores it anyway" in nobody.err


@pytest.mark.parametrize("text", ["", "5f", "5f" * 31, "5g" * 32, "5f" * 33])
def test_what_is_no_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_fingerprint(text)
    assert refused.value.code == "client.fingerprint_malformed"


@pytest.mark.parametrize("kind", KINDS)
def test_both_clients_know_a_gateway_by_its_fingerprint(cluster: Cluster, kind: str) -> None:
    for make in clients(kind):
        pinned = make(cluster.url, token=cluster.token, fingerprints=[cluster.fingerprint()])
        assert pinned.access.whoami().principal == "admin"
        with pinned.events(after=0) as events:
            assert next(events).position == 1
        with pytest.raises(ConfigError) as wrong:
            make(cluster.url, token=cluster.token, fingerprints=["5f" * 32]).access.whoami()
        with pytest.raises(ConfigError) as unknown:
            make(cluster.url, token=cluster.token).access.whoami()
        assert (wrong.value.code, unknown.value.code) == ("client.wrong_certificate", "client.unknown_certificate")


@pytest.mark.parametrize("kind", KINDS)
def test_both_clients_believe_an_authority(cluster: Cluster, kind: str, tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text(ssl.get_server_certificate(("127.0.0.1", cluster.port)))
    for make in clients(kind):
        believing = make(cluster.url, token=cluster.token, ca_file=str(authority))
        assert believing.access.whoami().principal == "admin"
