"""The client's ports for programs of asyncio."""

from __future__ import annotations

import asyncio
import ssl
import time
from urllib.parse import urlsplit

from pvc.client.connections import UNIX_SCHEME, Connection
from pvc.client.ports import Line

RECEIVE_BYTES = 65536


class AsyncIo:
    """Network and time of the running event loop."""

    async def connect(self, connection: Connection, timeout_s: float) -> Line:
        """See `pvc.client.ports`."""
        async with asyncio.timeout(timeout_s):
            return AsyncLine(*await _connected(connection))

    async def sleep(self, seconds: float) -> None:
        """See `pvc.client.ports`."""
        await asyncio.sleep(seconds)

    def now(self) -> float:
        """See `pvc.client.ports`."""
        return time.monotonic()


class AsyncLine:
    """A pair of streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes, timeout_s: float) -> None:
        """See `pvc.client.ports`."""
        self._writer.write(data)
        async with asyncio.timeout(timeout_s):
            await self._writer.drain()

    async def receive(self, timeout_s: float | None) -> bytes:
        """See `pvc.client.ports`."""
        async with asyncio.timeout(timeout_s):
            return await self._reader.read(RECEIVE_BYTES)

    def close(self) -> None:
        """See `pvc.client.ports`."""
        self._writer.close()


async def _connected(connection: Connection) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if connection.is_unix:
        return await asyncio.open_unix_connection(connection.url.removeprefix(UNIX_SCHEME))
    parts = urlsplit(connection.url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if parts.scheme != "https":
        return await asyncio.open_connection(host, port)
    if not connection.fingerprints:
        from pvc.client.tls import tls_context

        return await asyncio.open_connection(host, port, ssl=tls_context(connection), server_hostname=host)
    from pvc.client.pins import check_pinned, unverified_context

    reader, writer = await asyncio.open_connection(host, port, ssl=unverified_context(), server_hostname=host)
    try:
        secured = writer.get_extra_info("ssl_object")
        assert isinstance(secured, ssl.SSLObject), "the handshake is done"
        check_pinned(secured, connection)
    except BaseException:
        writer.close()
        raise
    return reader, writer
