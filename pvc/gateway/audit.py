"""The audit's own questions: who has touched a thing and who may, and who has come in or was refused at the door."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.responses import Response

from pvc.commands.access_rights import rights_by_grants
from pvc.commands.access_table import Action
from pvc.commands.base import find_node, find_vm
from pvc.commands.webhook import find_webhook
from pvc.errors import InvalidInput
from pvc.events.access import Grant, LoggedIn, LoginRefused, TokenUsed
from pvc.events.types import PrincipalKind
from pvc.gateway.endpoint import Call, Endpoint, arguments_of, json_response
from pvc.gateway.erasure import name_in_log
from pvc.gateway.history import SomeSubject, Time, check_subject
from pvc.gateway.lists import MAX_ITEMS, Limit, ListArguments, ListOf, Next, by_attributes
from pvc.gateway.moments import INDEX_DEADLINE_S
from pvc.gateway.record_lists import NextAfter, NextBefore, RecordListArguments, record_page
from pvc.gateway.records import RECORDS, RecordView, decode_record, iso_time
from pvc.gateway.services import GatewayServices
from pvc.gateway.times import parse_time_us
from pvc.log.history import Found, HistoryQuery
from pvc.projections.state import ClusterState

MAX_TOUCHES = 5_000
"""Records that are looked through for who has touched a thing, the newest first: some 100 ms."""

LOGINS = (TokenUsed.TYPE, LoggedIn.TYPE, LoginRefused.TYPE)

CHANGING = (Action.VM_RUN, Action.VM_MOVE, Action.VM_CONFIGURE, Action.VM_DEFINE, Action.CONSOLE_WRITE)
OF_VMS = (Action.VM_READ, Action.CONSOLE_READ, *CHANGING)
OF_OTHERS = {
    "node": (Action.CLUSTER_READ, Action.CLUSTER_MANAGE),
    "cluster": (Action.CLUSTER_READ, Action.FAULT_ACKNOWLEDGE, Action.CLUSTER_MANAGE, Action.LOG_MANAGE),
    "webhook": (Action.WEBHOOK_READ, Action.WEBHOOK_INSPECT, Action.WEBHOOK_MANAGE),
    "access": (Action.ACCESS_READ, Action.AUDIT_READ, Action.ACCESS_MANAGE),
}


class WhoArguments(ListArguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom is asked about."""

    subject: SomeSubject
    since: Time = ""
    limit: Limit = MAX_ITEMS


