"""libvirt and QEMU keep the hypervisors' contract, and what only real processes can do to a VM is told as it was."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import libvirt
import pytest

from pvc.drivers.hypervisor import Domain, DomainState, Hypervisor, OffReason
from pvc.drivers.libvirt import LibvirtHypervisor
from pvc.errors import DriverError, Unavailable
from pvc.events.vm import Disk, Nic, VmSpec
from pvc.lab.guest import GuestImage
from pvc.lab.libvirt_host import LibvirtHost
from tests.contract.hypervisor_contract import (
    HypervisorContract,
    define,
    new_id,
    read_to_the_end,
    running,
    state_of,
    type_when_up,
    wait_for_state,
    wait_for_text,
    wait_until,
)
from tests.integration.libvirt_fixtures import guest_spec

pytestmark = pytest.mark.libvirt

FOREIGN = """
<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>
"""


class LibvirtMachine:
    """A private libvirtd; a new connection stands for a restarted daemon."""

    def __init__(self, host: LibvirtHost, image: GuestImage, console_dir: Path) -> None:
        self.host = host
        self._image = image
        self._console_dir = console_dir
        self.hypervisor: Hypervisor = self._connect()

    def spec(self, name: str, *, deaf: bool = False) -> VmSpec:
        return guest_spec(self._image, name, *(["pvc.deaf"] if deaf else []))

    def broken_spec(self, name: str) -> tuple[VmSpec, str]:
        return VmSpec(memory_mib=32, vcpus=1, disks=(Disk(path="/nonexistent/web.img"),)), "/nonexistent/web.img"

    async def reopen(self) -> Hypervisor:
        await self.hypervisor.close()
        self.hypervisor = self._connect()
        return self.hypervisor

    async def destroy_behind_our_back(self, vm: str) -> None:
        await asyncio.to_thread(self._raw, lambda connection: connection.lookupByUUIDString(vm).destroy())

    def kill_qemu(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        os.kill(self.host.qemu_pid(name), number)

    async def libvirtd(self, what: str) -> None:
        await asyncio.to_thread(getattr(self.host, what))

    def create_paused(self, vm: str) -> None:
        """What a start has done when its daemon is killed after the first step."""
        self._console_dir.mkdir(exist_ok=True)
        self._raw(lambda connection: connection.lookupByUUIDString(vm).createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED))

    def define_foreign(self, name: str, vm: str) -> None:
        self._raw(lambda connection: connection.defineXML(FOREIGN.format(name=name, uuid=vm)).create())

    def foreign_state(self, vm: str) -> int:
        return int(self._raw(lambda connection: connection.lookupByUUIDString(vm).state()[0]))

    async def clean(self) -> None:
        await self.hypervisor.close()
        await asyncio.to_thread(self.host.start)

        def remove_all(connection: libvirt.virConnect) -> None:
            for domain in connection.listAllDomains():
                if domain.isActive():
                    domain.destroy()
                domain.undefine()

        await asyncio.to_thread(self._raw, remove_all)

    def _connect(self) -> Hypervisor:
        return LibvirtHypervisor(self.host.uri, "tcg", self._console_dir, qemu_log_dir=self.host.qemu_log_dir)

    def _raw(self, do):  # type: ignore[no-untyped-def]
        connection = libvirt.open(self.host.uri)
        try:
            return do(connection)
        finally:
            connection.close()


@pytest.fixture
async def machine(libvirt_host: LibvirtHost, guest_image: GuestImage, tmp_path: Path) -> AsyncIterator[LibvirtMachine]:
    machine = LibvirtMachine(libvirt_host, guest_image, tmp_path / "console")
    yield machine
    await machine.clean()


class TestLibvirtHypervisor(HypervisorContract):
    """The fixture `machine` above is the suite's."""


async def test_a_qemu_that_is_killed_is_a_crash_also_for_a_daemon_that_comes_later(machine: LibvirtMachine) -> None:
    vm = await running(machine, "victim")
    machine.kill_qemu("victim")
    await wait_for_state(machine, vm, DomainState.OFF, OffReason.CRASHED)
    await machine.libvirtd("restart_libvirtd")
    await machine.reopen()
    assert await state_of(machine, vm) == (DomainState.OFF, OffReason.CRASHED)


