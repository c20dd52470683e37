"""The readers of the log that are here just now, and how new records are carried to them all.

A reader is a cursor. What it is far behind it reads from the history index, by its filter; what is new it finds in its
channel, the queue that all readers with the same filter share. The two meet without a seam: the cursor says what comes
next, and a channel is only read when it has everything from there on. So a queue may be short, and who is too slow for
it reads on from the index; memory does not grow with the slowest reader.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextvars import Context
from itertools import islice

from pvc.clock import Clock
from pvc.errors import Unavailable
from pvc.gateway.event_frames import Frame, Frames
from pvc.log.history import FoundEvents, HistoryIndex, HistoryQuery
from pvc.log.history_keys import EventFilter, RecordKeys, matches
from pvc.runtime.people import People

logger = logging.getLogger(__name__)

MAX_STREAMS = 4_000
"""Streams of one gateway: each costs some 30 KB of memory and a file. The next client is sent to another gateway."""

MAX_STREAMS_EACH = 2_000
"""Of one principal, with the polls that wait: whose client has gone astray leaves half to the others."""

MAX_QUEUED = 1_000
"""Records that a channel keeps, twenty seconds at fifty a second; who is further behind reads the index."""

MAX_QUEUED_BYTES = 1024 * 1024

MAX_BATCH = 200
"""Records that a reader takes at once: some 2 ms of the index's time."""

MAX_BATCH_BYTES = 128 * 1024
"""Of stored records, written to a socket at once; what one slow reader keeps in memory."""

TICK_S = 1.0
"""Between looks at all readers: who is due a sign of life, whose client takes nothing, who may read no more."""

WOKEN_AT_ONCE = 50
"""Readers: some 2 ms of work."""


