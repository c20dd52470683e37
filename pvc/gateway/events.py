"""The events: the log, oldest first, from any position of the past on, without an end; a stream or a long poll."""

from __future__ import annotations

import re
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from pvc.commands.access_rights import Rights
from pvc.commands.access_table import Action
from pvc.commands.seen_subjects import sees_subject
from pvc.errors import InvalidInput, NotFound
from pvc.gateway.endpoint import Call, Endpoint, HeaderArgument, arguments_of, json_response
from pvc.gateway.event_frames import Form, seen_of
from pvc.gateway.event_hub import Reader
from pvc.gateway.event_sight import sight_of
from pvc.gateway.event_stream import Bookmark, EventStream, Pace, StreamEnd
from pvc.gateway.history import SUBJECT_PATTERN, ActorName, Correlation, TagName, Types, check_subject, check_types
from pvc.gateway.lists import FieldNames
from pvc.gateway.moments import INDEX_DEADLINE_S
from pvc.gateway.records import RECORDS, RecordView
from pvc.gateway.services import GatewayServices
from pvc.log.history_keys import EventFilter

MAX_WAIT_S = 60
"""How long a poll may wait: under the time after which proxies give up on a silent connection."""

MAX_RECORDS = 1_000
"""Records of a page at most: some 500 kB."""

MAX_LOOKED_AT = 4_000
"""Records that one poll looks at, some 150 ms: one who may see few of them gets a short page, or an empty one, and goes
on from its end, rather than hold up the index for others."""

LAST_EVENT_ID = "Last-Event-ID"

PACE = Pace()


class EventArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which records are wanted: those with an event that matches everything given."""

    after: Annotated[
        int,
        Meta(
            ge=0,
            le=1 << 62,
            description="The position after which to begin; 0 is the very beginning. That of any reply is what is "
            "known now.",
            examples=[1042],
        ),
    ] = 0
    types: Types = ()
    subject: Annotated[
        str,
        Meta(
            max_length=100,
            description="`vm/<name or id>`, `node/<name>`, `access/<token id>`, `webhook/<id>` or `cluster`. A VM's "
            "name covers every VM from the record on that gave it the name, whatever it is called later.",
            examples=["vm/web01"],
            extra_json_schema={"pattern": SUBJECT_PATTERN},
        ),
    ] = ""
    actor: ActorName = ""
    tag: TagName = ""
    correlation: Correlation = ""
    wait_s: Annotated[int, Meta(ge=0, le=MAX_WAIT_S, description="Long poll: seconds to wait for the first one.")] = 25
    limit: Annotated[int, Meta(ge=1, le=MAX_RECORDS, description="Long poll: records at most.")] = 100
    fields: FieldNames = ()


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """Records, oldest first."""

    position: int
    records: list[RecordView]
    next_after: Annotated[int, Meta(description="Everything up to here was considered: give it as `after`.")]


async def _events(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, EventArguments)
    check_subject(arguments.subject)
    await check_types(services, arguments.types, "types")
    RECORDS.check_fields(arguments.fields)
    form = form_of(call.request.headers.get("accept", ""))
    after = _last_event_id(call.request)
    if after is None:
        after = arguments.after
    if form is None:
        await services.history.reach(services.world.position, INDEX_DEADLINE_S)
        after = await _past_hidden(services, call.rights, arguments.subject, after)
        return await _poll(services, call, await _wanted(services, arguments), after, arguments)
    services.events.require_room()
    services.events.require_room_for(call.principal.asker.shown)
    # Who was told of a position, be it elsewhere, must not be told here that there is nothing after an earlier one.
    await services.history.reach(max(after, services.world.position), INDEX_DEADLINE_S)
    after = await _past_hidden(services, call.rights, arguments.subject, after)
    return EventStream(
        services, call.principal, await _wanted(services, arguments), after, form, PACE, arguments.fields
    )


async def _past_hidden(services: GatewayServices, rights: Rights, subject: str, after: int) -> int:
    """Where to begin: at the end, where nothing that the subject has stood for so far may be seen. To look through it
    all the same would take as long, and as many pages, as there is of it, and so tell that there is something."""
    if rights.everything or not subject:
        return after
    indexed = services.history.position
    subjects = await services.history.subjects(subject)
    state = services.world.state
    return after if any(sees_subject(state, rights, one) for one in subjects) else max(after, indexed)


async def _wanted(services: GatewayServices, arguments: EventArguments) -> EventFilter:
    correlation = arguments.correlation and await services.history.correlation(arguments.correlation)
    if arguments.correlation and not correlation:
        # Of which chain it will be nobody knows; to wait for it would be to miss what came before.
        raise NotFound(
            f"there is no record {arguments.correlation!r}",
            code="event.no_such_record",
            hint="give the id of a record that the history shows; with `min_position` where it is quite new",
            field="correlation",
        )
    return EventFilter(
        types=arguments.types,
        subject=arguments.subject,
        actor=arguments.actor,
        tag=arguments.tag,
        correlation=correlation,
    )


async def _poll(
    services: GatewayServices, call: Call, wanted: EventFilter, after: int, arguments: EventArguments
) -> Response:
    with services.events.waiting(call.principal.asker.shown):
        async with services.events.reading(wanted, after) as reader:
            return await _page(services, call, after, arguments, reader)


async def _page(
    services: GatewayServices, call: Call, after: int, arguments: EventArguments, reader: Reader
) -> Response:
    records: list[msgspec.Raw] = []
    reader.wake_at = services.clock.monotonic() + arguments.wait_s
    considered, looked_at = after, 0
    while len(records) < arguments.limit and looked_at < MAX_LOOKED_AT:
        frames = await reader.take()
        sees = sight_of(call.principal, services.world.state, services.clock.wall_us())
        considered = reader.cursor
        if frames:
            left = arguments.limit - len(records)
            looked_at += len(frames)
            # Cut only now: the reader has all of these behind it, also what would come after hidden ones.
            frames = seen_of(frames, sees, reader.channel.wanted)
            if len(frames) > left:
                frames = frames[:left]
                considered = frames[-1].position
            records += [msgspec.Raw(frame.sealed) for frame in frames]
        elif records or not await _more(services, reader):
            break
    page = EventPage(
        # Not `considered`: who asks for what comes after a position that is not there yet must not believe it is.
        position=max(services.history.position, services.world.position),
        # Encoded already, once for all; the type is that of what a reader finds there.
        records=RECORDS.cut(cast("list[RecordView]", records), arguments.fields),
        next_after=considered,
    )
    return json_response(page, page.position)


async def _more(services: GatewayServices, reader: Reader) -> bool:
    """Wait for more; False when the time is over, or the daemon stops."""
    if services.stopping.is_set() or services.clock.monotonic() >= reader.wake_at:
        return False
    await reader.sleep()
    return True


def form_of(accept: str) -> Form | None:
    """The form of a stream that an Accept header asks for before anything else; None: a page of JSON."""
    best: tuple[float, Form | None] = (0.0, None)
    for part in accept.split(","):
        name, *parameters = (text.strip().lower() for text in part.split(";"))
        quality = next((_quality(text) for text in parameters if text.startswith("q=")), 1.0)
        if name in _FORMS and quality > best[0]:
            best = quality, _FORMS[name]
    return best[1]


def _quality(parameter: str) -> float:
    text = parameter.removeprefix("q=")
    return float(text) if re.fullmatch(r"[01](\.[0-9]{0,3})?", text) else 0.0


def _last_event_id(request: Request) -> int | None:
    """Where a stream that broke off is gone on with: what the reader has counts, not what it first asked for."""
    text = request.headers.get(LAST_EVENT_ID, "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidInput(
            f"`{LAST_EVENT_ID}` cannot be {text[:40]!r}",
            hint="it is the id of the last event received, a position of the log; or leave it out",
            field=LAST_EVENT_ID,
        )
    return int(text)


_FORMS: dict[str, Form | None] = {
    "text/event-stream": Form.SSE,
    "application/x-ndjson": Form.NDJSON,
    "application/ndjson": Form.NDJSON,
    "application/jsonl": Form.NDJSON,
    "application/json": None,
    "*/*": None,
}

_RECORD: dict[str, Any] = {
    "position": 1043,
    "id": "01JJXW6S00VTW2Z7Q4C9RTAH3N",
    "time": "2025-01-31T12:00:00.000Z",
    "time_us": 1_738_324_800_000_000,
    "actor": {"principal": "admin", "method": "token", "address": "192.0.2.7", "source": "cli/0.1.0"},
    "origin": "hv1",
    "command": {"id": "9f2c61d0", "name": "vm.start"},
    "cause": "",
    "correlation": "01JJXW6S00VTW2Z7Q4C9RTAH3N",
    "level": 1,
    "events": [
        {
            "type": "vm.start_requested",
            "subject": "vm/4d7f0c52",
            "summary": "start requested on hv1",
            "data": {"vm": "4d7f0c52", "node": "hv1", "epoch": 3},
        }
    ],
}
_LINE = msgspec.json.encode(_RECORD).decode()
_SSE_EXAMPLE = f"""\
retry: 1000

