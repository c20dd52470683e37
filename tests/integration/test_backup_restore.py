"""A backup of a cluster, restored into an empty one by `pvc`, for real: with the embedded log and with ZooKeeper."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli_process import Cli
from tests.integration.daemon_process import DaemonProcess
from tests.integration.test_log_archive import a_daemon, everything, live
from tests.integration.zookeeper_server import ZookeeperServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.zookeeper

RECORDS = 30


@pytest.fixture(params=["sqlite", "zookeeper"])
def log_of(request: pytest.FixtureRequest) -> Callable[[str], dict[str, Any]]:
    """The configuration of another log for each name."""
    kind = request.param
    server: ZookeeperServer | None = request.getfixturevalue("zookeeper") if kind == "zookeeper" else None
    unique: str = request.getfixturevalue("cluster")

    def log_of(name: str) -> dict[str, Any]:
        if server is None:
            return {"kind": "sqlite"}
        return {
            "kind": "zookeeper",
            "hosts": server.hosts,
            "cluster": f"{unique}{name}",
            "segment_records": 8,
            "hot_segments": 1,
        }

    return log_of


@pytest.fixture
def old(log_of: Callable[[str], dict[str, Any]], tmp_path: Path) -> Iterator[DaemonProcess]:
    daemon = a_daemon("hv1", tmp_path / "old", log_of("old"))
    try:
        daemon.start()
        with daemon.client() as client:
            client.command("cluster.init", {"name": "main", "coordinators": ["hv1"]})
            client.command("node.add", {"node": "hv2"})
        live(daemon, RECORDS)
        yield daemon
    finally:
        daemon.stop()


def cli(daemon: DaemonProcess) -> Cli:
    return Cli(daemon.directory, {"PVC_URL": f"unix://{daemon.socket}"})


def test_a_backup_brings_everything_back_and_starts_nothing_before_all_nodes_were_heard_of(
    old: DaemonProcess, log_of: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    with old.client() as client:
        client.command("vm.start", {"vm": "vm0"})
        wait_until(lambda: client.get("/vms/vm0")["state"] == "running", "vm0 to run")
    file = tmp_path / "main.pvc"
    done = cli(old)("cluster", "backup", str(file))
    assert done.code == 0, done
    assert file.stat().st_mode & 0o777 == 0o600
    before = everything(old)
    old.stop()

    new = a_daemon("hv1", tmp_path / "new", log_of("new"))
    try:
        new.start()
        tried = cli(new)("cluster", "restore", str(file), "--dry-run")
        assert tried.code == 0 and f"Would restore {len(before)} records of cluster main" in tried.err
        done = cli(new)("cluster", "restore", str(file), "--yes")
        assert done.code == 0, done
        assert cli(new)("cluster", "restore", str(file), "--dry-run").code == 1
        assert f"Restored {len(before)} records of cluster main" in done.err
        with new.client() as client:
            wait_until(lambda: everything(new)[: len(before)] == before, "the replica to be filled")
            status = client.get("/log/status")
            assert status["kind"] == "sqlite" or 0 < status["removed_position"] < len(before)
            wait_until(lambda: client.get("/nodes/hv1")["state"] == "ready", "hv1 to be ready")
            faults = {fault["id"] for fault in client.get("/faults")["items"]}
            assert "node.unheard/hv2" in faults and "node.unheard/hv1" not in faults
            assert client.get("/vms/vm0")["state"] != "running", "hv2 may run it"
            client.command("node.confirm_fenced", {"node": "hv2"})
            wait_until(lambda: client.get("/vms/vm0")["state"] == "running", "vm0 to run again")
        again = cli(new)("cluster", "restore", str(file), "--yes")
        assert again.code == 1 and "the log is not empty" in again.err
    finally:
        new.stop()


def test_a_restore_that_is_broken_off_goes_on_where_it_stood(
    old: DaemonProcess, log_of: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "main.pvc"
    assert cli(old)("cluster", "backup", str(file)).code == 0
    before = everything(old)
    with old.client() as client:
        records = client.get("/log/records", {"first": 1, "limit": 20})["records"]
    old.stop()
    new = a_daemon("hv1", tmp_path / "new", log_of("new"))
    try:
        new.start()
        with new.client() as client:
            assert client.post("/cluster/restore", body={"records": []})["reached"] == 0
            assert client.post("/cluster/restore", body={"records": records})["reached"] == 20
        new.kill()
        new.start()
        done = cli(new)("cluster", "restore", str(file), "--yes")
        assert done.code == 0, done
        wait_until(lambda: everything(new)[: len(before)] == before, "the replica to be filled")
    finally:
        new.stop()


@pytest.mark.parametrize("other_has", ["fewer records", "more records"])
def test_another_backup_does_not_go_on_with_a_restore_that_was_broken_off(
    old: DaemonProcess, log_of: Callable[[str], dict[str, Any]], tmp_path: Path, other_has: str
) -> None:
    file = tmp_path / "main.pvc"
    assert cli(old)("cluster", "backup", str(file)).code == 0
    with old.client() as client:
        records = client.get("/log/records", {"first": 1, "limit": 20})["records"]
    old.stop()
    other, others_file = a_daemon("hv1", tmp_path / "other", log_of("other")), tmp_path / "other.pvc"
    try:
        other.start()
        with other.client() as client:
            client.command("cluster.init", {"name": "other", "coordinators": ["hv1"]})
        live(other, 5 if other_has == "fewer records" else 30)
        assert cli(other)("cluster", "backup", str(others_file)).code == 0
    finally:
        other.stop()
    new = a_daemon("hv1", tmp_path / "new", log_of("new"))
    try:
        new.start()
        with new.client() as client:
            client.post("/cluster/restore", body={"records": []})
            assert client.post("/cluster/restore", body={"records": records})["reached"] == 20
            tried = cli(new)("cluster", "restore", str(others_file), "--yes")
            assert tried.code == 1 and "half restored from another backup" in tried.err, tried
            assert client.post("/cluster/restore", body={"records": []})["reached"] == 20
            done = cli(new)("cluster", "restore", str(file), "--yes")
            assert done.code == 0, done
            wait_until(lambda: client.get("/nodes/hv1")["state"] == "ready", "hv1 to be ready")
            assert client.get("/cluster")["name"] == "main"
            assert len(client.get("/history", {"type": "cluster.log_restored"})["records"]) == 1
    finally:
        new.stop()


def test_a_log_that_is_half_restored_is_opened_by_no_repair(own_zookeeper: ZookeeperServer, tmp_path: Path) -> None:
    log = {"kind": "zookeeper", "hosts": own_zookeeper.hosts, "segment_records": 8, "hot_segments": 20}
    before = a_daemon("hv1", tmp_path / "old", {**log, "cluster": "old"})
    file = tmp_path / "main.pvc"
    try:
        before.start()
        with before.client() as client:
            client.command("cluster.init", {"name": "main", "coordinators": ["hv1"]})
            live(before, 5)
            records = client.get("/log/records", {"first": 1, "limit": 7})["records"]
        assert cli(before)("cluster", "backup", str(file)).code == 0
    finally:
        before.stop()
    new = a_daemon("hv1", tmp_path / "new", {**log, "cluster": "new"})
    try:
        new.start()
        with new.client() as client:
            client.post("/cluster/restore", body={"records": []})
            client.post("/cluster/restore", body={"records": records})
            new.kill()
            new.start()
            with pytest.raises(Exception, match="`pvc cluster restore` again"):
                client.command("vm.define", {"name": "vm9", "memory_mib": 64, "vcpus": 1, "node": "hv1"})
            for wish in ({}, {"take_over": True}):
                wait_until(
                    lambda: client.get("/log/repair")["survey"]["verdict"] == "whole", "the replica to be filled"
                )
                client.post("/log/repair", body=wish)
                wait_until(lambda: not client.get("/log/repair")["running"], "the repair to end")
                assert "run `pvc cluster restore` again" in client.get("/log/repair")["error"]
                assert client.get("/log/status")["held_by"] == "a restore"
            done = cli(new)("cluster", "restore", str(file), "--yes")
            assert done.code == 0, done
            wait_until(lambda: client.get("/nodes/hv1")["state"] == "ready", "hv1 to be ready")
            assert client.get("/log/status")["held_by"] == ""
            history = client.get("/history", {"type": "cluster.log_restored"})["records"]
            assert len(history) == 1
    finally:
        new.stop()


def runs(daemon: DaemonProcess) -> bool:
    """Whether the machine's one guest does."""
    return '"running": true' in (daemon.directory / "data" / "simulated.json").read_text()


