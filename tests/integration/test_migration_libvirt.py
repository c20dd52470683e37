"""libvirt and QEMU keep the contract of migrations; and whatever dies on the way, the guest is in one place."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import libvirt
import pytest

from pvc.drivers.hypervisor import Domain, DomainState, Hypervisor, OffReason
from pvc.drivers.libvirt import LibvirtHypervisor
from pvc.errors import DriverError, PvcError, Unavailable
from pvc.events.vm import Disk, VmSpec
from pvc.lab.guest import GuestImage
from pvc.lab.libvirt_host import LibvirtHost
from tests.contract.hypervisor_contract import new_id, wait_for_text, wait_until
from tests.contract.migration_contract import (
    DOWNTIME_MS,
    MigrationContract,
    migrate,
    running,
    state_at,
    under_way,
    wait_until_gone,
)
from tests.integration.libvirt_fixtures import CACHE, guest_spec, without_libvirt
from tests.integration.tcp_proxy import TcpProxy

pytestmark = pytest.mark.libvirt

SLOW_MIB_S = 8
"""The guest has some 75 MiB that are not zero: it takes 8 s."""
ADDRESS = "127.0.0.1"


class LibvirtPair:
    """Two libvirtds that share this machine's addresses, and so differ in their ports."""

    def __init__(
        self,
        hosts: tuple[LibvirtHost, LibvirtHost],
        image: GuestImage,
        console_dir: Path,
        *,
        transport: str = "tcp",
        migration_tls: bool | None = None,
    ) -> None:
        self.hosts = hosts
        self._image = image
        self._console_dir = console_dir
        self._transport = transport
        self._migration_tls = migration_tls
        self._bandwidth = 0
        self._port_to_target = port_of(hosts[1])
        self.source_address = self.target_address = ADDRESS
        self.nobodys_address = "nowhere.invalid"
        self.source: Hypervisor = self._connect(0)
        self.target: Hypervisor = self._connect(1)

    def spec(self, name: str) -> VmSpec:
        return guest_spec(self._image, name)

    async def slow_down(self, mib_s: int = SLOW_MIB_S) -> None:
        self._bandwidth = mib_s
        await self.restart_source_daemon()

    async def through(self, proxy: TcpProxy) -> None:
        """The source reaches the target's libvirtd through `proxy`; memory goes straight."""
        self._port_to_target = proxy.port
        await self.restart_source_daemon()

    async def restart_source_daemon(self) -> None:
        await self.source.close()
        self.source = self._connect(0)

    async def reopen(self) -> None:
        await self.restart_source_daemon()
        await self.target.close()
        self.target = self._connect(1)

    async def on(self, which: int, what: str) -> None:
        """`kill_libvirtd`, `start`, ..."""
        await asyncio.to_thread(getattr(self.hosts[which], what))

    def signal_libvirtd(self, which: int, number: signal.Signals) -> None:
        for pid, name in self.hosts[which].processes().items():
            if name == "libvirtd":
                os.kill(pid, number)

    def kill_qemu(self, which: int, name: str) -> None:
        os.kill(self.hosts[which].qemu_pid(name), signal.SIGKILL)

    def log(self, vm: str) -> bytes:
        return self.source.console_log(vm).read_bytes()

    async def clean(self) -> None:
        await self.source.close()
        await self.target.close()

        def remove_all(host: LibvirtHost) -> None:
            host.start()
            connection = libvirt.open(host.uri)
            for domain in connection.listAllDomains():
                if domain.isActive():
                    domain.destroy()
                if domain.isPersistent():
                    domain.undefine()
            connection.close()

        for host in self.hosts:
            await asyncio.to_thread(remove_all, host)

    def _connect(self, which: int) -> Hypervisor:
        port = port_of(self.hosts[0]) if which else self._port_to_target
        return LibvirtHypervisor(
            self.hosts[which].uri,
            "tcg",
            self._console_dir,
            qemu_log_dir=self.hosts[which].qemu_log_dir,
            migration_uri=f"qemu+{self._transport}://{{address}}:{port}/system",
            migration_tls=self._migration_tls,
            migration_bandwidth_mib_s=self._bandwidth,
        )


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[LibvirtHost, LibvirtHost]]:
    home = Path(tempfile.mkdtemp(prefix="pvc-lm-", dir="/tmp"))
    ports = [free_port(), free_port()]
    both = tuple(
        LibvirtHost(
            home / name, cache=CACHE / "qemu-cache", listen_tcp=ports[index], migration_ports=MIGRATION_PORTS[index]
        )
        for index, name in enumerate("ab")
    )
    try:
        for host in both:
            try:
                host.start()
            except DriverError as error:
                without_libvirt(error)
        yield both[0], both[1]
    finally:
        for host in both:
            host.stop()
        shutil.rmtree(home)


