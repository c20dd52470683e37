"""Real daemons whose log rolls, is archived and leaves ZooKeeper, while nobody who reads it notices."""

from __future__ import annotations

import shutil
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.daemon_process import DaemonProcess
from tests.integration.zookeeper_clients import zk_client
from tests.integration.zookeeper_server import ZookeeperServer
from tests.support.certificates import a_certificate
from tests.support.waiting import wait_until

pytestmark = pytest.mark.zookeeper

SEGMENT = 20
HOT = 2


def a_daemon(name: str, directory: Path, log: dict[str, Any], **parts: dict[str, Any]) -> DaemonProcess:
    node = {"name": name, "data_dir": str(directory / name / "data"), "address": "127.0.0.1"}
    return DaemonProcess(directory / name, node=node, log=log, archive={"pause_s": 0.2}, **parts)


def reachable(name: str, directory: Path) -> dict[str, Any]:
    """A gateway that other nodes reach."""
    certificate = a_certificate(directory, name)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    return {"listen": f"0.0.0.0:{port}", "tls_cert": str(certificate.cert), "tls_key": str(certificate.key)}


@pytest.fixture
def pair(own_zookeeper: ZookeeperServer, tmp_path: Path) -> Iterator[tuple[DaemonProcess, DaemonProcess]]:
    """A coordinator and another node."""
    log = {"kind": "zookeeper", "hosts": own_zookeeper.hosts, "segment_records": SEGMENT, "hot_segments": HOT}
    one, two = (a_daemon(name, tmp_path, log, gateway=reachable(name, tmp_path)) for name in ("hv1", "hv2"))
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
    two.start()
    wait_until(lambda: state_hash(two) == state_hash(one), "hv2 to have folded it all again")
    wait_until(lambda: everything(two)[: len(before)] == before, "hv2's replica to be whole again")


def damage_file(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 4
    path.write_bytes(content)


def change_record(daemon: DaemonProcess, position: int) -> bytes:
    """Flip a bit of a record in the replica, behind the daemon's back; returns what stood there."""
    with sqlite3.connect(daemon.directory / "data" / "history.db") as db:
        (data,) = db.execute("SELECT data FROM record WHERE position = ?", (position,)).fetchone()
        bad = bytearray(data)
        bad[len(bad) // 2] ^= 1
        db.execute("UPDATE record SET data = ? WHERE position = ?", (bytes(bad), position))
    db.close()
    return bytes(data)


def stored_record(daemon: DaemonProcess, position: int) -> bytes:
    with sqlite3.connect(daemon.directory / "data" / "history.db") as db:
        (data,) = db.execute("SELECT data FROM record WHERE position = ?", (position,)).fetchone()
    db.close()
    return bytes(data)


def status(daemon: DaemonProcess) -> dict[str, Any]:
    with daemon.client() as client:
        return client.get("/log/status")


@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_a_damaged_archive_file_and_a_damaged_record_are_found_named_and_replaced(
    pair: tuple[DaemonProcess, DaemonProcess], how: str
) -> None:
    one, _ = pair
    live(one, 4 * SEGMENT)
    wait_until(lambda: len(blobs(one)) >= 3, "segments to be archived", 60)
    archive = one.directory / "data" / "archive"
    victim = archive / blobs(one)[1]
    good = victim.read_bytes()
    damage_file(victim, how)
    record = change_record(one, SEGMENT // 2)

    def mended() -> bool:
        try:
            return victim.read_bytes() == good and stored_record(one, SEGMENT // 2) == record
        except FileNotFoundError:  # the damaged one is moved aside before the good one comes
            return False

    wait_until(mended, "both to be mended")
    assert list(archive.glob("*.damaged")), "the bad copy is kept aside"

    def told() -> bool:  # which comes after it was done
        said = status(one)
        names_record = f"record {SEGMENT // 2} of this node's replica" in said["mended"]
        return names_record and any("directory" in text for text in (*said["mended"], *said["damage"]))

    wait_until(told, "both to be told of")


def test_when_record_and_archive_file_are_both_damaged_another_nodes_copy_mends_them(
    pair: tuple[DaemonProcess, DaemonProcess],
) -> None:
    one, _ = pair
    live(one, 4 * SEGMENT)
    wait_until(lambda: len(blobs(one)) >= 3, "segments to be archived", 60)
    one.stop()
    archive = one.directory / "data" / "archive"
    copies = one.directory.parent / "copies"
    shutil.copytree(archive, copies)
    record = change_record(one, 3)
    damage_file(archive / blobs(one)[0], "flipped")
    one.start()
    with_log = one.log_file
    wait_until(lambda: "no good copy of the records 1 to" in with_log.read_text(), "it to look for a copy", 60)
    shutil.copy(copies / sorted(path.name for path in copies.iterdir())[0], archive)  # as an admin would
    wait_until(lambda: stored_record(one, 3) == record, "the record to be mended", 90)


def test_records_stay_in_zookeeper_while_nobody_could_give_them_to_another_node(
    own_zookeeper: ZookeeperServer, tmp_path: Path
) -> None:
    log = {"kind": "zookeeper", "hosts": own_zookeeper.hosts, "segment_records": SEGMENT, "hot_segments": HOT}
    one = a_daemon("hv1", tmp_path, log)
    try:
        one.start()
        with one.client() as client:
            client.command("cluster.init", {"name": "main", "coordinators": ["hv1"]})
            client.command("node.add", {"node": "hv2"})
        live(one, 5 * SEGMENT)
        wait_until(lambda: "gateway.listen" in status(one)["waits_for"], lambda: str(status(one)), 60)
        assert status(one)["removed_position"] == 0 and len(blobs(one)) >= 4
    finally:
        one.stop()
