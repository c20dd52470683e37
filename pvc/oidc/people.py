"""Who a verified ID token stands for here: a name, and the grants that the groups in it give. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from pvc.errors import Forbidden
from pvc.events.access import Grant
from pvc.events.types import Principal

EVERYBODY = "*"
"""In place of a group: whoever the issuer lets log in to this client."""

MAX_GRANTS = 20
"""As many as a principal may have."""


class GroupRole(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[oidc.roles]]`: what the members of a group may do."""

    group: Annotated[str, Meta(min_length=1, max_length=500)]
    """As in the claim, or `*` for everybody who may log in."""
    grant: Annotated[str, Meta(min_length=1, max_length=200)]
    """A role and what it is limited to, as for `pvc access add --grant`: `operator,tag=shop`."""


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Who logs in."""

    name: str
    subject: str
    """What the issuer knows them by, for good."""
    grants: tuple[Grant, ...]


def person_of(claims: Mapping[str, Any], *, name_claim: str, groups_claim: str, roles: tuple[GroupRole, ...]) -> Person:
    """Who a token's claims are about. Raises Forbidden where they give no name that can be used."""
    name = _claim(claims, name_claim)
    if name_claim == "email" and claims.get("email_verified") is not True:
        raise _no_name("the issuer has not verified the address")
    try:
        name = msgspec.convert(name, Principal)
    except msgspec.ValidationError:
        raise _no_name(f"the claim {name_claim} is missing, or cannot be a name here") from None
    groups = groups_of(claims, groups_claim)
    given = [grant_of(one.grant) for one in roles if one.group == EVERYBODY or one.group in groups]
    return Person(name=name, subject=claims["sub"], grants=tuple(dict.fromkeys(given))[:MAX_GRANTS])


def groups_of(claims: Mapping[str, Any], claim: str) -> frozenset[str]:
    """The groups, from a list of texts or one text; what is anything else gives none."""
    found = _claim(claims, claim)
    if isinstance(found, str):
        return frozenset((found,))
    return frozenset(one for one in found if isinstance(one, str)) if isinstance(found, list) else frozenset()


def grant_of(text: str) -> Grant:
    """`operator,tag=shop` as a grant. Raises ValueError."""
    role, *limits = text.split(",")
    fields = {"role": role.strip()}
    for limit in limits:
        field, _, value = limit.partition("=")
        if field.strip() not in ("tag", "name") or not value or field.strip() in fields:
            raise ValueError(f"{limit.strip()!r} is no limit; write tag=... or name=...")
        fields[field.strip()] = value.strip()
    try:
        return msgspec.convert(fields, Grant)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by names with dots between them where it stands inside of others."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _no_name(why: str) -> Forbidden:
    return Forbidden(
        f"you are known to the issuer, but have no name here: {why}",
        code="access.login_no_name",
        hint="an admin sets oidc.name_claim to a claim that has one: letters, digits and . _ @ + -",
    )
