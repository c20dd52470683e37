"""Seals names and addresses with a person's key, and opens them. Pure: AES-SIV (RFC 5297), nothing stored.

A name is sealed without a nonce, so equal names of one key are equal texts; SIV is made for that, and authenticates. An
address gets a nonce, so that nobody without the key can tell whether somebody came from the same place twice. Both are
filled up to full blocks: the length of a name would tell, among few people, whose it is.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from pvc.clock import Rng
from pvc.events.sealed import Kind, Sealed, write_sealed
from pvc.keyring.base import PersonKey

NONCE_BYTES = 12

_BLOCK: dict[Kind, int] = {"person": 32, "address": 16}
"""Names and addresses up to one byte less are all of one length. IPv6 takes more than IPv4, which may be known."""

_END = b"\x80"
"""Ends the text; zeros follow (ISO/IEC 7816-4). It is no beginning of a character in UTF-8."""


def seal_name(key: PersonKey) -> str:
    """The name of the key's person, sealed."""
    box = AESSIV(key.secret).encrypt(_filled(key.principal, "person"), [b"person"])
    return write_sealed(Sealed("person", key.id, box))


def seal_address(key: PersonKey, address: str, rng: Rng) -> str:
    """An address that the key's person came from, sealed."""
    nonce = rng.randbytes(NONCE_BYTES)
    box = AESSIV(key.secret).encrypt(_filled(address, "address"), [b"address", nonce])
    return write_sealed(Sealed("address", key.id, nonce + box))


def open_sealed(key: PersonKey, sealed: Sealed) -> str | None:
    """What was sealed; None where this is not what the key sealed, or only a part of it."""
    nonce, box = (sealed.box[:NONCE_BYTES], sealed.box[NONCE_BYTES:]) if sealed.kind == "address" else (b"", sealed.box)
    about = [sealed.kind.encode(), nonce] if nonce else [sealed.kind.encode()]
    try:
        text, end, _ = AESSIV(key.secret).decrypt(box, about).rpartition(_END)
    except (InvalidTag, ValueError):
        return None
    return text.decode() if end else None


def _filled(text: str, kind: Kind) -> bytes:
    data = text.encode() + _END
    return data + bytes(-len(data) % _BLOCK[kind])
