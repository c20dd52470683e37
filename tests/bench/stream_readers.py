"""The clients of `tests.bench.stream`: many that read lines of JSON, and note when each position arrived.

Usage: python -m tests.bench.stream_readers SOCKET COUNT; says "ready" when each has had a bookmark, and the times of
all arrivals by position when it is told "done".
"""

from __future__ import annotations

import asyncio
import re
import sys
import time

import msgspec

_POSITION = re.compile(rb'\{"position":(\d+),(?!"bookmark")')

AT_ONCE = 50
"""Connections that are made at a time."""


class Reader(asyncio.Protocol):
    def __init__(self, heard: dict[int, list[int]], after: int) -> None:
        self.live = asyncio.get_running_loop().create_future()
        self._heard = heard
        self._after = after
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        head = (
            b"GET /api/v1/events?after=%d HTTP/1.1\r\nHost: pvc\r\nAccept: application/x-ndjson\r\n\r\n" % self._after
        )
        transport.write(head)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        data = self._rest + data
        if not self.live.done() and b'"bookmark"' in data:
            self.live.set_result(None)
        end = data.rfind(b"\n") + 1
        for position in _POSITION.findall(data, 0, end):
            self._heard.setdefault(int(position), []).append(now)
        self._rest = data[end:]


async def main(path: str, count: int) -> None:
    loop = asyncio.get_running_loop()
    heard: dict[int, list[int]] = {}
    after = await _head(path)
    for first in range(0, count, AT_ONCE):
        made = [
            await loop.create_unix_connection(lambda: Reader(heard, after), path)
            for _ in range(min(AT_ONCE, count - first))
        ]
        await asyncio.gather(*(reader.live for _, reader in made))
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    sys.stdout.buffer.write(msgspec.json.encode({str(position): times for position, times in heard.items()}))
    sys.stdout.flush()


async def _head(path: str) -> int:
    """The position that the server's replies tell of; 0 where they tell none."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /api/v1/whoami HTTP/1.1\r\nHost: pvc\r\nConnection: close\r\n\r\n")
    reply = await reader.read()
    writer.close()
    found = re.search(rb"(?i)pvc-position: (\d+)", reply)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
