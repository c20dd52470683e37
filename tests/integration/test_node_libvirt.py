"""A real pvcd with real libvirt and QEMU: guests with a will of their own, and restarts that touch no running VM."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pvc.client.errors import ApiError
from tests.integration.daemon_process import DaemonProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.libvirt

PATIENCE_S = 45.0
CMDLINE = "console=ttyS0 quiet pvc.name=web01"


class House:
    """One node with one VM, `web01`, and the questions that tests ask of them."""

    def __init__(self, daemon: DaemonProcess, libvirt_host: Any, guest_image: Any) -> None:
        self.daemon = daemon
        self.libvirt = libvirt_host
        self._image = guest_image

    def open(self) -> House:
        self.daemon.start()
        self.client = self.daemon.client()
        self.client.command("cluster.init", {"name": "test"})
        wait_until(lambda: any(node["ready"] for node in self.client.nodes()), "the node is ready", PATIENCE_S)
        return self

    def define_and_start(self, **fields: Any) -> None:
        devices = {"kernel": str(self._image.kernel), "initrd": str(self._image.initrd), "cmdline": CMDLINE}
        self.client.command("vm.define", {"name": "web01", "memory_mib": 128, **devices, **fields})
        self.client.command("vm.start", {"vm": "web01"})
        self.until("running")

    def until(self, state: str, *, epoch: int = 0) -> dict[str, Any]:
        def reached() -> bool:
            vm = self.client.vm("web01")
            return vm["state"] == state and vm["epoch"] >= epoch

        wait_until(reached, f"web01 is {state}", PATIENCE_S)
        return dict(self.client.vm("web01"))

    def console(self) -> str:
        return b"".join(self.client.vm_log("web01", lines=500)).decode(errors="replace")

    def beats(self) -> int:
        return self.console().count("heartbeat")

    def until_booted(self) -> None:
        wait_until(lambda: self.beats() > 0, "the guest's heartbeat arrives", PATIENCE_S)

    def qemu_pid(self) -> int:
        return int(self.libvirt.qemu_pid("web01"))

    def told(self) -> list[str]:
        """Types of all events of web01, oldest first."""
        records = self.client.history(subject="vm/web01", limit=200)["records"]
        return [event["type"] for record in reversed(records) for event in record["events"]]

    def type_into_console(self, line: str) -> None:
        """Wait for the shell's prompt, type, and read on until the line is echoed or the guest is gone."""
        with self.client.console("web01") as console:
            console.send(b"\n")
            seen = b""
            while b"# " not in seen:
                seen += console.recv(timeout=PATIENCE_S)
            console.send(line.encode() + b"\n")
            time.sleep(1)


@pytest.fixture
def house(tmp_path: Path, libvirt_host: Any, guest_image: Any) -> Iterator[House]:
    hypervisor = {"kind": "libvirt", "uri": libvirt_host.uri, "accelerator": "tcg"}
    daemon = DaemonProcess(tmp_path, hypervisor=hypervisor)
    house = House(daemon, libvirt_host, guest_image)
    yield house.open()
    if daemon.ended:
        daemon.start()
    if house.client.vms() and house.client.vm("web01")["state"] == "running":
        house.client.command("vm.stop", {"vm": "web01"})
        house.until("stopped")
    daemon.stop()


def test_a_guest_that_powers_itself_off_is_told_of_and_stays_off(house: House) -> None:
    house.define_and_start()
    house.until_booted()
    house.type_into_console("poweroff")
    house.until("stopped")
    last = house.client.history(subject="vm/web01", limit=1)["records"][0]["events"][0]
    assert last["type"] == "vm.stopped"
    assert last["data"]["how"] == "guest"
    assert last["data"]["requested"] is False


def test_a_guest_that_powers_itself_off_comes_back_if_its_policy_says_so(house: House) -> None:
    house.define_and_start(on_poweroff="restart")
    house.until_booted()
    house.type_into_console("poweroff")
    house.until("running", epoch=2)
    assert house.told()[-3:] == ["vm.stopped", "vm.start_requested", "vm.started"]


def test_a_vm_whose_qemu_is_killed_is_restarted_by_its_policy(house: House) -> None:
    house.define_and_start()
    os.kill(house.qemu_pid(), signal.SIGKILL)
    house.until("running", epoch=2)
    assert house.told()[-3:] == ["vm.crashed", "vm.start_requested", "vm.started"]


def test_a_vm_destroyed_behind_our_back_stays_failed_if_its_policy_says_so(house: House) -> None:
    house.define_and_start(on_crash="stop")
    virsh = ["virsh", "-c", house.libvirt.uri, "destroy", "web01"]
    subprocess.run(virsh, check=True, capture_output=True)
    failed = house.until("failed")
    assert "outside" in failed["error"]
    assert house.told()[-1] == "vm.crashed"


