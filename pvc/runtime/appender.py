"""The Appender: the only way into the log. One task per process takes what is queued, decides it, and appends it.

Group commit: all that waits is decided one after the other against a fork of the state, each seeing what the ones
before it did, and written as one append; a single command is decided against the state itself. On a conflict the
records that came between are folded and everything is decided again, after a random growing pause (full jitter). How
long the pause has to be is remembered from one append to the next, and what comes meanwhile goes along: when all nodes
write at once, few large appends pass where many small ones would only be in each other's way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

import msgspec

from pvc.clock import Clock, Rng, new_ulid
from pvc.commands.base import Context, Decision, Utilisation
from pvc.errors import Conflict, OutcomeUnknown, PvcError, Rejected, Unavailable, internal_error
from pvc.events.cluster import CommandRejected
from pvc.events.record import MAX_RECORD_BYTES, CommandRef, Entry, Head, RawEvent, Record, seal, unseal
from pvc.events.registry import FIRST_LEVEL, Event, UnknownEvent, decode_event, encode_event, level_of
from pvc.log.base import MAX_BATCH_BYTES, MAX_BATCH_ENTRIES, Log
from pvc.log.inbox import Forwarded, Inbox, Overtaken, overtaken
from pvc.projections.fold import fold_trusted
from pvc.projections.state import ClusterState
from pvc.runtime.append_watch import AppendWatch
from pvc.runtime.request import Outcome, Request, Taken, key_reused
from pvc.runtime.world import World, catch_up

__all__ = ["Appender", "Outcome", "Request", "key_reused"]

logger = logging.getLogger(__name__)

MAX_QUEUE = 10_000
"""Requests waiting; past that the node says it is busy instead of growing without bound."""

MAX_ATTEMPTS = 30
"""Tries of one batch; with the pauses below about 20 s, after which the caller learns that the log is busy."""

PAUSE_S = 0.002
MAX_PAUSE_S = 1.0
MAX_CROWDING = 9
"""Where doubling the pause stops to matter."""
CROWDED_S = 2.0
"""So long after its last conflict a log is taken for quiet again: whoever then gives one command shall not wait."""

MAX_REFUSAL = 500
"""Characters of a refusal's reason that go into the log: it may quote what was given, at any length."""


class _Waiting(msgspec.Struct, kw_only=True):
    request: Request
    future: asyncio.Future[Outcome]


class _Batch:
    """Entries decided against one state, and what they answer."""

    def __init__(self, after: Head) -> None:
        self.after = after
        self.entries: list[Entry] = []
        self.answers: list[tuple[_Waiting, Outcome | PvcError]] = []
        self.taking: list[Forwarded] = []
        """The reports of the inbox that some of the entries came of."""
        self.size_bytes = 0

    @property
    def full(self) -> bool:
        return len(self.entries) >= MAX_BATCH_ENTRIES or self.size_bytes + MAX_RECORD_BYTES > MAX_BATCH_BYTES


