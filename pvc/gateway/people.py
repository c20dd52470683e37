"""The people whom the log knows: who can be read, who is to be erased, and who is."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from starlette.responses import Response

from pvc.events.sealed import erased_name
from pvc.events.types import Role
from pvc.gateway.endpoint import Call, Endpoint, arguments_of, json_response
from pvc.gateway.moments import INDEX_DEADLINE_S
from pvc.gateway.queries import NoArguments
from pvc.gateway.records import iso_time
from pvc.gateway.services import GatewayServices

ALL_PEOPLE = "person~"
"""What every sealed name begins with."""


class PersonInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One person, by one key: who was erased and came back is two."""

    name: Annotated[str, Meta(description="The name, or the pseudonym of who is erased.")]
    key: Annotated[str, Meta(description="8 hex digits.")]
    state: Annotated[
        Literal["readable", "erasing", "erased"],
        Meta(description="`erasing`: shown to nobody any more, but the key is not known to be destroyed yet."),
    ]
    since: Annotated[str, Meta(description="When the erasure was asked for, or done; empty for who is readable.")]
    since_us: int
    records: Annotated[int, Meta(description="By them, with their name sealed.")]


class PersonList(msgspec.Struct, frozen=True, kw_only=True):
    """People by name; the erased ones last."""

    position: int
    items: list[PersonInfo]


async def _people(services: GatewayServices, call: Call) -> Response:
    arguments_of(call.request, NoArguments)
    state = services.world.state
    await services.history.reach(state.position, INDEX_DEADLINE_S)
    acted = await services.history.actors(ALL_PEOPLE)
    records: dict[str, int] = {}
    for actor, count in acted.items():
        key_id = actor.removeprefix(ALL_PEOPLE).partition("~")[0]
        records[key_id] = records.get(key_id, 0) + count
    keyring = services.people.keyring
    keys = await keyring.read(await keyring.ids())
    people = [
        PersonInfo(
            name=key.principal, key=key.id, state="readable", since="", since_us=0, records=records.get(key.id, 0)
        )
        for key in sorted(keys.values(), key=lambda key: key.principal)
        if key.id not in state.erasures
    ]
    for erasure in state.erasures.values():
        since_us = erasure.erased_us or erasure.requested_us
        people.append(
            PersonInfo(
                name=erased_name(erasure.key),
                key=erasure.key,
                state="erased" if erasure.erased_us else "erasing",
                since=iso_time(since_us),
                since_us=since_us,
                records=records.get(erasure.key, 0),
            )
        )
    return json_response(PersonList(position=state.position, items=people), state.position)


PEOPLE = (
    Endpoint(
        name="audit.people",
        method="GET",
        path="/audit/people",
        role=Role.ADMIN,
        handle=_people,
        summary="The people whom the log knows by name, and those who are erased.",
        help="Who acted only before names were sealed is not among them.",
        arguments=NoArguments,
        reply=PersonList,
    ),
)
