"""A real pvcd with real libvirt and QEMU, killed (-9) after every single effect of a VM's whole life."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pvc.client.errors import ApiError, ClientError
from pvc.client.json_client import JsonClient
from tests.integration.daemon_process import DaemonProcess
from tests.support.waiting import wait_until

PATIENCE_S = 60.0


class Admin:
    """Somebody who does not give up: starts a dead daemon again, and asks again under the same key."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self._daemon = daemon
        self._asked = 0

    def ask(self, command: str, **fields: Any) -> None:
        self._asked += 1
        key = f"admin-{self._asked}"
        self._insist(lambda: self._client().command(command, fields, key=key))

    def vm(self) -> dict[str, Any]:
        return self._insist(lambda: dict(self._client().vm("web01")))

    def until(self, state: str) -> None:
        wait_until(lambda: self.vm()["state"] == state, lambda: f"web01 is {state}: {self.vm()}", PATIENCE_S)

    def records(self) -> list[dict[str, Any]]:
        return self._insist(lambda: [dict(record) for record in self._client().history(limit=200)["records"]])

    def _client(self) -> JsonClient:
        return self._daemon.client(tries=1)

    def _insist(self, action: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            if self._daemon.ended:
                self._daemon.start()
            try:
                return action()
            except ClientError as error:
                passing = not isinstance(error, ApiError) or error.status in (503, 504)
                if not passing or time.monotonic() > deadline:
                    raise
            time.sleep(0.05)


def live_a_whole_life(admin: Admin, kernel: Path, initrd: Path) -> None:
    """Every kind of effect there is: define, start, append, reset, shutdown, destroy, forget."""
    admin.ask("cluster.init", name="test")
    admin._insist(lambda: _ready(admin))
    admin.ask("vm.define", name="web01", memory_mib=128, kernel=str(kernel), initrd=str(initrd), cmdline=CMDLINE)
    admin.ask("vm.start", vm="web01")
    admin.until("running")
    admin.ask("vm.reset", vm="web01")
    admin.until("running")
    admin.ask("vm.restart", vm="web01", timeout_s=1)  # too short for a guest that boots: it is forced off
    admin.until("running")
    admin.ask("vm.stop", vm="web01")
    admin.until("stopped")


CMDLINE = "console=ttyS0 quiet pvc.name=web01"


def _ready(admin: Admin) -> None:
    nodes = admin._client().nodes()
    if not nodes or not nodes[0]["ready"]:
        raise ApiError(503, "not ready yet")


def beginnings_and_ends(records: list[dict[str, Any]]) -> tuple[Counter[int], Counter[int]]:
    started: Counter[int] = Counter()
    ended: Counter[int] = Counter()
    for record in records:
        for event in record["events"]:
            if event["type"] == "vm.started":
                started[event["data"]["epoch"]] += 1
            elif event["type"] in ("vm.stopped", "vm.crashed"):
                ended[event["data"]["epoch"]] += 1
    return started, ended


@pytest.fixture
def new_daemon(tmp_path: Path, libvirt_host: Any) -> Iterator[Callable[[str], DaemonProcess]]:
    made: list[DaemonProcess] = []

    def make(name: str) -> DaemonProcess:
        hypervisor = {"kind": "libvirt", "uri": libvirt_host.uri, "accelerator": "tcg"}
        made.append(DaemonProcess(tmp_path / name, hypervisor=hypervisor))
        return made[-1]

    yield make
    for daemon in made:
        daemon.stop()


@pytest.mark.libvirt
@pytest.mark.timeout(900)
def test_a_daemon_killed_after_any_effect_heals_and_no_run_is_doubled(
    new_daemon: Callable[[str], DaemonProcess],
    guest_image: Any,
) -> None:
    kill_after = 0
    while True:
        kill_after += 1
        daemon = new_daemon(f"kill-{kill_after}")
        daemon.start(kill_after=kill_after)
        admin = Admin(daemon)
        killed_before_the_end = lives_through(admin, daemon, guest_image)
        if not killed_before_the_end:
            break
        daemon.stop()
    assert kill_after > 15, f"a whole life has more effects than {kill_after}"


def lives_through(admin: Admin, daemon: DaemonProcess, guest_image: Any) -> bool:
    """Live a whole life and check it; returns whether the daemon was killed on the way."""
    first = daemon._process
    live_a_whole_life(admin, guest_image.kernel, guest_image.initrd)
    records = admin.records()
    commands = Counter(record["command"]["name"] for record in records if record["actor"]["method"] != "node")
    assert commands == {
        "cluster.init": 1, "vm.define": 1, "vm.start": 1, "vm.reset": 1, "vm.restart": 1, "vm.stop": 1,
    }  # fmt: skip
    started, ended = beginnings_and_ends(records)
    assert started == {1: 1, 2: 1}
    assert ended == {1: 1, 2: 1}
    admin.ask("vm.remove", vm="web01")
    return daemon._process is not first
