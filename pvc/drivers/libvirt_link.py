"""The connection to libvirtd: found again when it is lost, blocking calls kept off the event loop, errors made PVC's.

libvirt's own event loop runs in one daemon thread for the whole process; what it reports is handed to asyncio. Every
call has a deadline, because a frozen libvirtd answers nothing, not even with an error, until keepalive gives it up.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import libvirt

from pvc.errors import DriverError, PvcError, Unavailable
from pvc.thread_pool import DaemonPool

T = TypeVar("T")

CALL_TIMEOUT_S = 20.0
"""More than keepalive needs to notice a dead connection, so that the better error usually wins."""
START_TIMEOUT_S = 120.0
"""Starting a domain opens its disks, which may be slow to answer; libvirt's own patience with QEMU is 30 s a step."""
OPEN_TIMEOUT_S = 5.0
"""A local libvirtd answers in milliseconds; a call should not hang much longer on one that is frozen."""
RETRY_S = 1.0
"""How often a lost libvirtd is looked for."""
_KEEPALIVE_INTERVAL_S = 5
_KEEPALIVE_COUNT = 3
_THREADS = 8
"""Blocking calls at a time; libvirtd itself works on 20."""

_LOST = {libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_RPC, libvirt.VIR_ERR_INVALID_CONN}
_BUSY = {libvirt.VIR_ERR_OPERATION_TIMEOUT, libvirt.VIR_ERR_RESOURCE_BUSY}
_TRANSPORT = {libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE}


