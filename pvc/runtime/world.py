"""The World: this process's fold of the log, always one consistent state, and those who wait for it to move.

Records come in through `apply`, from the follower or from this process's own appends, whichever is first; a record that
was folded already is passed over. Listeners are called synchronously after each record and must not block.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import time
from collections.abc import Callable, Iterator

from pvc.errors import LogDamaged, PvcError, Unavailable
from pvc.events.record import Entry, unseal
from pvc.events.registry import Event, refuse_newer_level
from pvc.log.base import Log
from pvc.projections.fold import fold, fold_trusted
from pvc.projections.state import ClusterState
from pvc.runtime.telemetry import FenceAnswer

logger = logging.getLogger(__name__)

Listener = Callable[[Entry, tuple[Event, ...]], None]

REPLAY_BATCH = 1_000
"""Records read at a time while catching up."""


class FoldDefect(PvcError):
    """The fold fails on a record that it should understand; it stops there, as at one that it does not."""

    status = 503


class World:
    """The present state, and a way to wait for a position. Lives in one event loop."""

    def __init__(self, state: ClusterState | None = None, *, behind: bool = False) -> None:
        self.state = state or ClusterState()
        self._caught_up = asyncio.Event()
        if not behind:
            self._caught_up.set()
        self.fault: PvcError | None = None
        """Why the fold stopped, if it did; reads go on from the last good state, writes do not."""
        self.fences: dict[str, FenceAnswer] = {}
        """Node -> what its fence agent answered this one: learnt here, not folded, and told with the node's figures."""
        self._listeners: list[Listener] = []
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._waiter_count = 0
        self._gone = 0

    @property
    def position(self) -> int:
        """The last position folded."""
        return self.state.position

    def apply(self, entry: Entry, *, trusted: bool = False) -> None:
        """Fold one record, unless it is folded already. Raises LogDamaged, NewerLevel, UnknownEvent or what a defect of
        the fold comes to, and then stays stopped."""
        state = self.state
        if entry.record.position <= state.head.position:
            return
        if self.fault is not None:
            raise self.fault
        try:
            refuse_newer_level(entry.record)
            events = fold_trusted(state, entry) if trusted else fold(state, entry)
        except PvcError as fault:
            self.fault = fault
            raise
        except Exception as error:
            # Were it to end the node, it would do so again at each start; so writes stop, and VMs go on.
            logger.exception("fold: defect position=%d", entry.position)
            self.fault = FoldDefect(
                f"this version of PVC cannot fold record {entry.position}: {error!r}",
                code="fold.defect",
                hint="update PVC on this node",
            )
            raise self.fault from error
        for listener in self._listeners:
            listener(entry, events)
        if self._waiters:
            self._wake()

    @contextlib.contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Call `listener` after each record, within the block."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def note_caught_up(self) -> None:
        """The fold has reached what was in the log when the process started, or as far as it can go."""
        self._caught_up.set()

    @property
    def caught_up(self) -> bool:
        """Whether what is folded is news, and no longer what was in the log when the process started."""
        return self._caught_up.is_set()

    async def until_caught_up(self, timeout_s: float) -> None:
        """Wait until the state may be shown at all. Raises Unavailable after `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._caught_up.wait()
        if not self._caught_up.is_set():
            raise Unavailable(
                f"this node has just started and has folded the log only up to {self.state.position}",
                code="node.starting",
                hint="try again in a moment; if that does not help, see whether the log can be reached",
            )

    async def reach(self, position: int, timeout_s: float) -> None:
        """Return when the fold is at `position` or past it. Raises Unavailable after `timeout_s`."""
        if self.state.position >= position:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiter_count += 1
        heapq.heappush(self._waiters, (position, self._waiter_count, future))
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            raise Unavailable(
                f"this node has folded the log up to {self.state.position}, not yet to {position}",
                code="log.behind",
                hint="try again in a moment, or ask another node",
            ) from None
        finally:
            if future.cancelled():
                self._forget_gone()

    def _forget_gone(self) -> None:
        """Drop those who gave up once they are the larger part: a position that never comes must not keep them."""
        self._gone += 1
        if self._gone * 2 > len(self._waiters):
            self._waiters = [waiter for waiter in self._waiters if not waiter[2].done()]
            heapq.heapify(self._waiters)
            self._gone = 0

    def _wake(self) -> None:
        while self._waiters and self._waiters[0][0] <= self.state.position:
            _, _, future = heapq.heappop(self._waiters)
            if not future.done():
                future.set_result(None)


async def catch_up(world: World, log: Log) -> None:
    """Fold everything that is in the log now. Raises Unavailable, LogDamaged or UnknownEvent."""
    target, first, began = (await log.head()).position, world.position + 1, time.monotonic()
    while world.position < target:
        batch = await log.read(world.position + 1, REPLAY_BATCH)
        if not batch and world.position < target:
            # Somebody cut the log short; asking on would only keep the processor busy.
            raise LogDamaged(
                f"the log's head is at {target}, but there is no record {world.position + 1}",
                code="log.gap",
                hint="restore the log",
            )
        for data in batch:
            world.apply(unseal(data))
        # A long replay shares the loop with whoever else runs in this process.
        await asyncio.sleep(0)
    if target - first > REPLAY_BATCH:
        logger.info("fold: caught up first=%d last=%d seconds=%.2f", first, target, time.monotonic() - began)


async def follow(world: World, log: Log) -> None:
    """Fold whatever is appended, for ever. Returns only by LogDamaged, UnknownEvent or cancellation."""
    async for batch in log.follow(world.position):
        for data in batch:
            world.apply(unseal(data))
