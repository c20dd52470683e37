"""A coordinator that runs its own ZooKeeper server: pvcd starts it, keeps it, and leaves it alone when it ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pvc.client.errors import ClientError
from pvc.client.json_client import JsonClient
from pvc.log.quota import MIB, Quota, read_quota, set_quota
from pvc.log.zookeeper_layout import Layout
from pvc.zookeeper.bridge import Bridge
from pvc.zookeeper.types import DELETE, READ, Create, OverQuota
from tests.integration.daemon_process import DaemonProcess

pytestmark = [pytest.mark.zookeeper, pytest.mark.timeout(240)]

ADDRESS = "127.77.0.1"
"""An address of the loopback network that nobody else uses: the server listens at its usual ports."""
PATIENCE_S = 60.0


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(
        tmp_path,
        log={"kind": "zookeeper"},
        zookeeper={"id": 1, "members": [f"1={ADDRESS}"], "heap_mib": 128},
    )
    yield daemon
    daemon.stop()
    if (pid := server_of(daemon)) is not None:
        os.kill(pid, signal.SIGKILL)


def test_the_server_outlives_the_daemon_and_comes_back_when_it_dies(daemon: DaemonProcess) -> None:
    daemon.start()
    with daemon.client() as client:
        client.command("cluster.init", {"name": "main"})
        first = server_of(daemon)
        assert first is not None, "pvcd has started it"

        daemon.kill()
        assert server_of(daemon) == first, "it goes on without pvcd"
        daemon.start()
        assert server_of(daemon) == first, "and is adopted by the next"
        assert client.cluster()["name"] == "main"

        os.kill(first, signal.SIGKILL)
        until(lambda: server_of(daemon) not in (None, first))
        until(lambda: accepts_commands(client))


async def test_the_server_enforces_the_quota_that_the_daemon_has_set(daemon: DaemonProcess) -> None:
    daemon.start()
    bridge, layout = Bridge(f"{ADDRESS}:2181"), Layout("main")
    bridge.start()
    await bridge.wait_connected()
    try:
        assert await read_quota(bridge, layout) == Quota(records=200_000, size_bytes=64 * MIB)
        await set_quota(bridge, layout, Quota(records=1, size_bytes=MIB))
        with pytest.raises(OverQuota):
            await bridge.multi([Create(f"{layout.segments}/one-too-many", b"", READ | DELETE)])
    finally:
        await bridge.close()


def server_of(daemon: DaemonProcess) -> int | None:
    """The process id of the server, if it runs."""
    try:
        pid = int((daemon.directory / "data/zookeeper/zookeeper.pid").read_text())
        runs = b"java" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if runs else None


def accepts_commands(client: JsonClient) -> bool:
    """A server that has just been started again may take longer than a command waits for it."""
    try:
        client.command("vm.define", {"name": "web01", "memory_mib": 64})
    except ClientError as error:
        return getattr(error, "code", "") == "vm.name_taken"  # by the try before, whose reply was lost
    return True


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.2)
