"""A cluster is upgraded node by node, with real processes of this version and the next on a real ZooKeeper."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pvc import __version__
from pvc.client.errors import ApiError
from pvc.events.registry import FEATURE_LEVEL
from tests.integration.daemon_process import DaemonProcess
from tests.integration.next_version import LEVEL, VERSION, copy_package, make_next_version
from tests.integration.zookeeper_server import ZookeeperServer

pytestmark = [pytest.mark.zookeeper, pytest.mark.timeout(300)]

NODES = ("hv1", "hv2", "hv3")
PATIENCE_S = 60.0


class UpgradedCluster:
    """Three nodes with a VM each, which may be of either version."""

    def __init__(self, home: Path, hosts: str, cluster: str) -> None:
        self.old = copy_package(home / "old")
        self.new = make_next_version(home / "new")
        self.daemons = {
            name: DaemonProcess(
                home / name,
                node={"name": name, "data_dir": str(home / name / "data"), "session_timeout_s": 10},
                log={"kind": "zookeeper", "hosts": hosts, "cluster": cluster},
            )
            for name in NODES
        }
        self._tags = 0

    def begin(self) -> None:
        for name in NODES:
            self.run(name, self.old)
        self.command("hv1", "cluster.init", name="main", coordinators=list(NODES))
        until(lambda: self.cluster("hv1")["nodes_ready"] == 3 and self.cluster("hv1")["primary"], "all are ready")
        for number, name in enumerate(NODES, 1):
            self.command("hv1", "vm.define", name=f"vm{number}", memory_mib=64, node=name)
            self.command("hv1", "vm.start", vm=f"vm{number}")
        until(lambda: self.cluster("hv1")["vms_by_state"] == {"running": 3}, "the VMs run")

    def run(self, name: str, source: Path) -> None:
        """Another version on the node, as by a restart of its service."""
        self.daemons[name].stop()
        self.daemons[name].source = source
        self.daemons[name].start()

    def change(self, name: str, source: Path, version: str) -> None:
        """The same, until the node has said of which version it is."""
        self.run(name, source)
        until(lambda: self.version_at(name) == version, f"{name} is ready with {version}")

    def version_at(self, name: str) -> str:
        with self.daemons[name].client() as client:
            node = client.node(name)
        return str(node["version"]) if node["ready"] else ""

    def command(self, gateway: str, name: str, /, **fields: Any) -> Any:
        with self.daemons[gateway].client() as client:
            return client.command(name, fields)

    def refused(self, gateway: str, name: str, /, **fields: Any) -> ApiError:
        with self.daemons[gateway].client(tries=1) as client, pytest.raises(ApiError) as refusal:
            client.command(name, fields)
        return refusal.value

    def cluster(self, gateway: str) -> dict[str, Any]:
        with self.daemons[gateway].client() as client:
            return dict(client.cluster())

    def tags(self, gateway: str, vm: str) -> list[str]:
        with self.daemons[gateway].client() as client:
            return sorted(tag["tag"] for tag in client.vm(vm)["tags"])

    def records(self, gateway: str) -> list[dict[str, Any]]:
        with self.daemons[gateway].client() as client:
            found: list[dict[str, Any]] = []
            while True:
                page = client.get("/events", {"after": found[-1]["position"] if found else 0, "wait_s": 0})
                if not page["records"]:
                    return found
                found += [dict(record) for record in page["records"]]

    def runs(self, gateway: str) -> dict[str, tuple[str, str]]:
        """Each VM's state and node."""
        with self.daemons[gateway].client() as client:
            return {row["name"]: (row["state"], row["node"]) for row in client.vms()}

    def check(self) -> None:
        """Commands work at each gateway, all fold the same, and no VM has noticed anything."""
        for gateway in NODES:
            self._tags += 1
            self.command(gateway, "vm.add_tag", vm="vm1", tag=f"t{self._tags}")
        until(self.all_agree, "all have folded the same to the same state")
        for gateway in NODES:
            assert f"t{self._tags}" in self.tags(gateway, "vm1")
            assert {name: self.runs(gateway)[name] for name in RUNNING} == RUNNING
        told = [event["type"] for record in self.records("hv1") for event in record["events"]]
        for never in ("vm.stopped", "vm.crashed", "vm.failed", "vm.recovered", "node.lost", "node.diverged"):
            assert never not in told
        assert told.count("vm.started") == told.count("vm.start_requested"), "each was started once"

    def all_agree(self) -> bool:
        seen = [self.cluster(gateway) for gateway in NODES]
        return len({(one["position"], one["state_hash"]) for one in seen}) == 1


RUNNING = {"vm1": ("running", "hv1"), "vm2": ("running", "hv2"), "vm3": ("running", "hv3")}


