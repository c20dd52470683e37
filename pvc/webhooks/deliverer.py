"""Delivers to one endpoint: reads the log from its cursor on, posts what it wants, and moves the cursor.

Killed anywhere, nothing is lost: the cursor is moved only past what the receiver has, or what is parked in the log. It
is written about once a second, so what was delivered since may be sent once more; its ids say that it is the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from pvc.clock import Clock, Rng
from pvc.commands.access_rights import Rights
from pvc.commands.facts_webhook import (
    ReportWebhookDisabled,
    ReportWebhookParked,
    ReportWebhookVerified,
    WebhookReport,
)
from pvc.commands.webhook import owners_sight
from pvc.errors import PvcError, Unavailable
from pvc.events.cluster import LogRestored
from pvc.events.record import Record
from pvc.events.registry import decode_event
from pvc.log.history import FoundEvents, HistoryIndex, HistoryQuery
from pvc.meters import Meters
from pvc.projections.state import ClusterState
from pvc.projections.webhook_state import Webhook
from pvc.spans import Tracer
from pvc.webhooks import cursor as c
from pvc.webhooks.course import DELAYS_S, Answer, Course, Verdict, after
from pvc.webhooks.delivery_spans import tell_delivery
from pvc.webhooks.filter import sent
from pvc.webhooks.message import Item, body_of, message_id
from pvc.webhooks.sender import Sender
from pvc.webhooks.store import ABSENT, Taken, WebhookStore

logger = logging.getLogger(__name__)

SAVE_S = 1.0
"""Between two writings of a cursor that moves: ZooKeeper is not to pay for each event."""

IDLE_S = 60.0
"""The longest wait without a look: records wake it before."""

PAUSE_S = 2.0
"""After an error of our own side, such as an outage of ZooKeeper or of the replica."""

AHEAD = 32
"""Records read at once: 8 MB where all are as large as a record can be, some 20 KB as they are."""

LOOKS = 1_000
"""Records looked at for one request, some 20 ms: after these it is looked again at what the owner may see, and at who
the primary is, however rare the wanted events are."""

MAX_BODY_BYTES = 512 * 1024
"""Of records in one request; one alone may have more."""

INDEX_S = 5.0
"""How long to wait for the replica, which is some milliseconds behind."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What deliveries need."""

    node: str
    state: Callable[[], ClusterState]
    history: HistoryIndex
    store: WebhookStore
    sender: Sender
    report: Callable[[WebhookReport, str], Awaitable[object]]
    """Has a report recorded, with its cause."""
    clock: Clock
    rng: Rng
    delays_s: tuple[float, ...] = DELAYS_S
    meters: Meters = field(default_factory=Meters)
    tracer: Tracer | None = None


