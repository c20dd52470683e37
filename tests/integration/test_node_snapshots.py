"""A real pvcd goes on from its stored state, and writes nothing to a log that is not the one it folded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pvc.client.errors import ApiError
from tests.integration.daemon_process import DaemonProcess


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(tmp_path)
    daemon.start()
    client = daemon.client()
    client.wait_for(client.command("cluster.init", {"name": "test"}), timeout_s=20)
    for number in range(20):
        client.command("vm.define", {"name": f"vm{number}", "memory_mib": 64})
    yield daemon
    daemon.stop()


def shown(daemon: DaemonProcess) -> dict[str, Any]:
    """The cluster at one look, without what a restart adds."""
    cluster = dict(daemon.client().cluster())
    return {key: cluster[key] for key in ("name", "id", "vms", "nodes", "vms_by_state")}


@pytest.mark.parametrize("end", [DaemonProcess.stop, DaemonProcess.kill])
def test_a_restart_shows_the_same_cluster(daemon: DaemonProcess, end: Callable[[DaemonProcess], None]) -> None:
    before = shown(daemon)
    daemon.stop()
    daemon.start()
    daemon.client().command("vm.define", {"name": "later", "memory_mib": 64})
    end(daemon)
    daemon.start()
    assert shown(daemon) == {**before, "vms": before["vms"] + 1, "vms_by_state": {"stopped": before["vms"] + 1}}


def test_a_stored_state_that_is_damaged_is_made_anew(daemon: DaemonProcess) -> None:
    before = shown(daemon)
    daemon.stop()
    stored = daemon.directory / "data" / "snapshot"
    assert stored.stat().st_mode & 0o777 == 0o600
    stored.write_bytes(stored.read_bytes()[:-10])
    daemon.start()
    assert shown(daemon) == before


def test_a_log_that_was_exchanged_is_shown_and_not_written_to(daemon: DaemonProcess) -> None:
    before = shown(daemon)
    daemon.stop()
    for file in (daemon.directory / "data").glob("log.db*"):
        file.unlink()
    daemon.start()
    assert shown(daemon) == before, "what was last known is still shown"
    with pytest.raises(ApiError) as refusal:
        daemon.client().command("vm.define", {"name": "lost", "memory_mib": 64})
    assert refusal.value.code == "log.rewound"
    assert refusal.value.status == 503
