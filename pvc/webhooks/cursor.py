"""A cursor: how far an endpoint has been delivered to, what is to be sent again, and how the last tries went. Pure."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from pvc.projections.webhook_state import Webhook
from pvc.webhooks.course import Course, resumed

RECENT = 20
"""Tries remembered, some 300 bytes each: a cursor is written about once a second while it moves."""

MAX_SPANS = 64
"""Replays that wait one behind the other."""

ENDLESS = 0
"""`until` of the last span of each way."""


class Span(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Records to go through."""

    next: int
    """Position of the first that is not done."""
    index: int = 0
    """How many of its events are."""
    until: int = ENDLESS
    """The last position; ENDLESS: as long as records come."""


class Try(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request that was made, for a reader."""

    id: str
    first: int
    """Position of its first event; 0 for a ping."""
    events: int
    type: str
    """Of its first event."""
    time_us: int
    number: int
    """Which try of that event it was."""
    status: int = 0
    latency_ms: int = 0
    error: str = ""
    body: str = ""
    outcome: str = "delivered"


class Cursor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far an endpoint is. Its owner is who wrote it last; nobody else may deliver."""

    hook: str
    owner: str = ""
    epoch: int = 0
    way: tuple[Span, ...]
    """What is to be gone through, in this order: replays, and at the end all that comes."""
    replay_at: int = 0
    """Position of the last request to replay that was taken up."""
    resumed_at: int = 0
    course: Course = Course()
    delivered: int = 0
    """Events, over all its life."""
    delivered_us: int = 0
    """When the last one was."""
    recent: tuple[Try, ...] = ()
    record: str = ""
    """Id of the record at `tail`: in a log that was set back since, there is another one, or none."""

    @property
    def tail(self) -> int:
        """The last position that is done, replays aside."""
        return self.way[-1].next - 1


def new_cursor(hook: Webhook) -> Cursor:
    """The cursor of an endpoint that was never delivered to."""
    return Cursor(hook=hook.id, way=(Span(next=hook.after + 1),), resumed_at=hook.resumed_at)


def set_back(cursor: Cursor, to: int) -> Cursor:
    """The cursor of a log that was set back, and is the same up to this position."""
    return replace(cursor, way=(Span(next=min(cursor.tail, to) + 1),), record="", replay_at=0, resumed_at=0)


def encode(cursor: Cursor) -> bytes:
    """As it is stored."""
    return msgspec.json.encode(cursor)


def decode(data: bytes) -> Cursor:
    """As it was stored. Raises msgspec.MsgspecError."""
    cursor = msgspec.json.decode(data, type=Cursor)
    if not cursor.way or cursor.way[-1].until != ENDLESS:
        raise msgspec.ValidationError("a way without an end to come")
    return cursor


def take_up(cursor: Cursor, hook: Webhook) -> Cursor:
    """The cursor with what admins have asked for since."""
    for replay in hook.replays:
        if replay.at > cursor.replay_at:
            *before, tail = cursor.way
            if replay.first <= tail.next <= replay.last:
                tail = replace(tail, index=0)  # the events of this record that are done are asked for again
            # What is still to come anyway need not be sent twice.
            last = min(replay.last, tail.next - 1)
            spans = (Span(next=replay.first, until=last),) if replay.first <= last else ()
            cursor = replace(cursor, replay_at=replay.at, way=(*_bounded([*before, *spans]), tail))
            if not before:  # what is under way is a try of something else now
                cursor = replace(cursor, course=resumed(cursor.course))
    if hook.resumed_at > cursor.resumed_at:
        cursor = replace(cursor, resumed_at=hook.resumed_at, course=resumed(cursor.course))
    return cursor


def _bounded(spans: list[Span]) -> list[Span]:
    """No more spans than a cursor should hold: of an endpoint that is paused for long, one that covers them all."""
    if len(spans) <= MAX_SPANS:
        return spans
    return [Span(next=min(span.next for span in spans), until=max(span.until for span in spans))]


def advance(cursor: Cursor, position: int, index: int) -> Cursor:
    """Everything before event `index` of the record at `position` is done, in the present span."""
    span, *rest = cursor.way
    if span.until != ENDLESS and position > span.until:
        return replace(cursor, way=tuple(rest))
    return replace(cursor, way=(replace(span, next=position, index=index), *rest))


def tried(cursor: Cursor, one: Try) -> Cursor:
    """The cursor that remembers a try as the newest."""
    return replace(cursor, recent=(*cursor.recent, one)[-RECENT:])
