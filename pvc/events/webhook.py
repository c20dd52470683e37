"""Everything that can happen to webhooks: what an admin did to one, and what an admin must know of it.

How far an endpoint has been delivered to is not among it: that is a cursor beside the log (`pvc.webhooks.store`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from msgspec import Struct


class Signature(StrEnum):
    """How what is sent is signed (Standard Webhooks)."""

    HMAC = "hmac"
    """`v1`: HMAC-SHA256 with a secret that the receiver has too."""
    ED25519 = "ed25519"
    """`v1a`: the receiver has the public key alone, and can sign nothing itself."""


class Ownership(StrEnum):
    """What proves that the receiver wants to be sent events."""

    CHALLENGE = "challenge"
    """Its answer to a ping repeats the ping's challenge."""
    ANY_2XX = "any-2xx"
    """It answers a ping with any status from 200 to 299: for receivers that cannot be taught."""


class WebhookSettings(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What is sent, where to, and how."""

    url: str
    types: tuple[str, ...] = ()
    """`vm.started`, or `vm.*`; none: all."""
    subjects: tuple[str, ...] = ()
    """`vm/<id>`, `node/hv1`, or a kind alone; none: all."""
    tags: tuple[str, ...] = ()
    """Of VMs, as they were at the event; none: all, and what is not about VMs."""
    batch: int = 1
    """Events of one request at most."""
    rate: int = 20
    """Requests of one second at most."""
    tries: int = 10
    """Of one request, before it is parked."""
    signature: Signature = Signature.HMAC
    ownership: Ownership = Ownership.CHALLENGE
    allow_private: tuple[str, ...] = ()
    """Networks of private addresses that the receiver may be in: `10.0.7.0/24`, `10.0.7.5/32:8443`."""
    reveal_names: bool = False
    """Whether people's names are sent opened; else as the log has them, sealed."""
    owner: str = ""
    """The principal whose it is, as in the events: it is sent what they may see. Empty: the cluster's own, root's."""
    description: str = ""


class SealedSecret(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A signing secret, encrypted with the cluster's key, which is not in the log."""

    id: str
    box: str
    """`aesgcm~<id of the cluster's key>~<base64>`."""
    public: str = ""
    """`whpk_...`, where the receiver verifies with a public key."""


class WebhookAdded(Struct, frozen=True, kw_only=True, gc=False):
    """There is an endpoint; it is sent what comes after a position, once it has proved that it wants that."""

    TYPE: ClassVar[str] = "webhook.added"
    hook: str
    name: str
    settings: WebhookSettings
    secret: SealedSecret
    after: int


class WebhookModified(Struct, frozen=True, kw_only=True, gc=False):
    """It has these settings from here on; with another address it has to prove itself again."""

    TYPE: ClassVar[str] = "webhook.modified"
    hook: str
    settings: WebhookSettings


class WebhookRemoved(Struct, frozen=True, kw_only=True, gc=False):
    """There is no such endpoint any more."""

    TYPE: ClassVar[str] = "webhook.removed"
    hook: str
    name: str


class WebhookPaused(Struct, frozen=True, kw_only=True, gc=False):
    """Nothing is sent until it is resumed; nothing is lost."""

    TYPE: ClassVar[str] = "webhook.paused"
    hook: str
    reason: str = ""


class WebhookResumed(Struct, frozen=True, kw_only=True, gc=False):
    """It is sent again what comes next, after a pause or after it was disabled."""

    TYPE: ClassVar[str] = "webhook.resumed"
    hook: str


class WebhookSecretRotated(Struct, frozen=True, kw_only=True, gc=False):
    """There is a new secret; until `overlap_until_us` everything is signed with the ones before too."""

    TYPE: ClassVar[str] = "webhook.secret_rotated"
    hook: str
    secret: SealedSecret
    overlap_until_us: int


class WebhookReplayRequested(Struct, frozen=True, kw_only=True, gc=False):
    """The records of a range are to be sent again, before what comes next."""

    TYPE: ClassVar[str] = "webhook.replay_requested"
    hook: str
    first: int
    last: int


class WebhookVerified(Struct, frozen=True, kw_only=True, gc=False):
    """Fact: the receiver has proved that it wants to be sent events at this address."""

    TYPE: ClassVar[str] = "webhook.verified"
    hook: str
    url: str


class WebhookDisabled(Struct, frozen=True, kw_only=True, gc=False):
    """Fact: nothing is sent any more until an admin resumes it."""

    TYPE: ClassVar[str] = "webhook.disabled"
    hook: str
    reason: str


class WebhookParked(Struct, frozen=True, kw_only=True, gc=False):
    """Fact: one event was given up after its last try, and those after it go on. It can be replayed."""

    TYPE: ClassVar[str] = "webhook.parked"
    hook: str
    position: int
    index: int
    """Which of the record's events, from 0."""
    event: str
    """Its type."""
    tries: int
    reason: str