id: 1043
data: {_LINE}

id: 1043
event: bookmark
data: {{"position":1043,"bookmark":true}}

:

"""

EVENTS = (
    Endpoint(
        name="event.stream",
        action=Action.HISTORY_READ,
        method="GET",
        path="/events",
        handle=_events,
        summary="The log, oldest first, from a position on, as it grows.",
        help="""\
By `Accept`: `text/event-stream` (SSE) and `application/x-ndjson` (a JSON document a line) do not end;
`application/json` is a long poll, which replies as soon as something matches, or with nothing when the wait is over.
Whoever may see few of many records may get an empty page before: `next_after` is where to go on, as ever.

Each record comes once, in the order of the log, from any position of the past on; the id of an SSE event is the
record's position. To resume, send the last id as `Last-Event-ID` (browsers do so by themselves), or as `after` the
`next_after` of the page before. What matches depends on the log alone: a reader that resumes, here or at another
gateway, misses nothing and sees nothing twice.

Every 15 s there is a sign of life (a comment, or an empty line). A `bookmark` tells the position up to which all was
looked through: when the past has been told, and every 30 s while nothing matches. `end` is the last word of a stream
that the gateway ends: with the problem's status 503 come back at once. A client that takes nothing for 30 s is cut.""",
        arguments=EventArguments,
        listing=RECORDS,
        headers=(
            HeaderArgument(
                name=LAST_EVENT_ID,
                description="The id of the last event received; counts before `after`.",
                schema={"type": "string", "pattern": "^([0-9]{1,18})?$", "examples": ["1042"]},
            ),
        ),
        reply=EventPage,
        reply_example={"position": 1043, "records": [_RECORD], "next_after": 1043},
        streams={
            Form.SSE.value: ((), _SSE_EXAMPLE),
            Form.NDJSON.value: ((RecordView, Bookmark, StreamEnd), _LINE + '\n{"position":1043,"bookmark":true}\n'),
        },
    ),
)
