"""A log that was set back, wiped, or goes another way: found out, and repaired from a replica, by real daemons."""

from __future__ import annotations

import io
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pvc.events.record import unseal
from pvc.proof.frames import Block, read_file, records_of
from tests.integration.daemon_process import DaemonProcess
from tests.integration.test_log_archive import a_daemon, everything, live, state_hash
from tests.integration.zookeeper_server import ZookeeperServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.zookeeper


@pytest.fixture
def daemon(own_zookeeper: ZookeeperServer, tmp_path: Path) -> Iterator[DaemonProcess]:
    """A cluster of one, whose segments are small."""
    log = {"kind": "zookeeper", "hosts": own_zookeeper.hosts, "segment_records": 8, "hot_segments": 20}
    one = a_daemon("hv1", tmp_path, log)
    try:
        one.start()
        with one.client() as client:
            client.command("cluster.init", {"name": "main", "coordinators": ["hv1"]})
        yield one
    finally:
        one.stop()


def health(daemon: DaemonProcess) -> str:
    """Why the gateway is not well, or nothing."""
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(daemon.socket))
            line.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: line.recv(65_536), b"")).decode().partition("\r\n\r\n")[2]
    except OSError:
        return "no answer: fold has stopped"


def survey(daemon: DaemonProcess) -> dict[str, Any]:
    with daemon.client() as client:
        return client.get("/log/repair")


def repair(daemon: DaemonProcess, **wish: Any) -> dict[str, Any]:
    with daemon.client() as client:
        client.post("/log/repair", body=wish)
        wait_until(lambda: not client.get("/log/repair")["running"], "the repair to end")
        return client.get("/log/repair")


def set_back(server: ZookeeperServer, name: str) -> None:
    server.stop()
    server.set_back_to(name)
    server.start()


def save(server: ZookeeperServer, name: str) -> None:
    server.stop()
    server.save_data(name)
    server.start()


def is_whole(daemon: DaemonProcess) -> bool:
    return "fold has stopped" not in health(daemon)


def test_an_ensemble_that_was_set_back_gets_the_very_records_again(
    own_zookeeper: ZookeeperServer, daemon: DaemonProcess
) -> None:
    live(daemon, 20)
    save(own_zookeeper, "older")
    live(daemon, 20)
    before, hashed = everything(daemon), state_hash(daemon)
    set_back(own_zookeeper, "older")
    wait_until(lambda: "log.rewound" in health(daemon), "the daemon to see it")
    found = survey(daemon)
    assert found["survey"]["verdict"] == "short"
    assert found["survey"]["log_position"] < found["survey"]["replica_position"] == len(before)
    assert state_hash(daemon) == hashed, "it shows what it knew"
    done = repair(daemon)
    assert done["error"] == "" and done["survey"]["verdict"] == "whole"
    wait_until(lambda: is_whole(daemon), "the daemon to go on by itself")
    assert everything(daemon)[: len(before)] == before
    live(daemon, 3)


def test_a_daemon_that_starts_after_its_ensemble_was_wiped_founds_nothing_and_can_restore_it_all(
    own_zookeeper: ZookeeperServer, daemon: DaemonProcess
) -> None:
    live(daemon, 30)
    before = everything(daemon)
    daemon.stop()
    own_zookeeper.stop()
    own_zookeeper.wipe()
    own_zookeeper.start()
    daemon.start()
    wait_until(lambda: "log.gone" in health(daemon), "the daemon to see it")
    assert survey(daemon)["survey"]["verdict"] == "gone"
    assert repair(daemon)["survey"]["verdict"] == "whole"
    wait_until(lambda: is_whole(daemon), "the daemon to go on by itself")
    assert everything(daemon)[: len(before)] == before
    live(daemon, 3)


@pytest.mark.parametrize("keep", ["replica", "log"])
def test_of_two_that_contradict_each_other_the_admin_says_which_stands(
    own_zookeeper: ZookeeperServer, daemon: DaemonProcess, tmp_path: Path, keep: str
) -> None:
    live(daemon, 20)
    save(own_zookeeper, "older")
    live(daemon, 15)
    mine = everything(daemon)
    daemon.stop()
    set_back(own_zookeeper, "older")
    other = a_daemon(
        "hv1", tmp_path / "other", {"kind": "zookeeper", "hosts": own_zookeeper.hosts, "segment_records": 8}
    )
    other.start()  # which has no replica, and writes on
    live(other, 25)
    theirs = everything(other)
    other.stop()
    daemon.start()
    wait_until(lambda: "log.re" in health(daemon), "the daemon to see it")
    found = survey(daemon)["survey"]
    assert found["verdict"] == "diverged"
    common = found["common"]
    assert mine[:common] == theirs[:common] and mine[common] != theirs[common]
    with pytest.raises(Exception, match="is to be given up"):
        repair(daemon)
    if keep == "replica":
        done = repair(daemon, keep=keep)
        assert done["error"] == "", done
    else:
        with daemon.client() as client:
            client.post("/log/repair", body={"keep": keep})
    wait_until(lambda: is_whole(daemon) and survey(daemon)["survey"]["verdict"] == "whole", "the daemon to go on")
    kept = mine if keep == "replica" else theirs
    wait_until(lambda: everything(daemon)[: len(kept)] == kept, "the replica to be filled")
    (given_up,) = daemon.directory.glob("data/given-up-*.pvclog")
    assert f"-{common + 1}-" in given_up.name
    live(daemon, 10)
    daemon.stop()
    daemon.start()
    assert everything(daemon)[: len(kept)] == kept
    # Segments of both may have the same ends, so only their records tell whose the archive has.
    wait_until(lambda: max(archived(daemon), default=0) >= len(kept), "all of them to be archived")
    ids = dict(everything(daemon))
    assert archived(daemon) == {last: ids[last] for last in archived(daemon)}
    assert "scrub: damaged copy" not in daemon.log_file.read_text()


def archived(daemon: DaemonProcess) -> dict[int, str]:
    """The last position of each segment in the archive, and the id of the record there."""
    found = {}
    for path in daemon.directory.glob("data/archive/*.pvclog"):
        parts = read_file(io.BytesIO(path.read_bytes()))
        records = [unseal(data).record for part in parts if isinstance(part, Block) for data in records_of(part)]
        found[records[-1].position] = records[-1].id
    return found


def test_an_embedded_log_that_was_set_back_is_repaired_too(tmp_path: Path) -> None:
    daemon = a_daemon("hv1", tmp_path, {"kind": "sqlite"})
    try:
        daemon.start()
        with daemon.client() as client:
            client.command("cluster.init", {"name": "main"})
        live(daemon, 20)
        before = everything(daemon)
        daemon.stop()
        with sqlite3.connect(daemon.directory / "data" / "log.db") as db:
            table = next(name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
            db.execute(f"DELETE FROM {table} WHERE position > 10")
        db.close()
        daemon.start()
        wait_until(lambda: "log.rewound" in health(daemon), "the daemon to see it")
        assert repair(daemon)["survey"]["verdict"] == "whole"
        wait_until(lambda: is_whole(daemon), "the daemon to go on by itself")
        assert everything(daemon)[: len(before)] == before
        live(daemon, 3)
    finally:
        daemon.stop()
    shutil.rmtree(tmp_path / "hv1")