@pytest.fixture
def upgraded(tmp_path: Path, zookeeper: ZookeeperServer, cluster: str) -> Iterator[UpgradedCluster]:
    upgraded = UpgradedCluster(tmp_path, zookeeper.hosts, cluster)
    try:
        upgraded.begin()
        yield upgraded
    finally:
        for daemon in upgraded.daemons.values():
            daemon.stop()


def test_a_cluster_is_upgraded_node_by_node_and_an_older_version_that_comes_too_late_harms_nothing(
    upgraded: UpgradedCluster,
) -> None:
    upgraded.check()

    # The first one, back, and once more: before the level is raised there is a way back.
    for source, version in ((upgraded.new, VERSION), (upgraded.old, __version__), (upgraded.new, VERSION)):
        upgraded.change("hv1", source, version)
        upgraded.check()
    for gateway in ("hv1", "hv3"):
        assert f"the feature level stays {FEATURE_LEVEL}: {LEVEL} is not known to hv2, hv3" in reasons(
            upgraded, gateway
        )

    upgraded.change("hv2", upgraded.new, VERSION)
    upgraded.check()
    assert f"the feature level stays {FEATURE_LEVEL}: {LEVEL} is not known to hv3" in reasons(upgraded, "hv2")

    # What the old one would not understand is not written, whether the new one takes care of it or forgets to.
    upgraded.command("hv2", "vm.add_tag", vm="vm2", tag="loud-early")
    assert upgraded.tags("hv2", "vm2") == ["loud-early"]
    assert upgraded.refused("hv2", "vm.add_tag", vm="vm2", tag="blessed").code == "cluster.level_too_low"
    upgraded.check()
    assert {record["level"] for record in upgraded.records("hv3")} == {FEATURE_LEVEL}
    assert all(upgraded.cluster(gateway)["level"] == FEATURE_LEVEL for gateway in NODES)

    # With the last one the level is raised, and the new is written.
    upgraded.change("hv3", upgraded.new, VERSION)
    until(lambda: all(upgraded.cluster(gateway)["level"] == LEVEL for gateway in NODES), "the level is raised")
    upgraded.command("hv1", "vm.add_tag", vm="vm2", tag="loud-late")
    upgraded.command("hv3", "vm.add_tag", vm="vm2", tag="blessed")
    upgraded.check()
    assert upgraded.tags("hv2", "vm2") == ["LOUD-LATE", "blessed", "loud-early"]
    levels = [record["level"] for record in upgraded.records("hv1")]
    assert levels == sorted(levels) and set(levels) == {FEATURE_LEVEL, LEVEL}
    until_well(upgraded)

    # A VM that an older fold does not know, and might take for a stray.
    upgraded.command("hv1", "vm.define", name="vm4", memory_mib=64, node="hv3")
    upgraded.command("hv1", "vm.start", vm="vm4")
    until(lambda: upgraded.runs("hv1")["vm4"] == ("running", "hv3"), "vm4 runs")

    # The old one again, on hv3: it says why it does nothing, and does nothing.
    upgraded.run("hv3", upgraded.old)
    late = upgraded.refused("hv3", "vm.add_tag", vm="vm1", tag="late")
    assert (late.status, late.code) == (503, "fold.newer_level")
    assert f"none above {FEATURE_LEVEL}" in late.message and "install the newer PVC" in late.hint
    assert "code=fold.newer_level" in upgraded.daemons["hv3"].log_file.read_text()
    stopped = "node hv3 only lets its VMs go on: its fold has stopped: fold.newer_level"
    until(lambda: stopped in reasons(upgraded, "hv1"), "the others' gateways tell of it")
    assert upgraded.cluster("hv1")["health"] == "critical"
    time.sleep(12)  # longer than a session: it is not taken for lost
    before = len(upgraded.records("hv1"))
    upgraded.command("hv1", "vm.add_tag", vm="vm1", tag="goes-on")
    assert upgraded.runs("hv1") == {**RUNNING, "vm4": ("running", "hv3")}
    assert [record["origin"] for record in upgraded.records("hv1")[before - 1 :]] != ["hv3"]

    # And the new one: nothing has happened.
    upgraded.change("hv3", upgraded.new, VERSION)
    upgraded.check()
    assert upgraded.runs("hv3") == {**RUNNING, "vm4": ("running", "hv3")}
    until_well(upgraded)


def reasons(upgraded: UpgradedCluster, gateway: str) -> list[str]:
    return list(upgraded.cluster(gateway)["reasons"])


def until_well(upgraded: UpgradedCluster) -> None:
    """Nothing is said any more of versions and of what they do not know."""
    words = ("version", "feature level", "fold")
    until(lambda: not any(word in reason for reason in reasons(upgraded, "hv1") for word in words), "all is well")


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"it does not come true: {what}"
        time.sleep(0.2)