MIGRATION_PORTS = ((49400, 49419), (49420, 49439))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])


def port_of(host: LibvirtHost) -> int:
    assert host.listen_tcp is not None
    return host.listen_tcp


@pytest.fixture
async def pair(
    hosts: tuple[LibvirtHost, LibvirtHost], guest_image: GuestImage, tmp_path: Path
) -> AsyncIterator[LibvirtPair]:
    (tmp_path / "console").mkdir()
    pair = LibvirtPair(hosts, guest_image, tmp_path / "console")
    yield pair
    await pair.clean()


class TestLibvirtMigration(MigrationContract):
    """The fixture `pair` above is the suite's."""


async def test_a_moved_guest_and_an_arrived_one_are_known_after_both_libvirtds_forgot(pair: LibvirtPair) -> None:
    vm = await running(pair, "kept")
    await wait_for_text(await pair.source.open_console(vm), b"kept heartbeat 1 ")
    await migrate(pair, vm)
    for which in (0, 1):
        await pair.on(which, "restart_libvirtd")
    # Also without QEMU's log, which may be rotated away.
    (pair.hosts[0].qemu_log_dir / "kept.log").unlink()
    await pair.reopen()
    assert await state_at(pair.source, vm) == (DomainState.OFF, OffReason.MIGRATED)
    assert await state_at(pair.target, vm) == (DomainState.PAUSED, None)
    await pair.target.start(vm)
    await wait_for_text(await pair.target.open_console(vm), b"kept heartbeat")


async def test_a_migration_whose_daemon_is_killed_goes_on_and_is_found_again(pair: LibvirtPair) -> None:
    await pair.slow_down()
    vm = await running(pair, "orphan")
    script = f"""
import asyncio, pathlib
from pvc.drivers.libvirt import LibvirtHypervisor
daemon = LibvirtHypervisor(
    {pair.hosts[0].uri!r}, "tcg", pathlib.Path("/tmp"),
    migration_uri="qemu+tcp://{{address}}:{port_of(pair.hosts[1])}/system", migration_bandwidth_mib_s={SLOW_MIB_S},
)
asyncio.run(daemon.migrate({vm!r}, epoch=1, target={ADDRESS!r}, max_downtime_ms=300, force=False))
"""
    daemon = subprocess.Popen([sys.executable, "-c", script])

    async def begun() -> bool:
        progress = await pair.source.transfer(vm)
        return progress is not None and progress.total_bytes > 0

    try:
        await wait_until(begun, "the daemon's migration is under way")
    finally:
        daemon.kill()
        daemon.wait()
    known = await pair.source.get_domain(vm)
    assert known is not None
    assert (known.state, known.migrating) == (DomainState.RUNNING, True)
    await migrate(pair, vm)
    assert await state_at(pair.source, vm) == (DomainState.OFF, OffReason.MIGRATED)
    assert await state_at(pair.target, vm) == (DomainState.PAUSED, None)


