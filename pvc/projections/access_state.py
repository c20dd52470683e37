"""What the state knows of access: tokens, and the people whose names are to be unreadable."""

from __future__ import annotations

import msgspec

from pvc.events.types import Role


class Token(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An access token; only the hash of its secret is known."""

    id: str
    principal: str
    """Whose it is, as in the event: sealed, or of an earlier version."""
    role: Role
    secret_sha256: str
    created_us: int = 0


class Erasure(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A key that makes a person readable, and is to be destroyed or is."""

    key: str
    cause: str
    """Id of the record with the request."""
    requested_us: int
    erased_us: int = 0
    """When it was destroyed; 0 while that is not known."""
