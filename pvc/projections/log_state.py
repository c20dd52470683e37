"""What the state knows of the log itself: who signs its checkpoints, and the newest one."""

from __future__ import annotations

import msgspec


class SigningKey(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A key that checkpoints of the log are or were signed with."""

    id: str
    node: str
    key: str
    added_at: int
    """Position of the record that announced it; it counts from there on."""
    added_us: int
    retired_at: int = 0
    """Position of the record that retired it; 0 while it is in use."""
    retired_us: int = 0
    rotate: str = ""
    """Id of the record with the request to replace it, while that has not been done."""


class LogCheckpoint(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The newest signed checkpoint of the log."""

    size: int
    root: str
    note: str
    position: int
    """Of its record."""
    time_us: int
    node: str
    key_id: str
    anchored: dict[str, int]
    """Anchor -> size of the newest checkpoint that had been delivered there. Never changed in place."""


class LogTrust(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who vouches for the log, and up to where."""

    keys: tuple[SigningKey, ...] = ()
    """All that ever were, in the order in which they were announced; a retired one still verifies old checkpoints."""
    checkpoint: LogCheckpoint | None = None

    def key_of(self, node: str) -> SigningKey | None:
        """The key that a node signs with now."""
        return next((key for key in self.keys if key.node == node and not key.retired_at), None)
