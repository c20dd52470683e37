"""Erasing a person for real: a daemon with files on a disk, killed at every step, and two gateways on one ZooKeeper."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from pvc.client.connections import Connection
from pvc.client.errors import ClientError
from pvc.client.json_client import JsonClient
from tests.integration.cli_cluster import free_port
from tests.integration.cli_process import Cli
from tests.integration.daemon_process import DaemonProcess
from tests.integration.zookeeper_server import ZookeeperServer
from tests.support.waiting import wait_until

NAME = "anna.kowalska"
ADDRESS = "127.0.0.1"


def start_cluster(directory: Path, **parts: dict[str, Any]) -> tuple[DaemonProcess, JsonClient]:
    """A daemon, initialised, and its first admin's client over TCP."""
    port = free_port()
    gateway = {"socket": str(directory / "pvc.sock"), "listen": f"127.0.0.1:{port}"}
    daemon = DaemonProcess(directory, gateway=gateway, **parts)
    daemon.start()
    with daemon.client() as root:
        token = root.command("cluster.init", {"name": "main", "admin": NAME})["token"]
        wait_until(lambda: root.get("/nodes")["items"], "a node")
    return daemon, JsonClient(Connection(name="anna", url=f"http://127.0.0.1:{port}", token=token))


def act(anna: JsonClient, name: str = "web01") -> None:
    anna.command("vm.define", {"name": name, "memory_mib": 64, "vcpus": 1})
    with pytest.raises(ClientError):
        anna.command("vm.stop", {"vm": name})


def files_of(directory: Path, *but: str) -> dict[str, bytes]:
    """Log, replica, snapshots and what else lies in the data directory."""
    found = (path for path in (directory / "data").rglob("*") if path.is_file() and path.name not in but)
    return {path.name: path.read_bytes() for path in found}


def history(daemon: DaemonProcess, **filters: Any) -> list[dict[str, Any]]:
    with daemon.client() as root:
        records: list[dict[str, Any]] = root.history(**filters)["records"]  # type: ignore[assignment]
        return records


def is_whole(daemon: DaemonProcess) -> bool:
    with daemon.client() as root:
        return root.get("/log/verify")["findings"] == []


def keys_in(directory: Path) -> list[str]:
    path = directory / "data" / "keyring"
    return [key["id"] for key in json.loads(path.read_bytes())["keys"]] if path.exists() else []


def test_a_persons_name_is_on_the_disk_only_in_the_keyring_and_after_the_erasure_nowhere(tmp_path: Path) -> None:
    daemon, anna = start_cluster(tmp_path)
    cli = Cli(tmp_path, {"PVC_SOCKET": str(daemon.socket)})
    try:
        act(anna)
        wait_until(lambda: len(history(daemon, actor=NAME)) == 3, "that she came in is a record too")
        before = cli("history", "all", "--actor", NAME)
        assert before.out.count(NAME) == 3 and ADDRESS in before.out
        listed = cli("event", "list")
        assert NAME in listed.out and "~" not in listed.out

        daemon.stop()
        files = files_of(tmp_path, "keyring")
        assert {"log.db", "history.db", "snapshot"} <= set(files)
        assert [name for name, data in files.items() if b"kowalska" in data or ADDRESS.encode() in data] == []
        assert b"kowalska" in (tmp_path / "data" / "keyring").read_bytes()
        assert stat.S_IMODE((tmp_path / "data" / "keyring").stat().st_mode) == 0o600
        daemon.start()

        copy = tmp_path / "keys.json"
        assert cli("audit", "export-keys", str(copy)).code == 0
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        daemon.stop()
        (tmp_path / "data" / "keyring").unlink()
        daemon.start()
        assert "erased-" in cli("history", "all").out and NAME not in cli("history", "all").out
        restored = cli("audit", "import-keys", str(copy))
        assert restored.out == "Keys kept: 1. Of people who were erased, and so not kept: 0.\n"
        assert cli("history", "all", "--actor", NAME).out.count(NAME) == 3

        unasked = cli("audit", "erase", NAME)
        assert (unasked.code, "--yes" in unasked.err) == (2, True)
        assert NAME in cli("audit", "people").out
        dry = cli("audit", "erase", NAME, "--dry-run")
        assert dry.code == 0 and f"the name and the addresses of {NAME} in 3 records" in dry.err
        assert len(keys_in(tmp_path)) == 1
        done = cli("audit", "erase", NAME, "--yes", "--wait")
        assert done.code == 0, done
        [gone] = [one["events"][0]["data"]["key"] for one in history(daemon, type="access.person_erased")]
        assert keys_in(tmp_path) == []

        pseudonym = f"erased-{gone}"
        after = cli("history", "all", "--actor", pseudonym)
        assert after.out.count(pseudonym) == 3 and "erased, " in after.out
        everything = [cli("history", "all").out, cli("event", "list", "-o", "json").out, cli("diff", "1", "now").out]
        assert [text for text in everything if "kowalska" in text] == []
        assert cli("history", "all", "--actor", NAME).out == ""
        assert is_whole(daemon)
        again = cli("audit", "import-keys", str(copy))
        assert again.out == "Keys kept: 0. Of people who were erased, and so not kept: 1.\n"
        assert keys_in(tmp_path) == []
        copy.unlink()
        people = cli("audit", "people").out
        assert pseudonym in people and "erased " in people and NAME not in people

        exported = tmp_path / "all.pvclog"
        assert cli("log", "export", "--plain", str(exported)).code == 0
        assert cli("log", "verify", "--files", str(exported)).code == 0
        assert b"kowalska" not in exported.read_bytes()

        daemon.stop()
        assert [name for name, data in files_of(tmp_path).items() if b"kowalska" in data] == []
        assert "kowalska" not in daemon.log_file.read_text()
        daemon.start()
        anna.command("vm.define", {"name": "web02", "memory_mib": 64, "vcpus": 1})
        assert history(daemon)[0]["actor"]["principal"] == pseudonym
        assert len(keys_in(tmp_path)) == 1
    finally:
        anna.close()
        daemon.stop()


