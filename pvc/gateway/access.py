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
from pvc.gateway.queries import NoArguments
from pvc.gateway.records import iso_time
from pvc.gateway.services import GatewayServices
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


class PrincipalInfo(msgspec.Struct, frozen=True, kw_only=True):
    """All about a principal."""

    position: int
    principal: PrincipalRow
    tokens: list[TokenInfo]


class PrincipalList(msgspec.Struct, frozen=True, kw_only=True):
    """Principals, in the order in which they were added."""

    position: int
    items: list[PrincipalRow]


class TokenList(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens, in the order in which they were made."""

    position: int
    items: list[TokenInfo]


async def _list(services: GatewayServices, call: Call) -> Response:
    arguments_of(call.request, NoArguments)
    state, now_us = services.world.state, services.clock.wall_us()
    by_owner: dict[str, list[Token]] = {}
    for token in state.tokens.values():
        by_owner.setdefault(token.principal, []).append(token)
    shown = [principal for principal in state.principals.values() if call.rights.covers_principal(principal.name)]
    items = [_row(principal, by_owner.get(principal.name, []), now_us) for principal in shown]
    return json_response(PrincipalList(position=state.position, items=items), state.position)


async def _info(services: GatewayServices, call: Call) -> Response:
    arguments_of(call.request, NoArguments)
    state, now_us = services.world.state, services.clock.wall_us()
    principal = await _asked_for(services, state, call)
    tokens = tokens_of(state, principal.name)
    info = PrincipalInfo(
        position=state.position,
        principal=_row(principal, tokens, now_us),
        tokens=[_token_info(token, now_us) for token in tokens],
    )
    return json_response(info, state.position)


async def _asked_for(services: GatewayServices, state: ClusterState, call: Call) -> PrincipalState:
    """The principal of the path; whoever may not see it is not told whether there is one."""
    name = call.request.path_params["principal"]
    try:
        known = await name_in_log(services, name)
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
    arguments_of(call.request, NoArguments)
    state, now_us = services.world.state, services.clock.wall_us()
    shown = [token for token in state.tokens.values() if call.rights.covers_principal(token.principal)]
    items = [_token_info(token, now_us) for token in shown]
    return json_response(TokenList(position=state.position, items=items), state.position)


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


ACCESS = (
    Endpoint(
        name="access.list",
        action=Action.ACCESS_READ,
        method="GET",
        path="/access",
        handle=_list,
        summary="Principals, and what each may do.",
        help="Who may not see all is shown themselves.",
        arguments=NoArguments,
        reply=PrincipalList,
    ),
    Endpoint(
        name="access.info",
        action=Action.ACCESS_READ,
        method="GET",
        path="/access/{principal}",
        handle=_info,
        summary="All about a principal.",
        help="By its name, or the pseudonym of one who was erased.",
        arguments=NoArguments,
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
        arguments=NoArguments,
        reply=TokenList,
    ),
)