class Appender:
    """Decides requests and appends their records. `run` must be running for `submit` to return."""

    def __init__(
        self,
        world: World,
        log: Log,
        *,
        origin: str,
        clock: Clock,
        rng: Rng,
        after_append: Callable[[], None] | None = None,
        usage: Callable[[], Mapping[str, Utilisation]] = dict,
        inbox: Inbox | None = None,
        watch: AppendWatch | None = None,
    ) -> None:
        self._world = world
        self._watch = watch or AppendWatch(clock)
        self._watch.meters.waiting = lambda: len(self._queue)
        self._log = log
        self.inbox = inbox
        """Where reports of other nodes come from; None where there is only one."""
        self._origin = origin
        self._clock = clock
        self._rng = rng
        self._after_append = after_append
        self._usage = usage
        self._queue: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._stopped = False
        self._fork: ClusterState | None = None
        self._crowding = 0
        """How many conflicts more than successes there were lately."""
        self._conflict_s = 0.0

    async def submit(self, request: Request) -> Outcome:
        """Decide and commit. Raises Rejected (nothing changed), Unavailable (nothing changed), OutcomeUnknown."""
        if self._stopped:
            raise _stopping()
        if len(self._queue) >= MAX_QUEUE:
            raise Unavailable("too many commands are waiting", code="log.queue_full", hint="try again in a moment")
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(request=self._identified(request), future=future))
        self._wake.set()
        return await future

    def try_out(self, request: Request) -> Decision:
        """Decide against the present state and change nothing. Raises what the real thing would."""
        context = self._context(self._identified(request))
        decision = request.decide(self._world.state, request.command, context)
        _level_for(self._world.state, decision)
        return decision

    async def run(self) -> None:
        """Serve the queue until cancelled; what is queued then, and what comes later, fails as unavailable."""
        self._stopped = False
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    await self._let_others()
                    await self._serve(self._take())
        finally:
            self._stopped = True
            for waiting in self._queue:
                _fail(waiting, _stopping())
            self._queue = []

    def _take(self) -> list[_Waiting]:
        taken, self._queue = self._queue, []
        return taken

    async def _let_others(self) -> None:
        """Pause for as long as the log is crowded; not at all when nobody else writes."""
        if self._clock.monotonic() - self._conflict_s > CROWDED_S:
            self._crowding = 0
        if self._crowding:
            await asyncio.sleep(self._rng.random() * min(PAUSE_S * 2**self._crowding, MAX_PAUSE_S))

    async def _serve(self, taken: list[_Waiting]) -> None:
        try:
            while taken:
                done = await self._commit_some(taken)
                taken = taken[done:]
        except PvcError as error:
            for waiting in taken:
                _fail(waiting, error)
        except asyncio.CancelledError:
            stopping = OutcomeUnknown("the node stopped while the command was on its way into the log")
            for waiting in taken:
                _fail(waiting, stopping)
            raise
        except Exception as error:
            # A defect in a backend must not end the appender for everybody who comes later.
            logger.exception("appender: unexpected error")
            for waiting in taken:
                _fail(waiting, internal_error(error))

    async def _commit_some(self, taken: list[_Waiting]) -> int:
        """Commit a first part of `taken`, and of what comes while it cannot be, as one append; returns how many were
        answered."""
        for _ in range(MAX_ATTEMPTS):
            if self._world.fault is not None:
                raise self._world.fault
            # Whoever was frozen meanwhile must not carry out what its caller gave up long ago.
            taken[:] = [waiting for waiting in taken if not waiting.future.done()]
            self._watch.deciding()
            batch = await self._decide_batch(taken)
            if not batch.entries:
                break
            try:
                await self._append(batch)
            except Conflict as error:
                await catch_up(self._world, self._log)
                if isinstance(error, Overtaken):
                    await self._let_go_of_overtaken(taken)
                    continue
                self._conflict_s, self._crowding = self._clock.monotonic(), min(self._crowding + 1, MAX_CROWDING)
                await self._let_others()
                taken += self._take()
                continue
            except OutcomeUnknown:
                if not await self._learn_outcome(batch.entries):
                    continue
            if self._after_append is not None:
                self._after_append()
            self._crowding = max(self._crowding - 1, 0)
            for entry in batch.entries:
                self._world.apply(entry, trusted=True)
            self._watch.committed((waiting.request, answer) for waiting, answer in batch.answers)
            break
        else:
            raise Unavailable(
                f"the log was too busy for {MAX_ATTEMPTS} tries", code="log.busy", hint="try again in a moment"
            )
        for waiting, answer in batch.answers:
            if isinstance(answer, PvcError):
                _fail(waiting, answer)
            elif not waiting.future.done():
                waiting.future.set_result(answer)
        return len(batch.answers)

    async def _append(self, batch: _Batch) -> None:
        with self._watch.appending(len(batch.entries)):
            if not batch.taking:
                await self._log.append(batch.entries, after=batch.after)
            else:
                assert self.inbox is not None, "reports come out of the inbox"
                await self.inbox.append(batch.entries, after=batch.after, taking=batch.taking)

    async def _let_go_of_overtaken(self, taken: list[_Waiting]) -> None:
        """Some report is no longer in the inbox: nobody waits here for it any more, so that the rest can go on."""
        assert self.inbox is not None, "reports come out of the inbox"
        from_inbox = [(waiting, at) for waiting in taken if (at := waiting.request.taken) is not None]
        left = await self.inbox.left([at.report.key for _, at in from_inbox])
        for (waiting, _), there in zip(from_inbox, left, strict=True):
            if not there:
                _fail(waiting, overtaken())

    async def _learn_outcome(self, entries: list[Entry]) -> bool:
        """After a deadline passed: whether the entries are in the log. Raises OutcomeUnknown if it cannot be told."""
        try:
            stored = await self._log.read(entries[0].position, 1)
        except PvcError:
            raise OutcomeUnknown(
                "the log did not answer, so it is not known whether the command was committed",
                hint="ask again with the same idempotency key: it will not be done twice",
            ) from None
        if stored and stored[0] == entries[0].data:
            return True
        if not stored:
            # The request may still be under way to the log; only a later record at this position would rule it out.
            raise OutcomeUnknown(
                "the log has not confirmed the command yet",
                hint="ask again with the same idempotency key: it will not be done twice",
            )
        await catch_up(self._world, self._log)
        return False

    async def _decide_batch(self, taken: list[_Waiting]) -> _Batch:
        batch = _Batch(self._world.state.head)
        state = self._state_for(len(taken))
        for waiting in taken:
            if batch.full:
                break
            answer = await self._decide_one(state, waiting.request, batch)
            batch.answers.append((waiting, answer))
        return batch

    def _state_for(self, requests: int) -> ClusterState:
        """What to decide so many requests against: the state itself for one, a fork to run ahead with for several.

        A fork is a copy of every dict, so the last one serves again if it is where the state is: equal heads, the hash
        of everything before included, are equal states. It is elsewhere after a conflict, or after others' records.
        """
        state = self._world.state
        if self._fork is None or self._fork.head != state.head:
            if requests == 1:
                return state
            self._fork = state.fork()
        return self._fork

    async def _decide_one(self, state: ClusterState, request: Request, batch: _Batch) -> Outcome | PvcError:
        earlier = state.recent.get(request.command_id)
        if earlier is not None:
            return await self._repeat(request, earlier, batch)
        if request.taken is not None and not self._may_take(state, request.taken):
            return _deposed(self._origin, request.taken)
        context = self._context(request)
        try:
            decision = request.decide(state, request.command, context)
            if not decision.events:
                return Outcome(entry=None, decision=decision, position=state.position)
            entry = self._entry(state, request, context, decision)
        except PvcError as refusal:
            if request.audit_refusal and isinstance(refusal, Rejected) and state.cluster is not None:
                self._note_refusal(state, request, context, refusal, batch)
            return refusal
        except Exception as error:
            # A defect in one command's code must not harm the others of its batch.
            logger.exception("appender: defect in a decision command=%s id=%s", request.name, request.command_id)
            return internal_error(error)
        self._add(state, entry, batch)
        if request.taken is not None:
            batch.taking.append(request.taken.report)
        return Outcome(entry=entry, decision=decision, position=entry.position)

    def _may_take(self, state: ClusterState, taken: Taken) -> bool:
        """The append is bound to the head that this is asked of, so a primary that was deposed commits nothing."""
        cluster = state.cluster
        return cluster is not None and (cluster.primary, cluster.primary_epoch) == (self._origin, taken.epoch)

    def _note_refusal(
        self, state: ClusterState, request: Request, context: Context, refusal: Rejected, batch: _Batch
    ) -> None:
        note = CommandRejected(code=refusal.code, message=refusal.message[:MAX_REFUSAL], vm=request.audit_vm)
        entry = self._entry(state, request, context, Decision(events=(note,)))
        self._add(state, entry, batch)

    def _add(self, state: ClusterState, entry: Entry, batch: _Batch) -> None:
        batch.entries.append(entry)
        batch.size_bytes += len(entry.data)
        if state is not self._world.state:
            fold_trusted(state, entry)

    def _entry(self, state: ClusterState, request: Request, context: Context, decision: Decision) -> Entry:
        return seal(
            Record(
                position=state.head.position + 1,
                prev=state.head.hash,
                id=new_ulid(self._clock, self._rng),
                time_us=context.time_us,
                actor=request.actor,
                origin=request.taken.report.node if request.taken is not None else self._origin,
                command=CommandRef(id=request.command_id, name=request.name, digest=request.digest),
                cause=request.cause,
                level=_level_for(state, decision),
                events=tuple(_readable(event) for event in decision.events),
            )
        )

    async def _repeat(self, request: Request, position: int, batch: _Batch) -> Outcome | PvcError:
        own = next((entry for entry in batch.entries if entry.position == position), None)
        entry = own or unseal((await self._log.read(position, 1))[0])
        refusal = key_reused(request, entry.record)
        if refusal is not None:
            return refusal
        return Outcome(entry=entry, decision=Decision(events=()), position=position, repeated=True)

    def _context(self, request: Request) -> Context:
        return Context(
            command_id=request.command_id, time_us=self._clock.wall_us(), actor=request.actor, usage=self._usage()
        )

    def _identified(self, request: Request) -> Request:
        if request.command_id:
            return request
        return msgspec.structs.replace(request, command_id=new_ulid(self._clock, self._rng))