class Channel:
    """The newest records that match one filter, for all its readers."""

    def __init__(self, hub: EventHub, wanted: EventFilter, position: int) -> None:
        self._hub = hub
        self.wanted = wanted
        self.complete_after = position
        """Every match after this position that was seen so far is queued."""
        self.readers: dict[Reader, None] = {}
        """In the order of their coming."""
        self.joined: tuple[tuple[object, ...], bytes] = ((), b"")
        """What was last written for several readers at once, and what it was made of."""
        self._queue: list[Frame] = []
        self._bytes = 0

    def add(self, frame: Frame) -> None:
        """A record that matches; wakes the readers."""
        self._queue.append(frame)
        self._bytes += frame.size
        if len(self._queue) > MAX_QUEUED or self._bytes > MAX_QUEUED_BYTES:
            # Half at once, so that a busy queue is not moved up with each record.
            gone = self._queue[: len(self._queue) // 2 + 1]
            del self._queue[: len(gone)]
            self._bytes -= sum(frame.size for frame in gone)
            self.complete_after = gone[-1].position
        self._hub.wake(self.readers)

    def forget_read(self) -> None:
        """Let go of what all readers have: many channels of rare things must not fill the memory with old ones."""
        if not self._queue or not self.readers:
            return
        count = bisect.bisect_right(self._queue, min(reader.cursor for reader in self.readers), key=_position)
        if count:
            self.complete_after = self._queue[count - 1].position
            self._bytes -= sum(frame.size for frame in self._queue[:count])
            del self._queue[:count]
            self.joined = ((), b"")

    def begin_anew(self, position: int) -> None:
        """Let all readers find out from the index what there was up to here."""
        self._queue.clear()
        self._bytes = 0
        self.complete_after = position
        self._hub.wake(self.readers)

    def after(self, position: int) -> list[Frame]:
        """The next matches, as many as a reader takes at once."""
        first = bisect.bisect_right(self._queue, position, key=_position)
        return _as_many_as_fit(self._queue[first : first + MAX_BATCH])

    @property
    def newest(self) -> int:
        """The position of the newest match that is queued, or of what is before it."""
        return self._queue[-1].position if self._queue else self.complete_after


class Reader:
    """One who reads the log: everything that matches after `cursor`, once, in order."""

    def __init__(self, hub: EventHub, channel: Channel, after: int) -> None:
        self.cursor = after
        """Everything up to here was given out or does not match."""
        self.channel = channel
        self.wake_at = float("inf")
        """When to be woken though nothing has come, on the clock's monotonic time."""
        self.look: Callable[[float], None] | None = None
        """Called at each tick, with the time."""
        self._hub = hub
        self._sleeping: asyncio.Future[None] | None = None

    async def take(self) -> list[Frame]:
        """The next records, without waiting for any; none: all that there is was given out. Raises Unavailable."""
        while True:
            if self.cursor >= self.channel.complete_after:
                frames = self.channel.after(self.cursor)
                done = not frames or frames[-1].position == self.channel.newest
                # Nothing else up to the hub's position matches; there is no await between the two.
                self.cursor = max(self.cursor, self._hub.position) if done else frames[-1].position
                return frames
            seen = self._hub.indexed
            if seen <= self.cursor:
                return []  # the index is being built anew
            frames, self.cursor = await self._hub.look_up(self.channel.wanted, self.cursor, seen)
            if frames:
                return frames

    async def sleep(self) -> None:
        """Until there may be more, or it is time. It may wake for nothing."""
        if self._hub.stopping or self._may_have_more():
            return
        self._sleeping = asyncio.get_running_loop().create_future()
        try:
            await self._sleeping
        finally:
            self._sleeping = None

    def wake(self) -> None:
        """Let it look again."""
        if self._sleeping is not None and not self._sleeping.done():
            self._sleeping.set_result(None)

    def _may_have_more(self) -> bool:
        if self.cursor >= self.channel.complete_after:
            return self.channel.newest > self.cursor
        return self._hub.indexed > self.cursor


class EventHub:
    """All readers of one gateway. Works only while there are any. Lives in one event loop."""

    def __init__(
        self, history: HistoryIndex, people: People, clock: Clock, stopping: asyncio.Event, *, tick_s: float = TICK_S
    ) -> None:
        self.frames = Frames()
        self._history = history
        self._people = people
        self._clock = clock
        self._stopping = stopping
        self._tick_s = tick_s
        self._channels: dict[EventFilter, Channel] = {}
        self._streams = 0
        self._of_each: Counter[str] = Counter()
        """Principal -> streams and polls."""
        self.position = 0
        """The last position that was carried to the channels."""
        self._task: asyncio.Task[None] | None = None
        self._listening = contextlib.ExitStack()
        self._due: dict[Reader, None] = {}
        """Readers that are to be woken, in turn."""
        self._waking = False

    @property
    def indexed(self) -> int:
        """The last position that can be looked up."""
        return self._history.position

    @property
    def stopping(self) -> bool:
        """Whether the daemon is about to end."""
        return self._stopping.is_set()

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return self._streams

    @contextlib.asynccontextmanager
    async def streaming(self, whose: str) -> AsyncIterator[None]:
        """The place of one stream, within the block. Raises Unavailable (`event.too_many_streams`)."""
        self.require_room()
        with self.waiting(whose):
            self._streams += 1
            try:
                yield
            finally:
                self._streams -= 1

    @contextlib.contextmanager
    def waiting(self, whose: str) -> Iterator[None]:
        """One who waits for events, within the block. Raises Unavailable (`event.too_many_streams`)."""
        self.require_room_for(whose)
        self._of_each[whose] += 1
        try:
            yield
        finally:
            self._of_each[whose] -= 1
            if not self._of_each[whose]:
                del self._of_each[whose]

    def require_room_for(self, whose: str) -> None:
        """Raise Unavailable where somebody has as many streams and polls as they may."""
        if self._of_each[whose] >= MAX_STREAMS_EACH:
            raise Unavailable(
                f"you have {MAX_STREAMS_EACH:,} event streams open at this gateway already",
                code="event.too_many_streams",
                hint="end those that nobody reads, or follow the events at another node's gateway",
            )

    def require_room(self) -> None:
        """Raise Unavailable where there are as many streams as there may be."""
        if self._streams >= MAX_STREAMS:
            raise Unavailable(
                f"this gateway has {MAX_STREAMS:,} event streams open already",
                code="event.too_many_streams",
                hint="follow the events at another node's gateway",
            )

    @contextlib.asynccontextmanager
    async def reading(self, wanted: EventFilter, after: int) -> AsyncIterator[Reader]:
        """A reader of what matches after a position, within the block."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="event hub", context=Context())
            # From this very position on: what is indexed next is told, and nothing is waited for in between.
            self.position = self._history.position
            self._listening.enter_context(self._history.listening(self._carry))
        channel = self._channels.get(wanted)
        if channel is None:
            channel = self._channels[wanted] = Channel(self, wanted, self.position)
        reader = Reader(self, channel, after)
        channel.readers[reader] = None
        try:
            yield reader
        finally:
            del channel.readers[reader]
            self._due.pop(reader, None)
            if not channel.readers and self._channels.get(wanted) is channel:
                del self._channels[wanted]
            if not self._channels:
                await self._rest()

    async def look_up(self, wanted: EventFilter, after: int, seen: int) -> tuple[list[Frame], int]:
        """The next matches from the index, and the position up to which that is all. Raises Unavailable."""
        actors: Sequence[str] = ()
        if wanted.actor:
            actors = await self._people.actors(wanted.actor, self._history.actors)
        query = HistoryQuery(
            subject=wanted.subject,
            by_then=True,
            tag=wanted.tag,
            actors=tuple(actors),
            types=wanted.types,
            correlation=wanted.correlation,
            after=after,
            before=seen + 1,
            limit=MAX_BATCH,
            ascending=True,
        )
        found = await self._history.events(query)
        frames = _as_many_as_fit(self.frames.of(found))
        whole = len(frames) == len(found) < MAX_BATCH
        return frames, seen if whole else frames[-1].position

    def wake(self, readers: Iterable[Reader]) -> None:
        """Let them look again, some at a time: in between the loop does what else there is to do, such as to fetch the
        next records, for which all of them are woken but once."""
        self._due |= dict.fromkeys(readers)
        if self._due and not self._waking:
            self._waking = True
            asyncio.get_running_loop().call_soon(self._wake_some)

    def _wake_some(self) -> None:
        for reader in list(islice(self._due, WOKEN_AT_ONCE)):
            del self._due[reader]
            reader.wake()
        self._waking = bool(self._due)
        if self._waking:
            asyncio.get_running_loop().call_soon(self._wake_some)

    async def _run(self) -> None:
        """Look after the readers until cancelled."""
        stopping = asyncio.create_task(self._tell_of_the_end(), name="event hub end")
        try:
            await self._tick()
        finally:
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)

    async def _rest(self) -> None:
        task, self._task = self._task, None
        self._listening.close()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _carry(self, found: Sequence[FoundEvents], reached: int) -> None:
        """Give each record to the channels that want it."""
        try:
            for one in found:
                if one.keys.position == self.position + 1:
                    self._carry_one(one)
        except Exception:
            # A defect here must neither stop the index nor leave the readers without a word.
            logger.exception("events: not carried position=%d", self.position)
        if reached > self.position:
            # Something is missing between; the index has it.
            self.position = reached
            for channel in self._channels.values():
                channel.begin_anew(reached)

    def _carry_one(self, one: FoundEvents) -> None:
        names: frozenset[str] | None = frozenset()
        if any(wanted.actor for wanted in self._channels):
            names = self._people.names_of(one.keys.actor)
        frame: Frame | None = None
        for wanted, channel in self._channels.items():
            if names is None and wanted.actor:
                channel.begin_anew(one.keys.position)  # who looks it up can have the name fetched
            elif _is_wanted(wanted, one.keys, names or frozenset()):
                frame = frame or self.frames.of([one])[0]
                channel.add(frame)
        # Last, so that what fails before is found to be missing.
        self.position = one.keys.position

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            now = self._clock.monotonic()
            due = []
            for channel in self._channels.values():
                channel.forget_read()
                for reader in channel.readers:
                    if reader.look is not None:
                        reader.look(now)
                    if now >= reader.wake_at:
                        due.append(reader)
            self.wake(due)

    async def _tell_of_the_end(self) -> None:
        await self._stopping.wait()
        for channel in self._channels.values():
            self.wake(channel.readers)


def _is_wanted(wanted: EventFilter, keys: RecordKeys, names: frozenset[str]) -> bool:
    return (not wanted.actor or wanted.actor in names) and matches(wanted, keys)


def _as_many_as_fit(frames: list[Frame]) -> list[Frame]:
    """The first of them that are not too large together; one at least."""
    total = 0
    for count, frame in enumerate(frames):
        total += frame.size
        if count and total > MAX_BATCH_BYTES:
            return frames[:count]
    return frames


def _position(frame: Frame) -> int:
    return frame.position
