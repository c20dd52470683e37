"""`pvc doctor` against gateways that are well, down, strange and untrusted, and on a node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pvc.client.connections import Connection, Stored, save_connections
from tests.integration.cli_cluster import Cluster, cli, cluster, free_port
from tests.integration.cli_process import Cli
from tests.integration.fake_gateway import FakeGateway, Say, problem

__all__ = ["cli", "cluster"]


def findings(pvc: Cli, *arguments: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """The exit code, and the findings by check."""
    ran = pvc("doctor", "-o", "json", "--node-config", "/etc/pvc/pvc.toml", *arguments)
    found: dict[str, list[dict[str, Any]]] = {}
    for one in json.loads(ran.out):
        found.setdefault(one["check"], []).append(one)
    return ran.code, found


def test_where_all_is_well_every_line_is_ok(cluster: Cluster, tmp_path: Path) -> None:
    remote = cluster.remote(tmp_path)
    remote("connection", "add", "lab", cluster.url, text=f"{cluster.token}\n")
    code, found = findings(remote)
    assert code == 0
    assert {"files", "terminal", "gateway", "clock", "version", "token", "cluster"} <= set(found)
    assert all(one["status"] == "ok" for some in found.values() for one in some), found
    assert found["token"][0]["message"] == "admin (admin), by token, without expiry"
    shown = remote("doctor").out
    assert shown.splitlines()[-1].endswith("checks: none failed, no warnings.")
    assert cluster.token not in shown


def test_a_gateway_that_is_down_fails_beside_one_that_is_well(cluster: Cluster, tmp_path: Path) -> None:
    remote = cluster.remote(tmp_path)
    dead = f"http://127.0.0.1:{free_port()}"
    assert remote("connection", "add", "lab", cluster.url, dead, text=f"{cluster.token}\n").code == 0
    code, found = findings(remote)
    assert code == 1
    assert found["connect"][0]["message"] == "cannot be reached (Connection refused)"
    assert found["connect"][0]["about"] == dead.removeprefix("http://")
    assert found["gateway"][0]["status"] == found["token"][0]["status"] == "ok"


def test_a_name_without_an_address_is_told_as_that(cluster: Cluster, tmp_path: Path) -> None:
    remote = cluster.remote(tmp_path).with_env(PVC_URL="http://no-such-host.invalid:7370", PVC_TOKEN=cluster.token)
    code, found = findings(remote)
    assert code == 1 and "has no address" in found["dns"][0]["message"]
    assert any(one["status"] == "warn" and "PVC_TOKEN" in one["message"] for one in found["files"])


def test_a_token_that_does_not_open_and_one_that_ends_soon_are_told(cluster: Cluster, tmp_path: Path) -> None:
    wrong = cluster.remote(tmp_path).with_env(PVC_URL=cluster.url, PVC_TOKEN="pvc_0123456789ab_00")
    code, found = findings(wrong)
    assert code == 1 and found["token"][0]["status"] == "fail" and found["gateway"][0]["status"] == "ok"
    short = cluster.cli("access", "token", "create", "admin", "--lifetime", "2d").out.splitlines()[-1]
    file = tmp_path / "token"
    file.write_text(short)
    file.chmod(0o600)
    code, found = findings(cluster.remote(tmp_path).with_env(PVC_URL=cluster.url, PVC_TOKEN_FILE=str(file)))
    assert code == 0 and found["token"][0]["status"] == "warn"
    assert found["token"][0]["remedy"] == f"pvc access token rotate {short.split('_')[1]}"


def test_something_else_than_a_gateway_is_told_as_that(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, lambda asked: Say(b"<html>", content_type="text/html")) as gateway:
        code, found = findings(Cli(tmp_path, {"PVC_SOCKET": str(gateway.socket)}))
    assert code == 1 and "no gateway of PVC" in found["gateway"][0]["message"]


def test_a_gateway_of_another_version_and_one_that_is_unwell_are_told(tmp_path: Path) -> None:
    health = {"status": "degraded", "reasons": ["the history index is behind"], "position": 7, "version": "9.9"}
    answer = {"/health": Say(health)}
    with FakeGateway(tmp_path, lambda asked: answer.get(asked.path, problem(404, "no such thing"))) as gateway:
        _, found = findings(Cli(tmp_path, {"PVC_SOCKET": str(gateway.socket)}))
    assert found["gateway"][0] | {"about": ""} == {
        "check": "gateway",
        "status": "warn",
        "message": "the history index is behind",
        "remedy": "see that node's log: `journalctl -u pvcd`",
        "about": "",
    }
    assert found["version"][0]["status"] == "warn" and "9.9 there" in found["version"][0]["message"]


def test_files_that_others_can_read_or_exchange_fail(cluster: Cluster, tmp_path: Path) -> None:
    remote = cluster.remote(tmp_path)
    remote("connection", "add", "lab", cluster.url, text=f"{cluster.token}\n")
    config = tmp_path / "config"
    (config / "connections.json").chmod(0o640)
    code, found = findings(remote)
    assert code == 1 and "chmod 600" in found["files"][0]["remedy"]
    (config / "connections.json").chmod(0o600)
    config.chmod(0o777)
    code, found = findings(remote)
    assert code == 1 and f"chmod 700 {config}" in [one["remedy"] for one in found["files"]]


def test_without_any_cluster_it_says_how_to_get_one(tmp_path: Path) -> None:
    code, found = findings(Cli(tmp_path, {}))
    assert code == 1 and "pvc connection add" in found["connection"][0]["remedy"]


def test_certificates_are_looked_at(tmp_path: Path) -> None:
    own = Cluster(tmp_path / "plain")
    port = free_port()
    own.daemon.stop()
    config = own.daemon.config.read_text()
    own.daemon.config.write_text(config.replace(f"127.0.0.1:{own.port}", f"0.0.0.0:{port}"))
    own.daemon.start()
    url = f"https://127.0.0.1:{port}"
    env = {"PVC_CONFIG_DIR": str(tmp_path / "config")}
    remote = Cli(tmp_path, env)
    save_connections(Stored({"lab": Connection("lab", url, token=own.token)}), env)
    code, found = findings(remote)
    assert code == 1 and found["tls"][0]["message"].startswith("is not trusted: self-signed certificate")
    save_connections(Stored({"lab": Connection("lab", url, token=own.token, fingerprints=("0" * 64,))}), env)
    code, found = findings(remote)
    assert code == 1 and "has another certificate" in found["tls"][0]["message"]
    from pvc.client.pins import unvouched_fingerprint

    pin = unvouched_fingerprint(url, 5.0)
    save_connections(Stored({"lab": Connection("lab", url, token=own.token, fingerprints=(pin,))}), env)
    code, found = findings(remote)
    assert code == 0 and "known by its fingerprint, valid until" in found["tls"][0]["message"]
    own.daemon.stop()


@pytest.mark.usefixtures("cli")
def test_on_a_node_the_node_is_looked_at_too(cluster: Cluster) -> None:
    code, found = findings(cluster.cli, "--node-config", str(cluster.daemon.config))
    assert code == 0
    assert found["config"][0]["status"] == found["pvcd"][0]["status"] == found["disk"][0]["status"] == "ok"
    assert "simulated" in found["libvirt"][0]["message"]


def test_a_node_whose_configuration_is_wrong_is_told_in_its_own_words(cluster: Cluster, tmp_path: Path) -> None:
    config = tmp_path / "pvc.toml"
    config.write_text("[node]\nnmae = 1\n")
    code, found = findings(cluster.cli, "--node-config", str(config))
    assert code == 1 and "nmae" in found["config"][0]["message"]