@pytest.mark.parametrize(
    ("who", "here"),
    [
        ("source libvirtd", (DomainState.RUNNING, None)),
        ("target libvirtd", (DomainState.RUNNING, None)),
        ("both libvirtds", (DomainState.RUNNING, None)),
        ("source QEMU", (DomainState.OFF, OffReason.CRASHED)),
        ("target QEMU", (DomainState.RUNNING, None)),
    ],
)
async def test_whatever_dies_in_the_midst_nothing_is_left_at_the_target(
    pair: LibvirtPair, who: str, here: tuple[DomainState, OffReason | None]
) -> None:
    await pair.slow_down()
    vm = await running(pair, "hit")
    async with under_way(pair, vm) as moving:
        if who in ("source libvirtd", "both libvirtds"):
            await pair.on(0, "kill_libvirtd")
        if who in ("target libvirtd", "both libvirtds"):
            await pair.on(1, "kill_libvirtd")
        if who == "source QEMU":
            pair.kill_qemu(0, "hit")
        if who == "target QEMU":
            pair.kill_qemu(1, "hit")
        with pytest.raises(PvcError) as told:
            await moving
        assert isinstance(told.value, DriverError | Unavailable)
    for which in (0, 1):
        await pair.on(which, "start")
    await wait_until(lambda: answers(pair.source), "the source's libvirtd answers")
    await wait_until(lambda: answers(pair.target), "the target's libvirtd answers")
    assert await state_at(pair.source, vm) == here
    await wait_until_gone(pair.target, vm)
    if here[0] is DomainState.RUNNING:
        before = pair.log(vm).count(b"heartbeat")
        await wait_until(lambda: pair.log(vm).count(b"heartbeat") > before, "the guest goes on")
        await pair.slow_down(0)
        await migrate(pair, vm)
        assert await state_at(pair.target, vm) == (DomainState.PAUSED, None)


@pytest.mark.parametrize("who", ["target libvirtd", "source libvirtd", "both libvirtds", "nobody"])
async def test_whatever_dies_at_the_very_end_the_guest_goes_on_at_its_source(pair: LibvirtPair, who: str) -> None:
    """The memory is over, the guest stands still, and the target has not said yet that it has all."""
    await pair.slow_down(20)
    vm = await running(pair, "edge")
    async with under_way(pair, vm) as moving:
        pair.signal_libvirtd(1, signal.SIGSTOP)
        try:
            await wait_until(lambda: stands_still(pair, vm), "all of the guest has been sent")
            if who in ("source libvirtd", "both libvirtds"):
                await pair.on(0, "kill_libvirtd")
            if who in ("target libvirtd", "both libvirtds"):
                await pair.on(1, "kill_libvirtd")
            with pytest.raises(PvcError):
                await moving
        finally:
            pair.signal_libvirtd(1, signal.SIGCONT)
    for which in (0, 1):
        await pair.on(which, "start")
    await wait_until(lambda: answers(pair.source), "the source's libvirtd answers")
    await wait_until(lambda: answers(pair.target), "the target's libvirtd answers")
    await wait_until_gone(pair.target, vm)
    if who in ("source libvirtd", "both libvirtds"):
        # libvirt either lets it run on by itself, or leaves that to us: it depends on how much it had written down.
        state, _ = await state_at(pair.source, vm)
        if state is DomainState.PAUSED:
            with pytest.raises(DriverError) as told:
                await migrate(pair, vm)
            assert told.value.code == "hypervisor.migration_failed"
    assert await pair.source.get_domain(vm) == Domain(vm=vm, name="edge", epoch=1, state=DomainState.RUNNING)
    before = pair.log(vm).count(b"heartbeat")
    await wait_until(lambda: pair.log(vm).count(b"heartbeat") > before, "the guest goes on")


