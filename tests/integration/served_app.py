"""An app behind the gateway's own server, on loopback, for tests that speak to it byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from pvc.daemon.crowd import Crowd, Door
from pvc.daemon.patience import PatientProtocol
from pvc.daemon.serving import make_server

ANSWER_S = 5.0


class Served:
    """Where the app is, who is connected, and what was written to the log meanwhile."""

    def __init__(self, port: int, crowd: Crowd) -> None:
        self.port = port
        self.crowd = crowd
        self.told: list[logging.LogRecord] = []

    @property
    def tracebacks(self) -> list[str]:
        """What only a defect leaves in the log."""
        return [
            f"{one.name}: {one.getMessage()}" for one in self.told if one.exc_info or "Traceback" in one.getMessage()
        ]

    async def say(self, *parts: bytes, pause_s: float = 0.05, wait_s: float = ANSWER_S) -> bytes:
        """Send these bytes, one part after the other; all that comes until the gateway hangs up."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            heard = b""
            with contextlib.suppress(ConnectionError):
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(pause_s)
            async with asyncio.timeout(wait_s):
                with contextlib.suppress(ConnectionError):
                    while data := await reader.read(65_536):
                        heard += data
            return heard
        finally:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def served(
    app: ASGIApp, *, crowd: Crowd | None = None, protocol: type[PatientProtocol] = PatientProtocol, **settings: Any
) -> AsyncIterator[Served]:
    """Serve an app within the block, as the daemon does."""
    crowd = Crowd() if crowd is None else crowd
    door = Door(socket.AF_INET, socket.SOCK_STREAM)
    door.crowd = crowd
    door.bind(("127.0.0.1", 0))
    door.listen(1024)
    server: uvicorn.Server = make_server(app, crowd=crowd, protocol=protocol, **settings)
    made = Served(door.getsockname()[1], crowd)
    handler = _Keeper(made.told)
    logging.getLogger().addHandler(handler)
    serving = asyncio.create_task(server.serve(sockets=[door]))
    try:
        yield made
    finally:
        server.should_exit = True
        await serving
        door.close()
        logging.getLogger().removeHandler(handler)


class _Keeper(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)
