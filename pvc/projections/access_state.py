"""What the state knows of access: principals, tokens, and the people whose names are to be unreadable."""

from __future__ import annotations

import msgspec

from pvc.events.access import Grant
from pvc.events.types import PrincipalKind, Role


class PrincipalState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A person or a service that may act."""

    id: str
    name: str
    """As in the events: sealed, or of an earlier version. The state finds it by this."""
    kind: PrincipalKind
    grants: tuple[Grant, ...]
    description: str = ""
    added_us: int = 0
    identity: str = ""
    """Set for who logs in at an issuer (`PrincipalAdded`)."""


class Token(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An access token; only the hash of its secret is known."""

    id: str
    principal: str
    """Whose it is, as in the event: sealed, or of an earlier version."""
    role: Role
    """The most that it may do."""
    secret_sha256: str
    created_us: int = 0
    expires_us: int = 0
    """0: never."""
    used_us: int = 0
    """When it was last recorded as used, which is once a day at most for each gateway and address; 0: never."""
    replaced_by: str = ""
    description: str = ""

    def expired(self, time_us: int) -> bool:
        """Whether its time is over."""
        return 0 < self.expires_us <= time_us


class Erasure(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A key that makes a person readable, and is to be destroyed or is."""

    key: str
    cause: str
    """Id of the record with the request."""
    requested_us: int
    erased_us: int = 0
    """When it was destroyed; 0 while that is not known."""