def _level_for(state: ClusterState, decision: Decision) -> int:
    """The record's level: the cluster's. Raises Rejected where that is too low for what was decided."""
    level = state.cluster.level if state.cluster is not None else FIRST_LEVEL
    needed = max(map(level_of, decision.events), default=level)
    if needed > level:
        raise Rejected(
            f"this needs feature level {needed}, and the cluster is at {level}",
            code="cluster.level_too_low",
            hint="upgrade PVC on every node: `pvc cluster status` names those that do not know that level",
        )
    return level


def _readable(event: Event) -> RawEvent:
    """The event encoded. One that no fold could read would stop every node for good, so it is never written."""
    raw = encode_event(event)
    try:
        decode_event(raw)
    except UnknownEvent as error:
        raise ValueError(f"a command led to an event that cannot be read back: {error.message}") from error
    return raw


def _deposed(node: str, taken: Taken) -> Rejected:
    return Rejected(
        f"{node} is not the primary of epoch {taken.epoch} any more",
        code="cluster.stale_primary",
        hint="another coordinator has taken over; nothing needs to be done",
    )


def _stopping() -> Unavailable:
    return Unavailable("the node is stopping", code="node.stopping", hint="ask another node")


def _fail(waiting: _Waiting, error: PvcError) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(error)
