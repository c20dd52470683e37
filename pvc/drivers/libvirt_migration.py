"""Live migration by libvirt, from daemon to daemon ("peer to peer"), which goes on without PVC's and is found again.

How a migration ended is never taken from the call's answer alone, which may be lost: the domain is looked at. Only one
that is off because it migrated has moved. All else has not, also where the target holds a complete copy: that copy is
paused, and stays so until the log says that the guest moved, which it does on this side's word alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import libvirt
import msgspec

from pvc.drivers.hypervisor import DomainState, OffReason, Transfer
from pvc.drivers.libvirt_domain import lookup, mark_of, outgoing_job, quietly, read_domain, set_mark
from pvc.drivers.libvirt_link import LibvirtLink, one_line, open_alive
from pvc.errors import DriverError, PvcError, Unavailable
from pvc.thread_pool import DaemonPool

DEFAULT_URI = "qemu+tls://{address}/system"
POLL_S = 0.5
"""How often a migration that somebody else's call carries is looked at."""
CANCEL_TIMEOUT_S = 30.0
"""QEMU stops sending within a second; the target's answer may have to be given up first."""
PRESS_AFTER_S = 30.0
"""Slowing a guest down goes in steps; with `force` it gets this long before it may also stand still for longer."""
PRESS_EVERY_S = 10.0
MAX_DOWNTIME_MS = 60_000
"""Where doubling the downtime stops: by then nearly any guest's changed memory goes over in one piece."""
MAX_MIGRATIONS = 8
"""At a time from one node; each more would only make all of them slower. Others wait for their turn."""

_FLAGS = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_PERSIST_DEST
    # It runs there only when the log says so.
    | libvirt.VIR_MIGRATE_PAUSED
)
_REFUSALS = {
    libvirt.VIR_ERR_MIGRATE_UNSAFE,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
    libvirt.VIR_ERR_CPU_INCOMPATIBLE,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
    libvirt.VIR_ERR_NO_SUPPORT,
    libvirt.VIR_ERR_OPERATION_INVALID,
}
_NO_TLS = re.compile(
    r"certificate|x509|access credentials|TLS handshake|TLS directory|TLS channel.*not a migration stream",
    re.IGNORECASE,
)
"""libvirt's and QEMU's words where TLS does not come about. A TLS channel that breaks later is as any other that does:
QEMU at the target says "not a migration stream" only of a source that went away before it sent anything."""
_HALTED_BY_MIGRATION = {libvirt.VIR_DOMAIN_PAUSED_MIGRATION, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED}


class MigrationSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How this node's libvirt reaches another's. `{address}` is the target's."""

    uri: str
    """The target's libvirtd."""
    tls: bool | None = None
    """Whether the guest's memory is encrypted on its way; None: unless the URI is one that encrypts nothing either."""
    stream_uri: str = "tcp://{address}"
    """Where the guest's memory goes; without a port libvirt takes one of `migration_port_min` and up (qemu.conf)."""
    bandwidth_mib_s: int = 0
    """At most so much; 0: no limit."""

    @property
    def encrypted(self) -> bool:
        """Whether the guest's memory is sent through TLS."""
        return not self.uri.partition(":")[0].endswith("+tcp") if self.tls is None else self.tls


class _Phase(StrEnum):
    FREE = "free"
    UNDER_WAY = "under_way"
    MOVED = "moved"
    BROKEN = "broken"
    """Cut off at its very end: the guest was stopped for it, and stands still."""
    ENDED = "ended"


class _Move:
    """One guest's move, from when it was asked for. Before its turn comes it can be dropped, as if it never was."""

    def __init__(self, vm: str, epoch: int, target: str) -> None:
        self.vm = vm
        self.epoch = epoch
        self.target = target
        self.cancelled = False
        self.begun = False
        self.dropped = asyncio.Event()
        self._dropped = False
        self._lock = threading.Lock()
        self.task: asyncio.Task[None]

    def begin(self) -> bool:
        """In its thread, right before libvirt is told: whether it is still wanted. Then it can only be aborted."""
        with self._lock:
            self.begun = not self._dropped
            return self.begun

    def drop(self) -> bool:
        """Whether it had not begun, and never will now."""
        with self._lock:
            self._dropped = self._dropped or not self.begun
        if self._dropped:
            self.dropped.set()
        return self._dropped