class Touch(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who has touched it, by one of their ways in."""

    actor: Annotated[str, Meta(description="The principal: a person, a service, root, or a node.")]
    method: str
    records: int
    commands: Annotated[dict[str, int], Meta(description="What they did, and how often; refused tries too.")]
    last: str
    last_us: int
    last_position: int


class Entitled(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who may touch it now."""

    principal: str
    kind: PrincipalKind
    actions: Annotated[list[str], Meta(description="What they may do, in the words of the table.")]
    grants: Annotated[list[Grant], Meta(description="All that they were given.")]
    tokens: Annotated[int, Meta(description="Their tokens that have not expired; with none they can do nothing.")]


class Who(msgspec.Struct, frozen=True, kw_only=True):
    """Who has touched a thing, and who may."""

    position: int
    touched: Annotated[list[Touch], Meta(description="The one who did last comes first, if nothing else is asked for.")]
    next: Next
    may: Annotated[list[Entitled], Meta(description="All, on each page.")]
    considered: Annotated[int, Meta(description="Records that were looked through.")]
    complete: Annotated[bool, Meta(description="False: there are older ones; give `since`, or ask the history.")]


class LoginArguments(RecordListArguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which logins are shown."""

    actor: Annotated[str, Meta(max_length=200, description="Only of this principal.", examples=["anna"])] = ""
    refused: Annotated[bool, Meta(description="Only those that were refused.")] = False
    since: Time = ""


class LoginPage(msgspec.Struct, frozen=True, kw_only=True):
    """Logins, newest first where nothing else is asked for."""

    position: int
    records: list[RecordView]
    next_before: NextBefore
    next_after: NextAfter


async def _who(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, WhoArguments)
    TOUCHED.check_fields(arguments.fields)
    subject = await _found_subject(services, arguments.subject)
    state, now_us = services.world.state, services.clock.wall_us()
    await services.history.reach(state.position, INDEX_DEADLINE_S)
    since_us = parse_time_us("since", arguments.since, now_us) if arguments.since else None
    by_position: dict[int, Found] = {}
    for one in (subject, *_tokens_of(state, subject)):
        touching = await services.history.query(HistoryQuery(subject=one, since_us=since_us, limit=MAX_TOUCHES + 1))
        by_position |= {decode_record(record.data).position: record for record in touching}
    found = [by_position[position] for position in sorted(by_position, reverse=True)]
    touched, following = TOUCHED.page(_touches(found[:MAX_TOUCHES]), arguments)
    who = Who(
        position=state.position,
        touched=TOUCHED.cut(touched, arguments.fields),
        next=following,
        may=_entitled(state, subject, now_us),
        considered=min(len(found), MAX_TOUCHES),
        complete=len(found) <= MAX_TOUCHES,
    )
    return json_response(who, state.position)


async def _found_subject(services: GatewayServices, subject: str) -> str:
    """The subject as the index has it: a principal by its id. Raises InvalidInput, NotFound."""
    check_subject(subject)
    if not subject:
        raise InvalidInput("`subject` is missing", code="input.missing", hint="vm/web01 or so", field="subject")
    state = services.world.state
    kind, _, name = subject.partition("/")
    if kind == "vm" and not await services.history.subjects(subject):
        find_vm(state, name)
    elif kind == "node":
        find_node(state, name, field="subject")
    elif kind == "webhook" and not await services.history.subjects(subject):
        return f"webhook/{find_webhook(state, name).id}"
    elif kind == "access" and name not in state.tokens:
        by_id = {principal.id: principal.id for principal in state.principals.values()}
        if name not in by_id:
            return f"access/{state.principals[await name_in_log(services, name)].id}"
    return subject


def _tokens_of(state: ClusterState, subject: str) -> list[str]:
    """What belongs to a principal as a subject: the tokens that there are."""
    owner = next((one.name for one in state.principals.values() if f"access/{one.id}" == subject), None)
    return [f"access/{token.id}" for token in state.tokens.values() if token.principal == owner]


def _touches(found: list[Found]) -> list[Touch]:
    """Newest first, so that the first record of each is their last."""
    last: dict[tuple[str, str], Found] = {}
    commands: dict[tuple[str, str], Counter[str]] = {}
    for one in found:
        record = decode_record(one.data)
        key = (record.actor.principal, record.actor.method)
        last.setdefault(key, one)
        commands.setdefault(key, Counter())[record.command.name] += 1
    touches = []
    for (actor, method), one in last.items():
        record = decode_record(one.data)
        touches.append(
            Touch(
                actor=actor,
                method=method,
                records=commands[actor, method].total(),
                commands=dict(commands[actor, method].most_common()),
                last=iso_time(record.time_us),
                last_us=record.time_us,
                last_position=record.position,
            )
        )
    return touches


def _entitled(state: ClusterState, subject: str, now_us: int) -> list[Entitled]:
    kind, _, ref = subject.partition("/")
    vm = state.vms.get(state.vm_names.get(ref, ref)) if kind == "vm" else None
    entitled = []
    for principal in state.principals.values():
        actions = [
            str(action)
            for action in (OF_VMS if kind == "vm" else OF_OTHERS[kind])
            if (rights := rights_by_grants(action, principal.grants)).everything or rights.covers(vm)
        ]
        if actions:
            tokens = [token for token in state.tokens.values() if token.principal == principal.name]
            entitled.append(
                Entitled(
                    principal=principal.name,
                    kind=principal.kind,
                    actions=actions,
                    grants=list(principal.grants),
                    tokens=sum(not token.expired(now_us) for token in tokens),
                )
            )
    return entitled


async def _logins(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, LoginArguments)
    now_us, position = services.clock.wall_us(), services.world.position
    actors = await services.people.actors(arguments.actor, services.history.actors) if arguments.actor else ()
    query = HistoryQuery(
        types=(LoginRefused.TYPE,) if arguments.refused else LOGINS,
        actors=actors,
        since_us=parse_time_us("since", arguments.since, now_us) if arguments.since else None,
        before=arguments.before,
        after=arguments.after,
    )
    await services.history.reach(position, INDEX_DEADLINE_S)
    page = await record_page(services, call.rights, query, arguments)
    reply = LoginPage(position=position, records=page.records, next_before=page.next_before, next_after=page.next_after)
    return json_response(reply, position)


TOUCHED: ListOf[Touch] = ListOf(
    item=Touch,
    rows="touched",
    sorts=by_attributes("last_us", "last_position", "records", "method"),
    order="-last_position",
    key=lambda touch: f"{touch.actor} {touch.method}",
)


AUDIT = (
    Endpoint(
        name="audit.who",
        action=Action.AUDIT_READ,
        method="GET",
        path="/audit/who",
        handle=_who,
        summary="Who has touched a thing, and who may now.",
        help="Touched: whoever has a record about it, refused tries too. May: principals whose grants allow something "
        "with it at this position, whether they have a token or not; root on a node always may, and is not listed. "
        "`subject` may also be `access/<name of a principal>`, with its tokens.",
        arguments=WhoArguments,
        listing=TOUCHED,
        reply=Who,
    ),
    Endpoint(
        name="audit.logins",
        action=Action.AUDIT_READ,
        method="GET",
        path="/audit/logins",
        handle=_logins,
        summary="Who has come in, and who was refused, newest first.",
        help="The use of a token is recorded once a day for each address and gateway. Of refused tries few are "
        "recorded; `unrecorded` says how many more there were.",
        arguments=LoginArguments,
        listing=RECORDS,
        reply=LoginPage,
    ),
)