def test_guests_run_on_where_pvcd_looks_on_while_the_log_is_restored_elsewhere(
    own_zookeeper: ZookeeperServer, tmp_path: Path
) -> None:
    log = {"kind": "zookeeper", "hosts": own_zookeeper.hosts, "segment_records": 8, "hot_segments": 20}
    before = a_daemon("hv1", tmp_path / "old", {**log, "cluster": "old"})
    try:
        before.start()
        with before.client() as client:
            client.command("cluster.init", {"name": "main", "coordinators": ["hv1"]})
            live(before, 5)
            client.command("vm.start", {"vm": "vm0"})
            wait_until(lambda: client.get("/vms/vm0")["state"] == "running", "vm0 to run")
            last = len(everything(before))
            records = client.get("/log/records", {"first": 1, "limit": last})["records"]
    finally:
        before.stop()
    hv1, hv9 = (a_daemon(name, tmp_path / "new", {**log, "cluster": "new"}) for name in ("hv1", "hv9"))
    machine = hv1.directory / "data" / "simulated.json"
    machine.parent.mkdir(parents=True)
    machine.write_bytes((before.directory / "data" / "simulated.json").read_bytes())  # only PVC's own files are lost
    half = last - 4
    assert runs(hv1)
    try:
        hv9.start()
        hv1.start()
        with hv9.client() as restore, hv1.client() as looks_on:
            restore.post("/cluster/restore", body={"records": []})
            assert restore.post("/cluster/restore", body={"records": records[:half]})["reached"] == half
            wait_until(lambda: looks_on.get("/log/status")["position"] == half, "hv1 to fold what there is")
            said = f"has folded it up to {half}, leaves its VMs alone"
            wait_until(lambda: said in hv1.log_file.read_text(), "hv1 to come to its VMs")
            assert runs(hv1)
            hv1.kill()
            told = hv1.log_file.stat().st_size
            hv1.start()
            wait_until(lambda: said in hv1.log_file.read_text()[told:], "hv1 to come to its VMs after a restart")
            assert runs(hv1)
            restore.post("/cluster/restore", body={"records": records[half:]})
            restore.post("/cluster/restore", body={"records": [], "end": "a backup"})
            wait_until(lambda: looks_on.get("/nodes/hv1")["state"] == "ready", "hv1 to be ready")
            wait_until(lambda: looks_on.get("/vms/vm0")["state"] == "running", "vm0 to be known to run")
            assert runs(hv1)
    finally:
        hv1.stop()
        hv9.stop()


@pytest.mark.parametrize("damage", ["cut", "flipped", "no tar"])
def test_a_damaged_backup_is_refused_before_anything_is_written(
    old: DaemonProcess, log_of: Callable[[str], dict[str, Any]], tmp_path: Path, damage: str
) -> None:
    file = tmp_path / "main.pvc"
    assert cli(old)("cluster", "backup", str(file)).code == 0
    content = bytearray(file.read_bytes())
    with tarfile.open(file) as tar:
        offset = tar.getmember("log.pvclog").offset_data
    if damage == "cut":
        del content[offset + 200 :]
    elif damage == "flipped":
        content[offset + 500] ^= 1
    else:
        content[:] = b"nothing of the kind"
    file.write_bytes(content)
    new = a_daemon("hv1", tmp_path / "new", log_of("new"))
    try:
        new.start()
        done = cli(new)("cluster", "restore", str(file), "--yes")
        assert done.code == 1 and "is no backup that can be used" in done.err, done
        with new.client() as client:
            client.command("cluster.init", {"name": "other"})
    finally:
        new.stop()
