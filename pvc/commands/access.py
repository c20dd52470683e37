"""Commands about who may do what: principals, their grants, and their tokens. Names come sealed, and are compared as
they are; the secrets of tokens never come here, only their hashes."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from pvc.commands.access_table import Action
from pvc.commands.base import CommandSpec, Context, Decision, invalid, near_names, quoted, require_cluster
from pvc.commands.cluster import derived_id
from pvc.commands.vm_ref import NOTHING
from pvc.errors import NotFound, Rejected
from pvc.events.access import (
    Grant,
    PrincipalAdded,
    PrincipalModified,
    PrincipalRemoved,
    TokenCreated,
    TokenRevoked,
    TokenRotated,
)
from pvc.events.types import END, Description, Principal, PrincipalKind, Role
from pvc.projections.access_state import PrincipalState, Token
from pvc.projections.state import ClusterState

MAX_GRANTS = 20
"""Of one principal; each is looked at for each request."""

MAX_PRINCIPALS = 10_000
"""Some 3 MB of every node's memory."""

MAX_TOKENS = 50
"""Of one principal: more is a script that has gone astray."""

DAY_S = 86_400

PrincipalRef = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,62}" + END,
        description="Name of the principal, or the pseudonym of one who was erased.",
        examples=["anna"],
    ),
]
TokenId = Annotated[
    str,
    Meta(pattern="^[0-9a-z]{8,32}" + END, description="Id of the token: its middle part.", examples=["3f2a91c0d4e5"]),
]
Grants = Annotated[
    tuple[Grant, ...],
    Meta(min_length=1, max_length=MAX_GRANTS, description="A role, and what it is limited to."),
]
Made = Annotated[str, Meta(pattern="^([0-9a-z]{8,32})?" + END, description="Set by the gateway.")]
MadeHash = Annotated[str, Meta(pattern="^([0-9a-f]{64})?" + END, description="Set by the gateway.")]


class AddPrincipal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Add a person or a service that may act, with its roles.

    A role is on the whole cluster, or limited to VMs with a tag, or a name that matches. What several allow, adds up.
    It can do nothing before it has a token.
    """

    principal: Principal
    grants: Grants
    kind: Annotated[PrincipalKind, Meta(description="Who it is.")] = PrincipalKind.PERSON
    description: Description = ""


class ModifyPrincipal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Change a principal's roles, or what is said of it.

    The grants that are given take the place of all that there were. They count at once, for all its tokens.
    """

    principal: PrincipalRef
    grants: Grants | None = None
    kind: Annotated[PrincipalKind | None, Meta(description="Who it is.")] = None
    description: Description | None = None


class RemovePrincipal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Remove a principal, with all its tokens.

    What it did stays in the history. To make the name there unreadable as well: `pvc audit erase`.
    """

    principal: PrincipalRef


class CreateToken(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Make a token for a principal.

    It is shown in the reply and never again; the log keeps its hash. It may do what its owner may, but no more than
    its own role.
    """

    principal: PrincipalRef
    role: Annotated[Role, Meta(description="The most that it may do.")] = Role.ADMIN
    lifetime_s: Annotated[
        int, Meta(ge=0, le=10 * 365 * DAY_S, description="How long it opens; 0: for ever.", examples=[90 * DAY_S])
    ] = 365 * DAY_S
    description: Description = ""
    token_id: Made = ""
    token_sha256: MadeHash = ""


