"""The log as a whole through the API: where it is, its repair from a replica, its restore from a backup."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.responses import Response

from pvc.commands.access_table import Action
from pvc.errors import Unavailable
from pvc.gateway.bodies import read_struct
from pvc.gateway.endpoint import Call, Endpoint, arguments_of, json_response
from pvc.gateway.queries import NoArguments
from pvc.gateway.services import GatewayServices
from pvc.runtime.log_care import Keep, LogCare, LogStatus, RepairState, RepairWish

_HINT = "docs/reference/api.md shows its fields"

MAX_RESTORED = 1_000
"""Records of one request: some 500 KB as JSON."""


class RepairBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to repair."""

    keep: Annotated[Keep | None, Meta(description="Which is to stand where log and replica contradict each other.")] = (
        None
    )
    take_over: Annotated[bool, Meta(description="Go on although another repair holds the log.")] = False
    force: Annotated[bool, Meta(description="Although another node has more records than this one.")] = False


class RestoreBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a restore."""

    records: Annotated[
        list[bytes], Meta(max_length=MAX_RESTORED, description="Base64 of the next records; none: begin, or go on.")
    ] = []
    end: Annotated[str, Meta(max_length=200, description="All is there; where it came from, in words.")] = ""


class RestoreReply(msgspec.Struct, frozen=True, kw_only=True):
    """How far a restore has come."""

    reached: Annotated[int, Meta(description="The log's last record.")]


async def _status(services: GatewayServices, call: Call) -> Response:
    arguments_of(call.request, NoArguments)
    return json_response(await _care(services).status(), services.world.position)


async def _survey(services: GatewayServices, call: Call) -> Response:
    arguments_of(call.request, NoArguments)
    return json_response(await _care(services).survey(), services.world.position)


async def _repair(services: GatewayServices, call: Call) -> Response:
    body = await read_struct(call.request, RepairBody, hint=_HINT)
    wish = RepairWish(keep=body.keep, take_over=body.take_over, force=body.force)
    return json_response(await _care(services).repair(wish), services.world.position)


async def _restore(services: GatewayServices, call: Call) -> Response:
    body = await read_struct(call.request, RestoreBody, hint=_HINT)
    care = _care(services)
    reached = await care.restore(body.records) if body.records else await care.begin_restore()
    if body.end:
        await care.end_restore(body.end)
    return json_response(RestoreReply(reached=reached), services.world.position)


def _care(services: GatewayServices) -> LogCare:
    if services.log_care is None:
        raise Unavailable("this gateway has no log of its own", code="log.closed", hint="ask another node")
    return services.log_care


LOG_CARE = (
    Endpoint(
        name="log.status",
        action=Action.LOG_READ,
        method="GET",
        path="/log/status",
        handle=_status,
        summary="Where the log is",
        help="Its segments in ZooKeeper, its archives, and how far each node has it.",
        arguments=NoArguments,
        reply=LogStatus,
        before_init=True,
    ),
    Endpoint(
        name="log.survey",
        action=Action.LOG_MANAGE,
        method="GET",
        path="/log/repair",
        handle=_survey,
        summary="Compare the log with this node's replica",
        help="Changes nothing. While a repair is going on it says how far it is.",
        arguments=NoArguments,
        reply=RepairState,
        before_init=True,
    ),
    Endpoint(
        name="log.repair",
        action=Action.LOG_MANAGE,
        method="POST",
        path="/log/repair",
        handle=_repair,
        summary="Restore the log from this node's replica",
        help="Begins it; GET says how it goes on.",
        body=RepairBody,
        body_example={"keep": "replica"},
        reply=RepairState,
        before_init=True,
    ),
    Endpoint(
        name="cluster.restore",
        action=Action.LOG_MANAGE,
        method="POST",
        path="/cluster/restore",
        handle=_restore,
        summary="Restore the log from a backup",
        help="Into an empty log, in several requests: one without records begins or goes on, one with `end` ends it.",
        body=RestoreBody,
        body_example={"end": "backup of 2026-11-20T01:00:00Z"},
        reply=RestoreReply,
        before_init=True,
    ),
)
