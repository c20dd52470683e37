"""Signing keys for tests, each made from a word."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pvc.proof.note import Checkpoint, PublicKey, checkpoint_text, origin_of, signed_note

CLUSTER = "7c1de2a4-5d0b-5f3a-8b21-6e2f4c9d8b10"
ORIGIN = origin_of(CLUSTER)


class TestKey:
    """A signing key made from a word."""

    __test__ = False

    def __init__(self, word: str, origin: str = ORIGIN) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(word.encode()).digest())
        public = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public = PublicKey(name=origin, public=public)

    def sign(self, size: int, root: bytes, origin: str = "") -> str:
        text = checkpoint_text(Checkpoint(origin=origin or self.public.name, size=size, root=root))
        return signed_note(text, self.public, self._private.sign(text.encode()))
