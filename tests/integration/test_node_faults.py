"""A real pvcd on simulated VMs: what happens when its disk is full, its log is away, or somebody stands in its way."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pvc.client.errors import ApiError
from pvc.client.json_client import JsonClient
from tests.integration.daemon_process import DaemonProcess
from tests.support.waiting import wait_until


def until(client: JsonClient, name: str, state: str) -> None:
    wait_until(lambda: client.vm(name)["state"] == state, f"{name} is {state}")


def until_ready(client: JsonClient) -> None:
    wait_until(lambda: any(node["ready"] for node in client.nodes()), "the node is ready")


@pytest.fixture
def new_daemon(tmp_path: Path) -> Iterator[Callable[..., DaemonProcess]]:
    """Makes daemons that are stopped however the test ends."""
    made: list[DaemonProcess] = []

    def make(**parts: dict[str, Any]) -> DaemonProcess:
        made.append(DaemonProcess(tmp_path, **parts))
        made[-1].start()
        return made[-1]

    yield make
    for daemon in made:
        daemon.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.libvirt
def test_a_full_disk_refuses_commands_and_loses_nothing(
    new_daemon: Callable[..., DaemonProcess], small_disk: Path
) -> None:
    daemon = new_daemon(node={"data_dir": str(small_disk)})
    client = daemon.client()
    client.command("cluster.init", {"name": "test"})
    until_ready(client)
    client.command("vm.define", {"name": "before", "memory_mib": 64})
    ballast = small_disk / "ballast"
    _fill(ballast)
    with pytest.raises(ApiError) as full:
        for number in range(200):
            client.command("vm.define", {"name": f"vm{number}", "memory_mib": 64, "description": "x" * 400})
    assert full.value.code == "log.disk_full"
    assert full.value.status == 503
    assert full.value.hint
    assert {vm["name"] for vm in client.vms()} >= {"before"}, "reads go on"
    known = {vm["name"] for vm in client.vms()}
    ballast.unlink()
    client.command("vm.define", {"name": "after", "memory_mib": 64})
    daemon.kill()
    daemon.start()
    assert {vm["name"] for vm in client.vms()} == known | {"after"}


def test_a_vm_lives_on_a_zookeeper_log_and_survives_its_absence(
    new_daemon: Callable[..., DaemonProcess], own_zookeeper: Any
) -> None:
    daemon = new_daemon(log={"kind": "zookeeper", "hosts": own_zookeeper.hosts, "cluster": "lifetest"})
    client = daemon.client()
    client.command("cluster.init", {"name": "test"})
    until_ready(client)
    client.command("vm.define", {"name": "web01", "memory_mib": 64})
    client.command("vm.start", {"vm": "web01"})
    until(client, "web01", "running")
    own_zookeeper.kill()
    assert client.vm("web01")["state"] == "running", "reads go on without the log"
    own_zookeeper.start()
    client.command("vm.stop", {"vm": "web01"})
    until(client, "web01", "stopped")
    daemon.kill()
    daemon.start()
    assert client.vm("web01")["state"] == "stopped"
    types = [event["type"] for record in client.history(subject="vm/web01")["records"] for event in record["events"]]
    assert types == ["vm.stopped", "vm.stop_requested", "vm.started", "vm.start_requested", "vm.defined"]


def test_a_second_daemon_on_the_same_data_is_refused(new_daemon: Callable[..., DaemonProcess]) -> None:
    daemon = new_daemon()
    second = subprocess.run(
        [*_PVCD, "--config", str(daemon.config)], capture_output=True, text=True, timeout=30, check=False
    )
    assert second.returncode == 1
    assert "another daemon uses" in second.stderr
    assert (daemon.directory / "data" / "lock").read_text().strip().isdecimal(), "it still says which process has it"
    assert "Traceback" not in second.stderr


def test_a_log_that_is_damaged_under_a_running_node_stops_writes_and_not_the_node(
    new_daemon: Callable[..., DaemonProcess],
) -> None:
    daemon = new_daemon()
    client = daemon.client()
    client.command("cluster.init", {"name": "test"})
    until_ready(client)
    client.command("vm.define", {"name": "web01", "memory_mib": 64})
    _append_garbage(daemon.directory / "data" / "log.db")
    with pytest.raises(ApiError) as refused:
        for _ in range(100):
            client.command("vm.modify", {"vm": "web01", "description": "x"})
            time.sleep(0.05)
    assert refused.value.code == "log.undecodable"
    time.sleep(1)  # whatever else reads the log has had its chance to fall over it
    assert not daemon.ended, "VMs and consoles still need the node"
    assert [vm["name"] for vm in client.vms()] == ["web01"], "reads go on"
    assert client.history(subject="vm/web01")["records"], "so does the history"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('[gateway]\nlisten = "0.0.0.0:7370"\ntls_cert = "/etc/pvc/own.pem"\n', "gateway.tls_key"),
        ('[gateway]\nlisten = "7370"\n', "gateway.listen"),
        ('[hypervisor]\nkind = "xen"\n', "xen"),
        ("[node]\nnmae = 'hv1'\n", "nmae"),
        ("[node\n", "not TOML"),
    ],
)
def test_a_bad_configuration_is_told_in_one_line(tmp_path: Path, line: str, message: str) -> None:
    config = tmp_path / "pvc.toml"
    config.write_text(line)
    checked = subprocess.run(
        [*_PVCD, "--check", "--config", str(config)], capture_output=True, text=True, timeout=30, check=False
    )
    assert checked.returncode == 1
    assert message in checked.stderr
    assert "Traceback" not in checked.stderr


def _append_garbage(log: Path) -> None:
    with contextlib.closing(sqlite3.connect(log)) as file, file:
        (last,) = file.execute("SELECT max(position) FROM record").fetchone()
        row = (last + 1, "nobody", bytes(32), b"not a record")
        file.execute("INSERT INTO record (position, id, hash, data) VALUES (?, ?, ?, ?)", row)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass


_PVCD = [sys.executable, "-m", "pvc.daemon.main"]