def test_killed_after_any_step_an_erasure_comes_to_its_end_once(tmp_path: Path) -> None:
    daemon, anna = start_cluster(tmp_path)
    died, erased = 0, 0
    try:
        for steps in range(1, 7):
            act(anna, f"vm{steps}")
            [name] = {one["actor"]["principal"] for one in history(daemon, subject=f"vm/vm{steps}")}
            [key] = keys_in(tmp_path)
            daemon.stop()
            daemon.start(kill_after=steps)
            try:
                with daemon.client(tries=1) as root:
                    root.command("audit.erase", {"principal": name})
                wait_until(lambda key=key: key in told(daemon, "access.person_erased"), "an end")
            except ClientError:
                died += 1
            daemon.kill()
            daemon.start()
            if key not in told(daemon, "access.erasure_requested"):
                with daemon.client() as root:
                    root.command("audit.erase", {"principal": name})
            erased += 1
            wait_until(lambda key=key: key in told(daemon, "access.person_erased"), "the erasure")
            assert keys_in(tmp_path) == []
            assert told(daemon, "access.person_erased").count(key) == 1
            assert told(daemon, "access.erasure_requested").count(key) == 1
        assert died >= 3, "it was killed on the way"
        assert is_whole(daemon)
        assert len(told(daemon, "access.person_erased")) == erased
    finally:
        anna.close()
        daemon.stop()


def told(daemon: DaemonProcess, kind: str) -> list[str]:
    return [event["data"]["key"] for one in history(daemon, type=kind) for event in one["events"]]


@pytest.mark.zookeeper
def test_two_gateways_on_one_zookeeper_share_the_keys_and_both_forget(
    own_zookeeper: ZookeeperServer, tmp_path: Path
) -> None:
    log = {"kind": "zookeeper", "hosts": own_zookeeper.hosts}
    one, anna = start_cluster(
        tmp_path / "hv1", log=log, node={"name": "hv1", "data_dir": str(tmp_path / "hv1" / "data")}
    )
    two = DaemonProcess(tmp_path / "hv2", log=log, node={"name": "hv2", "data_dir": str(tmp_path / "hv2" / "data")})
    try:
        with one.client() as root:
            root.command("node.add", {"node": "hv2"})
        two.start()
        act(anna)
        for daemon in (one, two):
            wait_until(lambda daemon=daemon: len(history(daemon, actor=NAME)) == 3, f"{daemon.directory.name}")
        with two.client() as root:
            key = root.command("audit.erase", {"principal": NAME})["events"][0]["data"]["key"]
        wait_until(lambda: key in told(one, "access.person_erased"), "the erasure")
        for daemon in (one, two):
            wait_until(lambda daemon=daemon: history(daemon, actor=NAME) == [], "the name to be forgotten")
            shown = json.dumps(history(daemon))
            assert "kowalska" not in shown and f"erased-{key}" in shown
            assert not (daemon.directory / "data" / "keyring").exists()
        one.stop()
        two.stop()
        for directory in (tmp_path / "hv1", tmp_path / "hv2"):
            assert [name for name, data in files_of(directory).items() if b"kowalska" in data] == []
    finally:
        anna.close()
        two.stop()
        one.stop()
