"""What does not end: events, and the serial console of a VM, as iterators for blocking programs and for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import msgspec

from pvc.client.calls import AsyncGroup, Group
from pvc.client.core import Core, target
from pvc.client.errors import Unreachable
from pvc.client.following import Reading
from pvc.client.generated.models import RecordView
from pvc.client.ports import finish
from pvc.client.transport import Lost, Wire

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection as AsyncConsole
    from websockets.sync.client import ClientConnection as Console


class _Records:
    def __init__(self, source: Reading) -> None:
        self._source = source

    @property
    def position(self) -> int:
        """Everything up to here was considered. Keep it, and go on after it another time."""
        return self._source.position

    def close(self) -> None:
        """End it; whoever waits for the next one ends."""
        self._source.close()


class Events(_Records, Iterator[RecordView]):
    """Records as they come. Close it, or use it as a context manager, where you leave it before its end."""

    def __init__(self, source: Reading) -> None:
        super().__init__(source)
        finish(source.start())

    def __next__(self) -> RecordView:
        record = finish(self._source.next())
        if record is None:
            raise StopIteration
        return msgspec.convert(record, RecordView)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncEvents(_Records, AsyncIterator[RecordView]):
    """Records as they come. Close it, or use it as a context manager, where you leave it before its end.

    Where no position was given it begins with `async with`, or when the first record is asked for.
    """

    async def __anext__(self) -> RecordView:
        record = await self._source.next()
        if record is None:
            raise StopAsyncIteration
        return msgspec.convert(record, RecordView)

    async def __aenter__(self) -> Self:
        await self._source.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class _LogReading:
    """What a guest wrote to its serial console, piece by piece."""

    def __init__(self, core: Core, vm: str, lines: int, follow: bool) -> None:
        self._core = core
        self._vm = vm
        self._query = {"lines": lines, "follow": follow}
        self._follow = follow
        self._wire: Wire | None = None
        self._ended = False

    async def next(self) -> bytes:
        """Nothing at its end. Raises ApiError, Unreachable."""
        if self._ended:
            return b""
        broken = False
        try:
            wire = self._wire
            if wire is None:
                wire = self._wire = await self._core.open(target(f"/vms/{quote(self._vm, safe='')}/log", self._query))
            piece = b"" if self._ended else await wire.piece(None)  # a guest may say nothing for days
            if piece:
                return piece
        except Lost:
            broken = True
        except BaseException:
            self.close()
            raise
        closed = self._ended  # meanwhile, by another thread or task
        self.close()
        if not closed and (broken or self._follow):
            raise log_ended(self._core, self._vm)
        return b""

    def close(self) -> None:
        """End it; whoever waits for the next piece is told that there is none."""
        self._ended = True
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()


class VmLog(Iterator[bytes]):
    """Pieces of a VM's console log."""

    def __init__(self, source: _LogReading) -> None:
        self._source = source

    def __next__(self) -> bytes:
        piece = finish(self._source.next())
        if not piece:
            raise StopIteration
        return piece

    def close(self) -> None:
        """End it; whoever waits for the next piece ends."""
        self._source.close()


class AsyncVmLog(AsyncIterator[bytes]):
    """Pieces of a VM's console log."""

    def __init__(self, source: _LogReading) -> None:
        self._source = source

    async def __anext__(self) -> bytes:
        piece = await self._source.next()
        if not piece:
            raise StopAsyncIteration
        return piece

    def close(self) -> None:
        """End it; whoever waits for the next piece ends."""
        self._source.close()


class VmStreams(Group):
    """A VM's serial console."""

    def log(self, vm: str, *, lines: int = 100, follow: bool = False) -> VmLog:
        """What the guest wrote to its serial console, in pieces as they come.

        With `follow` it goes on until it is closed; Unreachable is raised where the gateway ends it: it stops, or the
        VM has gone to another node.
        """
        return VmLog(_LogReading(self._calls.core, vm, lines, follow))

    def console(self, vm: str) -> Console:
        """The serial console itself: a connected `websockets` connection of binary frames both ways."""
        from pvc.client.console import open_console

        core = self._calls.core

        async def ask() -> Any:
            return open_console(core.gateways.connection, vm, core.source)

        console: Console = finish(core.gateways.try_each(ask))
        return console


class AsyncVmStreams(AsyncGroup):
    """A VM's serial console."""

    def log(self, vm: str, *, lines: int = 100, follow: bool = False) -> AsyncVmLog:
        """What the guest wrote to its serial console, in pieces as they come.

        With `follow` it goes on until it is closed; Unreachable is raised where the gateway ends it: it stops, or the
        VM has gone to another node.
        """
        return AsyncVmLog(_LogReading(self._calls.core, vm, lines, follow))

    async def console(self, vm: str) -> AsyncConsole:
        """The serial console itself: a connected `websockets` connection of binary frames both ways."""
        from pvc.client.console import open_console_async

        core = self._calls.core
        return await core.gateways.try_each(lambda: open_console_async(core.gateways.connection, vm, core.source))


def log_ended(core: Core, vm: str) -> Unreachable:
    """What to say where a log that is followed has ended."""
    return Unreachable(
        f"the gateway at {core.gateways.connection.url} has ended the log of {vm}: "
        "it stopped, the line broke, or the VM has gone to another node",
        hint=f"go on with: pvc vm log {vm} --follow",
    )
