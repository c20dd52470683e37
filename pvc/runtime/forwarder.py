"""The Forwarder: takes this node's reports into the log, by its own appender or, in a crowd, by way of the primary's.

In a crowd each append of one node makes all others decide and send anew, and most of what they send is refused. So a
report is laid into the inbox instead, where nobody is in anybody's way. It has got into the log when the fold meets a
record with its id. If it has left the inbox and there is no such record, or if nobody takes it, this node appends it by
itself under the same id: whatever became of it, it is recorded once. docs/decisions/0017-forwarded-facts.md tells why.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from pvc import __version__
from pvc.clock import Clock, Rng, new_ulid
from pvc.commands.base import Decision
from pvc.commands.facts import FORWARDABLE
from pvc.errors import OutcomeUnknown, PvcError, Unavailable
from pvc.events.cluster import PrimaryElected
from pvc.events.record import Entry
from pvc.events.registry import Event
from pvc.log.inbox import MAX_PUT, MAX_REPORT_BYTES, Forwarded, Inbox, encode
from pvc.projections.state import NodeState
from pvc.runtime.appender import Appender, Outcome, Request
from pvc.runtime.world import World
from pvc.runtime.writers import CROWD, Writers

logger = logging.getLogger(__name__)

MAX_OUTSTANDING = 64
"""Reports of one node in the inbox: twice as many as it works on VMs at once. It bounds the inbox too."""

PATIENCE_S = 3.0
"""When nothing of ours was taken for so long, it is taken back. A primary at work takes it within milliseconds."""

MAX_PATIENCE_S = 12.0
"""And what has lain for so long is taken back even if others were taken."""

DISTRUST_S = 10.0
"""For so long after that nothing is forwarded, unless another primary is elected first: a session's time-out."""

LOOK_S = 0.2
"""Between two looks at what became of the reports whose records have not come."""


class _Sent(msgspec.Struct, kw_only=True, eq=False):
    report: Forwarded
    future: asyncio.Future[Outcome | None]
    """What became of it; None: it is not in the inbox, and no longer on its way there."""
    laid_in_s: float | None = None
    seen_gone: bool = False