def test_a_panic_in_the_guest_is_a_crash(house: House) -> None:
    house.define_and_start(on_crash="stop")
    house.until_booted()
    house.type_into_console("crash")
    house.until("failed")
    assert house.told()[-1] == "vm.crashed"


def test_the_power_button_shuts_the_guest_down(house: House) -> None:
    house.define_and_start()
    house.until_booted()
    reply = house.client.command("vm.shutdown", {"vm": "web01", "timeout_s": 30})
    outcome = house.client.wait_for(reply, timeout_s=40)
    assert outcome is not None
    assert outcome.success
    assert outcome.event["data"] == {**outcome.event["data"], "how": "guest"}
    assert house.client.vm("web01")["state"] == "stopped"


def test_a_guest_that_does_not_listen_is_forced_off_when_its_time_is_over(house: House) -> None:
    house.define_and_start(cmdline=f"{CMDLINE} init=/bin/sh")
    house.client.command("vm.shutdown", {"vm": "web01", "timeout_s": 2})
    house.until("stopped")
    assert house.told()[-2:] == ["vm.shutdown_timed_out", "vm.stopped"]


@pytest.mark.parametrize("who", ["daemon", "daemon killed", "libvirtd", "libvirtd killed", "both"])
def test_a_restart_touches_no_running_vm(house: House, who: str) -> None:
    house.define_and_start()
    house.until_booted()
    pid, before = house.qemu_pid(), house.told()
    if who in ("daemon", "both"):
        house.daemon.stop()
    if who == "daemon killed":
        house.daemon.kill()
    if who in ("libvirtd", "both"):
        house.libvirt.restart_libvirtd()
    if who == "libvirtd killed":
        house.libvirt.kill_libvirtd()
        house.libvirt.restart_libvirtd()
    if house.daemon.ended:
        house.daemon.start()
    beats = house.beats()
    wait_until(lambda: house.beats() > beats, "the guest goes on", PATIENCE_S)
    assert house.qemu_pid() == pid
    assert house.told() == before, "a restart is nothing that happens to the VM"
    house.client.command("vm.stop", {"vm": "web01"})
    house.until("stopped")


def test_an_end_that_nobody_watched_is_not_lost(house: House) -> None:
    house.define_and_start(on_crash="stop")
    house.until_booted()
    house.daemon.kill()
    os.kill(house.qemu_pid(), signal.SIGKILL)
    house.daemon.start()
    house.until("failed")
    assert house.told()[-1] == "vm.crashed"


def test_a_change_of_a_running_vm_says_that_it_needs_a_restart(house: House) -> None:
    house.define_and_start()
    reply = house.client.command("vm.modify", {"vm": "web01", "memory_mib": 160})
    assert "pvc vm restart web01" in reply["notes"][0]
    assert house.client.vm("web01")["restart_required"] == ["memory_mib"]
    house.client.command("vm.restart", {"vm": "web01", "timeout_s": 20})
    vm = house.until("running", epoch=2)
    assert vm["restart_required"] == []
    dumped = subprocess.run(
        ["virsh", "-c", house.libvirt.uri, "dommemstat", "web01"], check=True, capture_output=True, text=True
    ).stdout
    assert f"actual {160 * 1024}" in dumped


def test_a_start_that_cannot_be_says_why(house: House) -> None:
    disk = {"path": "/nonexistent/web01.raw"}
    house.client.command("vm.define", {"name": "web01", "memory_mib": 128, "disks": [disk]})
    house.client.command("vm.start", {"vm": "web01"})
    failed = house.until("failed")
    assert "/nonexistent/web01.raw" in failed["error"]
    with pytest.raises(ApiError) as refusal:
        house.client.command("vm.shutdown", {"vm": "web01"})
    assert refusal.value.code == "vm.is_failed"


def test_what_libvirt_measures_is_in_the_metrics(house: House, tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(1024 * 1024))
    disk.chmod(0o666)
    # No kernel: the firmware reads the disk's first sector, finds nothing to boot, and goes on trying.
    house.client.command("vm.define", {"name": "web01", "memory_mib": 64, "disks": [{"path": str(disk)}]})
    house.client.command("vm.start", {"vm": "web01"})
    house.until("running")
    about = 'vm="web01",node="hv1"'
    wanted = (
        f"pvc_vm_cpu_seconds_total{{{about}}}",
        f"pvc_vm_memory_used_bytes{{{about}}}",
        f"pvc_vm_disk_read_bytes_total{{{about}}}",
    )

    def figures() -> dict[str, float]:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(house.daemon.socket))) as root:
            lines = root.get("http://pvc/metrics").text.splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines) if name in wanted}

    wait_until(
        lambda: len(found := figures()) == len(wanted) and all(found.values()),
        "libvirt's figures are there",
        PATIENCE_S,
    )
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(house.daemon.socket))) as root:
        text = root.get("http://pvc/metrics").text
    assert 'pvc_effect_duration_seconds_count{effect="start"} 1' in text
    assert f'pvc_vm_state{{{about},state="running"}} 1' in text
