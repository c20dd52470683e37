"""The history (newest first, in pages) and the events (oldest first, by long poll): two readings of one index."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.responses import Response

from pvc.commands.base import near_names
from pvc.errors import InvalidInput, NotFound
from pvc.gateway.endpoint import Call, Endpoint, arguments_of, json_response
from pvc.gateway.moments import INDEX_DEADLINE_S, At, find_moment
from pvc.gateway.records import RecordView, decode_record, record_view
from pvc.gateway.services import GatewayServices
from pvc.gateway.times import parse_time_us
from pvc.log.history import Found, HistoryQuery
from pvc.projections.state import ClusterState

MAX_RECORDS = 1_000
"""Records of a page at most: some 500 kB."""

MAX_WAIT_S = 60
"""How long a poll may wait: under the time after which proxies give up on a silent connection."""

MIN_PAUSE_S = 0.05
"""Between looks of one poll while others' records pour in: each poll costs at most twenty searches a second."""

_SUBJECT = re.compile(r"(vm|node|access|webhook)/[^/\x00-\x20\x7f]{1,80}|cluster")

Subject = Annotated[
    str,
    Meta(
        max_length=100,
        description="`vm/<name or id>`, `node/<name>`, `access/<token id>`, `webhook/<id>` or `cluster`. "
        "A VM's name covers every VM that ever had it.",
        examples=["vm/web01"],
    ),
]
Types = Annotated[
    tuple[str, ...],
    Meta(max_length=50, description="Event types, `vm.*` for all that begin with `vm.`.", examples=[["vm.started"]]),
]
Correlation = Annotated[str, Meta(max_length=64, description="Id of any record of a chain of causes: the whole chain.")]
Limit = Annotated[int, Meta(ge=1, le=MAX_RECORDS, description="Records at most.")]
Time = Annotated[str, Meta(max_length=40, description="ISO 8601, or how long ago: 30m, 2h, 1d.", examples=["2h"])]
Position = Annotated[int, Meta(ge=0, le=1 << 62, description="A position of the log, itself not included.")]


class HistoryArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which records are shown: those that match everything given."""

    subject: Subject = ""
    actor: Annotated[
        str,
        Meta(
            max_length=200, description="The principal: a name, or the pseudonym of who is erased.", examples=["admin"]
        ),
    ] = ""
    type: Types = ()
    since: Time = ""
    until: Time = ""
    correlation: Correlation = ""
    before: Position | None = None
    after: Position | None = None
    limit: Limit = 50
    at: At = ""


class EventArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which records are waited for."""

    after: Position = 0
    types: Types = ()
    subject: Subject = ""
    correlation: Correlation = ""
    wait_s: Annotated[int, Meta(ge=0, le=MAX_WAIT_S, description="Seconds to wait for the first one.")] = 25
    limit: Limit = 100


class HistoryPage(msgspec.Struct, frozen=True, kw_only=True):
    """Records, newest first."""

    position: int
    records: list[RecordView]
    next_before: Annotated[int | None, Meta(description="Give it as `before` for the next page; null: that was all.")]
    subjects: Annotated[
        list[str],
        Meta(description="What `subject` stands for: the events of a record that are about others bear others."),
    ]


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """Records, oldest first."""

    position: int
    records: list[RecordView]
    next_after: Annotated[int, Meta(description="Everything up to here was considered: give it as `after`.")]


async def _history(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, HistoryArguments)
    check_subject(arguments.subject)
    now_us = services.clock.wall_us()
    moment = await find_moment(services, arguments.at) if arguments.at else None
    before = arguments.before
    if moment is not None:
        before = moment.position + 1 if before is None else min(before, moment.position + 1)
    query = HistoryQuery(
        subject=arguments.subject,
        actors=await services.people.actors(arguments.actor, services.history.actors) if arguments.actor else (),
        types=arguments.type,
        since_us=parse_time_us("since", arguments.since, now_us) if arguments.since else None,
        until_us=parse_time_us("until", arguments.until, now_us) if arguments.until else None,
        correlation=arguments.correlation,
        before=before,
        after=arguments.after,
        limit=arguments.limit + 1,
    )
    position = services.world.position if moment is None else moment.position
    await services.history.reach(position, INDEX_DEADLINE_S)
    found = await services.history.query(query)
    subjects = await services.history.subjects(arguments.subject) if arguments.subject else ()
    if not found and arguments.subject and not subjects:
        _require_known(services.world.state, arguments.subject)
    records = [record_view(one) for one in found[: arguments.limit]]
    following = records[-1].position if len(found) > arguments.limit else None
    page = HistoryPage(position=position, records=records, next_before=following, subjects=list(subjects))
    return json_response(page, position, moment.headers if moment else None)


