"""What an endpoint of the API is: a value in a list, from which the routes and their documentation are made."""

from __future__ import annotations

import datetime
import email.utils
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from pvc.commands.access_rights import Rights
from pvc.commands.access_table import Action
from pvc.commands.base import CommandSpec
from pvc.gateway.auth import Principal
from pvc.gateway.bodies import CONTROLS, texts_of
from pvc.gateway.fields import Fields
from pvc.gateway.lists import ListOf
from pvc.gateway.services import GatewayServices
from pvc.gateway.tags import REVISION

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request on its way through an endpoint, from somebody who may make it."""

    request: Request
    principal: Principal
    rights: Rights
    """What of the endpoint's action is allowed: everything, or only some VMs, or only what is one's own."""


@dataclass(frozen=True, kw_only=True)
class Deprecated:
    """That an endpoint is to go: since when that is known, when it goes, and what takes its place."""

    since: datetime.date
    sunset: datetime.date
    """It works at least until then."""
    instead: str
    """The endpoint that takes its place, or a sentence."""

    @property
    def headers(self) -> dict[str, str]:
        """What each of its replies says: RFC 9745 and RFC 8594."""
        known = datetime.datetime.combine(self.since, datetime.time(), datetime.UTC)
        ends = datetime.datetime.combine(self.sunset, datetime.time(), datetime.UTC)
        return {
            "Deprecation": f"@{int(known.timestamp())}",
            "Sunset": email.utils.format_datetime(ends, usegmt=True),
            "Link": f'<{DEPRECATION_PAGE}>; rel="deprecation"; type="application/json"',
        }


DEPRECATION_PAGE = "/api/v1/openapi.json"
"""Where each deprecated endpoint says what takes its place."""

Handle = Callable[[GatewayServices, Call], Awaitable[Response]]


@dataclass(frozen=True, kw_only=True)
class HeaderArgument:
    """A header of a request that says what is wanted."""

    name: str
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One method of one path."""

    name: str
    """`vm.start`, `vm.list`: the operation's id."""
    method: str
    path: str
    """Below /api/v1."""
    action: Action
    """What kind of thing it is in the table of who may do what."""
    handle: Handle
    summary: str
    help: str = ""
    arguments: type[msgspec.Struct] | None = None
    """The query arguments of a query."""
    command: CommandSpec | None = None
    body: type[msgspec.Struct] | None = None
    """The JSON body of what is neither a query nor a command of the registry."""
    body_example: Mapping[str, Any] | None = None
    places: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The JSON Schemas of words in the path that are no plain names."""
    controls: bool = False
    """Whether it takes a dry run and an idempotency key, as the commands of the registry do."""
    listing: ListOf[Any] | None = None
    """What can be asked of the list, where it gives one: its arguments are ListArguments."""
    reply: Any = None
    """The type of the JSON reply; None for another kind of reply."""
    reply_example: Mapping[str, Any] | None = None
    media_type: str = "text/plain"
    """Of that other kind."""
    streams: Mapping[str, tuple[tuple[Any, ...], str]] = field(default_factory=dict)
    """Media types that the caller may ask for instead, which do not end: the types of JSON documents that come, one a
    line, where it is that; and an example."""
    headers: tuple[HeaderArgument, ...] = ()
    open: bool = False
    """Whether it is for those who have no token yet."""
    peers: bool = False
    """Whether other nodes may ask, too."""
    secret: bool = False
    """Whether it gives what must not come into other hands, so that each read is recorded."""
    deprecated: Deprecated | None = None
    """Where it is to go."""
    before_init: bool = False
    """Whether it makes sense before there is a cluster."""


def arguments_of(request: Request, struct: type[T]) -> T:
    """The query's arguments. Raises InvalidInput."""
    fields = _fields_of(struct)
    texts = {name: values for name, values in texts_of(request.query_params).items() if name not in CONTROLS}
    return fields.decode(struct, fields.from_texts(texts))


def json_response(value: Any, position: int, headers: Mapping[str, str] | None = None, revision: str = "") -> Response:
    """A reply in JSON that was made at this position, with what else it says of itself; `revision` is that of the one
    thing that it shows."""
    told = {"PVC-Position": str(position), **(headers or {})}
    if revision:
        told[REVISION] = revision
    return Response(msgspec.json.encode(value), 200, told, media_type="application/json")


_FIELDS: dict[type[msgspec.Struct], Fields] = {}


def _fields_of(struct: type[msgspec.Struct]) -> Fields:
    if struct not in _FIELDS:
        _FIELDS[struct] = Fields(struct)
    return _FIELDS[struct]