class Forwarder:
    """The way of one node's reports. Until `run` is running they go straight to the appender."""

    def __init__(
        self, node: str, world: World, appender: Appender, inbox: Inbox, clock: Clock, rng: Rng, *, crowd: int = CROWD
    ) -> None:
        self._node = node
        self._world = world
        self._appender = appender
        self._inbox = inbox
        self._clock = clock
        self._rng = rng
        self._writers = Writers(crowd)
        self._queue: list[_Sent] = []
        self._queued = asyncio.Event()
        self._laid_in = asyncio.Event()
        self._outstanding: dict[str, _Sent] = {}
        """Command id -> what is in the inbox, or may be."""
        self._taken_s = float("-inf")
        """When the last record came that was waited for."""
        self._distrust_until_s = float("-inf")
        self._running = False

    async def submit(self, request: Request) -> Outcome:
        """Have the report decided and committed. Raises what `Appender.submit` does."""
        report = self._to_forward(request)
        if report is None:
            return await self._appender.submit(request)
        future: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        sent = _Sent(report=report, future=future)
        self._outstanding[report.id] = sent
        self._queue.append(sent)
        self._queued.set()
        outcome = await future
        if outcome is not None:
            return outcome
        return await self._appender.submit(msgspec.structs.replace(request, command_id=report.id))

    async def clear(self) -> None:
        """Take back what an earlier life of this node left in the inbox. Before anything is done: what is still true is
        found out anew, and what is not must not be recorded after this life has begun to act."""
        left = [key for key in await self._inbox.keys() if key.rpartition("-")[0] == self._node]
        if left:
            await self._inbox.remove(left)
            logger.info("forwarder: taken back what an earlier life left reports=%d", len(left))

    async def run(self) -> None:
        """Lay reports in and look after them until cancelled."""
        self._running = True
        try:
            with self._world.listening(self._note):
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._keep_sending())
                    group.create_task(self._keep_looking())
        finally:
            self._running = False
            for sent in self._outstanding.values():
                _fail(sent, OutcomeUnknown("the node stopped while its report was on its way into the log"))
            self._outstanding, self._queue = {}, []

    def _to_forward(self, request: Request) -> Forwarded | None:
        """What to lay into the inbox, where that is the way; None where the node appends by itself."""
        now_s, state = self._clock.monotonic(), self._world.state
        if not self._running or request.name not in FORWARDABLE or not self._writers.crowded(now_s):
            return None
        primary = state.nodes.get(state.cluster.primary) if state.cluster is not None else None
        if primary is None or primary.name == self._node or primary.state is not NodeState.READY:
            return None
        if self._world.fault is not None:
            return None  # which the appender tells
        # Another version may know less of a report than this one has to say, or not know the inbox at all.
        if primary.version != __version__ or now_s < self._distrust_until_s:
            return None
        if len(self._outstanding) >= MAX_OUTSTANDING:
            return None
        try:
            report = Forwarded(
                id=request.command_id or new_ulid(self._clock, self._rng),
                node=self._node,
                name=request.name,
                report=msgspec.Raw(msgspec.json.encode(request.command)),
                actor=request.actor,
                cause=request.cause,
                seen=state.position,
            )
            return report if len(encode(report)) <= MAX_REPORT_BYTES else None
        except (msgspec.MsgspecError, UnicodeError):
            return None  # the appender tells what is wrong with it

    def _note(self, entry: Entry, events: tuple[Event, ...]) -> None:
        """A record was folded: perhaps one that is waited for."""
        record = entry.record
        self._writers.note(record.origin, self._clock.monotonic())
        if any(isinstance(event, PrimaryElected) for event in events):
            self._distrust_until_s = float("-inf")
        sent = self._outstanding.pop(record.command.id, None)
        if sent is not None:
            self._taken_s = self._clock.monotonic()
            _settle(sent, Outcome(entry=entry, decision=Decision(events=events), position=record.position))

    async def _keep_sending(self) -> None:
        while True:
            await self._queued.wait()
            self._queued.clear()
            while self._queue:
                batch, self._queue = self._queue[:MAX_PUT], self._queue[MAX_PUT:]
                for sent in batch:
                    if sent.future.done():  # nobody waits for it any more
                        self._outstanding.pop(sent.report.id, None)
                wanted = [sent for sent in batch if not sent.future.done()]
                if wanted:
                    await self._send(wanted)

    async def _send(self, batch: list[_Sent]) -> None:
        try:
            await self._inbox.put([sent.report for sent in batch])
        except Unavailable as error:
            logger.warning("forwarder: cannot lay reports in error=%s", error)
            self._give_back(batch)  # nothing was laid in
        except Exception as error:  # noqa: BLE001 - whatever it was, the reports may be in the inbox
            logger.warning("forwarder: not known whether reports were laid in error=%r", error)
        # What came to the log meanwhile is no longer outstanding.
        for sent in batch:
            sent.laid_in_s = self._clock.monotonic()
        self._laid_in.set()

    async def _keep_looking(self) -> None:
        while True:
            await self._laid_in.wait()
            await asyncio.sleep(LOOK_S)
            laid_in = [sent for sent in self._outstanding.values() if sent.laid_in_s is not None]
            if not laid_in:
                self._laid_in.clear()
                continue
            try:
                await self._look(laid_in)
            except Exception as error:  # noqa: BLE001 - they stay outstanding and are looked at again
                logger.warning("forwarder: cannot look after reports error=%r", error)
                unknown = error if isinstance(error, OutcomeUnknown) else OutcomeUnknown(str(error))
                for sent in laid_in:
                    _fail(sent, unknown)

    async def _look(self, laid_in: list[_Sent]) -> None:
        now_s, oldest_s = self._clock.monotonic(), min(sent.laid_in_s or 0.0 for sent in laid_in)
        if now_s - max(oldest_s, self._taken_s) > PATIENCE_S or now_s - oldest_s > MAX_PATIENCE_S:
            # Who lets one lie lets the others lie too.
            logger.warning("forwarder: nobody takes the reports, appending them here reports=%d", len(laid_in))
            self._distrust_until_s = now_s + DISTRUST_S
            await self._inbox.remove([sent.report.key for sent in laid_in])
            self._give_back(laid_in)
            return
        left = await self._inbox.left([sent.report.key for sent in laid_in])
        for sent, there in zip(laid_in, left, strict=True):
            if there:
                continue
            if sent.seen_gone:
                self._give_back([sent])
            sent.seen_gone = True  # the record may be on its way to this node's fold; it has until the next look

    def _give_back(self, batch: list[_Sent]) -> None:
        """They are not in the inbox: who waits for them appends them here, unless their records have come by now."""
        for sent in batch:
            self._outstanding.pop(sent.report.id, None)
            _settle(sent, None)


def _settle(sent: _Sent, outcome: Outcome | None) -> None:
    if not sent.future.done():
        sent.future.set_result(outcome)


def _fail(sent: _Sent, error: PvcError) -> None:
    if not sent.future.done():
        sent.future.set_exception(error)
