"""The history: who did what, newest first, in pages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.responses import Response

from pvc.commands.access_table import Action
from pvc.commands.base import near_names
from pvc.commands.event_types import check_type, is_known
from pvc.commands.seen_subjects import sees_subject
from pvc.errors import InvalidInput, NotFound
from pvc.gateway.endpoint import Call, Endpoint, arguments_of, json_response
from pvc.gateway.moments import INDEX_DEADLINE_S, At, find_moment
from pvc.gateway.record_lists import NextAfter, NextBefore, RecordListArguments, record_page
from pvc.gateway.records import RECORDS, RecordView
from pvc.gateway.services import GatewayServices
from pvc.gateway.times import TIME_PATTERN, parse_time_us
from pvc.log.history import HistoryQuery
from pvc.projections.state import ClusterState

SUBJECT_PATTERN = "^((vm|node|access|webhook)/[^/\\x00-\\x20\\x7f]{1,80}|cluster)?$"
"""What manuals tell of subjects."""

_SUBJECT = re.compile(r"(vm|node|access|webhook)/[^/\x00-\x20\x7f]{1,80}|cluster")

Subject = Annotated[
    str,
    Meta(
        max_length=100,
        description="`vm/<name or id>`, `node/<name>`, `access/<id of a token or principal>`, `webhook/<id>` or "
        "`cluster`. "
        "A VM's name covers every VM that ever had it.",
        examples=["vm/web01"],
        extra_json_schema={"pattern": SUBJECT_PATTERN},
    ),
]
SomeSubject = Annotated[
    str,
    Meta(
        max_length=100,
        description="`vm/<name or id>`, `node/<name>`, `access/<id or name>`, `webhook/<id>` or `cluster`.",
        examples=["vm/web01"],
        extra_json_schema={"pattern": SUBJECT_PATTERN.replace(")?$", ")$")},
    ),
]
Types = Annotated[
    tuple[Annotated[str, Meta(extra_json_schema={"pattern": r"^(\*|[a-z]+\.(\*|[a-z_]+))$"})], ...],
    Meta(max_length=50, description="Event types, `vm.*` for all that begin with `vm.`.", examples=[["vm.started"]]),
]
Correlation = Annotated[str, Meta(max_length=64, description="Id of any record of a chain of causes: the whole chain.")]
Time = Annotated[
    str,
    Meta(
        max_length=40,
        description="ISO 8601, or how long ago: 30m, 2h, 1d.",
        examples=["2h"],
        extra_json_schema={"pattern": f"^({TIME_PATTERN})?$"},
    ),
]
ActorName = Annotated[
    str,
    Meta(max_length=200, description="The principal: a name, or the pseudonym of who is erased.", examples=["admin"]),
]
TagName = Annotated[
    str,
    Meta(
        max_length=63,
        description="Only what is about VMs that had this tag when it happened.",
        examples=["production"],
    ),
]


class HistoryArguments(RecordListArguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which records are shown: those that match everything given."""

    subject: Subject = ""
    actor: ActorName = ""
    tag: TagName = ""
    type: Types = ()
    since: Time = ""
    until: Time = ""
    correlation: Correlation = ""
    at: At = ""


class HistoryPage(msgspec.Struct, frozen=True, kw_only=True):
    """Records, newest first where nothing else is asked for."""

    position: int
    records: list[RecordView]
    next_before: NextBefore
    next_after: NextAfter
    subjects: Annotated[
        list[str],
        Meta(description="What `subject` stands for: the events of a record that are about others bear others."),
    ]


async def _history(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, HistoryArguments)
    check_subject(arguments.subject)
    await check_types(services, arguments.type, "type")
    now_us = services.clock.wall_us()
    moment = await find_moment(services, arguments.at) if arguments.at else None
    before = arguments.before
    if moment is not None:
        before = moment.position + 1 if before is None else min(before, moment.position + 1)
    query = HistoryQuery(
        subject=arguments.subject,
        actors=await services.people.actors(arguments.actor, services.history.actors) if arguments.actor else (),
        tag=arguments.tag,
        types=arguments.type,
        since_us=parse_time_us("since", arguments.since, now_us) if arguments.since else None,
        until_us=parse_time_us("until", arguments.until, now_us) if arguments.until else None,
        correlation=arguments.correlation,
        before=before,
        after=arguments.after,
    )
    position = services.world.position if moment is None else moment.position
    await services.history.reach(position, INDEX_DEADLINE_S)
    page = await record_page(services, call.rights, query, arguments)
    subjects = await services.history.subjects(arguments.subject) if arguments.subject else ()
    if not call.rights.everything:
        subjects = tuple(one for one in subjects if sees_subject(services.world.state, call.rights, one))
    elif not page.any_found and arguments.subject and not subjects:
        _require_known(services.world.state, arguments.subject)
    reply = HistoryPage(
        position=position,
        records=page.records,
        next_before=page.next_before,
        next_after=page.next_after,
        subjects=list(subjects),
    )
    return json_response(reply, position, moment.headers if moment else None)


def check_subject(subject: str) -> None:
    """Raise InvalidInput unless the text can be a subject."""
    if subject and not _SUBJECT.fullmatch(subject):
        raise InvalidInput(
            f"`subject` cannot be {subject[:80]!r}",
            hint="write vm/<name>, node/<name>, access/<token id>, webhook/<id> or cluster",
            field="subject",
        )


async def check_types(services: GatewayServices, types: Sequence[str], field: str) -> None:
    """Raise InvalidInput unless each of these is an event type, or means some."""
    unknown = [pattern for pattern in types if not is_known(pattern)]
    if unknown:  # here, but the log may have types of a later version
        await services.history.reach(services.world.position, INDEX_DEADLINE_S)
        occurring = await services.history.types()
        for pattern in unknown:
            check_type(pattern, field=field, occurring=occurring)


def known_access(state: ClusterState) -> Mapping[str, object]:
    """Ids of principals and tokens: what `access/<id>` may be."""
    return {**state.tokens, **{principal.id: principal for principal in state.principals.values()}}


def _require_known(state: ClusterState, subject: str) -> None:
    """Say that there never was such a thing, rather than that nothing happened to it."""
    kind, _, name = subject.partition("/")
    names: dict[str, Mapping[str, object]] = {"vm": state.vm_names, "node": state.nodes, "access": known_access(state)}
    names["webhook"] = state.webhooks
    known = names.get(kind, {})
    if kind == "cluster" or name in known:
        return
    near = near_names(name, known)
    hint = f"did you mean {' or '.join(near)}?" if near else "see `pvc vm list` and `pvc node list`"
    shown = {"vm": "a VM", "node": "a node", "access": "a token or principal", "webhook": "a webhook"}[kind]
    raise NotFound(f"there never was {shown} {name!r}", code=f"{kind}.not_found", hint=hint, field="subject")


HISTORY = (
    Endpoint(
        name="history.list",
        action=Action.HISTORY_READ,
        method="GET",
        path="/history",
        handle=_history,
        summary="Who did what, newest first.",
        help="Also the refused commands. A VM's history stays when the VM is renamed or removed. "
        "With `at` it ends there.",
        arguments=HistoryArguments,
        listing=RECORDS,
        reply=HistoryPage,
    ),
)
