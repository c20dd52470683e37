"""Everything that can happen to access tokens, of which the log holds only hashes, and to the names of people."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

from pvc.events.types import Role


class TokenCreated(Struct, frozen=True, kw_only=True, gc=False):
    """A token was made for a principal; the secret was shown once and is not here."""

    TYPE: ClassVar[str] = "access.token_created"
    token: str
    """The token's public id."""
    principal: str
    """Whose it is; sealed (`pvc.events.sealed`), as it is the name of a person."""
    role: Role
    secret_sha256: str
    """Hex SHA-256 of the secret, which has 256 random bits and so needs no slow hash."""


class ErasureRequested(Struct, frozen=True, kw_only=True, gc=False):
    """The key that makes a person's name and addresses readable is to be destroyed. No node opens them from here on."""

    TYPE: ClassVar[str] = "access.erasure_requested"
    key: str
    """The key's id, 8 hex digits. The name stands nowhere."""


class PersonErased(Struct, frozen=True, kw_only=True, gc=False):
    """Fact: that key is destroyed, and what was sealed with it can be read by nobody any more."""

    TYPE: ClassVar[str] = "access.person_erased"
    key: str
    node: str
    """Which destroyed it."""
