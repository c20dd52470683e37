"""A domain's serial console through a libvirt stream: works wherever libvirtd is, and leaves the guest alone.

A domain has one console; who opens it last has it, so that a session somebody forgot cannot lock an admin out.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import Any

import libvirt

from pvc.drivers.libvirt_link import LibvirtLink
from pvc.errors import Unavailable

_CHUNK_BYTES = 64 * 1024
_MAX_UNREAD_BYTES = 256 * 1024
"""With more than this unread, the guest's output is left with libvirt until it is read."""
_WRITE_TIMEOUT_S = 10.0
_WRITE_RETRY_S = 0.02
_WOULD_BLOCK = -2
_END_EVENTS = libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP
_ALL_EVENTS = _END_EVENTS | libvirt.VIR_STREAM_EVENT_READABLE


class LibvirtConsole:
    """One attached console; made by `attach`."""

    def __init__(self, link: LibvirtLink, detached: Callable[[LibvirtConsole], None]) -> None:
        self._link = link
        self._detached = detached
        self._loop = asyncio.get_running_loop()
        self._stream: Any = None
        self._unread = bytearray()
        self._paused = False
        self._gone = False
        self._changed = asyncio.Event()

    def attach(self, connection: Any, domain: Any) -> None:
        """Connect to the domain's console; blocking. Raises libvirtError."""
        stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
        domain.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
        self._stream = stream
        stream.eventAddCallback(_ALL_EVENTS, self._on_event, None)
        if self._gone:
            # Whoever wanted it has lost patience meanwhile, and will not come back to close it.
            _end(stream)

    async def read(self) -> bytes:
        """The next bytes; empty when the console is gone."""
        while not self._unread and not self._gone:
            self._changed.clear()
            await self._changed.wait()
        data = bytes(self._unread)
        self._unread.clear()
        stream = self._stream
        if self._paused and not self._gone and stream is not None:
            self._paused = False
            await self._link.in_thread(lambda: _listen(stream, _ALL_EVENTS), "read from the console")
        return data

    async def write(self, data: bytes) -> None:
        """Type; into the void when the console is gone. Raises Unavailable when the guest takes nothing for long."""
        deadline = self._loop.time() + _WRITE_TIMEOUT_S
        # Another task may close the console while a thread is still sending.
        stream = self._stream
        while data and not self._gone and stream is not None:
            send = functools.partial(stream.send, data)
            try:
                sent = await self._link.in_thread(send, "write to the console")
            except libvirt.libvirtError:
                self.hang_up()
                return
            if sent != _WOULD_BLOCK:
                data = data[sent:]
            elif self._loop.time() > deadline:
                raise Unavailable(
                    f"the guest took no input for {_WRITE_TIMEOUT_S:.0f} s", code="hypervisor.console_stuck"
                )
            else:
                await asyncio.sleep(_WRITE_RETRY_S)

    async def close(self) -> None:
        """Detach; the guest goes on."""
        stream, self._stream = self._stream, None
        self.hang_up()
        if stream is not None:
            with contextlib.suppress(Unavailable):
                await self._link.in_thread(lambda: _end(stream), "close the console")

    def hang_up(self) -> None:
        """The console is gone; what was written can still be read."""
        if not self._gone:
            self._gone = True
            self._changed.set()
            self._detached(self)

    def _on_event(self, stream: Any, events: int, _opaque: Any) -> None:
        """In libvirt's thread."""
        data: bytes | int = b""
        ended = bool(events & _END_EVENTS)
        if events & libvirt.VIR_STREAM_EVENT_READABLE:
            try:
                data = stream.recv(_CHUNK_BYTES)
            except libvirt.libvirtError:
                ended = True
            else:
                # No bytes is the end, -2 a false alarm.
                ended = ended or data == b""
        if ended:
            with contextlib.suppress(libvirt.libvirtError):
                stream.eventRemoveCallback()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._take, data if isinstance(data, bytes) else b"", ended)

    def _take(self, data: bytes, ended: bool) -> None:
        if data:
            self._unread += data
            self._changed.set()
        if ended:
            self.hang_up()
        elif len(self._unread) > _MAX_UNREAD_BYTES and not self._paused and self._stream is not None:
            self._paused = True
            _listen(self._stream, _END_EVENTS)


def _listen(stream: Any, events: int) -> None:
    with contextlib.suppress(libvirt.libvirtError):  # it has ended meanwhile
        stream.eventUpdateCallback(events)


def _end(stream: Any) -> None:
    with contextlib.suppress(libvirt.libvirtError):
        stream.eventRemoveCallback()
    with contextlib.suppress(libvirt.libvirtError):
        stream.abort()
