"""How names and addresses of people stand in records: as texts that only the holder of a key can read. Pure, no keys.

`person~3f2a91c0~...` is a name and `address~3f2a91c0~...` an address, both sealed with the key 3f2a91c0. Equal names of
one key are equal texts, so what a person did is found without reading their name. The key's id tells nothing of it.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["person", "address"]

SEALED = re.compile(r"(person|address)~([0-9a-f]{8})~([A-Za-z0-9_-]{20,})")
"""Anywhere in a text: an event may quote its actor."""

KEY_ID_BYTES = 4
"""People are some hundreds; an id that is taken is drawn anew."""

_PSEUDONYM = re.compile(r"(?:erased|person)-([0-9a-f]{8})")


class Sealed(NamedTuple):
    """A sealed text in its parts."""

    kind: Kind
    key: str
    """8 hex digits."""
    box: bytes


def write_sealed(sealed: Sealed) -> str:
    """As it stands in records."""
    return f"{sealed.kind}~{sealed.key}~{base64.urlsafe_b64encode(sealed.box).rstrip(b'=').decode()}"


def parse_sealed(text: str) -> Sealed | None:
    """The parts of a text that is sealed as a whole; None for any other."""
    found = SEALED.fullmatch(text)
    if found is None:
        return None
    kind: Kind = "person" if found[1] == "person" else "address"
    try:
        box = base64.b64decode(found[3] + "=" * (-len(found[3]) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return Sealed(kind, found[2], box)


def beginning_of(key: str) -> str:
    """What every name begins with that this key sealed."""
    return f"person~{key}~"


def erased_name(key: str) -> str:
    """What is shown for a person whose key is destroyed."""
    return f"erased-{key}"


def hidden_name(key: str) -> str:
    """What is shown for a person whose key cannot be had just now."""
    return f"person-{key}"


def key_of_pseudonym(name: str) -> str:
    """The key that `erased-3f2a91c0` or `person-3f2a91c0` stands for; empty for any other name."""
    found = _PSEUDONYM.fullmatch(name)
    return found[1] if found else ""


def shortened(principal: str) -> str:
    """A principal for a line of the node's own log: a sealed one by its key, any other as it is."""
    sealed = parse_sealed(principal)
    return hidden_name(sealed.key) if sealed else principal
