"""Operations: what commands have begun and what came of it, as things to be listed, waited for and cancelled."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.responses import Response

from pvc.commands.access_rights import Rights, require
from pvc.commands.access_table import Action
from pvc.commands.seen_subjects import sees_subject
from pvc.errors import InvalidInput
from pvc.gateway.commands import (
    Reply,
)
from pvc.gateway.endpoint import Call, Endpoint, arguments_of, json_response
from pvc.gateway.event_sight import sight_of
from pvc.gateway.history import ActorName, Subject, check_subject
from pvc.gateway.lists import ListArguments, ListOf, Next, by_attributes
from pvc.gateway.operation_cancel import cancel_operation
from pvc.gateway.operation_views import (
    OperationInfo,
    OperationView,
    caught_up,
    find_operation,
    operation_info,
    operation_views,
    sees_operation,
)
from pvc.gateway.queries import NoArguments
from pvc.gateway.request_meter import WAITED
from pvc.gateway.services import GatewayServices
from pvc.gateway.sight import MAX_AMONG, MAX_LOOKS, covered
from pvc.projections.operations import Operation, OperationState
from pvc.runtime.operation_file import OperationQuery

MAX_OPERATIONS = 1_000
"""Operations of a page at most: some 600 kB."""

MAX_WAIT_S = 60
"""How long a request may wait: under the time after which proxies give up on a silent connection."""

Wait = Annotated[
    int,
    Meta(ge=0, le=MAX_WAIT_S, description="Seconds to wait for its end, or with `seen` for a change.", examples=[30]),
]


class OperationListArguments(ListArguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which operations are listed: those that match everything given."""

    state: Annotated[tuple[OperationState, ...], Meta(description="Only those in one of these states.")] = ()
    command: Annotated[
        tuple[str, ...],
        Meta(
            max_length=50, description="Names of commands, `vm.*` for all that begin with `vm.`.", examples=[["vm.*"]]
        ),
    ] = ()
    subject: Subject = ""
    actor: ActorName = ""
    limit: Annotated[int, Meta(ge=1, le=MAX_OPERATIONS, description="Operations at most.")] = 50


class OperationArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long to wait for one operation."""

    wait: Wait = 0
    seen: (
        Annotated[
            int, Meta(ge=0, le=1 << 62, description="Do not wait for the end, but for a change after this `position`.")
        ]
        | None
    ) = None


class OperationPage(msgspec.Struct, frozen=True, kw_only=True):
    """Operations, the newest first."""

    position: int
    items: list[OperationView]
    next: Next


async def _operations(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, OperationListArguments)
    check_subject(arguments.subject)
    OPERATION_LIST.check_fields(arguments.fields)
    ascending = OPERATION_LIST.ascending(arguments.sort)
    position = await caught_up(services)
    actors = await services.people.actors(arguments.actor, services.history.actors) if arguments.actor else ()
    subjects: tuple[str, ...] | None = None
    if arguments.subject:
        subjects = tuple(dict.fromkeys((arguments.subject, *await services.history.subjects(arguments.subject))))
        # By what may not be seen of an operation it is not found either.
        state = services.world.state
        subjects = tuple(one for one in subjects if sees_subject(state, call.rights, one))
    query = OperationQuery(
        states=tuple(state.value for state in arguments.state),
        commands=arguments.command,
        actors=actors,
        subjects=subjects,
        ascending=ascending,
    )
    query = _after(query, arguments.after)
    found, following = await _seen_page(services, call.rights, query, arguments.limit)
    items = OPERATION_LIST.cut(await operation_views(services, call.rights, found), arguments.fields)
    return json_response(OperationPage(position=position, items=items, next=following), position)


def _after(query: OperationQuery, cursor: str | int) -> OperationQuery:
    """The rest of a search, after the operation whose position the cursor is."""
    if cursor == "":
        return query
    if not re.fullmatch(r"[0-9]{1,18}", str(cursor)):
        raise InvalidInput(
            "`after` is no place in this list",
            code="list.cursor_invalid",
            hint="give `next` of the page before",
            field="after",
        )
    return msgspec.structs.replace(query, **{"after" if query.ascending else "before": int(cursor)})


async def _seen_page(
    services: GatewayServices, rights: Rights, query: OperationQuery, limit: int
) -> tuple[list[Operation], str | None]:
    """Up to `limit` operations that may be shown, and after which there may be more."""
    if not rights.everything:
        among = covered(services.world.state, rights)
        if not among:
            return [], None
        if len(among) <= MAX_AMONG:
            query = msgspec.structs.replace(query, among=among)
    shown: list[Operation] = []
    for _ in range(1 if rights.everything else MAX_LOOKS):
        found = await services.operations.find(msgspec.structs.replace(query, limit=limit + 1))
        more = len(found) > limit
        for one in found[:limit]:
            if sees_operation(services.world.state, rights, one):
                shown.append(one)
                if len(shown) == limit:
                    return shown, str(one.position) if more or one is not found[-1] else None
        if not more:
            return shown, None
        query = _after(query, found[limit - 1].position)
    return shown, str(query.after if query.ascending else query.before)


async def _operation(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, OperationArguments)
    operation_id, rights = call.request.path_params["operation"], call.rights
    await caught_up(services)
    operation = await find_operation(services, rights, operation_id)
    if arguments.wait and not _answers(operation, arguments.seen):
        began_s = services.clock.monotonic()
        with services.events.waiting(call.principal.asker.shown):
            operation = await _wait_for(services, operation, arguments)
        call.request.scope[WAITED] = services.clock.monotonic() - began_s
        # Much may have changed while it waited, also what of it may be seen.
        sight_of(call.principal, services.world.state, services.clock.wall_us())
        rights = require(services.world.state, call.principal.asker, Action.HISTORY_READ)
        operation = await find_operation(services, rights, operation_id)
    info = await operation_info(services, rights, operation)
    position = max(services.operations.position, services.world.position)
    return json_response(info, position, revision=str(operation.changed))


async def _wait_for(services: GatewayServices, operation: Operation, arguments: OperationArguments) -> Operation:
    """The operation once it is over, or has changed, or the time is over."""
    stopping = asyncio.create_task(services.stopping.wait())
    until = services.clock.monotonic() + arguments.wait
    try:
        with services.operations.watching(operation.id) as changed:
            while changed is not None:
                changed.clear()
                operation = await services.operations.get(operation.id) or operation
                left_s = until - services.clock.monotonic()
                if _answers(operation, arguments.seen) or left_s <= 0 or services.stopping.is_set():
                    break
                change = asyncio.create_task(changed.wait())
                try:
                    await asyncio.wait((change, stopping), timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    change.cancel()
    finally:
        stopping.cancel()
    return operation


def _answers(operation: Operation, seen: int | None) -> bool:
    return not operation.open or (seen is not None and operation.changed > seen)


_EXAMPLE: dict[str, Any] = {
    "id": "01JJXW6S00VTW2Z7Q4C9RTAH3N",
    "href": "/api/v1/operations/01JJXW6S00VTW2Z7Q4C9RTAH3N",
    "command": "vm.migrate",
    "subjects": [{"subject": "vm/4d7f0c52", "name": "web01"}],
    "actor": "admin",
    "state": "running",
    "progress": {
        "done": 0,
        "total": 1,
        "failed": 0,
        "text": "expected on hv2",
        "transfer": {
            "per_cent": 41.5,
            "total_bytes": 2147483648,
            "remaining_bytes": 1256277934,
            "seconds": 3.2,
        },
    },
    "problem": None,
    "cancellable": True,
    "position": 1044,
    "started": "2025-01-31T12:00:00.000Z",
    "started_us": 1738324800000000,
    "ended": None,
    "ended_us": None,
}

OPERATION_LIST: ListOf[Any] = ListOf(item=OperationView, sorts=by_attributes("started_us"), order="-started_us")

OPERATIONS = (
    Endpoint(
        name="operation.list",
        action=Action.HISTORY_READ,
        method="GET",
        path="/operations",
        handle=_operations,
        summary="What commands have begun and what came of it, the newest first.",
        help="Every command that takes time begins an operation; its reply says which. All of them are here, as far "
        "back as the log goes. A long list comes in pages: give `next` as `after`.",
        arguments=OperationListArguments,
        listing=OPERATION_LIST,
        reply=OperationPage,
        reply_example={
            "position": 1044,
            "items": [{**_EXAMPLE, "progress": {**_EXAMPLE["progress"], "transfer": None}}],
            "next": None,
        },
    ),
    Endpoint(
        name="operation.show",
        action=Action.HISTORY_READ,
        method="GET",
        path="/operations/{operation}",
        handle=_operation,
        summary="All about an operation; waits for its end where asked to.",
        help="With `wait=30` the answer comes when it is over, or after 30 s as it stands then. To follow its progress "
        "give `position` of the answer before as `seen`, too.",
        arguments=OperationArguments,
        reply=OperationInfo,
        reply_example={**_EXAMPLE, "vms": []},
    ),
    Endpoint(
        name="operation.cancel",
        action=Action.VM_MOVE,
        method="POST",
        path="/operations/{operation}/cancel",
        handle=cancel_operation,
        summary="Cancel an operation.",
        help="By the command that takes back what can be taken back: a migration that has not left yet is given up, a "
        "flush is ended and its VMs come home. It needs the role of that command. The rest is refused "
        "(`operation.not_cancellable`), and so is what is over (`operation.ended`). The reply is that of the command; "
        "the operation is `cancelled` once that has come about.",
        arguments=NoArguments,
        controls=True,
        reply=Reply,
    ),
)