class RotateToken(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Replace a token by a new one; the old one opens a while longer, so that both can be changed over.

    The new one is shown in the reply and never again; was that lost, rotate the old one again. It has the role and the
    length of life of the old one. Everybody may rotate their own, with a token that may do as much.
    """

    token: TokenId
    overlap_s: Annotated[
        int, Meta(ge=0, le=30 * DAY_S, description="How long the old one still opens.", examples=[3600])
    ] = DAY_S
    token_id: Made = ""
    token_sha256: MadeHash = ""


class RevokeToken(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Revoke a token: it opens nothing any more, from this record on.

    Everybody may revoke their own, with a token that may do as much.
    """

    token: TokenId


def add_principal(state: ClusterState, command: AddPrincipal, context: Context) -> Decision:
    """A name that nobody has."""
    require_cluster(state)
    _check_grants(command.grants)
    if command.principal in state.principals:
        raise Rejected(
            f"there is a principal {command.principal} already",
            code="access.principal_exists",
            hint="`pvc access modify` changes what it may do",
        )
    if len(state.principals) >= MAX_PRINCIPALS:
        raise Rejected(f"there are {MAX_PRINCIPALS:,} principals already", code="access.too_many", hint="remove some")
    event = PrincipalAdded(
        id=f"p{derived_id(context.command_id).replace('-', '')[:12]}",
        principal=command.principal,
        kind=command.kind,
        grants=command.grants,
        description=command.description,
    )
    return Decision(events=(event,))


def modify_principal(state: ClusterState, command: ModifyPrincipal, context: Context) -> Decision:
    """Only what is another thing than before."""
    principal = find_principal(state, command.principal)
    if command.grants is not None:
        _check_grants(command.grants)
    wanted: dict[str, Any] = {
        field: value
        for field in ("kind", "grants", "description")
        if (value := getattr(command, field)) is not None and value != getattr(principal, field)
    }
    if not wanted:
        return NOTHING
    event = PrincipalModified(id=principal.id, principal=principal.name, **wanted)
    after = {principal.name: command.grants} if command.grants is not None else {}
    return Decision(events=(event,), notes=_notes(state, after))


def remove_principal(state: ClusterState, command: RemovePrincipal, context: Context) -> Decision:
    """Root on a node can always make another admin, so the last one may go."""
    principal = find_principal(state, command.principal)
    event = PrincipalRemoved(id=principal.id, principal=principal.name)
    return Decision(events=(event,), notes=_notes(state, {principal.name: ()}))


def create_token(state: ClusterState, command: CreateToken, context: Context) -> Decision:
    """For a principal that there is."""
    principal = find_principal(state, command.principal)
    _refuse_person_of_issuer(principal)
    live = [token for token in tokens_of(state, principal.name) if not token.expired(context.time_us)]
    if len(live) >= MAX_TOKENS:
        raise Rejected(
            f"{principal.name} has {len(live)} tokens already",
            code="access.too_many",
            hint="`pvc access token list` shows them; revoke those that nobody uses",
        )
    event = TokenCreated(
        token=command.token_id,
        principal=principal.name,
        role=command.role,
        secret_sha256=command.token_sha256,
        expires_us=context.time_us + command.lifetime_s * 1_000_000 if command.lifetime_s else 0,
        description=command.description,
    )
    return Decision(events=(event,))


def rotate_token(state: ClusterState, command: RotateToken, context: Context) -> Decision:
    """Once, so that nobody multiplies a token. A new one that was never used was perhaps never received: then it gives
    way to another."""
    token = find_token(state, command.token)
    if token.expired(context.time_us):
        raise Rejected(
            f"the token {token.id} has expired", code="access.token_over", hint="an admin makes a new one for its owner"
        )
    owner = state.principals.get(token.principal)
    if owner is not None:
        _refuse_person_of_issuer(owner)
    successor = state.tokens.get(token.replaced_by)
    if successor is not None and successor.used_us:
        raise Rejected(
            f"the token {token.id} is replaced by {token.replaced_by} already",
            code="access.token_over",
            hint="rotate that one",
        )
    given = successor or token  # this one's own end is that of its overlap, once it was rotated
    lifetime_us = given.expires_us - given.created_us if given.expires_us else 0
    until_us = context.time_us + command.overlap_s * 1_000_000
    old = TokenRotated(
        token=token.id,
        replaced_by=command.token_id,
        expires_us=min(until_us, token.expires_us) if token.expires_us else until_us,
    )
    new = TokenCreated(
        token=command.token_id,
        principal=token.principal,
        role=token.role,
        secret_sha256=command.token_sha256,
        expires_us=context.time_us + lifetime_us if lifetime_us else 0,
        replaces=token.id,
        description=token.description,
    )
    lost = (TokenRevoked(token=successor.id),) if successor is not None else ()
    return Decision(events=(*lost, new, old))


def revoke_token(state: ClusterState, command: RevokeToken, context: Context) -> Decision:
    """At once."""
    token = find_token(state, command.token)
    return Decision(events=(TokenRevoked(token=token.id),))


def find_principal(state: ClusterState, name: str) -> PrincipalState:
    """The principal of this name, as in events. Raises NotFound."""
    require_cluster(state)
    principal = state.principals.get(name)
    if principal is None:
        raise NotFound(
            f"there is no principal {quoted(name)}",
            code="access.principal_not_found",
            hint="`pvc access list` shows them",
            field="principal",
        )
    return principal


def find_token(state: ClusterState, token_id: str) -> Token:
    """The token with this id. Raises NotFound."""
    require_cluster(state)
    token = state.tokens.get(token_id)
    if token is None:
        near = near_names(token_id, state.tokens)
        hint = f"did you mean {' or '.join(near)}?" if near else "`pvc access token list` shows them"
        raise NotFound(f"there is no token {quoted(token_id)}", code="access.token_not_found", hint=hint, field="token")
    return token


def tokens_of(state: ClusterState, name: str) -> list[Token]:
    """A principal's tokens."""
    return [token for token in state.tokens.values() if token.principal == name]


def _refuse_person_of_issuer(principal: PrincipalState) -> None:
    """Whoever comes by an issuer goes by it: a token that did not would outlive them there."""
    if principal.identity:
        raise Rejected(
            f"{principal.name} logs in at the issuer, and has no other tokens",
            code="access.by_login_only",
            hint="`pvc login` makes a new one; for a script add a service: pvc access add NAME --kind service",
        )


def _check_grants(grants: tuple[Grant, ...]) -> None:
    if len(set(grants)) != len(grants):
        raise invalid("grants", "a grant is given twice", "leave one of them out", "input.conflict")


def _notes(state: ClusterState, after: dict[str, tuple[Grant, ...]]) -> tuple[str, ...]:
    """A word of warning where nobody with a token is admin of the whole cluster any more."""
    grants = {name: principal.grants for name, principal in state.principals.items()} | after
    if any(grant.role is Role.ADMIN and not grant.limited for given in grants.values() for grant in given):
        return ()
    return ("nobody but root on a node is admin of the whole cluster any more",)


_SHOWN_ONCE = ("token_id", "token_sha256")

SPECS = (
    CommandSpec(
        name="access.add",
        struct=AddPrincipal,
        decide=add_principal,
        action=Action.ACCESS_MANAGE,
        path="/access",
        cli=("access", "add"),
        args=("principal",),
        personal=("principal",),
        example={"principal": "anna", "grants": [{"role": "operator", "tag": "shop"}]},
    ),
    CommandSpec(
        name="access.modify",
        struct=ModifyPrincipal,
        decide=modify_principal,
        action=Action.ACCESS_MANAGE,
        method="PATCH",
        path="/access/{principal}",
        cli=("access", "modify"),
        args=("principal",),
        known=("principal",),
        example={"principal": "anna", "grants": [{"role": "viewer"}]},
    ),
    CommandSpec(
        name="access.remove",
        struct=RemovePrincipal,
        decide=remove_principal,
        action=Action.ACCESS_MANAGE,
        method="DELETE",
        path="/access/{principal}",
        cli=("access", "remove"),
        args=("principal",),
        known=("principal",),
        example={"principal": "anna"},
        confirm="{principal} can do nothing any more, and the tokens of {principal} open nothing",
    ),
    CommandSpec(
        name="access.create_token",
        struct=CreateToken,
        decide=create_token,
        action=Action.ACCESS_MANAGE,
        path="/access/{principal}/tokens",
        cli=("access", "token", "create"),
        args=("principal",),
        known=("principal",),
        internal=_SHOWN_ONCE,
        example={"principal": "anna", "lifetime_s": 90 * DAY_S},
    ),
    CommandSpec(
        name="access.rotate_token",
        struct=RotateToken,
        decide=rotate_token,
        action=Action.TOKEN_MANAGE,
        path="/tokens/{token}/rotate",
        cli=("access", "token", "rotate"),
        args=("token",),
        internal=_SHOWN_ONCE,
        example={"token": "3f2a91c0d4e5"},
    ),
    CommandSpec(
        name="access.revoke_token",
        struct=RevokeToken,
        decide=revoke_token,
        action=Action.TOKEN_MANAGE,
        method="DELETE",
        path="/tokens/{token}",
        cli=("access", "token", "revoke"),
        args=("token",),
        example={"token": "3f2a91c0d4e5"},
        confirm="The token {token} opens nothing any more",
    ),
)
