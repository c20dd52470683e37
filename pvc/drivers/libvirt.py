"""The hypervisor that is libvirt and QEMU.

Domains are persistent in libvirt, never started by it, and stay defined after they ended: so how a run ended outlives
this daemon. What libvirt forgets when it is restarted stands in PVC's mark (`domain_xml.Mark`) and in QEMU's log.

A start has four steps, so that a daemon killed in between leaves no doubt: create the domain paused, write into its
mark that it started, let it run, write that it is settled. A domain found paused as it was created, without the last
of these in its mark, has not run: it counts as off.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import libvirt
import msgspec

from pvc.drivers.domain_xml import Mark, build_domain_xml
from pvc.drivers.hypervisor import Domain, DomainState, HypervisorInfo, MachineUsage, Transfer, always, too_late
from pvc.drivers.libvirt_console import LibvirtConsole
from pvc.drivers.libvirt_domain import is_incoming, lookup, mark_of, outgoing_job, quietly, read_domain, set_mark
from pvc.drivers.libvirt_end import QEMU_LOG_DIR, read_state
from pvc.drivers.libvirt_link import START_TIMEOUT_S, LibvirtLink
from pvc.drivers.libvirt_migration import DEFAULT_URI, LibvirtMigrations, MigrationSettings
from pvc.drivers.libvirt_usage import UsageReader
from pvc.errors import DriverError, NotFound, Unavailable
from pvc.events.vm import VmSpec

_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    # A UEFI guest's settings belong to the VM, not to one run of it.
    | libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
)


class LibvirtHypervisor:
    """libvirt at `uri`. `accelerator` is `kvm` or `tcg`, proven (see `accelerator.resolve`); consoles are logged in
    `console_dir`, which libvirtd must see under the same path; `qemu_log_dir` is where it keeps QEMU's logs;
    `migration_uri` says how other nodes' libvirtd are reached, with `{address}` for their address, and `migration_tls`
    whether memory goes there encrypted (None: as the URI has it); a migration gets `migration_bandwidth_mib_s` at most
    (0: no limit)."""

    def __init__(
        self,
        uri: str,
        accelerator: str,
        console_dir: Path,
        *,
        qemu_log_dir: Path | None = None,
        migration_uri: str = DEFAULT_URI,
        migration_tls: bool | None = None,
        migration_bandwidth_mib_s: int = 0,
    ) -> None:
        assert accelerator in ("kvm", "tcg"), "`auto` is resolved before"
        self._accelerator = accelerator
        self._console_dir = console_dir
        # A libvirtd at a socket of its own has its logs who knows where, and the usual place may hold another's.
        self._qemu_log_dir = qemu_log_dir or (None if "socket=" in uri else QEMU_LOG_DIR)
        self._link = LibvirtLink(uri, changed=self._tell, lost=self._hang_up_consoles)
        settings = MigrationSettings(uri=migration_uri, tls=migration_tls, bandwidth_mib_s=migration_bandwidth_mib_s)
        self._migrations = LibvirtMigrations(uri, self._link, settings, self._qemu_log_dir)
        self._usage = UsageReader()
        self._listeners: set[_Hints] = set()
        self._consoles: set[LibvirtConsole] = set()

    async def info(self) -> HypervisorInfo:
        """The node's memory and CPUs, and the versions of libvirt and QEMU."""

        def read(connection: Any) -> HypervisorInfo:
            node = connection.getInfo()
            # getInfo's memory leaves out what was plugged in later.
            memory_kib = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)["total"]
            versions = _dotted(connection.getLibVersion()), _dotted(connection.getVersion())
            return HypervisorInfo(
                memory_mib=memory_kib // 1024,
                vcpus=node[2],
                accelerator=self._accelerator,
                version="libvirt {}, QEMU {}".format(*versions),
            )

        return await self._link.call(read, "describe", "the node")

    async def list_domains(self) -> list[Domain]:
        """All of PVC's domains."""

        def read(connection: Any) -> list[Domain]:
            found = (self._read(domain) for domain in connection.listAllDomains())
            return [domain for domain in found if domain is not None]

        return await self._link.call(read, "list", "domains")

    async def get_domain(self, vm: str) -> Domain | None:
        """One of PVC's domains."""

        def read(connection: Any) -> Domain | None:
            domain = lookup(connection, vm)
            return self._read(domain) if domain is not None else None

        return await self._link.call(read, "look up", f"VM {vm}")

    async def define(self, vm: str, name: str, spec: VmSpec, *, epoch: int) -> None:
        """Make the domain known, off."""
        mark = Mark(name=name, epoch=epoch)

        def xml(libvirt_name: str) -> str:
            return build_domain_xml(
                vm,
                mark,
                spec,
                accelerator=self._accelerator,
                console_log=self.console_log(vm),
                name=libvirt_name,
            )

        def define(connection: Any) -> None:
            domain = lookup(connection, vm)
            if domain is not None:
                old = mark_of(domain)
                if old is None:
                    raise DriverError(
                        f"the node has a domain {domain.name()!r} with the id of VM {name}, which is not PVC's",
                        code="hypervisor.foreign_domain",
                        hint=f"remove it with `virsh undefine {vm}` if nobody needs it",
                    )
                if not _clear_away(domain, old):
                    return
                if domain.name() != name:
                    # libvirt renames nothing by defining it anew.
                    domain.undefineFlags(_UNDEFINE)
            try:
                # Not validated against the schema: the parser's own errors name what is wrong, the schema's do not.
                defined = connection.defineXML(xml(name))
            except libvirt.libvirtError as error:
                if not _name_is_taken(connection, name, vm):
                    raise error
                # By a domain that is not PVC's, or by a VM that is still running under its old name.
                defined = connection.defineXML(xml(f"{name}-{vm[:8]}"))
            defined.setAutostart(0)

        await self._link.call(define, "define", f"VM {name}")

    async def start(self, vm: str, *, may_run: Callable[[], bool] = always) -> None:
        """Start a defined domain, or go on with a start that was cut off, or let a paused one run again."""

        def start(connection: Any) -> None:
            domain = lookup(connection, vm)
            mark = mark_of(domain) if domain is not None else None
            if domain is None or mark is None:
                raise DriverError(f"there is no domain of VM {vm}", code="hypervisor.no_domain", hint="define it first")
            state = domain.state()[0]
            if state == libvirt.VIR_DOMAIN_CRASHED:
                quietly(domain.destroy)
                state = libvirt.VIR_DOMAIN_SHUTOFF
            if state == libvirt.VIR_DOMAIN_SHUTOFF:
                if mark.started:
                    mark = Mark(name=mark.name, epoch=mark.epoch, reset=mark.reset)
                    set_mark(domain, mark)
                self._console_dir.mkdir(parents=True, exist_ok=True)
                _create_paused(domain)
                state = domain.state()[0]
            if is_incoming(domain):
                raise Unavailable(
                    f"VM {vm} is still arriving", code="hypervisor.busy", hint="wait until it is there, or destroy it"
                )
            if outgoing_job(domain) is not None:
                return
            if state == libvirt.VIR_DOMAIN_PAUSED:
                if not mark.started:
                    mark = msgspec.structs.replace(mark, started=True)
                    set_mark(domain, mark)
                if not may_run():
                    raise too_late(vm)
                quietly(domain.resume)
            if not mark.settled:
                set_mark(domain, msgspec.structs.replace(mark, started=True, settled=True))

        await self._link.call(start, "start", f"VM {vm}", timeout=START_TIMEOUT_S)

    async def shutdown(self, vm: str) -> None:
        """Press the guest's power button."""

        def press(domain: Any) -> None:
            domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)

        await self._for_guest(vm, press, "shut down")

    async def destroy(self, vm: str) -> None:
        """Force the domain off."""
        await self._for_active(vm, lambda domain: domain.destroy(), "destroy")

    async def reset(self, vm: str, *, mark: str) -> None:
        """Press the reset button, once per mark."""

        def press(domain: Any) -> None:
            old = mark_of(domain)
            if old is None or old.reset == mark or domain.state()[0] == libvirt.VIR_DOMAIN_CRASHED:
                return
            domain.reset()
            set_mark(domain, msgspec.structs.replace(old, reset=mark))

        await self._for_guest(vm, press, "reset")

    async def forget(self, vm: str) -> None:
        """Undefine a domain that is off."""

        def undefine(connection: Any) -> None:
            domain = lookup(connection, vm)
            mark = mark_of(domain) if domain is not None else None
            if domain is not None and mark is not None and _clear_away(domain, mark):
                quietly(lambda: domain.undefineFlags(_UNDEFINE))

        await self._link.call(undefine, "forget", f"VM {vm}")

    async def migrate(self, vm: str, *, epoch: int, target: str, max_downtime_ms: int, force: bool) -> None:
        """Move the guest, or wait for the end of what is under way."""
        await self._migrations.migrate(vm, epoch=epoch, target=target, max_downtime_ms=max_downtime_ms, force=force)

    async def cancel_migration(self, vm: str) -> None:
        """Abort libvirt's job."""
        await self._migrations.cancel(vm)

    async def transfer(self, vm: str) -> Transfer | None:
        """libvirt's figures of its job."""
        return await self._migrations.transfer(vm)

    async def usage(self) -> MachineUsage:
        """What libvirt says of the node and all its domains."""
        return await self._link.call(self._usage.read, "describe", "what is used")

    async def events(self) -> AsyncIterator[str]:
        """libvirt's lifecycle events, "" after each (re)connect. Domains that are not PVC's may be among them."""
        hints = _Hints()
        self._listeners.add(hints)
        try:
            # Without a connection there are no events; that one is looked for is enough here.
            task = asyncio.ensure_future(self._link.connection())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            while True:
                yield await hints.next()
        finally:
            self._listeners.discard(hints)

    async def open_console(self, vm: str) -> LibvirtConsole:
        """Attach to the serial console, taking it over from whoever has it."""
        console = LibvirtConsole(self._link, detached=self._consoles.discard)

        def attach(connection: Any) -> bool:
            domain = lookup(connection, vm)
            known = self._read(domain) if domain is not None else None
            if known is None or known.state in (DomainState.OFF, DomainState.INCOMING):
                return False
            console.attach(connection, domain)
            return True

        self._consoles.add(console)
        try:
            if await self._link.call(attach, "attach to", f"the console of VM {vm}"):
                return console
        except BaseException:
            console.hang_up()
            raise
        console.hang_up()
        raise NotFound(f"VM {vm} is not running here", code="hypervisor.not_running", hint="start it first")

    def console_log(self, vm: str) -> Path:
        """`<console_dir>/<vm>.log`; virtlogd rotates it at 2 MiB into `.0`, `.1`, `.2`."""
        return self._console_dir / f"{vm}.log"

    async def close(self) -> None:
        """Let go of libvirtd."""
        for console in list(self._consoles):
            await console.close()
        await self._migrations.close()
        await self._link.close()

    async def _for_guest(self, vm: str, do: Any, verb: str) -> None:
        """`do(domain)` if VM's domain has a guest of this machine; one that is arriving is none yet."""
        await self._for_active(vm, lambda domain: None if is_incoming(domain) else do(domain), verb)

    async def _for_active(self, vm: str, do: Any, verb: str) -> None:
        """`do(domain)` if VM's domain is PVC's and active; that it ended meanwhile is as good."""

        def call(connection: Any) -> None:
            domain = lookup(connection, vm)
            if domain is not None and mark_of(domain) is not None and domain.isActive():
                quietly(lambda: do(domain))

        await self._link.call(call, verb, f"VM {vm}")

    def _read(self, domain: Any) -> Domain | None:
        return read_domain(domain, mark_of(domain), self._qemu_log_dir)

    def _tell(self, vm: str) -> None:
        for hints in self._listeners:
            hints.add(vm)

    def _hang_up_consoles(self) -> None:
        for console in list(self._consoles):
            console.hang_up()


