"""The lab's parts for real: the guest image, the private libvirt host, and the proof of an accelerator."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import libvirt
import pytest

from pvc.drivers.accelerator import resolve_accelerator, runs_a_guest
from pvc.drivers.libvirt import LibvirtHypervisor
from pvc.errors import DriverError
from pvc.lab.guest import GuestImage, build_guest
from pvc.lab.libvirt_host import LibvirtHost
from tests.contract.hypervisor_contract import new_id, wait_until
from tests.integration.libvirt_fixtures import CACHE, guest_spec

pytestmark = pytest.mark.libvirt


async def test_the_boot_sector_runs_under_tcg(libvirt_host: LibvirtHost) -> None:
    assert await runs_a_guest("tcg", timeout=30)


async def test_auto_is_something_that_really_runs_a_guest(libvirt_host: LibvirtHost, tmp_path: Path) -> None:
    accelerator = await resolve_accelerator("auto", tmp_path)
    assert accelerator in ("kvm", "tcg")
    assert await runs_a_guest(accelerator, timeout=30)
    began = time.monotonic()
    assert await resolve_accelerator("auto", tmp_path) == accelerator
    assert time.monotonic() - began < 2


def test_a_guest_that_is_built_is_not_built_again(guest_image: GuestImage) -> None:
    before = guest_image.initrd.stat().st_mtime_ns, guest_image.kernel.stat().st_mtime_ns
    said: list[str] = []
    assert build_guest(CACHE, cache=CACHE / "cache", progress=said.append) == guest_image
    assert (guest_image.initrd.stat().st_mtime_ns, guest_image.kernel.stat().st_mtime_ns) == before
    assert said == []


def test_the_guest_is_the_same_bytes_wherever_it_is_built(guest_image: GuestImage, tmp_path: Path) -> None:
    other = build_guest(tmp_path, cache=CACHE / "cache")
    assert other.initrd.read_bytes() == guest_image.initrd.read_bytes()


async def test_a_host_stops_with_all_its_vms_and_starts_again_with_their_definitions(
    own_libvirt_host: LibvirtHost, guest_image: GuestImage, tmp_path: Path
) -> None:
    host = own_libvirt_host
    hypervisor = LibvirtHypervisor(host.uri, "tcg", tmp_path)
    vm = new_id()
    await hypervisor.define(vm, "web", guest_spec(guest_image, "web"), epoch=1)
    await hypervisor.start(vm)
    assert sorted(host.processes().values()) == ["libvirtd", "pvc-lab-host", "qemu-system-x86_64", "virtlogd"]
    await asyncio.to_thread(host.stop)
    assert host.processes() == {}
    assert str(host.directory) not in Path("/proc/mounts").read_text()
    await asyncio.to_thread(host.start)

    async def there() -> bool:
        return [domain.vm for domain in await hypervisor.list_domains()] == [vm]

    await wait_until(there, "the definition is there again")
    await hypervisor.close()


def test_two_hosts_know_nothing_of_each_other(libvirt_host: LibvirtHost, own_libvirt_host: LibvirtHost) -> None:
    one, other = libvirt.open(libvirt_host.uri), libvirt.open(own_libvirt_host.uri)
    try:
        own_xml = "<domain type='qemu'><name>only-here</name><memory>32768</memory><os><type>hvm</type></os></domain>"
        other.defineXML(own_xml)
        assert [domain.name() for domain in other.listAllDomains()] == ["only-here"]
        assert "only-here" not in [domain.name() for domain in one.listAllDomains()]
    finally:
        one.close()
        other.close()
    assert not Path("/etc/libvirt/qemu/only-here.xml").exists()


def test_the_command_line_leaves_the_host_up_until_it_is_taken_down(
    own_libvirt_host: LibvirtHost, tmp_path: Path
) -> None:
    def host(action: str) -> str:
        command = [sys.executable, "-m", "pvc.lab.libvirt_host", "--dir", str(own_libvirt_host.directory), action]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    assert host("up").strip() == own_libvirt_host.uri
    assert host("status").count("libvirtd") == 1
    host("down")
    assert host("status") == ""


def test_a_path_too_long_for_a_socket_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    with pytest.raises(DriverError) as refusal:
        LibvirtHost(long).start()
    assert refusal.value.code in ("lab.path_too_long", "lab.not_root", "lab.no_tool")
    assert not long.exists()
