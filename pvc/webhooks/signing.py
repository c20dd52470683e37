"""Signatures of Standard Webhooks, and the secrets for them: made, shown once, and sealed for the log. Pure.

A secret stands in the log encrypted (AES-256-GCM) with a key of the cluster that is not in the log, and bound to its
webhook: a box that is copied to another one opens for nobody.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pvc.clock import Rng
from pvc.errors import Unavailable
from pvc.events.webhook import SealedSecret, Signature
from pvc.projections.webhook_state import Secret, Webhook

SECRET_BYTES = 32
KEY_BYTES = 32
NONCE_BYTES = 12
"""Drawn anew for each of the few secrets there are."""

_BOX = "aesgcm"


class NewSecret(NamedTuple):
    """A secret that was just made."""

    sealed: SealedSecret
    shown: str
    """`whsec_...`, or `whpk_...` where the receiver needs the public key alone; the rest is shown to nobody."""


def make_secret(kind: Signature, name: str, key: bytes, rng: Rng) -> NewSecret:
    """A secret for the webhook of this name."""
    secret_id, value = rng.randbytes(4).hex(), rng.randbytes(SECRET_BYTES)
    public = ""
    if kind is Signature.ED25519:
        raw = Ed25519PrivateKey.from_private_bytes(value).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        public = f"whpk_{base64.b64encode(raw).decode()}"
    nonce = rng.randbytes(NONCE_BYTES)
    box = nonce + AESGCM(key).encrypt(nonce, value, _about(name, secret_id, kind))
    sealed = SealedSecret(id=secret_id, box=f"{_BOX}~{key_id(key)}~{base64.b64encode(box).decode()}", public=public)
    return NewSecret(sealed, public or f"whsec_{base64.b64encode(value).decode()}")


def key_id(key: bytes) -> str:
    """Tells one key of the cluster from another, and nothing else of it."""
    return hashlib.sha256(b"webhooks" + key).hexdigest()[:8]


def open_secret(hook: Webhook, sealed: SealedSecret, key: bytes) -> bytes:
    """The secret itself. Raises Unavailable (`webhook.secret_unreadable`)."""
    kind, _, rest = sealed.box.partition("~")
    used, _, text = rest.partition("~")
    try:
        if kind != _BOX or used != key_id(key):
            raise ValueError
        box = base64.b64decode(text, validate=True)
        about = _about(hook.name, sealed.id, hook.settings.signature)
        return AESGCM(key).decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], about)
    except (InvalidTag, ValueError, binascii.Error):
        raise Unavailable(
            f"the secret {sealed.id} of the webhook {hook.name} cannot be read with the cluster's present key",
            code="webhook.secret_unreadable",
            hint=f"`pvc webhook rotate-secret {hook.name}` makes a new one; the key may have been lost in a restore",
        ) from None


def in_use(hook: Webhook, now_us: int) -> list[Secret]:
    """The secrets that sign now, the newest first."""
    return [one for one in reversed(hook.secrets) if not one.until_us or one.until_us > now_us]


def headers_of(hook: Webhook, message: str, body: bytes, key: bytes, now_us: int) -> dict[str, str]:
    """The three headers of a try. Raises Unavailable where the newest secret cannot be read."""
    time_s = now_us // 1_000_000
    secrets: list[bytes] = []
    for number, one in enumerate(in_use(hook, now_us)):
        try:
            secrets.append(open_secret(hook, one.sealed, key))
        except Unavailable:
            if number == 0:
                raise
    return {
        "webhook-id": message,
        "webhook-timestamp": str(time_s),
        "webhook-signature": signatures(hook.settings.signature, secrets, f"{message}.{time_s}.".encode() + body),
    }


def signatures(kind: Signature, secrets: Sequence[bytes], signed: bytes) -> str:
    """One for each secret, with blanks between them."""
    if kind is Signature.ED25519:
        made = [("v1a", Ed25519PrivateKey.from_private_bytes(secret).sign(signed)) for secret in secrets]
    else:
        made = [("v1", hmac.digest(secret, signed, "sha256")) for secret in secrets]
    return " ".join(f"{version},{base64.b64encode(value).decode()}" for version, value in made)


def _about(name: str, secret_id: str, kind: Signature) -> bytes:
    return f"webhook/{name}/{secret_id}/{kind}".encode()
