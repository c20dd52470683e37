"""What the state knows of webhooks. How far each has been delivered to is not here, but in its cursor."""

from __future__ import annotations

import msgspec

from pvc.events.webhook import SealedSecret, WebhookSettings

MAX_PARKED = 1_000
"""Parked events remembered of one endpoint, the newest; older ones are in the history. One takes days to be parked."""

MAX_REPLAYS = 64
"""Requests to replay remembered of one endpoint: whoever delivers takes them up within a second."""


class Secret(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A signing secret, sealed, and how long it is used."""

    sealed: SealedSecret
    since_us: int
    until_us: int = 0
    """0: it is the present one."""


class Parked(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event that was given up."""

    position: int
    index: int
    event: str
    tries: int
    reason: str
    time_us: int


class Replay(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A range that is to be sent again, or was."""

    at: int
    """Position of the request; a cursor remembers the last that it has taken up."""
    first: int
    last: int
    time_us: int


class Webhook(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An endpoint."""

    id: str
    name: str
    settings: WebhookSettings
    secrets: tuple[Secret, ...]
    """The newest last."""
    after: int
    """What it is sent begins after this position."""
    verified: bool = False
    paused: bool = False
    pause_reason: str = ""
    disabled: str = ""
    """Why nothing is sent any more, while that is so."""
    parked: tuple[Parked, ...] = ()
    replays: tuple[Replay, ...] = ()
    added_us: int = 0
    resumed_at: int = 0
    """Position of the last record with which it was to go on at once, whatever had failed before."""
    cause: str = ""
    """Id of the record with the latest request; facts that answer it name it as their cause."""
    position: int = 0
