"""The simulated cluster with an inbox, and every report forwarded that may be: what must hold of it holds as before."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

import pytest

from pvc.errors import OutcomeUnknown, Unavailable
from pvc.events.record import Entry, Head
from pvc.log.inbox import Forwarded, Found
from pvc.log.inbox_memory import MemoryInbox
from pvc.log.memory import MemoryLog
from pvc.node import reports
from pvc.node.node import Services
from pvc.runtime.forwarder import Forwarder
from pvc.sim import cluster_machine
from pvc.sim.cluster import ClusterSimulation
from pvc.sim.cluster_ports import SILENCE_S, LogView
from pvc.sim.cluster_process import at

T = TypeVar("T")

SEEDS = int(os.environ.get("PVC_FORWARDING_CLUSTER_SEEDS", "16"))
BLOCKS = 16

many_seeds = pytest.mark.many_seeds
"""What runs in these tests runs in the first block as well."""


class CountingInbox(MemoryInbox):
    """Counts what is laid in."""

    count = 0

    async def put(self, given: Sequence[Forwarded]) -> None:
        await super().put(given)
        self.count += len(given)


class InboxView:
    """The cluster's inbox as one life of a node reaches it: by the way of its log, with the same faults."""

    def __init__(self, inbox: MemoryInbox, log: LogView) -> None:
        self._inbox = inbox
        self._log = log

    async def put(self, given: Sequence[Forwarded]) -> None:
        await self._change(lambda: self._inbox.put(given))

    async def remove(self, keys: Sequence[str]) -> None:
        await self._change(lambda: self._inbox.remove(keys))

    async def append(self, entries: Sequence[Entry], *, after: Head, taking: Sequence[Forwarded]) -> Head:
        return await self._change(lambda: self._inbox.append(entries, after=after, taking=taking))

    async def left(self, keys: Sequence[str]) -> list[bool]:
        await self._log._way()
        return await self._inbox.left(keys)

    async def keys(self) -> list[str]:
        await self._log._way()
        return await self._inbox.keys()

    async def waiting(self) -> list[Found]:
        await self._log._way()
        return await self._inbox.waiting()

    async def changed(self, timeout_s: float) -> None:
        await self._inbox.changed(timeout_s)

    async def close(self) -> None:
        """The inbox beneath goes on."""

    async def _change(self, act: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(SILENCE_S):
                return await at(None, self._go(act), "inbox")
        except TimeoutError:
            raise OutcomeUnknown("no reply") from None

    async def _go(self, act: Callable[[], Awaitable[T]]) -> T:
        """As `LogView._append` does it."""
        rng, link = self._log._rng, self._log._link
        await asyncio.sleep(0.001 + 0.004 * rng.random())
        fault = rng.choice(("refused", "lost", "late", "unheard")) if rng.random() < link.faults else ""
        if fault == "refused":
            raise Unavailable("the log does not answer")
        if fault == "late":
            await asyncio.sleep(rng.random() * 2 * SILENCE_S)
        if fault == "lost" or not link.reachable():
            await asyncio.sleep(2 * SILENCE_S)
            raise Unavailable("nobody waits for it any more")
        done = await act()
        self._log._struck("inbox")
        if fault == "unheard" or not link.reachable():
            await asyncio.sleep(2 * SILENCE_S)
        return done


@pytest.fixture(autouse=True)
def inboxes(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[MemoryLog, CountingInbox]]:
    """Every node gets an inbox, and finds that there is a crowd."""
    made: dict[MemoryLog, CountingInbox] = {}

    def with_inbox(**fields: Any) -> Services:
        log: LogView = fields["log"]
        fields["appender"].inbox = InboxView(made.setdefault(log._log, CountingInbox(log._log)), log)
        return Services(**fields)

    monkeypatch.setattr(cluster_machine, "Services", with_inbox)
    monkeypatch.setattr(reports, "Forwarder", functools.partial(Forwarder, crowd=0))
    logging.disable(logging.ERROR)
    yield made
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("block", [0, *(pytest.param(block, marks=many_seeds) for block in range(1, BLOCKS))])
def test_whatever_fails_no_vm_runs_twice_and_nothing_is_left_in_the_inbox(
    block: int, inboxes: dict[MemoryLog, CountingInbox]
) -> None:
    laid_in = 0
    per_block = max(1, SEEDS // BLOCKS)
    for seed in range(block * per_block, (block + 1) * per_block):
        inboxes.clear()
        try:
            ClusterSimulation(seed).run()
        except AssertionError as error:
            pytest.fail(f"seed {seed}: {error}")
        (inbox,) = inboxes.values()
        assert inbox._reports == {}, f"seed {seed}"
        laid_in += inbox.count
    assert laid_in > per_block, "hardly anything was forwarded"