class LibvirtMigrations:
    """The migrations from here."""

    def __init__(self, uri: str, link: LibvirtLink, settings: MigrationSettings, log_dir: Path | None) -> None:
        self._uri = uri
        self._link = link
        self._settings = settings
        self._log_dir = log_dir
        # Threads and connections of their own: they last for minutes, and libvirtd serves 5 calls a connection at once.
        self._pool = DaemonPool("libvirt-migrate", MAX_MIGRATIONS)
        self._moves: dict[str, _Move] = {}

    async def migrate(self, vm: str, *, epoch: int, target: str, max_downtime_ms: int, force: bool) -> None:
        """See the port."""
        move = self._moves.get(vm)
        while move is not None and (move.epoch, move.target) != (epoch, target) and move.drop():
            await asyncio.wait({move.task})
            move = self._moves.get(vm)
        if move is None:
            move = self._moves[vm] = _Move(vm, epoch, target)
            move.task = asyncio.create_task(self._run(move, max_downtime_ms, force), name=f"migrate-{vm}")
            move.task.add_done_callback(lambda done, move=move: self._ended(move, done))  # type: ignore[misc]
        await asyncio.shield(move.task)

    async def cancel(self, vm: str) -> None:
        """See the port."""

        def abort(connection: Any) -> bool:
            domain = lookup(connection, vm)
            if domain is None or mark_of(domain) is None or outgoing_job(domain) is None:
                return False
            quietly(domain.abortJob)
            return True

        move = self._moves.get(vm)
        if move is not None:
            # Before, so that who waits for the end knows why it came. Even so there may be a job, of an earlier daemon.
            move.drop()
            move.cancelled = True
        if not await self._link.call(abort, "cancel", f"the migration of VM {vm}"):
            if move is not None:
                move.cancelled = False
            return
        try:
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                while await self.transfer(vm) is not None:  # noqa: ASYNC110 - libvirt has no event for it
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise Unavailable(
                f"the migration of VM {vm} did not end within {CANCEL_TIMEOUT_S:.0f} s of being cancelled",
                code="hypervisor.timeout",
                hint="it will be tried again; see libvirtd's log if it lasts",
            ) from error

    async def transfer(self, vm: str) -> Transfer | None:
        """See the port."""

        def read(connection: Any) -> Transfer | None:
            domain = lookup(connection, vm)
            stats = outgoing_job(domain) if domain is not None and mark_of(domain) is not None else None
            if stats is None:
                return None
            return Transfer(
                total_bytes=stats.get("memory_total", 0),
                remaining_bytes=stats.get("memory_remaining", 0),
                seconds=stats.get("time_elapsed", 0) / 1000,
            )

        return await self._link.call(read, "look up", f"the migration of VM {vm}")

    async def close(self) -> None:
        """Wait no longer; libvirt carries on."""
        tasks = [move.task for move in self._moves.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._pool.end()

    async def _run(self, move: _Move, max_downtime_ms: int, force: bool) -> None:
        vm, epoch = move.vm, move.epoch
        phase = await self._ask(vm, lambda domain: self._prepare(move, domain, max_downtime_ms))
        error: PvcError | None = None
        pressing = asyncio.create_task(self._press(move, max_downtime_ms)) if force else None
        try:
            if phase is _Phase.FREE:
                error = await self._in_turn(move, force)
            else:
                move.begin()
            # However long it takes: who asked for it may cancel it.
            phase = await self._ask(vm, lambda domain: self._phase(domain, epoch))
            while phase is _Phase.UNDER_WAY:
                await asyncio.sleep(POLL_S)
                phase = await self._ask(vm, lambda domain: self._phase(domain, epoch))
        finally:
            if pressing is not None:
                pressing.cancel()
        if phase is _Phase.MOVED:
            # libvirt forgets the reason when it is restarted, and its log may be rotated away.
            with contextlib.suppress(PvcError):
                await self._ask(vm, _note_moved)
            return
        if phase is _Phase.BROKEN:
            await self._ask(vm, lambda domain: quietly(domain.resume))
        if phase is _Phase.ENDED:
            raise _failed(vm, "it ended meanwhile")
        if move.cancelled:
            raise _cancelled(vm)
        raise error or _failed(vm, "it broke off while nobody was there to hear why")

    async def _in_turn(self, move: _Move, force: bool) -> PvcError | None:
        """Send it when its turn has come. Raises `hypervisor.migration_cancelled` when it is dropped before."""
        sending = asyncio.create_task(self._pool.run(lambda: self._send(move, force)))
        dropping = asyncio.create_task(move.dropped.wait())
        try:
            await asyncio.wait({sending, dropping}, return_when=asyncio.FIRST_COMPLETED)
            if move.dropped.is_set():
                raise _cancelled(move.vm)
            return sending.result()
        finally:
            dropping.cancel()
            # One that has not begun is not begun any more; any other goes on unheard.
            sending.cancel()

    def _prepare(self, move: _Move, domain: Any, max_downtime_ms: int) -> _Phase:
        """What is to be done; for a guest that is to move, all is ready then."""
        phase = self._phase(domain, move.epoch)
        if phase is _Phase.ENDED:
            raise _failed(move.vm, "it does not run here")
        if phase is _Phase.FREE:
            mark = mark_of(domain)
            # While it is on its way nothing can be written, and unsettled it would not count as one that has run.
            if mark is not None and not mark.settled:
                set_mark(domain, msgspec.structs.replace(mark, started=True, settled=True))
            domain.migrateSetMaxDowntime(max_downtime_ms)
        return phase

    def _phase(self, domain: Any, epoch: int) -> _Phase:
        known = read_domain(domain, mark_of(domain), self._log_dir)
        if known is None or known.epoch != epoch:
            return _Phase.ENDED
        if known.migrating:
            return _Phase.UNDER_WAY
        if known.state in (DomainState.OFF, DomainState.INCOMING):
            return _Phase.MOVED if known.reason is OffReason.MIGRATED else _Phase.ENDED
        number, detail = domain.state()
        if number == libvirt.VIR_DOMAIN_PAUSED and detail in _HALTED_BY_MIGRATION:
            return _Phase.BROKEN
        return _Phase.FREE

    def _send(self, move: _Move, force: bool) -> PvcError | None:
        """The long call, in a thread. What went wrong with it, as far as this side heard."""
        vm, target = move.vm, move.target
        parameters: dict[str, Any] = {
            libvirt.VIR_MIGRATE_PARAM_URI: self._settings.stream_uri.format(address=_bracketed(target))
        }
        if self._settings.bandwidth_mib_s:
            parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = self._settings.bandwidth_mib_s
        flags = _FLAGS | (libvirt.VIR_MIGRATE_AUTO_CONVERGE if force else 0)
        if self._settings.encrypted:
            flags |= libvirt.VIR_MIGRATE_TLS
        connection = None
        try:
            connection = open_alive(self._uri)
            domain = lookup(connection, vm)
            mark = mark_of(domain) if domain is not None else None
            # It may have waited for long: the guest that runs now may be another run, which nobody wants to move.
            if domain is None or mark is None or mark.epoch != move.epoch:
                return _failed(vm, "it ended meanwhile")
            if not move.begin():
                return _cancelled(vm)
            domain.migrateToURI3(self._settings.uri.format(address=_bracketed(target)), parameters, flags)
        except libvirt.libvirtError as error:
            return told_of(vm, target, error.get_error_code(), one_line(error))
        finally:
            if connection is not None:
                with contextlib.suppress(libvirt.libvirtError):
                    connection.close()
        return None

    async def _press(self, move: _Move, max_downtime_ms: int) -> None:
        """Let a guest that does not come to an end stand still for longer and longer."""
        vm = move.vm
        while not move.begun:  # noqa: ASYNC110 - it begins in a thread
            await asyncio.sleep(POLL_S)
        await asyncio.sleep(PRESS_AFTER_S)
        while max_downtime_ms < MAX_DOWNTIME_MS:
            max_downtime_ms = min(max_downtime_ms * 2, MAX_DOWNTIME_MS)
            with contextlib.suppress(PvcError):
                await self._ask(vm, lambda domain, ms=max_downtime_ms: domain.migrateSetMaxDowntime(ms))  # type: ignore[misc]
            await asyncio.sleep(PRESS_EVERY_S)

    async def _ask(self, vm: str, do: Callable[[Any], Any]) -> Any:
        """`do(domain)`. Raises `hypervisor.no_domain` when there is none of PVC's."""

        def call(connection: Any) -> Any:
            domain = lookup(connection, vm)
            if domain is None or mark_of(domain) is None:
                raise DriverError(f"there is no domain of VM {vm}", code="hypervisor.no_domain")
            return do(domain)

        return await self._link.call(call, "look up", f"VM {vm} for its migration")

    def _ended(self, move: _Move, task: asyncio.Task[None]) -> None:
        del self._moves[move.vm]
        if not task.cancelled():
            # Whoever waited may be gone.
            task.exception()


def _note_moved(domain: Any) -> None:
    mark = mark_of(domain)
    if mark is not None and not domain.isActive():
        set_mark(domain, msgspec.structs.replace(mark, moved=True))


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address and not address.startswith("[") else address


def told_of(vm: str, target: str, code: int, words: str) -> DriverError:
    """PVC's error for libvirt's: this VM is refused, the nodes do not trust each other, or the try came to nothing."""
    if code == libvirt.VIR_ERR_OPERATION_ABORTED:
        return _cancelled(vm)
    # Before the refusals, which may lead to a migration by shutting down: it is not this VM that is unfit.
    if _NO_TLS.search(words):
        return DriverError(
            f"VM {vm} could not be migrated to {target}: the nodes have no encrypted connection: {words}",
            code="hypervisor.migration_tls",
            hint="correct the certificates in /etc/pki/libvirt and /etc/pki/qemu on both nodes; without those of QEMU, "
            "hypervisor.migration_tls = false sends memory in clear",
        )
    # The target has a domain of it still: it will not for long, so another try may succeed.
    if code in _REFUSALS and "already active" not in words:
        return DriverError(
            f"libvirt refuses to migrate VM {vm} to {target}: {words}",
            code="hypervisor.migration_refused",
            hint="migrate it by shutting it down, or correct its definition or the node",
        )
    return _failed(vm, f"to {target}: {words}")


def _failed(vm: str, why: str) -> DriverError:
    return DriverError(
        f"VM {vm} could not be migrated: {why}",
        code="hypervisor.migration_failed",
        hint="try again; more is in libvirtd's logs on both nodes",
    )


def _cancelled(vm: str) -> DriverError:
    return DriverError(f"the migration of VM {vm} was cancelled", code="hypervisor.migration_cancelled")