async def test_an_answer_lost_at_the_end_leaves_a_copy_that_never_runs_by_itself(pair: LibvirtPair) -> None:
    """libvirt's known ambiguity: both sides have all of the guest. Only the source's runs."""
    async with TcpProxy.to(port_of(pair.hosts[1])) as proxy:
        await pair.slow_down(20)
        await pair.through(proxy)
        vm = await running(pair, "double")
        async with under_way(pair, vm) as moving:
            proxy.swallow_replies = True
            with pytest.raises(DriverError) as told:
                await moving
            assert told.value.code == "hypervisor.migration_failed"
        assert await state_at(pair.source, vm) == (DomainState.RUNNING, None)
        assert await state_at(pair.target, vm) == (DomainState.PAUSED, None)
        proxy.heal()
        with pytest.raises(DriverError) as told:
            await migrate(pair, vm)
        assert told.value.code == "hypervisor.migration_failed"
        for which in (0, 1):
            await pair.on(which, "restart_libvirtd")
        await pair.reopen()
        assert await state_at(pair.source, vm) == (DomainState.RUNNING, None)
        assert await state_at(pair.target, vm) == (DomainState.PAUSED, None)
        await pair.target.destroy(vm)
        await pair.target.forget(vm)
        await migrate(pair, vm)
        assert await state_at(pair.source, vm) == (DomainState.OFF, OffReason.MIGRATED)


async def test_a_target_that_falls_silent_is_given_up_in_seconds(pair: LibvirtPair) -> None:
    await pair.slow_down()
    vm = await running(pair, "patient")
    async with under_way(pair, vm) as moving:
        pair.signal_libvirtd(1, signal.SIGSTOP)
        began = asyncio.get_running_loop().time()
        try:
            with pytest.raises(DriverError) as told:
                await moving
            assert told.value.code == "hypervisor.migration_failed"
            assert asyncio.get_running_loop().time() - began < 20
        finally:
            pair.signal_libvirtd(1, signal.SIGCONT)
    assert await state_at(pair.source, vm) == (DomainState.RUNNING, None)
    await wait_until_gone(pair.target, vm)


async def test_a_guest_with_a_disk_of_the_node_is_refused(pair: LibvirtPair, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1024 * 1024))
    base = pair.spec("local")
    fields = {name: getattr(base, name) for name in base.__struct_fields__}
    vm = new_id()
    await pair.source.define(vm, "local", VmSpec(**{**fields, "disks": (Disk(path=str(image)),)}), epoch=1)
    await pair.source.start(vm)
    with pytest.raises(DriverError, match="shared storage") as refusal:
        await migrate(pair, vm)
    assert refusal.value.code == "hypervisor.migration_refused"
    assert await state_at(pair.source, vm) == (DomainState.RUNNING, None)


async def test_force_brings_a_guest_over_too(pair: LibvirtPair) -> None:
    vm = await running(pair, "forced")
    await migrate(pair, vm, force=True)
    assert await state_at(pair.target, vm) == (DomainState.PAUSED, None)


async def test_qemu_is_told_how_long_the_guest_may_stand_still(pair: LibvirtPair) -> None:
    vm = await running(pair, "brief")
    await pair.slow_down(30)
    async with under_way(pair, vm) as moving:
        asked = raw(pair.hosts[0], lambda connection: connection.lookupByUUIDString(vm).migrateGetMaxDowntime())
        assert asked == DOWNTIME_MS
        await moving


def raw(host: LibvirtHost, do: Callable[[libvirt.virConnect], int]) -> int:
    connection = libvirt.open(host.uri)
    try:
        return do(connection)
    finally:
        connection.close()


async def answers(hypervisor: Hypervisor) -> bool:
    try:
        await hypervisor.list_domains()
    except Unavailable:
        return False
    return True


def stands_still(pair: LibvirtPair, vm: str) -> bool:
    state = raw(pair.hosts[0], lambda connection: connection.lookupByUUIDString(vm).state()[0])
    return state == int(libvirt.VIR_DOMAIN_PAUSED)
