"""What if these commands were given, or this node were lost: answered from a fork of the present state."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.responses import Response

from pvc.commands.access_rights import require
from pvc.commands.access_table import Action
from pvc.commands.base import CommandSpec, Context, Decision
from pvc.commands.forecast import Asked, Forecast, NodeLoss, Question
from pvc.commands.registry import BY_NAME
from pvc.errors import InvalidInput, Rejected
from pvc.gateway.auth import make_token
from pvc.gateway.bodies import read_struct
from pvc.gateway.commands import makes_token
from pvc.gateway.endpoint import Call, Endpoint, arguments_of, json_response
from pvc.gateway.erasure import sealed_for_what_if
from pvc.gateway.fields import Fields
from pvc.gateway.queries import NoArguments
from pvc.gateway.services import GatewayServices
from pvc.gateway.webhook_commands import completed

MAX_STEPS = 20
"""Each is played through to its end before the next."""


class WhatIfStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question: either a command with its fields, or the loss of a node."""

    command: Annotated[str, Meta(max_length=63, description="The command.", examples=["vm.start"])] = ""
    fields: Annotated[dict[str, Any], Meta(description="Its fields, those of the path too.")] = {}
    node_loss: Annotated[str, Meta(max_length=63, description="The node that is lost.", examples=["hv2"])] = ""


class WhatIf(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The questions, one after the other."""

    steps: Annotated[tuple[WhatIfStep, ...], Meta(min_length=1, max_length=MAX_STEPS)]


async def _what_if(services: GatewayServices, call: Call) -> Response:
    arguments_of(call.request, NoArguments)
    asked = await _asked(call)
    questions = [await _question(services, call, step, number) for number, step in enumerate(asked.steps)]

    def begin() -> Callable[[], Forecast]:
        """From the state of when its turn has come: who waits holds none, and may have lost the right meanwhile."""
        require(services.world.state, call.principal.asker, Action.PAST_READ)
        context = Context(
            command_id="what-if",
            time_us=services.clock.wall_us(),
            actor=call.principal.actor,
            usage=services.telemetry.usage() if services.telemetry is not None else {},
        )
        return functools.partial(services.foresee, services.world.state.fork(), questions, context)

    forecast = await services.what_ifs.run(call.principal.asker.shown, begin)
    return json_response(forecast, forecast.position)


async def _asked(call: Call) -> WhatIf:
    hint = 'write {"steps": [{"command": "vm.start", "fields": {"vm": "web01"}}, {"node_loss": "hv2"}]}'
    return await read_struct(call.request, WhatIf, hint=hint, field="steps")


async def _question(services: GatewayServices, call: Call, step: WhatIfStep, number: int) -> Question:
    where = f"steps[{number}]"
    if bool(step.command) == bool(step.node_loss):
        raise InvalidInput(
            f"`{where}` must have either `command` or `node_loss`", hint="one question a step", field=where
        )
    if step.node_loss:
        return NodeLoss(node=step.node_loss)
    spec = BY_NAME.get(step.command)
    if spec is None:
        raise InvalidInput(
            f"there is no command {step.command!r}",
            code="whatif.unknown_command",
            hint="`GET /commands` lists them",
            field=f"{where}.command",
        )
    given = Fields(spec.struct, hidden=spec.internal).decode(spec.struct, step.fields)
    try:
        command = await _as_decided(spec, services, call, given)
    except Rejected as error:
        return Asked(name=spec.name, command=given, decide=functools.partial(_refuse, error))
    return Asked(name=spec.name, command=command, decide=spec.decide)


async def _as_decided(
    spec: CommandSpec, services: GatewayServices, call: Call, given: msgspec.Struct
) -> msgspec.Struct:
    """The command with all that a gateway puts into one before it is decided. Raises what that is refused with."""
    command = await sealed_for_what_if(spec, services, given)
    command, _ = await completed(services, call.principal, command, dry_run=True)
    if not makes_token(spec):
        return command
    # Nobody is told its secret. Without an id of its own it would be the same as that of another step.
    token = make_token(services.rng)
    made: dict[str, Any] = {"token_id": token.id, "token_sha256": token.sha256}
    return msgspec.structs.replace(command, **made)


def _refuse(error: Rejected, *_: Any) -> Decision:
    raise error


WHAT_IF = (
    Endpoint(
        name="time.whatif",
        action=Action.PAST_READ,
        method="POST",
        path="/whatif",
        handle=_what_if,
        summary="What would come of commands, or of the loss of a node.",
        help="Played through to its end on a fork of the present state, with the decisions that the real thing would "
        "take; nothing is written. All that has effects outside is taken to succeed: guests start and power off, "
        "migrations arrive, fence agents cut the power. A command that would be refused has its error in `refusal`.",
        arguments=NoArguments,
        body=WhatIf,
        body_example={"steps": [{"node_loss": "hv2"}, {"command": "vm.start", "fields": {"vm": "web01"}}]},
        reply=Forecast,
    ),
)
