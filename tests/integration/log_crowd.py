"""Several writer processes at one log, and what must be true of the log afterwards."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from pvc.events.record import EMPTY, check_follows, unseal
from pvc.log.base import Log

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 90


class Crowd:
    """Writer processes and the ids that were acknowledged to each of them."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._processes: list[asyncio.subprocess.Process] = []
        self._readers: list[asyncio.Task[None]] = []
        self.acknowledged: list[list[str]] = []

    async def start(self, processes: int, each: int) -> None:
        for _ in range(processes):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.integration.log_writer",
                *self._arguments,
                str(each),
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=asyncio.subprocess.PIPE,
            )
            ids: list[str] = []
            self._processes.append(process)
            self.acknowledged.append(ids)
            self._readers.append(asyncio.create_task(_collect(process, ids)))

    async def reach(self, total: int) -> None:
        """Wait until so many records were acknowledged."""
        async with asyncio.timeout(PATIENCE_S):
            while sum(map(len, self.acknowledged)) < total:
                assert any(not reader.done() for reader in self._readers), "the writers ended too early"
                await asyncio.sleep(0.01)

    async def finish(self) -> None:
        """Wait for the end of all; each must succeed."""
        async with asyncio.timeout(PATIENCE_S):
            codes = await asyncio.gather(*(process.wait() for process in self._processes))
            await asyncio.gather(*self._readers)
        assert codes == [0] * len(codes)

    async def kill(self) -> list[int]:
        """Kill -9 whoever still runs; returns the exit codes."""
        for process in self._processes:
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*self._readers)
        return [await process.wait() for process in self._processes]


async def _collect(process: asyncio.subprocess.Process, ids: list[str]) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        ids.append(line.decode().strip())


async def assert_exactly(log: Log, acknowledged: list[list[str]]) -> None:
    """The log is dense and chained and holds each acknowledged record once, and nothing else."""
    ids: list[str] = []
    head = EMPTY
    while batch := await log.read(len(ids) + 1, 10_000):
        for data in batch:
            entry = unseal(data)
            check_follows(entry, head)
            head = entry.head
            ids.append(entry.record.id)
    assert await log.head() == head
    assert len(ids) == len(set(ids)), "a record is there twice"
    assert sorted(ids) == sorted(id for each in acknowledged for id in each)
