"""The reply that does not end: records as they come, by SSE or as lines of JSON, with signs of life in between.

What may be shown is asked anew before each write. Where the client takes nothing for too long the line is cut: it
resumes by the id of the last record that it has, and has lost nothing. A bookmark says how far all was looked through,
so that who waits for something rare does not begin at the same place again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pvc.errors import PvcError, Unavailable
from pvc.events.sealed import shortened
from pvc.gateway.auth import Principal
from pvc.gateway.event_frames import Form, Frame, seen_of, write_note
from pvc.gateway.event_hub import EventHub, Reader
from pvc.gateway.event_sight import Sees, sight_of
from pvc.gateway.problems import Problem, problem_of
from pvc.gateway.services import GatewayServices
from pvc.log.history_keys import EventFilter

logger = logging.getLogger("pvc.gateway.access")

HEARTBEAT_S = 15.0
"""Between signs of life: well below the 60 s after which proxies take a silent connection for dead."""

BOOKMARK_S = 30.0
"""Between bookmarks while nothing matches."""

STUCK_S = 30.0
"""How long one write may take. 128 KB in that time are 4 KB/s: who reads slower than that keeps up with nothing."""

RETRY_MS = 1_000
"""How soon a browser shall come back."""

HANG_UP = "pvc.hang_up"
"""The key in the ASGI scope of a function that drops the connection without waiting for the client to take the rest."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often a stream says something, and how long it waits for a client that does not read."""

    heartbeat_s: float = HEARTBEAT_S
    bookmark_s: float = BOOKMARK_S
    stuck_s: float = STUCK_S


class Bookmark(msgspec.Struct, frozen=True, kw_only=True):
    """Everything up to here was looked through."""

    position: Annotated[int, Meta(description="Give it as `after` to go on from here.")]
    bookmark: Literal[True] = True


class StreamEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The last word of a stream that the gateway ends."""

    position: Annotated[int, Meta(description="Give it as `after` to go on from here.")]
    end: Annotated[Problem, Meta(description="Why. With status 503, come back at once, or to another gateway.")]


class EventStream(Response):
    """The stream for one caller, from a position on."""

    def __init__(
        self,
        services: GatewayServices,
        principal: Principal,
        wanted: EventFilter,
        after: int,
        form: Form,
        pace: Pace,
        fields: Sequence[str] = (),
    ) -> None:
        super().__init__(
            headers={
                "Cache-Control": "no-store",
                "PVC-Position": str(services.world.position),
                "X-Accel-Buffering": "no",
                "X-Content-Type-Options": "nosniff",
            },
            media_type=form.value,
        )
        del self.headers["content-length"]
        self._services = services
        self._principal = principal
        self._wanted = wanted
        self._after = after
        self._form = form
        self._pace = pace
        self._fields = fields

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client goes, is cut or may read no more, or the daemon stops."""
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        if scope["method"] == "HEAD":
            await send(start)
            await send({"type": "http.response.body"})
            return
        hub = self._services.events
        async with hub.streaming(self._principal.asker.shown), hub.reading(self._wanted, self._after) as reader:
            await send(start)
            line = _Line(reader, send, self._pace, hang_up=scope.get(HANG_UP))
            going = asyncio.create_task(line.until_gone(receive), name="event stream client")
            try:
                why = await self._tell(hub, reader, line)
            finally:
                going.cancel()
                await asyncio.gather(going, return_exceptions=True)
        actor = self._principal.actor
        logger.info(
            "events: stream ended principal=%s address=%s from=%d to=%d reason=%s",
            shortened(actor.principal),
            actor.address or "-",
            self._after,
            reader.cursor,
            why,
        )

    async def _tell(self, hub: EventHub, reader: Reader, line: _Line) -> str:
        """Send all there is to send; returns why it ended."""
        writer = _Writer(self._services, self._principal, reader, self._form, self._pace, self._fields)
        reader.look = lambda now: line.look(now, writer)
        await line.write(writer.greeting())
        end: PvcError | None = None
        while end is None and not line.gone:
            try:
                frames = await reader.take()
                data = await writer.next(frames)
            except PvcError as error:
                end = error
                continue
            if data:
                await line.write(data)
            elif hub.stopping:
                end = _stopping()
            elif not line.gone:
                await reader.sleep()
        if end is None:
            return line.why
        await line.write(writer.farewell(end))
        await line.close()
        return end.code