async def test_how_a_run_ended_is_known_after_libvirtd_forgot_it(machine: LibvirtMachine) -> None:
    forced, polite, fresh = (
        await running(machine, "forced"),
        await running(machine, "polite"),
        await define(machine, "fresh"),
    )
    await machine.hypervisor.destroy(forced)
    await type_when_up(machine, polite, b"polite heartbeat", b"poweroff\n")
    await wait_for_state(machine, polite, DomainState.OFF, OffReason.GUEST)
    await machine.libvirtd("restart_libvirtd")
    await machine.reopen()
    assert await state_of(machine, forced) == (DomainState.OFF, OffReason.DESTROYED)
    assert await state_of(machine, polite) == (DomainState.OFF, OffReason.GUEST)
    assert await state_of(machine, fresh) == (DomainState.OFF, OffReason.NEVER_RAN)


@pytest.mark.parametrize("how", ["restart_libvirtd", "kill_libvirtd"])
async def test_libvirtd_ends_under_a_running_vm_which_goes_on(machine: LibvirtMachine, how: str) -> None:
    vm = await running(machine, "steady")
    console = await machine.hypervisor.open_console(vm)
    await wait_for_text(console, b"steady heartbeat 1 ")
    log = machine.hypervisor.console_log(vm)
    heard: list[str] = []

    async def listen() -> None:
        async for hint in machine.hypervisor.events():
            heard.append(hint)

    listener = asyncio.create_task(listen())
    await asyncio.sleep(0)
    await machine.libvirtd(how)
    await asyncio.wait_for(read_to_the_end(console), 20)
    if how == "kill_libvirtd":
        with pytest.raises(Unavailable) as refusal:
            await machine.hypervisor.list_domains()
        assert refusal.value.code == "hypervisor.unavailable"
        before = log.read_bytes().count(b"heartbeat")
        await wait_until(lambda: log.read_bytes().count(b"heartbeat") > before, "the guest beats without libvirtd")
        await machine.libvirtd("start")
    # Nobody calls: the driver looks for libvirtd by itself, and its events come again.
    await wait_until(lambda: "" in heard, "the reconnect is announced")
    assert await state_of(machine, vm) == (DomainState.RUNNING, None)
    heard.clear()
    await machine.destroy_behind_our_back(vm)
    await wait_until(lambda: vm in heard, "events come over the new connection")
    assert await state_of(machine, vm) == (DomainState.OFF, OffReason.DESTROYED)
    assert log.read_bytes().count(b"heartbeat 1 ") == 1
    listener.cancel()


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (b"poweroff\n", OffReason.GUEST),
        (b"crash\n", OffReason.CRASHED),
        (b"", OffReason.CRASHED),
    ],
    ids=["powers itself off", "panics", "is killed"],
)
async def test_what_a_guest_does_while_libvirtd_is_away_is_known_when_it_is_back(
    machine: LibvirtMachine, what: bytes, expected: OffReason
) -> None:
    # The guest must act without libvirtd, so its command is given on the kernel's command line where there is one.
    words = {b"poweroff\n": "pvc.poweroff=4", b"crash\n": "pvc.crash=4", b"": ""}[what]
    vm = new_id()
    spec = machine.spec("lonely")
    await machine.hypervisor.define(
        vm, "lonely", VmSpec(**{**_fields(spec), "cmdline": f"{spec.cmdline} {words}"}), epoch=1
    )
    await machine.hypervisor.start(vm)
    log = machine.hypervisor.console_log(vm)
    await wait_until(lambda: log.exists() and b"heartbeat 1 " in log.read_bytes(), "the guest is up")
    await machine.libvirtd("kill_libvirtd")
    if what:
        sign = b"powers off" if what == b"poweroff\n" else b"Kernel panic"
        await wait_until(lambda: sign in log.read_bytes(), "the guest has done it")
        await asyncio.sleep(1)
    else:
        machine.kill_qemu("lonely")
    await machine.libvirtd("start")
    await wait_for_state(machine, vm, DomainState.OFF, expected)
    # It can be run again: nothing of the old run is in the way.
    await machine.hypervisor.define(vm, "lonely", spec, epoch=2)
    await machine.hypervisor.start(vm)
    assert await state_of(machine, vm) == (DomainState.RUNNING, None)


