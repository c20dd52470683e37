"""Who may do what, for a reader: principals with their grants, and tokens without their secrets."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.responses import Response

from pvc.commands.access import find_principal, tokens_of
from pvc.commands.access_table import Action
from pvc.errors import Forbidden, NotFound
from pvc.events.access import Grant
from pvc.events.types import PrincipalKind, Role
from pvc.gateway.endpoint import Call, Endpoint, arguments_of, json_response
from pvc.gateway.erasure import name_in_log
from pvc.gateway.lists import MAX_ITEMS, Limit, ListArguments, ListOf, Next, by_attributes
from pvc.gateway.moments import At, seen_at, told_of_then
from pvc.gateway.queries import OneArguments
from pvc.gateway.records import iso_time
from pvc.gateway.services import GatewayServices
from pvc.gateway.tags import revision_of
from pvc.projections.access_state import PrincipalState, Token
from pvc.projections.state import ClusterState

Time = Annotated[str, Meta(description="ISO 8601, UTC; empty: never.")]


class TokenInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A token, as far as it is not secret."""

    id: str
    principal: str
    role: Annotated[Role, Meta(description="The most that it may do.")]
    description: str
    created: Time
    created_us: int
    expires: Time
    expires_us: int
    expired: bool
    used: Annotated[str, Meta(description="When its use was last recorded: once a day for each address and gateway.")]
    used_us: int
    replaced_by: Annotated[str, Meta(description="The token that has taken its place.")]


class PrincipalRow(msgspec.Struct, frozen=True, kw_only=True):
    """A person or a service that may act."""

    name: str
    id: Annotated[str, Meta(description="For the history: `access/<id>`.")]
    kind: PrincipalKind
    login: Annotated[bool, Meta(description="Whether it comes by logging in at the issuer, and in no other way.")]
    grants: list[Grant]
    description: str
    tokens: Annotated[int, Meta(description="Those that have not expired.")]
    used: Annotated[str, Meta(description="When the use of a token was last recorded; empty: never.")]
    used_us: int
    added: Time
    added_us: int


