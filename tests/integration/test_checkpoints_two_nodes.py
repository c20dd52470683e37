"""Two real daemons on one ZooKeeper: the primary vouches, the other compares, and says so when its copy is another."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.integration.daemon_process import DaemonProcess
from tests.integration.zookeeper_server import ZookeeperServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.zookeeper

VMS = 280
"""More than the records between two checkpoints."""


def trust(daemon: DaemonProcess) -> dict[str, Any]:
    with daemon.client() as client:
        return client.get("/log/keys")


def newest(daemon: DaemonProcess) -> int:
    checkpoint = trust(daemon)["checkpoint"]
    return checkpoint["size"] if checkpoint else 0


def live(daemon: DaemonProcess) -> None:
    """Let more happen than fits between two checkpoints, and wait for one."""
    before = newest(daemon)
    with daemon.client() as client:
        known = len(client.vms())
        for number in range(VMS):
            client.command("vm.define", {"name": f"vm{known + number}", "memory_mib": 64, "vcpus": 1, "node": "hv1"})
    wait_until(lambda: newest(daemon) > before, "a checkpoint")


def faults(daemon: DaemonProcess) -> set[str]:
    with daemon.client() as client:
        return {fault["id"] for fault in client.get("/faults")["items"]}


def agrees(daemon: DaemonProcess) -> bool:
    with daemon.client() as client:
        part = client.get("/log/verify")
    return part["findings"] == [] and part["checkpoints"] > 0


def test_a_node_whose_copy_was_changed_contradicts_the_primary(zookeeper: ZookeeperServer, tmp_path: Path) -> None:
    log = {"kind": "zookeeper", "hosts": zookeeper.hosts}
    one, two = (
        DaemonProcess(tmp_path / name, node={"name": name, "data_dir": str(tmp_path / name / "data")}, log=log)
        for name in ("hv1", "hv2")
    )
    try:
        one.start()
        with one.client() as client:
            client.command("cluster.init", {"name": "main", "coordinators": ["hv1"]})
            client.command("node.add", {"node": "hv2"})
        wait_until(lambda: trust(one)["keys"], "a signing key")
        two.start()
        live(one)
        assert [key["node"] for key in trust(two)["keys"]] == ["hv1"], "only coordinators have keys"
        wait_until(lambda: agrees(two), "an agreement")
        assert faults(one) == set()

        two.stop()
        change(two, position=100)
        two.start()
        live(one)  # a checkpoint of which hv2's tree, kept beside the records, still knows the truth
        assert "node.log_differs/hv2" not in faults(one)
        two.stop()
        forget_tree(two)
        two.start()
        wait_until(lambda: "node.log_differs/hv2" in faults(one), "hv2 to say that it has other records")
    finally:
        two.stop()
        one.stop()


def change(daemon: DaemonProcess, position: int) -> None:
    with sqlite3.connect(daemon.directory / "data" / "history.db") as db:
        (data,) = db.execute("SELECT data FROM record WHERE position = ?", (position,)).fetchone()
        record = msgspec.msgpack.decode(data)
        record["actor"]["principal"] = "mallory"
        db.execute("UPDATE record SET data = ? WHERE position = ?", (msgspec.msgpack.encode(record), position))
    db.close()


def forget_tree(daemon: DaemonProcess) -> None:
    """Make the stored tree fit the changed records, as somebody would who knows how it is kept."""
    from pvc.proof.merkle import Frontier, leaf_hash

    with sqlite3.connect(daemon.directory / "data" / "history.db") as db:
        frontier = Frontier()
        db.execute("DELETE FROM subtree")
        for (data,) in db.execute("SELECT data FROM record ORDER BY position").fetchall():
            for node in frontier.append(leaf_hash(data)):
                if node[0] >= 8:
                    db.execute("INSERT INTO subtree VALUES (?, ?, ?)", node)
    db.close()