async def test_a_start_that_was_cut_off_counts_as_never_ran_and_can_go_on(machine: LibvirtMachine) -> None:
    vm = await define(machine, "half")
    machine.create_paused(vm)
    await machine.reopen()
    assert await state_of(machine, vm) == (DomainState.OFF, OffReason.NEVER_RAN)
    await machine.hypervisor.start(vm)
    assert await state_of(machine, vm) == (DomainState.RUNNING, None)
    await wait_for_text(await machine.hypervisor.open_console(vm), b"half heartbeat")


@pytest.mark.parametrize("wish", ["forget", "destroy", "define"])
async def test_a_start_that_was_cut_off_leaves_no_qemu_behind(machine: LibvirtMachine, wish: str) -> None:
    vm = await define(machine, "half")
    machine.create_paused(vm)
    match wish:
        case "forget":
            await machine.hypervisor.forget(vm)
            assert await machine.hypervisor.get_domain(vm) is None
        case "destroy":
            await machine.hypervisor.destroy(vm)
            assert (await state_of(machine, vm))[0] is DomainState.OFF
        case "define":
            await machine.hypervisor.define(vm, "half", machine.spec("half"), epoch=2)
            assert await state_of(machine, vm) == (DomainState.OFF, OffReason.NEVER_RAN)
    assert "qemu-system-x86_64" not in machine.host.processes().values()


async def test_a_domain_somebody_paused_is_paused_and_a_start_lets_it_run(machine: LibvirtMachine) -> None:
    vm = await running(machine, "sleepy")
    machine._raw(lambda connection: connection.lookupByUUIDString(vm).suspend())
    assert await state_of(machine, vm) == (DomainState.PAUSED, None)
    await machine.hypervisor.start(vm)
    assert await state_of(machine, vm) == (DomainState.RUNNING, None)


async def test_domains_that_are_not_ours_are_invisible_and_untouched(machine: LibvirtMachine) -> None:
    vm = new_id()
    await asyncio.to_thread(machine.define_foreign, "stranger", vm)
    hypervisor = machine.hypervisor
    assert await hypervisor.list_domains() == []
    assert await hypervisor.get_domain(vm) is None
    await hypervisor.shutdown(vm)
    await hypervisor.reset(vm, mark="m1")
    await hypervisor.destroy(vm)
    await hypervisor.forget(vm)
    with pytest.raises(DriverError) as refusal:
        await hypervisor.define(vm, "mine", machine.spec("mine"), epoch=1)
    assert refusal.value.code == "hypervisor.foreign_domain"
    with pytest.raises(DriverError):
        await hypervisor.start(vm)
    assert machine.foreign_state(vm) == libvirt.VIR_DOMAIN_RUNNING


async def test_a_stranger_with_our_name_is_in_nobodys_way(machine: LibvirtMachine) -> None:
    stranger = new_id()
    await asyncio.to_thread(machine.define_foreign, "web", stranger)
    vm = await running(machine, "web")
    assert await machine.hypervisor.list_domains() == [Domain(vm=vm, name="web", epoch=1, state=DomainState.RUNNING)]
    await machine.hypervisor.destroy(vm)
    await machine.hypervisor.forget(vm)
    assert machine.foreign_state(stranger) == libvirt.VIR_DOMAIN_RUNNING


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        (VmSpec(memory_mib=32, vcpus=1, nics=(Nic(bridge="br-missing"),)), "br-missing"),
        (VmSpec(memory_mib=32, vcpus=1, kernel="/nonexistent/vmlinuz"), "/nonexistent/vmlinuz"),
    ],
    ids=["bridge", "kernel"],
)
async def test_what_is_missing_on_the_node_is_named(machine: LibvirtMachine, spec: VmSpec, word: str) -> None:
    vm = new_id()
    await machine.hypervisor.define(vm, "broken", spec, epoch=1)
    with pytest.raises(DriverError, match=word) as refusal:
        await machine.hypervisor.start(vm)
    assert refusal.value.code == "hypervisor.start_failed"
    assert refusal.value.hint


