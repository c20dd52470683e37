"""What logging in at an issuer needs between two requests, most of it kept by who logs in: sealed, so that a flood of
beginnings takes no memory here and pushes nobody else's out.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import msgspec
from cryptography.fernet import Fernet, InvalidToken

from pvc.clock import Clock
from pvc.errors import Unauthenticated
from pvc.gateway.budget import Budget
from pvc.oidc.issuer import Issuer
from pvc.oidc.people import GroupRole

BEGUN_S = 600
"""A login is finished within ten minutes of its beginning: a password, a second factor, a lost telephone."""

MAX_FINISHED = 10_000
"""Logins remembered as finished, so that none is finished twice; the budget lets fewer come in ten minutes."""

TRIES_AT_ONCE, TRY_EVERY_S = 60, 1.0
"""From one network: an office that comes to work at nine, and polls of those who log in by another device."""


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """A login that has begun."""

    id: str
    """Also the `state` that comes back through the browser."""
    nonce: str = ""
    verifier: str = ""
    redirect: str = ""
    device_code: str = ""


@dataclass(frozen=True, kw_only=True)
class LoginParts:
    """The issuer, and what its word counts for here."""

    issuer: Issuer
    name_claim: str
    groups_claim: str
    roles: tuple[GroupRole, ...]
    lifetime_s: int
    device: bool
    clock: Clock
    box: Fernet = field(default_factory=lambda: Fernet(Fernet.generate_key()))
    """Of this process alone: a login begins and ends at one gateway."""
    tries: Budget = field(init=False)
    _finished: OrderedDict[str, None] = field(default_factory=OrderedDict, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tries", Budget(self.clock, burst=TRIES_AT_ONCE, every_s=TRY_EVERY_S))

    def seal(self, begun: Begun) -> str:
        """The beginning, for its owner to keep."""
        return self.box.encrypt(msgspec.json.encode(begun)).decode()

    def open(self, login: str) -> Begun:
        """The beginning that was sealed here, not long ago, and is not finished. Raises Unauthenticated."""
        try:
            begun = msgspec.json.decode(self.box.decrypt(login.encode(), ttl=BEGUN_S), type=Begun)
        except (InvalidToken, msgspec.MsgspecError):
            raise _over() from None
        if begun.id in self._finished:
            raise _over()
        return begun

    def finish(self, begun: Begun) -> None:
        """From here on it opens nothing."""
        if begun.id in self._finished:
            raise _over()
        self._finished[begun.id] = None
        if len(self._finished) > MAX_FINISHED:
            self._finished.popitem(last=False)

    def forget(self, begun: Begun) -> None:
        """The issuer never heard of it: it may be tried again."""
        self._finished.pop(begun.id, None)


def _over() -> Unauthenticated:
    return Unauthenticated(
        "this login is over, or did not begin at this gateway",
        code="access.login_over",
        hint=f"log in again: pvc login; it takes {BEGUN_S // 60} minutes at most",
    )