class _Hints:
    """What one listener has not heard yet; each id once, so a listener that is slow costs nothing."""

    def __init__(self) -> None:
        self._waiting: dict[str, None] = {}
        self._changed = asyncio.Event()

    def add(self, vm: str) -> None:
        self._waiting[vm] = None
        self._changed.set()

    async def next(self) -> str:
        while not self._waiting:
            self._changed.clear()
            await self._changed.wait()
        vm = next(iter(self._waiting))
        del self._waiting[vm]
        return vm


def _clear_away(domain: Any, mark: Mark) -> bool:
    """Whether the domain is off for PVC, and by now for libvirt too."""
    number, detail = domain.state()
    if number == libvirt.VIR_DOMAIN_SHUTOFF:
        return True
    if read_state(number, detail, mark, None)[0] is not DomainState.OFF:
        return False
    quietly(domain.destroy)
    return True


def _create_paused(domain: Any) -> None:
    """Unless another call has done so meanwhile: one given up as too slow, or of a daemon that was killed over it."""
    try:
        domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or not domain.isActive():
            raise


def _name_is_taken(connection: Any, name: str, vm: str) -> bool:
    try:
        return bool(connection.lookupByName(name).UUIDString() != vm)
    except libvirt.libvirtError:
        return False


def _dotted(number: int) -> str:
    """libvirt's 9000001 -> 9.0.1."""
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"