class _Line:
    """The way to one client."""

    def __init__(self, reader: Reader, send: Send, pace: Pace, *, hang_up: object) -> None:
        self.gone = False
        self.why = "client"
        self._reader = reader
        self._send = send
        self._pace = pace
        self._hang_up = hang_up
        self._task = asyncio.current_task()
        self._writing_since: float | None = None

    async def write(self, data: bytes) -> None:
        """Hand some bytes on; returns when there is room for more, or the client is gone."""
        if self.gone or not data:
            return
        self._writing_since = -1.0
        try:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
        except OSError:
            self.gone = True  # some servers say so, others are silent
        finally:
            self._writing_since = None

    async def close(self) -> None:
        """End the reply as it should be."""
        if not self.gone:
            with contextlib.suppress(OSError):
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def until_gone(self, receive: Receive) -> None:
        """Wait for the client to hang up."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._reader.wake()

    def look(self, now: float, writer: _Writer) -> None:
        """Cut a client that takes nothing; wake one who may read no more."""
        if self._writing_since is None:
            if writer.is_forbidden():
                self._reader.wake()
        elif self._writing_since < 0:
            self._writing_since = now  # the first look at this write; it is timed from here
        elif now - self._writing_since >= self._pace.stuck_s:
            self._cut()

    def _cut(self) -> None:
        self.gone, self.why = True, "slow"
        if callable(self._hang_up):
            self._hang_up()
        if self._task is not None and not callable(self._hang_up):
            self._task.cancel()  # a server that cannot drop a connection: at least nothing more is made for it


class _Writer:
    """What is sent next to one client."""

    def __init__(
        self,
        services: GatewayServices,
        principal: Principal,
        reader: Reader,
        form: Form,
        pace: Pace,
        fields: Sequence[str],
    ) -> None:
        self._services = services
        self._principal = principal
        self._reader = reader
        self._form = form
        self._pace = pace
        self._fields = fields
        self._told = reader.cursor
        """The last position that the client was told, from which it goes on."""
        self._live = False
        now = services.clock.monotonic()
        self._spoken_at = now
        self._bookmarked_at = now
        self._looked_at = services.world.position

    def greeting(self) -> bytes:
        """Before anything else: so that also a browser knows at once that it is heard."""
        return b"retry: %d\n\n" % RETRY_MS if self._form is Form.SSE else b""

    def farewell(self, error: PvcError) -> bytes:
        """The last word."""
        end = StreamEnd(position=self._told, end=problem_of(error, self._services.world.position))
        return write_note(self._form, "end", end, self._told)

    def is_forbidden(self) -> bool:
        """Whether the caller has lost the right to read at all. Looks only where the state has moved."""
        position = self._services.world.position
        if position == self._looked_at:
            return False
        try:
            self._sight()
        except PvcError:
            return True
        self._looked_at = position
        return False

    def _sight(self) -> Sees:
        """What may be seen now. Raises Unauthenticated, Forbidden."""
        return sight_of(self._principal, self._services.world.state, self._services.clock.wall_us())

    async def next(self, frames: list[Frame]) -> bytes:
        """These records as far as they may be seen, or a sign of life where it is time for one; else nothing.

        Raises Unauthenticated or Forbidden where the caller may read no more.
        """
        people, now, caught_up = self._services.people, self._services.clock.monotonic(), not frames
        while True:
            seen = seen_of(frames, self._sight(), self._reader.channel.wanted)
            if all(frame.is_open(people) for frame in seen):
                break
            for frame in seen:
                await frame.open(people)
        # From the last look on to the write nothing is waited for: what is shown is what may be shown now.
        frames = seen
        data = self._joined(frames) if frames else self._sign_of_life(now, caught_up)
        if data:
            self._spoken_at = now
        if frames:
            self._told = frames[-1].position
            self._bookmarked_at = now
        self._reader.wake_at = min(
            self._spoken_at + self._pace.heartbeat_s, self._bookmarked_at + self._pace.bookmark_s
        )
        return data

    def _joined(self, frames: list[Frame]) -> bytes:
        """The records in one piece; readers of one channel that are told the same are told the same bytes."""
        if self._fields:
            return b"".join(frame.written(self._form, self._fields) for frame in frames)
        if len(frames) == 1:
            return frames[0].written(self._form)
        made_of = (self._form, self._services.people.generation, *frames)
        channel = self._reader.channel
        if len(channel.readers) == 1:
            return b"".join(frame.written(self._form) for frame in frames)
        if channel.joined[0] != made_of:
            channel.joined = made_of, b"".join(frame.written(self._form) for frame in frames)
        return channel.joined[1]

    def _sign_of_life(self, now: float, caught_up: bool) -> bytes:
        if (caught_up and not self._live) or now - self._bookmarked_at >= self._pace.bookmark_s:
            # The first one says that all the past was told.
            self._live = self._live or caught_up
            self._bookmarked_at = now
            self._told = max(self._told, self._reader.cursor)
            return write_note(self._form, "bookmark", Bookmark(position=self._told), self._told)
        if now - self._spoken_at >= self._pace.heartbeat_s:
            return b": \n\n" if self._form is Form.SSE else b"\n"
        return b""


def _stopping() -> Unavailable:
    return Unavailable(
        "this gateway is stopping", code="event.gateway_stopping", hint="go on at another node's gateway, or soon here"
    )
