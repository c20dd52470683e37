"""What an endpoint of the API is: a value in a list, from which the routes and their documentation are made."""

from __future__ import annotations

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
from pvc.gateway.services import GatewayServices

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request on its way through an endpoint, from somebody who may make it."""

    request: Request
    principal: Principal
    rights: Rights
    """What of the endpoint's action is allowed: everything, or only some VMs, or only what is one's own."""


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
    controls: bool = False
    """Whether it takes a dry run and an idempotency key, as the commands of the registry do."""
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
    before_init: bool = False
    """Whether it makes sense before there is a cluster."""


def arguments_of(request: Request, struct: type[T]) -> T:
    """The query's arguments. Raises InvalidInput."""
    fields = _fields_of(struct)
    texts = {name: values for name, values in texts_of(request.query_params).items() if name not in CONTROLS}
    return fields.decode(struct, fields.from_texts(texts))


def json_response(value: Any, position: int, headers: Mapping[str, str] | None = None) -> Response:
    """A reply in JSON that was made at this position, with what else it says of itself."""
    told = {"PVC-Position": str(position), **(headers or {})}
    return Response(msgspec.json.encode(value), 200, told, media_type="application/json")


_FIELDS: dict[type[msgspec.Struct], Fields] = {}


def _fields_of(struct: type[msgspec.Struct]) -> Fields:
    if struct not in _FIELDS:
        _FIELDS[struct] = Fields(struct)
    return _FIELDS[struct]
