"""What a login at the configured issuer comes to, once the gateway has verified who it is: the person, their roles as
the issuer's groups give them now, and a token. Pure.

No command of the registry: nobody can ask for it but by logging in.
"""

from __future__ import annotations

from msgspec import Struct

from pvc.commands.access import MAX_PRINCIPALS, tokens_of
from pvc.commands.base import Context, Decision, require_cluster
from pvc.commands.cluster import derived_id
from pvc.commands.vm_ref import NOTHING
from pvc.errors import Forbidden, Rejected
from pvc.events.access import (
    Grant,
    LoggedIn,
    PrincipalAdded,
    PrincipalModified,
    TokenCreated,
    TokenRevoked,
)
from pvc.events.registry import Event
from pvc.events.types import PrincipalKind, Role
from pvc.projections.access_state import PrincipalState
from pvc.projections.state import ClusterState

MAX_LOGINS = 10
"""Tokens of one person at a time: a laptop or two, some consoles. With another login the oldest one ends."""


class LogIn(Struct, frozen=True, kw_only=True):
    """A person whom the issuer vouches for."""

    principal: str
    """Sealed."""
    identity: str
    """As in `PrincipalAdded`."""
    grants: tuple[Grant, ...]
    lifetime_s: int
    token_id: str
    token_sha256: str
    node: str
    issuer: str
    how: str
    replaces: str = ""
    """A token of the same person's that this one takes the place of."""


class LoseRoles(Struct, frozen=True, kw_only=True):
    """A person whom the issuer vouches for, and who has no role any more."""

    principal: str
    identity: str


def log_in(state: ClusterState, command: LogIn, context: Context) -> Decision:
    """A new principal, or the one with the same identity, whatever else has the name."""
    require_cluster(state)
    events: list[Event] = []
    principal = state.principals.get(command.principal)
    if principal is None:
        if len(state.principals) >= MAX_PRINCIPALS:
            raise Rejected(
                f"there are {MAX_PRINCIPALS:,} principals already", code="access.too_many", hint="remove some"
            )
        events.append(
            PrincipalAdded(
                id=f"p{derived_id(context.command_id).replace('-', '')[:12]}",
                principal=command.principal,
                kind=PrincipalKind.PERSON,
                grants=command.grants,
                identity=command.identity,
            )
        )
    else:
        _refuse_another(principal, command.identity)
        if principal.grants != command.grants:
            events.append(PrincipalModified(id=principal.id, principal=principal.name, grants=command.grants))
    events += [TokenRevoked(token=token) for token in _ended(state, command, context)]
    events.append(
        TokenCreated(
            token=command.token_id,
            principal=command.principal,
            role=Role.ADMIN,
            secret_sha256=command.token_sha256,
            expires_us=context.time_us + command.lifetime_s * 1_000_000,
            description="login",
        )
    )
    events.append(LoggedIn(token=command.token_id, node=command.node, issuer=command.issuer, how=command.how))
    return Decision(events=tuple(events))


def lose_roles(state: ClusterState, command: LoseRoles, context: Context) -> Decision:
    """Their tokens end at once, and nothing is left that they may do; nothing where they were never here."""
    principal = state.principals.get(command.principal)
    if principal is None or not principal.identity or principal.identity != command.identity:
        return NOTHING
    events: list[Event] = [TokenRevoked(token=token.id) for token in tokens_of(state, principal.name)]
    if principal.grants:
        events.append(PrincipalModified(id=principal.id, principal=principal.name, grants=()))
    return Decision(events=tuple(events))


def _ended(state: ClusterState, command: LogIn, context: Context) -> list[str]:
    """Tokens that this login ends: the one it replaces, those that have expired, and the oldest of too many."""
    tokens = sorted(tokens_of(state, command.principal), key=lambda token: token.created_us)
    ended = [token.id for token in tokens if token.id == command.replaces or token.expired(context.time_us)]
    live = [token.id for token in tokens if token.id not in ended]
    return ended + live[: max(0, len(live) + 1 - MAX_LOGINS)]


def _refuse_another(principal: PrincipalState, identity: str) -> None:
    if principal.identity != identity:
        raise Forbidden(
            f"the name {principal.name} is somebody else's here",
            code="access.name_taken",
            hint="an admin looks who it is (`pvc access info NAME`), and removes it if it is to be this person's: "
            "pvc access remove NAME",
        )