class Deliverer:
    """One endpoint's deliveries in one term; `run` until cancelled, removed, or until another one has taken over."""

    def __init__(self, hook_id: str, epoch: int, parts: Parts, may_go_on: Callable[[], bool]) -> None:
        self._id = hook_id
        self._epoch = epoch
        self._parts = parts
        self._may_go_on = may_go_on
        self._cursor: c.Cursor
        self._stored: c.Cursor | None = None
        self._version = ABSENT
        self._saved_s = float("-inf")
        self._posted_s = float("-inf")
        self._ahead: deque[FoundEvents] = deque()
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There is something new in the log."""
        self._woken.set()

    async def run(self) -> None:
        """Deliver. Raises PvcError where something of our own side does not work."""
        hook = self._hook()
        if hook is None:
            return
        try:
            await self._take(hook)
            while self._may_go_on() and (hook := self._hook()) is not None:
                self._woken.clear()
                self._cursor = c.take_up(self._cursor, hook)
                wait_s = await self._step(hook)
                await self._save()
                if wait_s:
                    await self._pause(wait_s)
        except Taken:
            logger.warning("webhook: another deliverer has taken over hook=%s epoch=%d", self._id, self._epoch)
        except asyncio.CancelledError:
            if self._version != ABSENT and self._may_go_on():
                with contextlib.suppress(PvcError, TimeoutError):
                    async with asyncio.timeout(SAVE_S):
                        await self._save(hurry=True)
            raise

    def _hook(self) -> Webhook | None:
        return self._parts.state().webhooks.get(self._id)

    async def _take(self, hook: Webhook) -> None:
        """Make the cursor this term's, before anything is sent; whoever had it cannot write it any more."""
        stored = await self._parts.store.read(self._id)
        self._cursor = c.new_cursor(hook)
        if stored is not None:
            try:
                self._cursor = c.decode(stored.data)
            except msgspec.MsgspecError:
                # What was delivered is not known any more: rather all of it again than a gap.
                logger.error("webhook: cursor damaged, beginning anew hook=%s after=%d", self._id, hook.after)
        if await self._is_of_another_log():
            to = await self._same_until(hook)
            logger.warning("webhook: the log was set back, going on from there hook=%s after=%d", self._id, to)
            self._cursor = c.set_back(self._cursor, to)
        elif self._cursor.epoch > self._epoch:
            raise Taken(f"the cursor of {self._id} is of a later term", hint="nothing needs to be done")
        self._cursor = replace(self._cursor, owner=self._parts.node, epoch=self._epoch)
        self._version = stored.version if stored is not None else ABSENT
        await self._save(hurry=True)

    async def _is_of_another_log(self) -> bool:
        """Whether the log has not the record that was done last, because it was set back or restored since."""
        tail, record = self._cursor.tail, self._cursor.record
        if tail > self._parts.state().position:
            return True
        return bool(record) and await self._record_id(tail) != record

    async def _same_until(self, hook: Webhook) -> int:
        """Up to where the log is what it was: as far as it was restored, or else nobody knows, and all comes again."""
        query = HistoryQuery(types=(LogRestored.TYPE,), limit=1)
        for found in await self._parts.history.query(query):
            for raw in _decode(found.data).events:
                event = decode_event(raw)
                if isinstance(event, LogRestored):
                    return event.position
        return hook.after

    async def _record_id(self, position: int) -> str:
        if position < 1:
            return ""
        await self._parts.history.reach(position, INDEX_S)
        data = await self._parts.history.data(position)
        return _decode(data).id if data is not None else ""

    async def _save(self, *, hurry: bool = False) -> None:
        now_s = self._parts.clock.monotonic()
        if self._cursor == self._stored or (not hurry and now_s - self._saved_s < SAVE_S):
            return
        if self._stored is None or self._stored.tail != self._cursor.tail:
            self._cursor = replace(self._cursor, record=await self._record_id(self._cursor.tail))
        cursor = self._cursor
        self._version = await self._parts.store.write(self._id, c.encode(cursor), self._version)
        self._stored, self._saved_s = cursor, now_s

    async def _pause(self, wait_s: float) -> None:
        if self._cursor != self._stored:
            wait_s = min(wait_s, SAVE_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._woken.wait()

    async def _step(self, hook: Webhook) -> float:
        """Do one thing; returns how long to wait, 0 where there is more to do at once."""
        if hook.paused or hook.disabled:
            return IDLE_S
        sight = owners_sight(self._parts.state(), hook.settings.owner)
        if sight.nothing:
            await self._disable(hook, "its owner may not read the history any more")
            return 0.0
        wait_us = self._cursor.course.not_before_us - self._parts.clock.wall_us()
        if wait_us > 0:
            return min(wait_us / 1e6, IDLE_S)
        if not hook.verified:
            return await self._ping(hook)
        wait_s = self._posted_s + 1 / hook.settings.rate - self._parts.clock.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
            return 0.0  # to look again: by now its owner may see less
        before = self._cursor
        items, end = await self._next(hook, sight)
        if not items:
            return IDLE_S if self._cursor == before else 0.0
        if not self._may_go_on():
            return 0.0
        self._posted_s = self._parts.clock.monotonic()
        cluster = self._cluster_id()
        body = body_of(cluster, items, batched=hook.settings.batch > 1)
        message = message_id(cluster, items)
        began_us = self._parts.clock.wall_us()
        answer = await self._parts.sender.send(hook, message, body)
        if self._parts.tracer is not None:
            ended_us = self._parts.clock.wall_us()
            tell_delivery(self._parts.tracer, self._parts.node, hook.id, items, answer, began_us, ended_us)
        course, verdict = self._after(hook, answer, alone=len(items) == 1)
        self._remember(hook, message, items, answer, verdict)
        if verdict is Verdict.DELIVERED:
            self._cursor = replace(
                c.advance(self._cursor, *end),
                course=course,
                delivered=self._cursor.delivered + len(items),
                delivered_us=self._parts.clock.wall_us(),
            )
            return 0.0
        logger.warning("webhook: failed name=%s id=%s why=%s", hook.name, message, answer.words)
        if verdict is Verdict.DISABLE:
            await self._disable(hook, _why(answer))
        elif verdict is Verdict.PARK:
            await self._park(hook, items[0], answer)
            first = items[0]
            done = first.index + 1
            ended = done >= len(first.record.events)
            self._cursor = c.advance(self._cursor, first.position + ended, 0 if ended else done)
            self._ahead.clear()
        self._cursor = replace(self._cursor, course=course)
        await self._save(hurry=True)
        return 0.0

    async def _ping(self, hook: Webhook) -> float:
        """Ask whether the receiver wants events; until it has proved that, it is sent nothing else."""
        answer, one = await self._parts.sender.ping(hook, self._cluster_id(), self._cursor.course.tries + 1)
        course, verdict = self._after(hook, answer, alone=True)
        if verdict is Verdict.PARK:
            verdict = Verdict.DISABLE
        self._cursor = c.tried(self._cursor, replace(one, outcome=verdict.value))
        if verdict is Verdict.DELIVERED:
            report = ReportWebhookVerified(
                primary=self._parts.node, epoch=self._epoch, hook=hook.id, url=hook.settings.url
            )
            await self._parts.report(report, hook.cause)
        elif verdict is Verdict.DISABLE:
            await self._disable(hook, _why(answer))
        self._cursor = replace(self._cursor, course=course)
        await self._save(hurry=True)
        return 0.0

    def _after(self, hook: Webhook, answer: Answer, *, alone: bool) -> tuple[Course, Verdict]:
        course, verdict = after(
            self._cursor.course,
            answer,
            tries=hook.settings.tries,
            alone=alone,
            now_us=self._parts.clock.wall_us(),
            random=self._parts.rng.random(),
            delays_s=self._parts.delays_s,
        )
        self._parts.meters.deliveries.add(verdict.value)
        self._parts.meters.delivery_seconds.observe(answer.latency_ms / 1000)
        return course, verdict

    async def _next(self, hook: Webhook, sight: Rights) -> tuple[list[Item], tuple[int, int]]:
        """The next events for the endpoint, and where the cursor is once it has them."""
        limit = min(hook.settings.batch, self._cursor.course.size)
        parked = {(one.position, one.index) for one in hook.parked}
        items: list[Item] = []
        size = 0
        at = 0
        end = (0, 0)
        for _ in range(LOOKS):
            if len(items) >= limit or size >= MAX_BODY_BYTES:
                break
            span = self._cursor.way[0]
            position, done = (at, 0) if items else (span.next, span.index)
            if span.until != c.ENDLESS and position > span.until:
                if items:
                    break
                self._cursor = c.advance(self._cursor, position, 0)
                continue
            found = await self._found(position)
            if found is None:
                break
            due = sent(hook.settings, found.keys, self._parts.state(), sight)
            indices = [i for i in due if i >= done and (position, i) not in parked]
            taken = indices[: limit - len(items)]
            record = _decode(found.found.data)
            items += [Item(record=record, index=i, chain=found.keys.correlation) for i in taken]
            size += sum(len(bytes(record.events[i].data)) for i in taken)
            whole = len(taken) == len(indices)
            end = (position + 1, 0) if whole else (position, taken[-1] + 1)
            if not items:
                self._cursor = c.advance(self._cursor, *end)
            elif not whole:
                break
            at = position + 1
        return items, end

    async def _found(self, position: int) -> FoundEvents | None:
        """One record; None where there is none yet."""
        while self._ahead and self._ahead[0].keys.position < position:
            self._ahead.popleft()
        if self._ahead and self._ahead[0].keys.position == position:
            return self._ahead[0]
        if position > self._parts.state().position:
            return None
        await self._parts.history.reach(position, INDEX_S)
        query = HistoryQuery(after=position - 1, ascending=True, limit=AHEAD)
        self._ahead = deque(await self._parts.history.events(query))
        if not self._ahead or self._ahead[0].keys.position != position:
            raise Unavailable(f"the replica has no record {position}", code="history.behind", hint="it is filled again")
        return self._ahead[0]

    async def _park(self, hook: Webhook, item: Item, answer: Answer) -> None:
        report = ReportWebhookParked(
            primary=self._parts.node,
            epoch=self._epoch,
            hook=hook.id,
            position=item.position,
            index=item.index,
            event=item.type,
            tries=min(hook.settings.tries, len(self._parts.delays_s)),
            reason=answer.words,
        )
        await self._parts.report(report, "")

    async def _disable(self, hook: Webhook, why: str) -> None:
        report = ReportWebhookDisabled(primary=self._parts.node, epoch=self._epoch, hook=hook.id, reason=why)
        await self._parts.report(report, "" if hook.verified else hook.cause)

    def _remember(self, hook: Webhook, message: str, items: Sequence[Item], answer: Answer, verdict: Verdict) -> None:
        one = c.Try(
            id=message,
            first=items[0].position,
            events=len(items),
            type=items[0].type,
            time_us=self._parts.clock.wall_us(),
            number=self._cursor.course.tries + 1,
            status=answer.status,
            latency_ms=answer.latency_ms,
            error=answer.error,
            # It may repeat what it was sent, and names that were opened must not be kept where no erasure comes.
            body="" if hook.settings.reveal_names else answer.body[:200],
            outcome=verdict.value,
        )
        self._cursor = c.tried(self._cursor, one)

    def _cluster_id(self) -> str:
        cluster = self._parts.state().cluster
        return cluster.id if cluster is not None else ""


def _why(answer: Answer) -> str:
    return "it answered 410: it does not want events any more" if answer.status == 410 else answer.words


_decode = msgspec.msgpack.Decoder(Record).decode
