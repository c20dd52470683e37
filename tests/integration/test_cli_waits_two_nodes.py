"""`pvc ... --wait` for many VMs at two real daemons on a real ZooKeeper: what the operation says is what is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cli_process import Cli
from tests.integration.daemon_process import DaemonProcess, two_daemons
from tests.integration.zookeeper_server import ZookeeperServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.zookeeper

PATIENCE_S = 60.0


@pytest.fixture
def daemons(own_zookeeper: ZookeeperServer, cluster: str, tmp_path: Path) -> Iterator[dict[str, DaemonProcess]]:
    with two_daemons(own_zookeeper.hosts, cluster, tmp_path, coordinators=1) as made:
        yield made


def test_a_flush_a_return_and_a_lost_node_are_waited_for_to_their_end(
    daemons: dict[str, DaemonProcess], tmp_path: Path
) -> None:
    cli = Cli(tmp_path, {"PVC_SOCKET": str(daemons["hv1"].socket)})
    with daemons["hv1"].client() as client:
        wait_until(lambda: [node["state"] for node in client.nodes()] == ["ready"] * 2, "both nodes", PATIENCE_S)
    for name in ("one", "two"):
        assert (
            cli(
                "vm",
                "define",
                name,
                "--memory",
                "64",
                "--vcpus",
                "1",
                "--node",
                "hv2",
                "--migration-method",
                "shutdown",
            ).code
            == 0
        )
        assert cli("vm", "start", name, "--wait").code == 0

    flushed = cli("node", "flush", "hv2", "--wait")
    assert flushed.code == 0, flushed.err
    assert [line.split()[0] for line in flushed.out.splitlines()[1:3]] == ["one", "two"]
    assert flushed.out.splitlines()[3].startswith("hv2: flushed: no VM runs on it (+")
    assert flushed.err.startswith("hv2: flush requested\n")

    home = cli("node", "ready", "hv2", "--wait", "-o", "json")
    assert home.code == 0, home.err
    told = json.loads(home.out)
    assert [(vm["vm"], vm["success"]) for vm in told["vms"]] == [("one", True), ("two", True)]
    assert told["outcome"]["success"] is True
    assert told["outcome"]["record"]["events"][0]["subject"] == "node/hv2"

    daemons["hv2"].kill()
    with daemons["hv1"].client() as client:
        wait_until(lambda: client.node("hv2")["state"] == "lost", "hv2 is lost", PATIENCE_S)
    again = cli("node", "confirm-fenced", "hv2", "--yes", "--wait")
    assert again.code == 0, again.err
    assert "2 of 2 VMs recovered (+" in again.out
    assert [line.split()[0] for line in again.out.splitlines()[1:3]] == ["one", "two"]
    assert again.err.startswith("hv2: fenced")
