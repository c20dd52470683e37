"""Seven writing processes on a real ZooKeeper, some killed in the middle of it: each fact is in the log once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pvc.events import vm as e
from pvc.events.record import EMPTY, check_follows, unseal
from pvc.events.registry import decode_event
from pvc.log.inbox_zookeeper import ZookeeperInbox
from pvc.log.zookeeper import ZookeeperLog
from pvc.runtime.world import World, follow
from tests.integration.zookeeper_server import ZookeeperServer, cluster, zookeeper
from tests.support.writers_house import founded

__all__ = ["cluster", "zookeeper"]
pytestmark = pytest.mark.zookeeper

ROOT = Path(__file__).resolve().parents[2]
NODES = 7
PRIMARIES_KILLED = 4
PRIMARIES_FROZEN = 2
PATIENCE_S = 90
BETWEEN_KILLS = 60
"""Notes told between two kills, by all nodes together."""


class Process:
    """One node: its present life, and what all its lives were told."""

    def __init__(self, hosts: str, cluster: str, name: str) -> None:
        self.name = name
        self.told: list[int] = []
        self.forwarded = 0
        self._where = hosts, cluster
        self._lives = 0
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        first = self._lives * 1_000_000  # whatever became of an earlier life's notes, they are others
        self._lives += 1
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.integration.forwarding_node",
            *self._where,
            self.name,
            str(first),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._reader = asyncio.create_task(self._read(self._process))

    async def kill(self) -> None:
        """Kill -9; what it had said before is heard."""
        assert self._process is not None and self._reader is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reader

    def freeze(self) -> None:
        """It stands still between any two of its steps, until it is thawed, and then goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def end_notes(self) -> None:
        assert self._process is not None and self._process.stdin is not None
        before = self.forwarded
        self._process.stdin.write(b"\n")
        self.forwarded = -1
        async with asyncio.timeout(PATIENCE_S):
            while self.forwarded < 0:
                await asyncio.sleep(0.02)
        self.forwarded += before

    async def end(self) -> int:
        assert self._process is not None and self._process.stdin is not None and self._reader is not None
        if self._process.returncode is None:
            self._process.stdin.close()
        async with asyncio.timeout(PATIENCE_S):
            await self._reader
            return await self._process.wait()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            word, _, number = line.decode().partition(" ")
            if word == "note":
                self.told.append(int(number))
            else:
                self.forwarded = int(number)


@pytest.fixture
async def processes(zookeeper: ZookeeperServer, cluster: str) -> AsyncIterator[list[Process]]:
    names = [f"n{number}" for number in range(1, NODES + 1)]
    log = await ZookeeperLog.open(zookeeper.hosts, cluster)
    await log.append(founded(names, 0).entries, after=EMPTY)
    await log.close()
    made = [Process(zookeeper.hosts, cluster, name) for name in names]
    await asyncio.gather(*(process.start() for process in made))
    yield made
    for process in made:
        await process.kill()


async def test_primaries_are_killed_and_frozen_and_each_fact_is_in_the_log_once(
    zookeeper: ZookeeperServer, cluster: str, processes: list[Process]
) -> None:
    log = await ZookeeperLog.open(zookeeper.hosts, cluster)
    inbox = await ZookeeperInbox.open(zookeeper.hosts, cluster, log)
    world, rng = World(), random.Random(1)
    following = asyncio.create_task(follow(world, log))

    def told() -> int:
        return sum(len(process.told) for process in processes)

    def primary() -> tuple[str, int]:
        state = world.state.cluster
        return (state.primary, state.primary_epoch) if state is not None else ("", 0)

    try:
        killed: list[str] = []
        epoch = 0
        for _ in range(PRIMARIES_KILLED):
            await until(lambda: primary()[1] > epoch, "nobody was elected")  # noqa: B023 - it is awaited here
            target = told() + BETWEEN_KILLS
            await until(lambda: told() >= target, "no notes")  # noqa: B023
            await asyncio.sleep(rng.random() * 0.05)  # in the midst of whatever it does
            name, epoch = primary()
            (doomed,) = [process for process in processes if process.name == name]
            sender = rng.choice([process for process in processes if process is not doomed])
            await doomed.kill()
            await sender.kill()
            killed.append(name)
            await asyncio.gather(doomed.start(), sender.start())
        for _ in range(PRIMARIES_FROZEN):
            await until(lambda: primary()[1] > epoch, "nobody was elected")  # noqa: B023
            target = told() + BETWEEN_KILLS
            await until(lambda: told() >= target, "no notes")  # noqa: B023
            await asyncio.sleep(rng.random() * 0.05)
            name, epoch = primary()
            (frozen,) = [process for process in processes if process.name == name]
            frozen.freeze()
            await until(lambda: primary()[1] > epoch, "nobody was elected")  # noqa: B023
            target = told() + BETWEEN_KILLS
            await until(lambda: told() >= target, "no notes")  # noqa: B023
            frozen.thaw()  # and believes for a moment that it is still the primary
        await until(lambda: primary()[1] > epoch, "nobody was elected")
        target = told() + BETWEEN_KILLS
        await until(lambda: told() >= target, "no notes")
        await asyncio.gather(*(process.end_notes() for process in processes))
        # Who was killed has taken back what it left, and the others were told.
        await until_empty(inbox)
        codes = [await process.end() for process in processes]
        assert codes == [0] * NODES
        assert len(killed) == PRIMARIES_KILLED
        assert sum(process.forwarded for process in processes) > BETWEEN_KILLS, "hardly anything was forwarded"
        await assert_each_once(log, processes)
    finally:
        following.cancel()
        await inbox.close()
        await log.close()


async def assert_each_once(log: ZookeeperLog, processes: list[Process]) -> None:
    head, noted = EMPTY, []
    while batch := await log.read(head.position + 1, 1_000):
        for entry in map(unseal, batch):
            check_follows(entry, head)
            head = entry.head
            for event in map(decode_event, entry.record.events):
                if isinstance(event, e.VmTagAdded):
                    node, _, number = event.tag.partition(":")
                    assert (entry.record.origin, entry.record.actor.principal) == (node, f"node/{node}")
                    noted.append((node, int(number)))
    assert len(noted) == len(set(noted)), "a note is in the log twice"
    lost = {(process.name, number) for process in processes for number in process.told} - set(noted)
    assert not lost, "a note that its node was told of is not in the log"


async def until(holds: Callable[[], bool], otherwise: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"{otherwise} within {PATIENCE_S} s")


async def until_empty(inbox: ZookeeperInbox) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await inbox.keys():
            await asyncio.sleep(0.1)