@pytest.mark.parametrize(
    ("xml", "word"),
    [
        ("<domain type='kvm'><os><type>no-such-type</type></os></domain>", "no-such-type"),
        ("<domain type='kvm'><os><type>hvm</type></os><devices><disk type='x'/></devices></domain>", "'x'"),
    ],
    ids=["type", "disk"],
)
async def test_a_definition_that_libvirt_refuses_leaves_nothing(machine: LibvirtMachine, xml: str, word: str) -> None:
    vm = new_id()
    with pytest.raises(DriverError, match=word) as refusal:
        await machine.hypervisor.define(vm, "bad", VmSpec(memory_mib=32, vcpus=1, xml=xml), epoch=1)
    assert refusal.value.code == "hypervisor.define_failed"
    assert await machine.hypervisor.get_domain(vm) is None


async def test_a_vm_of_every_kind_of_device_starts(machine: LibvirtMachine, tmp_path: Path) -> None:
    disks = []
    for index, bus in enumerate(("virtio", "scsi", "sata", "virtio", "scsi")):
        image = tmp_path / f"disk{index} & <{bus}>.img"
        image.write_bytes(bytes(1024 * 1024))
        disks.append(Disk(path=str(image), bus=bus, read_only=index == 3))
    base = machine.spec("full")
    spec = VmSpec(**{**_fields(base), "disks": tuple(disks), "vcpus": 2})
    vm = new_id()
    await machine.hypervisor.define(vm, "full", spec, epoch=1)
    await machine.hypervisor.start(vm)
    console = await machine.hypervisor.open_console(vm)
    await wait_for_text(console, b"full heartbeat")
    await console.write(b"echo disks=$(ls -d /sys/block/vd? | wc -l)\n")
    await wait_for_text(console, b"disks=2")


async def test_a_frozen_libvirtd_hangs_nobody(machine: LibvirtMachine) -> None:
    vm = await running(machine, "calm")
    hypervisor = await machine.reopen()
    frozen = [pid for pid, name in machine.host.processes().items() if name == "libvirtd"]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await hypervisor.list_domains()
        assert time.monotonic() - began < 10
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)

    async def back() -> bool:
        try:
            return (await hypervisor.get_domain(vm)) is not None
        except Unavailable:
            return False

    await wait_until(back, "the driver is connected again")
    assert await state_of(machine, vm) == (DomainState.RUNNING, None)


async def test_a_console_is_taken_over_by_who_opens_it_last(machine: LibvirtMachine) -> None:
    vm = await running(machine, "shared")
    first = await machine.hypervisor.open_console(vm)
    await wait_for_text(first, b"shared heartbeat")
    second = await machine.hypervisor.open_console(vm)
    await wait_for_text(second, b"shared heartbeat")
    await asyncio.wait_for(read_to_the_end(first), 20)
    await first.write(b"into the void\n")
    await first.close()
    await wait_for_text(second, b"shared heartbeat")


async def test_a_flood_of_output_waits_for_a_slow_reader(machine: LibvirtMachine) -> None:
    vm = await running(machine, "flood")
    console = await machine.hypervisor.open_console(vm)
    await wait_for_text(console, b"flood heartbeat")
    await console.write(b"quiet\nseq 1 60000; echo end-of''-flood\n")
    await asyncio.sleep(3)
    seen = await wait_for_text(console, b"end-of-flood")
    assert b"\r\n60000\r\n" in seen


async def test_a_closed_driver_says_so(machine: LibvirtMachine) -> None:
    await machine.hypervisor.close()
    with pytest.raises(Unavailable) as refusal:
        await machine.hypervisor.list_domains()
    assert refusal.value.code == "hypervisor.closed"


def _fields(spec: VmSpec) -> dict[str, object]:
    return {name: getattr(spec, name) for name in spec.__struct_fields__}
