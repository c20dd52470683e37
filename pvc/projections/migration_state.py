"""What the state knows of a VM that is on its way to another node."""

from __future__ import annotations

import msgspec


class Migration(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A VM's way from one node to another, under way."""

    id: str
    source: str
    target: str
    live: bool
    fallback: bool
    permanent: bool
    max_downtime_ms: int
    force_live: bool
    timeout_s: int
    away: str
    reason: str
    why: tuple[str, ...]
    prepared: bool = False
    """The target expects it."""
    cancel: bool = False
    since_us: int = 0
    """When it was asked for."""
