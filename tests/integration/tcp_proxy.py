"""A TCP proxy in the test's event loop that misbehaves on command: lost requests or replies, delay, cuts, refusal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Self


class TcpProxy:
    """Listens on 127.0.0.1 and passes every connection on to `target_port`.

    The knobs work at once on open connections too. A swallowed byte is gone: pass on again only after `cut`.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.delay_s = 0.0
        """Each chunk of a reply is held back for so long (in order)."""
        self.refuse = False
        """New connections are closed at once."""
        self.swallow_requests = False
        """Bytes to the server vanish."""
        self.swallow_replies = False
        """Bytes to the client vanish, while the server gets and does what it is asked."""
        self.on_request: Callable[[bytes], None] = lambda chunk: None
        """Told of every chunk before it is passed on; may turn the knobs."""
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, target_port: int) -> AsyncIterator[Self]:
        """A running proxy."""
        proxy = cls(target_port)
        proxy._server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
        proxy.port = proxy._server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            proxy._server.close()
            proxy.cut()

    @property
    def hosts(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break all open connections, on both sides."""
        for writer in list(self._open):
            writer.transport.abort()

    def heal(self) -> None:
        """Pass everything on again; connections that lost bytes are cut."""
        if self.swallow_replies or self.swallow_requests:
            self.cut()
        self.swallow_replies = self.swallow_requests = self.refuse = False
        self.delay_s = 0.0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            writer.transport.abort()
            return
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, server_writer}
        self._open |= both
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, server_writer, to_server=True))
                pumps.create_task(self._pump(server_reader, writer, to_server=False))
        except* OSError:
            pass  # a connection broke, which is this proxy's business
        finally:
            for end in both:
                end.transport.abort()
            self._open -= both

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_server: bool) -> None:
        while chunk := await reader.read(65536):
            if to_server:
                self.on_request(chunk)
            elif self.delay_s:
                await asyncio.sleep(self.delay_s)
            if self.swallow_requests if to_server else self.swallow_replies:
                continue
            writer.write(chunk)
            await writer.drain()
        raise ConnectionResetError("the other end closed")
