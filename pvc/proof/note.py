"""Signed notes and checkpoints in the formats of C2SP (signed-note, tlog-checkpoint), and keys as a person gives them.

A checkpoint says: the log of this origin had this root at this size. It is text, so that it can stand in a mail or a
system log, and any tool for these formats can check it. Keys are Ed25519; all keys of one cluster have its origin as
their name and are told apart by the first four bytes of a hash.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable

import msgspec

from pvc.proof.findings import Unproven
from pvc.proof.merkle import HASH_BYTES

MAX_NOTE_BYTES = 4_096
"""Of a whole note with its signatures; ours have some 250."""

ORIGIN_PREFIX = "pvc/"

_ED25519 = b"\x01"
_SIGNATURE_LINE = "— "
_KEY_BYTES = 32
_SIGNATURE_BYTES = 64


class PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    """Who a signature is of."""

    name: str
    public: bytes

    @property
    def id(self) -> str:
        """The first four bytes of its hash, as 8 hex digits."""
        return _key_hash(self.name, self.public).hex()

    def __str__(self) -> str:
        """As a person passes it on: name, id and key (C2SP's verifier key)."""
        return f"{self.name}+{self.id}+{_base64(_ED25519 + self.public)}"


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a note vouches for."""

    origin: str
    size: int
    root: bytes


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """A signature below a note, not yet verified."""

    name: str
    key_id: str
    signature: bytes


class SignedCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint with its signatures."""

    checkpoint: Checkpoint
    signatures: tuple[Signature, ...]
    text: str
    """What the signatures are over."""


def origin_of(cluster_id: str) -> str:
    """The origin of a cluster's log."""
    return f"{ORIGIN_PREFIX}{cluster_id}"


def parse_key(text: str) -> PublicKey:
    """A key as `str` of it is. Raises Unproven."""
    parts = text.strip().split("+", 2)
    key = _unbase64(parts[2]) if len(parts) == 3 else None
    if key is None or not _is_name(parts[0]) or key[:1] != _ED25519 or len(key) != 1 + _KEY_BYTES:
        raise Unproven(
            f"{text[:80]!r} is no Ed25519 key of a log",
            code="proof.bad_key",
            hint="a key reads NAME+8 HEX DIGITS+BASE64: `pvc log keys` shows them",
        )
    parsed = PublicKey(name=parts[0], public=key[1:])
    if parsed.id != parts[1]:
        raise Unproven(f"the key {text[:80]!r} has a slip: its id is not {parts[1]}", code="proof.bad_key")
    return parsed


def checkpoint_text(checkpoint: Checkpoint) -> str:
    """The text that is signed."""
    return f"{checkpoint.origin}\n{checkpoint.size}\n{_base64(checkpoint.root)}\n"


def signed_note(text: str, key: PublicKey, signature: bytes) -> str:
    """A note with one signature."""
    line = _base64(bytes.fromhex(key.id) + signature)
    return f"{text}\n{_SIGNATURE_LINE}{key.name} {line}\n"


def parse_checkpoint(note: str) -> SignedCheckpoint:
    """A checkpoint, its signatures not yet verified. Raises Unproven."""
    if len(note) > MAX_NOTE_BYTES or len(note.encode()) > MAX_NOTE_BYTES:
        raise _malformed("it is too long")
    text, found, below = note.rpartition("\n\n")
    text += "\n"
    if not found or not below.endswith("\n"):
        raise _malformed("there are no signatures below an empty line")
    lines = text.split("\n")
    if len(lines) < 4 or not _is_name(lines[0]):
        raise _malformed("it does not begin with origin, size and root")
    size, root = lines[1], _unbase64(lines[2])
    if not (size.isascii() and size.isdigit()) or (size != "0" and size.startswith("0")) or len(size) > 18:
        raise _malformed(f"its size is {size[:40]!r}")
    if root is None or len(root) != HASH_BYTES:
        raise _malformed("its root is no hash")
    signatures = tuple(_parse_signature(line) for line in below[:-1].split("\n"))
    checkpoint = Checkpoint(origin=lines[0], size=int(size), root=root)
    return SignedCheckpoint(checkpoint=checkpoint, signatures=signatures, text=text)


def check_signature(signed: SignedCheckpoint, keys: Iterable[PublicKey]) -> PublicKey:
    """The key that signed it. Raises Unproven when none of these did, or one that claims to be theirs is false."""
    by_id = {(key.name, key.id): key for key in keys if key.name == signed.checkpoint.origin}
    found: PublicKey | None = None
    for signature in signed.signatures:
        key = by_id.get((signature.name, signature.key_id))
        if key is None:
            continue  # a witness's, or one of a kind from the future: C2SP has readers pass over it
        if not _verifies(key, signature.signature, signed.text.encode()):
            raise Unproven(
                f"the signature of key {key.id} over the checkpoint of size {signed.checkpoint.size} is false",
                code="proof.bad_signature",
            )
        found = found or key
    if found is None:
        signed_by = ", ".join(sorted({signature.key_id for signature in signed.signatures}))
        raise Unproven(
            f"the checkpoint of size {signed.checkpoint.size} is signed by {signed_by}, none of the given keys",
            code="proof.unknown_key",
            hint="give the key that was in use then; `pvc log keys` shows all",
        )
    return found


def _parse_signature(line: str) -> Signature:
    name, _, value = line.removeprefix(_SIGNATURE_LINE).partition(" ")
    data = _unbase64(value)
    if not line.startswith(_SIGNATURE_LINE) or not _is_name(name) or data is None or len(data) < 5:
        raise _malformed(f"{line[:40]!r} is no signature")
    return Signature(name=name, key_id=data[:4].hex(), signature=data[4:])


def _verifies(key: PublicKey, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # only where a signature is looked at: it takes 50 ms to load
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if len(signature) != _SIGNATURE_BYTES:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _key_hash(name: str, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:4]


def _is_name(name: str) -> bool:
    return 0 < len(name) <= 200 and name.isprintable() and "+" not in name and " " not in name


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unbase64(text: str) -> bytes | None:
    """What it decodes to; None unless it is the one way to write that."""
    try:
        data = base64.b64decode(text.encode(), validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if _base64(data) == text else None


def _malformed(why: str) -> Unproven:
    return Unproven(f"this is no checkpoint: {why}", code="proof.bad_note")
