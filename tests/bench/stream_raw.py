"""The yardstick of `tests.bench.stream`: bare Starlette that puts ready bytes into a queue for each client.

Usage: python -m tests.bench.stream_raw SOCKET
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pvc.daemon.patience import PatientProtocol

SIZE = 640
"""As a record about a VM has when it is told."""

queues: set[asyncio.Queue[bytes]] = set()
published = 0


async def publish(request: Request) -> Response:
    global published
    published += 1
    head = b'{"position":%d,"pad":"' % published
    line = head + b"x" * (SIZE - len(head) - 3) + b'"}\n'
    for queue in queues:
        queue.put_nowait(line)
    return JSONResponse({"position": published})


async def events(request: Request) -> Response:
    return StreamingResponse(_lines(), media_type="application/x-ndjson")


async def _lines() -> AsyncIterator[bytes]:
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    queues.add(queue)
    try:
        yield b'{"position":0,"bookmark":true}\n'
        while True:
            parts = [await queue.get()]
            while not queue.empty():
                parts.append(queue.get_nowait())
            yield b"".join(parts)
    finally:
        queues.discard(queue)


def main(path: str) -> None:
    routes = [
        Route("/api/v1/publish", publish, methods=["POST"]),
        Route("/api/v1/events", events),
    ]
    config = uvicorn.Config(
        Starlette(routes=routes), uds=path, lifespan="off", access_log=False, log_config=None, http=PatientProtocol,
        timeout_graceful_shutdown=1, backlog=1024,
    )  # fmt: skip
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main(sys.argv[1])