class PrincipalListArguments(ListArguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which principals are listed."""

    limit: Limit = MAX_ITEMS
    kind: Annotated[tuple[PrincipalKind, ...], Meta(description="Only those of one of these kinds.")] = ()
    at: At = ""


class TokenListArguments(ListArguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which tokens are listed: those that match everything given."""

    limit: Limit = MAX_ITEMS
    role: Annotated[tuple[Role, ...], Meta(description="Only those limited to one of these roles.")] = ()
    expired: Annotated[bool | None, Meta(description="Only those that have expired, or only the others.")] = None


class PrincipalInfo(msgspec.Struct, frozen=True, kw_only=True):
    """All about a principal."""

    position: int
    principal: PrincipalRow
    tokens: list[TokenInfo]


class PrincipalList(msgspec.Struct, frozen=True, kw_only=True):
    """Principals, in the order in which they were added."""

    position: int
    items: list[PrincipalRow]
    next: Next


class TokenList(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens, in the order in which they were made."""

    position: int
    items: list[TokenInfo]
    next: Next


async def _list(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, PrincipalListArguments)
    seen = await seen_at(services, arguments.at)
    state, now_us = seen.state, seen.time_us(services.clock)
    by_owner: dict[str, list[Token]] = {}
    for token in state.tokens.values():
        by_owner.setdefault(token.principal, []).append(token)
    shown = [principal for principal in state.principals.values() if call.rights.covers_principal(principal.name)]
    rows = [_row(principal, by_owner.get(principal.name, []), now_us) for principal in shown]
    rows = [row for row in rows if not arguments.kind or row.kind in arguments.kind]
    found, following = PRINCIPALS.page(rows, arguments)
    items = PRINCIPALS.cut(found, arguments.fields)
    page = PrincipalList(position=state.position, items=items, next=following)
    return json_response(page, state.position, seen.headers)


async def _info(services: GatewayServices, call: Call) -> Response:
    at = arguments_of(call.request, OneArguments).at
    name = call.request.path_params["principal"]
    seen = await seen_at(services, at)
    state, now_us = seen.state, seen.time_us(services.clock)
    with told_of_then(services, seen, name):
        principal = await _asked_for(services, state, call, name)
    tokens = tokens_of(state, principal.name)
    info = PrincipalInfo(
        position=state.position,
        principal=_row(principal, tokens, now_us),
        tokens=[_token_info(token, now_us) for token in tokens],
    )
    return json_response(info, state.position, seen.headers, revision_of(principal))


async def _asked_for(services: GatewayServices, state: ClusterState, call: Call, name: str) -> PrincipalState:
    """The principal of the path; whoever may not see it is not told whether there is one."""
    try:
        known = await name_in_log(services, name, state)
    except NotFound:
        if call.rights.everything:
            raise
        known = ""
    if not call.rights.covers_principal(known):
        raise Forbidden(
            "you may see what you may do yourself, not what others may",
            code="access.not_own",
            hint="`pvc access info` without a name; an admin or auditor sees all",
        )
    return find_principal(state, known)


async def _tokens(services: GatewayServices, call: Call) -> Response:
    arguments = arguments_of(call.request, TokenListArguments)
    state, now_us = services.world.state, services.clock.wall_us()
    shown = [token for token in state.tokens.values() if call.rights.covers_principal(token.principal)]
    rows = [_token_info(token, now_us) for token in shown]
    rows = [
        row
        for row in rows
        if (not arguments.role or row.role in arguments.role) and arguments.expired in (None, row.expired)
    ]
    found, following = TOKENS.page(rows, arguments)
    items = TOKENS.cut(found, arguments.fields)
    return json_response(TokenList(position=state.position, items=items, next=following), state.position)


def _row(principal: PrincipalState, tokens: list[Token], now_us: int) -> PrincipalRow:
    used_us = max((token.used_us for token in tokens), default=0)
    return PrincipalRow(
        name=principal.name,
        id=principal.id,
        kind=principal.kind,
        login=bool(principal.identity),
        grants=list(principal.grants),
        description=principal.description,
        tokens=sum(not token.expired(now_us) for token in tokens),
        used=_time(used_us),
        used_us=used_us,
        added=_time(principal.added_us),
        added_us=principal.added_us,
    )


def _token_info(token: Token, now_us: int) -> TokenInfo:
    return TokenInfo(
        id=token.id,
        principal=token.principal,
        role=token.role,
        description=token.description,
        created=_time(token.created_us),
        created_us=token.created_us,
        expires=_time(token.expires_us),
        expires_us=token.expires_us,
        expired=token.expired(now_us),
        used=_time(token.used_us),
        used_us=token.used_us,
        replaced_by=token.replaced_by,
    )


def _time(time_us: int) -> str:
    return iso_time(time_us) if time_us else ""


# Not by name: people's are sealed in the state.
PRINCIPALS: ListOf[PrincipalRow] = ListOf(
    item=PrincipalRow,
    sorts=by_attributes("added_us", "used_us", "kind", "tokens", "id"),
    order="added_us",
    key=lambda row: row.id,
)
TOKENS: ListOf[TokenInfo] = ListOf(
    item=TokenInfo,
    sorts=by_attributes("created_us", "expires_us", "used_us", "role", "id"),
    order="created_us",
    key=lambda row: row.id,
)

ACCESS = (
    Endpoint(
        name="access.list",
        action=Action.ACCESS_READ,
        method="GET",
        path="/access",
        handle=_list,
        summary="Principals, and what each may do, now or at a past moment.",
        help="Who may not see all is shown themselves.",
        arguments=PrincipalListArguments,
        listing=PRINCIPALS,
        reply=PrincipalList,
    ),
    Endpoint(
        name="access.info",
        action=Action.ACCESS_READ,
        method="GET",
        path="/access/{principal}",
        handle=_info,
        summary="All about a principal, now or at a past moment.",
        help="By its name, or the pseudonym of one who was erased.",
        arguments=OneArguments,
        reply=PrincipalInfo,
    ),
    Endpoint(
        name="access.list_tokens",
        action=Action.ACCESS_READ,
        method="GET",
        path="/tokens",
        handle=_tokens,
        summary="Tokens, without their secrets.",
        help="Who may not see all is shown their own. A token that was revoked is in the history alone.",
        arguments=TokenListArguments,
        listing=TOKENS,
        reply=TokenList,
    ),
)
