"""The people whom the log knows: who can be read, who is to be erased, and who is; and copies of their keys."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from starlette.responses import Response

from pvc.commands.access_table import Action
from pvc.errors import Forbidden
from pvc.events.sealed import erased_name
from pvc.events.types import END
from pvc.gateway.access_log import told_in_access_log
from pvc.gateway.bodies import read_struct
from pvc.gateway.endpoint import Call, Endpoint, arguments_of, json_response
from pvc.gateway.lists import MAX_ITEMS, Limit, ListArguments, ListOf, Next, by_attributes
from pvc.gateway.moments import INDEX_DEADLINE_S
from pvc.gateway.queries import NoArguments
from pvc.gateway.records import iso_time
from pvc.gateway.services import GatewayServices
from pvc.keyring.base import SECRET_BYTES, PersonKey

ALL_PEOPLE = "person~"
"""What every sealed name begins with."""

MAX_KEYS = 1_000
"""Of one request: some 200 KB as JSON."""


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


class KeyCopy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key, to be kept elsewhere."""

    id: Annotated[str, Meta(pattern="^[0-9a-f]{8}" + END)]
    principal: Annotated[str, Meta(min_length=1, max_length=200)]
    secret: Annotated[bytes, Meta(min_length=SECRET_BYTES, max_length=SECRET_BYTES, description="Base64.")]


class KeyCopies(msgspec.Struct, frozen=True, kw_only=True):
    """All keys."""

    position: int
    keys: list[KeyCopy]


class ImportBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys to be kept again."""

    keys: Annotated[list[KeyCopy], Meta(max_length=MAX_KEYS)]


class ImportReply(msgspec.Struct, frozen=True, kw_only=True):
    """What became of them."""

    position: int
    kept: Annotated[int, Meta(description="Kept, or there already.")]
    erased: Annotated[int, Meta(description="Of people who are erased: not kept.")]
    taken: Annotated[
        list[str], Meta(description="Names with another key by now: what was sealed with the old one stays so.")
    ]


class PersonListArguments(ListArguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which people are listed."""

    limit: Limit = MAX_ITEMS
    state: Annotated[
        tuple[Literal["readable", "erasing", "erased"], ...], Meta(description="Only those in one of these states.")
    ] = ()


class PersonList(msgspec.Struct, frozen=True, kw_only=True):
    """People by name; the erased ones last."""

    position: int
    items: list[PersonInfo]
    next: Next


async def _people(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, PersonListArguments)
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
    people = [person for person in people if not arguments.state or person.state in arguments.state]
    found, following = PERSONS.page(people, arguments)
    page = PersonList(position=state.position, items=PERSONS.cut(found, arguments.fields), next=following)
    return json_response(page, state.position)


async def _export(services: GatewayServices, call: Call) -> Response:
    with told_in_access_log("audit.export_keys", services.clock, call.principal.actor) as line:
        _require_local(call)
        arguments_of(call.request, NoArguments)
        line.position = services.world.position
        keyring = services.people.keyring
        keys = await keyring.read(await keyring.ids())
        copies = [KeyCopy(id=key.id, principal=key.principal, secret=key.secret) for key in keys.values()]
        return json_response(KeyCopies(position=line.position, keys=copies), line.position)


async def _import(services: GatewayServices, call: Call) -> Response:
    with told_in_access_log("audit.import_keys", services.clock, call.principal.actor) as line:
        _require_local(call)
        line.position = services.world.position
        body = await read_struct(call.request, ImportBody, hint="send what the export has given")
        kept, erased, taken = 0, 0, list[str]()
        for copy in body.keys:
            if copy.id in services.world.state.erasures:
                erased += 1
            elif await services.people.keep(PersonKey(id=copy.id, principal=copy.principal, secret=copy.secret)):
                kept += 1
            else:
                taken.append(copy.principal)
        reply = ImportReply(position=line.position, kept=kept, erased=erased, taken=taken)
        return json_response(reply, line.position)


def _require_local(call: Call) -> None:
    """Root on a node can read the keys in any case; nobody else is given them, whatever their role."""
    if call.principal.actor.method != "socket":
        raise Forbidden(
            "keys go to root on a node alone, not over the network",
            code="access.only_local",
            hint="run it as root on a node, where `pvc` uses the Unix socket",
        )


PERSONS: ListOf[PersonInfo] = ListOf(
    item=PersonInfo,
    sorts={
        **by_attributes("name", "key", "since_us", "records"),
        "state": lambda person: ("readable", "erasing", "erased").index(person.state),
    },
    order="name",
    key=lambda person: person.key,
)

PEOPLE = (
    Endpoint(
        name="audit.people",
        action=Action.AUDIT_READ,
        method="GET",
        path="/audit/people",
        handle=_people,
        summary="The people whom the log knows by name, and those who are erased.",
        help="Who acted only before names were sealed is not among them.",
        arguments=PersonListArguments,
        listing=PERSONS,
        reply=PersonList,
    ),
    Endpoint(
        name="audit.export_keys",
        action=Action.PEOPLE_MANAGE,
        secret=True,
        method="GET",
        path="/audit/keys",
        handle=_export,
        summary="The keys of people's names, to be kept elsewhere.",
        help="Only through the Unix socket. An erasure is complete when the last copy is destroyed.",
        arguments=NoArguments,
        reply=KeyCopies,
    ),
    Endpoint(
        name="audit.import_keys",
        action=Action.PEOPLE_MANAGE,
        method="POST",
        path="/audit/keys",
        handle=_import,
        summary="Keep keys again, after they were lost.",
        help="Only through the Unix socket. Keys of people who are erased are not kept.",
        body=ImportBody,
        body_example={"keys": []},
        reply=ImportReply,
    ),
)
