"""The Keyring port: one key for each person, kept until it is destroyed. What it does not have, nobody can read.

A person has at most one key at a time. Who is first to keep one for a name decides it for all; so gateways that meet a
person at the same moment agree. Ids of keys are random, and say nothing of the name.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import msgspec

from pvc.clock import Rng
from pvc.errors import Conflict, Unavailable
from pvc.events.sealed import KEY_ID_BYTES

SECRET_BYTES = 64
"""AES-256 in SIV mode takes two keys of 256 bits."""

DEADLINE_S = 10.0
"""How long any call may take."""


class PersonKey(msgspec.Struct, frozen=True, kw_only=True):
    """A person's key. Its secret shows in no text that is made of it."""

    id: str
    """8 hex digits."""
    principal: str
    secret: bytes

    def __repr__(self) -> str:
        return f"PersonKey(id={self.id!r})"

    __str__ = __repr__


class IdTaken(Conflict):
    """There is another key with this id. Nothing was kept; draw another one."""

    default_code = "keyring.id_taken"


class Keyring(Protocol):
    """Every method may raise Unavailable (`keyring.unreachable`, `keyring.damaged`, `keyring.closed`)."""

    async def find(self, principal: str) -> PersonKey | None:
        """The person's key as it is now, not as it was a moment ago."""
        ...

    async def make(self, key: PersonKey) -> PersonKey:
        """Keep this key for its person unless there is one; returns the one that is kept, which survives a power cut.

        Safe to call again with the same key, whatever became of the first call. Raises IdTaken.
        """
        ...

    async def read(self, ids: Collection[str]) -> dict[str, PersonKey]:
        """Those of these keys that there are, as it is now."""
        ...

    async def ids(self) -> list[str]:
        """The ids of all keys."""
        ...

    async def destroy(self, key_id: str) -> None:
        """Have no such key any more; nothing if there is none. Its person may get another one from then on."""
        ...

    async def close(self) -> None:
        """Let go of what is open."""
        ...


def new_key(principal: str, rng: Rng) -> PersonKey:
    """A key that nobody has seen before."""
    return PersonKey(id=rng.randbytes(KEY_ID_BYTES).hex(), principal=principal, secret=rng.randbytes(SECRET_BYTES))


def unreachable(where: str, reason: str) -> Unavailable:
    """What a call gets when the keys cannot be had."""
    return Unavailable(
        f"the keys of people's names at {where} cannot be had: {reason}",
        code="keyring.unreachable",
        hint="names are shown as person-... meanwhile; mend it and try again",
    )


def unreadable(where: str, reason: str) -> Unavailable:
    """What a call gets when what is stored is no key."""
    return Unavailable(
        f"the keys of people's names at {where} cannot be read: {reason}",
        code="keyring.damaged",
        hint="restore them from a copy: without them the names in the log stay unreadable",
    )


def closed() -> Unavailable:
    """What every call gets after `close`."""
    return Unavailable("the keyring is closed: the daemon is stopping", code="keyring.closed", hint="ask another node")