async def _events(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, EventArguments)
    check_subject(arguments.subject)
    await services.history.reach(services.world.position, INDEX_DEADLINE_S)
    found, considered = await _wait_for(services, arguments)
    page = EventPage(
        # Not `considered`: who asks for what comes after a position that is not there yet must not believe it is.
        position=max(services.history.position, services.world.position),
        records=[record_view(one) for one in found],
        next_after=considered,
    )
    return json_response(page, page.position)


async def _wait_for(services: GatewayServices, arguments: EventArguments) -> tuple[list[Found], int]:
    """The first records that match, as soon as there are any, and the position up to which everything was seen."""
    clock, index = services.clock, services.history
    give_up = clock.monotonic() + arguments.wait_s
    after, in_vain = arguments.after, False
    while True:
        seen = max(index.position, after)
        if seen > after:
            found = await index.query(_next_events(arguments, after, seen))
            if found:
                full = len(found) == arguments.limit
                return found, decode_record(found[-1].data).position if full else seen
        left_s = give_up - clock.monotonic()
        if left_s <= 0 or services.stopping.is_set():
            return [], seen
        if in_vain:
            await asyncio.sleep(min(MIN_PAUSE_S, left_s))
        after, in_vain = seen, True
        await _until_moved(services, after + 1, max(give_up - clock.monotonic(), 0))


async def _until_moved(services: GatewayServices, position: int, timeout_s: float) -> None:
    """Until the index has this position, the time is over, or the daemon stops."""
    waiting = [asyncio.create_task(services.history.reach(position, timeout_s))]
    waiting.append(asyncio.create_task(_seen(services.stopping)))
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _seen(event: asyncio.Event) -> None:
    await event.wait()


def _next_events(arguments: EventArguments, after: int, seen: int) -> HistoryQuery:
    return HistoryQuery(
        subject=arguments.subject,
        types=arguments.types,
        correlation=arguments.correlation,
        after=after,
        before=seen + 1,
        limit=arguments.limit,
        ascending=True,
    )


def check_subject(subject: str) -> None:
    """Raise InvalidInput unless the text can be a subject."""
    if subject and not _SUBJECT.fullmatch(subject):
        raise InvalidInput(
            f"`subject` cannot be {subject[:80]!r}",
            hint="write vm/<name>, node/<name>, access/<token id>, webhook/<id> or cluster",
            field="subject",
        )


def _require_known(state: ClusterState, subject: str) -> None:
    """Say that there never was such a thing, rather than that nothing happened to it."""
    kind, _, name = subject.partition("/")
    names: dict[str, Mapping[str, object]] = {"vm": state.vm_names, "node": state.nodes, "access": state.tokens}
    names["webhook"] = state.webhooks
    known = names.get(kind, {})
    if kind == "cluster" or name in known:
        return
    near = near_names(name, known)
    hint = f"did you mean {' or '.join(near)}?" if near else "see `pvc vm list` and `pvc node list`"
    shown = {"vm": "a VM", "node": "a node", "access": "a token", "webhook": "a webhook"}[kind]
    raise NotFound(f"there never was {shown} {name!r}", code=f"{kind}.not_found", hint=hint, field="subject")


HISTORY = (
    Endpoint(
        name="history.list",
        method="GET",
        path="/history",
        handle=_history,
        summary="Who did what, newest first.",
        help="Also the refused commands. A VM's history stays when the VM is renamed or removed. "
        "With `at` it ends there.",
        arguments=HistoryArguments,
        reply=HistoryPage,
    ),
    Endpoint(
        name="event.poll",
        method="GET",
        path="/events",
        handle=_events,
        summary="What happens, oldest first, as it happens.",
        help="Replies as soon as something matches, or with nothing when the wait is over. Asking again with "
        "`after` set to `next_after` leaves no gap and repeats nothing.",
        arguments=EventArguments,
        reply=EventPage,
    ),
)
