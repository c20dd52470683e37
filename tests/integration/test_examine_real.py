"""`pvcd --examine` on what is real: a ZooKeeper and a libvirtd that serve, and then do not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pvc.lab.libvirt_host import LibvirtHost
from tests.integration.zookeeper_server import ZookeeperServer


def found(config: Path, check: str) -> list[dict[str, Any]]:
    """What `pvcd --examine` prints of one check."""
    done = subprocess.run(
        [sys.executable, "-m", "pvc.daemon.main", "--config", str(config), "--examine"],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    return [one for one in json.loads(done.stdout) if one["check"] == check]


@pytest.mark.zookeeper
def test_a_zookeeper_that_serves_is_ok_and_one_that_does_not_fails(
    own_zookeeper: ZookeeperServer, tmp_path: Path
) -> None:
    config = tmp_path / "pvc.toml"
    config.write_text(
        f'[node]\nname = "hv1"\ndata_dir = "{tmp_path}"\n[hypervisor]\nkind = "simulated"\n'
        f'[log]\nkind = "zookeeper"\nhosts = "{own_zookeeper.hosts}"\n'
    )
    (one,) = found(config, "zookeeper")
    assert (one["status"], one["message"]) == ("ok", f"{own_zookeeper.hosts} standalone")
    own_zookeeper.kill()
    (one,) = found(config, "zookeeper")
    assert one["status"] == "fail" and "silent (Connection refused)" in one["message"]


@pytest.mark.libvirt
def test_a_libvirtd_that_serves_is_ok_and_one_that_does_not_fails(
    own_libvirt_host: LibvirtHost, tmp_path: Path
) -> None:
    config = tmp_path / "pvc.toml"
    config.write_text(
        f'[node]\nname = "hv1"\ndata_dir = "{tmp_path}"\n'
        f'[hypervisor]\nuri = "{own_libvirt_host.uri}"\naccelerator = "tcg"\n'
    )
    (one,) = found(config, "libvirt")
    assert one["status"] == "ok" and one["message"].startswith("libvirt ") and "QEMU" in one["message"]
    (one,) = found(config, "kvm")
    assert one["status"] == "ok" and "not used, as configured" in one["message"]
    own_libvirt_host.kill_libvirtd()
    (one,) = found(config, "libvirt")
    assert one["status"] == "fail" and "does not answer" in one["message"]