class LibvirtLink:
    """One connection, as far as its user can tell. `changed` gets domain UUIDs, and "" after every (re)connect."""

    def __init__(self, uri: str, changed: Callable[[str], None], lost: Callable[[], None]) -> None:
        _start_libvirt_events()
        self._uri = uri
        self._changed = changed
        self._lost = lost
        self._pool = DaemonPool("libvirt", _THREADS)
        # A pool of its own: a frozen libvirtd may hold this thread, but never one that a living connection needs.
        self._opener = DaemonPool("libvirt-open", 1)
        self._connection: Any = None
        self._attempt: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._closed = False

    async def call(self, do: Callable[[Any], T], verb: str, thing: str, *, timeout: float = CALL_TIMEOUT_S) -> T:
        """Run `do(connection)` in a thread. Raises Unavailable or DriverError, saying what could not be done."""
        connection = await self.connection()
        try:
            return await self.in_thread(lambda: do(connection), f"{verb} {thing}", timeout=timeout)
        except libvirt.libvirtError as error:
            raise self._translate(error, verb, thing, connection) from error

    async def in_thread(self, do: Callable[[], T], what: str, *, timeout: float = CALL_TIMEOUT_S) -> T:
        """Run a blocking `do` in a thread, as it is; raises Unavailable when it takes longer than `timeout`."""
        try:
            async with asyncio.timeout(timeout):
                return await self._pool.run(do)
        except TimeoutError as error:
            raise Unavailable(
                f"libvirt did not {what} within {timeout:.0f} s",
                code="hypervisor.timeout",
                hint="it will be tried again; see libvirtd's log if it lasts",
            ) from error

    async def connection(self) -> Any:
        """The living connection. Raises Unavailable when there is none to be had now."""
        if self._closed:
            raise Unavailable("the connection to libvirt is closed", code="hypervisor.closed")
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name="libvirt-keeper")
        if self._connection is None:
            await self._connect()
        return self._connection

    async def close(self) -> None:
        """Let go of libvirtd; later calls raise Unavailable."""
        self._closed = True
        for task in (self._keeper, self._attempt):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Unavailable):
                await self.in_thread(lambda: _hang_up(connection), "close the connection", timeout=OPEN_TIMEOUT_S)
        self._lost()
        self._pool.end()
        self._opener.end()

    async def _keep(self) -> None:
        """Look for libvirtd whenever it is lost, so that its events come again though nobody calls."""
        while True:
            self._wake.clear()
            if self._connection is None:
                with contextlib.suppress(Unavailable):
                    await self._connect()
            if self._connection is None:
                await asyncio.sleep(RETRY_S)
            else:
                await self._wake.wait()

    async def _connect(self) -> None:
        """One attempt, shared by everybody who needs it at the time."""
        if self._attempt is None or self._attempt.done():
            self._attempt = asyncio.create_task(self._open(), name="libvirt-open")
            # Everybody who waited may have given up by the time it fails.
            self._attempt.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await asyncio.shield(self._attempt)
        except TimeoutError as error:
            raise _unreachable(self._uri, f"no answer within {OPEN_TIMEOUT_S:.0f} s") from error
        except libvirt.libvirtError as error:
            raise _unreachable(self._uri, one_line(error)) from error

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()

        def tell(call: Callable[..., None], *arguments: Any) -> None:
            # libvirt's thread may outlive the loop.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(call, *arguments)

        def on_lifecycle(_conn: Any, domain: Any, _event: int, _detail: int, _opaque: Any) -> None:
            tell(self._changed, domain.UUIDString())

        def on_close(conn: Any, _reason: int, _opaque: Any) -> None:
            tell(self._on_close, conn)

        def open_connection() -> Any:
            connection = open_alive(self._uri)
            connection.registerCloseCallback(on_close, None)
            connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, on_lifecycle, None)
            return connection

        connection = await self._opener.run(open_connection)
        if not connection.isAlive():
            self._pool.submit(lambda: _hang_up(connection))
            raise _unreachable(self._uri, "the connection broke at once")
        self._connection = connection
        self._changed("")

    def _on_close(self, connection: Any) -> None:
        if connection is self._connection:
            self._connection = None
            self._wake.set()
            self._lost()
            self._pool.submit(lambda: _hang_up(connection))

    def _translate(self, error: Any, verb: str, thing: str, connection: Any) -> PvcError:
        code, domain = error.get_error_code(), error.get_error_domain()
        if code in _LOST or domain in _TRANSPORT or not _alive(connection):
            self._on_close(connection)
            why = "the connection broke" if code == libvirt.VIR_ERR_INVALID_CONN else one_line(error)
            return _unreachable(self._uri, why)
        message = f"libvirt could not {verb} {thing}: {one_line(error)}"
        if code in _BUSY:
            return Unavailable(message, code="hypervisor.busy", hint="it will be tried again")
        return DriverError(
            message,
            code=f"hypervisor.{verb.replace(' ', '_')}_failed",
            hint="correct the VM's definition or the node, then try again; more is in libvirt's log on the node",
        )


def open_alive(uri: str) -> Any:
    """A new connection that breaks by itself when the other side is silent for too long. Blocking."""
    connection = libvirt.open(uri)
    connection.setKeepAlive(_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT)
    return connection


def one_line(error: Any) -> str:
    """libvirt's words for an error, QEMU's included, in one line."""
    return " ".join((error.get_error_message() or str(error)).split())


def _unreachable(uri: str, why: str) -> Unavailable:
    return Unavailable(
        f"libvirt at {uri} cannot be reached: {why}",
        code="hypervisor.unavailable",
        hint="check that libvirtd runs on the node; it will be tried again",
    )


def _alive(connection: Any) -> bool:
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


def _hang_up(connection: Any) -> None:
    """Release what the client library holds for a connection, dead or alive."""
    with contextlib.suppress(libvirt.libvirtError):
        connection.unregisterCloseCallback()
    with contextlib.suppress(libvirt.libvirtError):
        connection.close()


_events_lock = threading.Lock()
_events_running = False


def _start_libvirt_events() -> None:
    """Start libvirt's event loop; it must be there before the first connection is opened."""
    global _events_running
    with _events_lock:
        if _events_running:
            return
        # Errors are raised as exceptions; libvirt would print them to stderr as well.
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_run_libvirt_events, name="libvirt-events", daemon=True).start()
        _events_running = True


def _run_libvirt_events() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
