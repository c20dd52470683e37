"""Everything that can happen to access tokens. The log holds only their hashes."""

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
    role: Role
    secret_sha256: str
    """Hex SHA-256 of the secret, which has 256 random bits and so needs no slow hash."""
