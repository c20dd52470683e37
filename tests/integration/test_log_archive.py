"""Real daemons whose log rolls, is archived and leaves ZooKeeper, while nobody who reads it notices."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.daemon_process import DaemonProcess
from tests.integration.zookeeper_clients import zk_client
from tests.integration.zookeeper_server import ZookeeperServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.zookeeper

SEGMENT = 20
HOT = 2


def a_daemon(name: str, directory: Path, log: dict[str, Any]) -> DaemonProcess:
    return DaemonProcess(directory / name, node={"name": name, "data_dir": str(directory / name / "data")}, log=log)


@pytest.fixture
def pair(own_zookeeper: ZookeeperServer, tmp_path: Path) -> Iterator[tuple[DaemonProcess, DaemonProcess]]:
    """A coordinator and another node."""
    log = {"kind": "zookeeper", "hosts": own_zookeeper.hosts, "segment_records": SEGMENT, "hot_segments": HOT}
    one, two = a_daemon("hv1", tmp_path, log), a_daemon("hv2", tmp_path, log)
    try:
        one.start()
        with one.client() as client:
            client.command("cluster.init", {"name": "main", "coordinators": ["hv1"]})
            client.command("node.add", {"node": "hv2"})
        two.start()
        yield one, two
    finally:
        two.stop()
        one.stop()


def live(daemon: DaemonProcess, records: int) -> None:
    with daemon.client() as client:
        wait_until(
            lambda: "ready" in [node["state"] for node in client.get("/nodes")["items"] if node["name"] == "hv1"],
            "hv1 to be ready",
        )
        known = len(client.vms())
        for number in range(records):
            client.command("vm.define", {"name": f"vm{known + number}", "memory_mib": 64, "vcpus": 1, "node": "hv1"})


def state_hash(daemon: DaemonProcess) -> str:
    with daemon.client() as client:
        return str(client.get("/cluster")["state_hash"])


def everything(daemon: DaemonProcess) -> list[tuple[int, str]]:
    with daemon.client() as client:
        records = client.get("/history", {"limit": "1000"})["records"]
    return sorted((record["position"], record["id"]) for record in records)


def blobs(daemon: DaemonProcess) -> list[str]:
    return sorted(path.name for path in (daemon.directory / "data" / "archive").glob("log-*.pvclog"))


def hot_segments(server: ZookeeperServer) -> int:
    with zk_client(server.hosts) as client:
        return len(client.get_children("/pvc/main/log/s"))


def test_old_records_leave_zookeeper_and_the_whole_history_stays(
    own_zookeeper: ZookeeperServer, pair: tuple[DaemonProcess, DaemonProcess]
) -> None:
    one, two = pair
    live(one, 10 * SEGMENT)
    wait_until(lambda: hot_segments(own_zookeeper) == HOT + 1, "old segments to leave ZooKeeper", 60)
    assert len(blobs(one)) >= 9 and blobs(two) == [], "only a coordinator archives"
    before = everything(one)
    assert [position for position, _ in before] == list(range(1, len(before) + 1))

    two.stop()
    shutil.rmtree(two.directory / "data")  # it comes back with nothing of its own
    shutil.copytree(one.directory / "data" / "archive", two.directory / "data" / "archive")
    two.start()
    wait_until(lambda: state_hash(two) == state_hash(one), "hv2 to have folded it all again")
    wait_until(lambda: everything(two)[: len(before)] == before, "hv2's replica to be whole again")
