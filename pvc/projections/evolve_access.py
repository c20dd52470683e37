"""How principals, tokens and erasures follow from events."""

from __future__ import annotations

from msgspec.structs import replace

from pvc.events import access as e
from pvc.events.record import Record
from pvc.events.types import PrincipalKind
from pvc.projections.access_state import Erasure, PrincipalState, Token
from pvc.projections.state import ClusterState

EXPIRED_KEPT_US = 90 * 86_400 * 1_000_000
"""So long a token that has expired is still listed; it goes when its owner gets another one."""


def principal_added(state: ClusterState, event: e.PrincipalAdded, record: Record) -> None:
    """It may act as soon as it has a token."""
    state.put_principal(
        PrincipalState(
            id=event.id,
            name=event.principal,
            kind=event.kind,
            grants=event.grants,
            description=event.description,
            added_us=record.time_us,
            identity=event.identity,
        )
    )


def principal_modified(state: ClusterState, event: e.PrincipalModified, record: Record) -> None:
    """What was given counts from here on, for all its tokens."""
    principal = state.principals.get(event.principal)
    if principal is not None:
        given = {"kind": event.kind, "grants": event.grants, "description": event.description}
        state.put_principal(replace(principal, **{k: v for k, v in given.items() if v is not None}))


def principal_removed(state: ClusterState, event: e.PrincipalRemoved, record: Record) -> None:
    """And its tokens with it."""
    state.drop_principal(event.principal)
    for token in [token for token in state.tokens.values() if token.principal == event.principal]:
        state.drop_token(token.id)


def token_created(state: ClusterState, event: e.TokenCreated, record: Record) -> None:
    """The token may be used from here on."""
    if event.principal not in state.principals:
        grant = e.Grant(role=event.role)
        state.put_principal(
            PrincipalState(
                id=f"p{event.token}",
                name=event.principal,
                kind=PrincipalKind.PERSON,
                grants=(grant,),
                added_us=record.time_us,
            )
        )
    for token in [token for token in state.tokens.values() if token.principal == event.principal]:
        if token.expired(record.time_us - EXPIRED_KEPT_US):
            state.drop_token(token.id)
    state.put_token(
        Token(
            id=event.token,
            principal=event.principal,
            role=event.role,
            secret_sha256=event.secret_sha256,
            created_us=record.time_us,
            expires_us=event.expires_us,
            description=event.description,
        )
    )


def token_rotated(state: ClusterState, event: e.TokenRotated, record: Record) -> None:
    """The old one goes on until its time is over."""
    token = state.tokens.get(event.token)
    if token is not None:
        state.put_token(replace(token, expires_us=event.expires_us, replaced_by=event.replaced_by))


def token_revoked(state: ClusterState, event: e.TokenRevoked, record: Record) -> None:
    """The history knows of it; the state need not."""
    state.drop_token(event.token)


def token_used(state: ClusterState, event: e.TokenUsed, record: Record) -> None:
    """Its last use that is on record."""
    token = state.tokens.get(event.token)
    if token is not None:
        state.put_token(replace(token, used_us=record.time_us))


def noted(
    state: ClusterState, event: e.LoggedIn | e.LoginRefused | e.AccessRefused | e.SecretRead, record: Record
) -> None:
    """For the history alone."""


def erasure_requested(state: ClusterState, event: e.ErasureRequested, record: Record) -> None:
    """What was sealed with the key is shown to nobody from here on."""
    if event.key not in state.erasures:
        state.put_erasure(Erasure(key=event.key, cause=record.id, requested_us=record.time_us))


def person_erased(state: ClusterState, event: e.PersonErased, record: Record) -> None:
    """And there is nothing left to show it with."""
    erasure = state.erasures.get(event.key)
    if erasure is not None and not erasure.erased_us:
        state.put_erasure(replace(erasure, erased_us=record.time_us))
