"""What nodes say of themselves every few seconds: outside the log, overwritten, a hint to who looks or places VMs."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import msgspec

from pvc.clock import Clock
from pvc.commands.base import Utilisation
from pvc.errors import PvcError
from pvc.presence.base import Presence

logger = logging.getLogger(__name__)

STALE_S = 30.0
"""Six missed publications: what is older is not shown as if it were so now."""

FRESH_S = 1.0
"""Readers within this time share one reading."""


class GuestFigures(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a VM uses."""

    cpu_per_cent: float = 0.0
    """Of one processor, over the last interval."""
    memory_used_mib: int = 0
    cpu_seconds: float = 0.0
    """This and what follows since it came to this node."""
    disk_read_bytes: int = 0
    disk_written_bytes: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0


class TransferFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How far a migration has come."""

    per_cent: float
    total_bytes: int
    remaining_bytes: int
    seconds: float


class FenceAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a node's fence agent said when it was last asked, without any secret."""

    on: bool = False
    """The device says that the node has power."""
    error: str = ""
    """Why there was no answer."""


class NodeFigures(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a node says of itself."""

    node: str
    time_us: int
    """By its own clock; for people."""
    cpu_per_cent: float = 0.0
    memory_used_mib: int = 0
    memory_free_mib: int = 0
    load1: float = 0.0
    vcpus: int = 1
    position: int = 0
    version: str = ""
    zookeeper: str = ""
    """What its ZooKeeper server is: `leader`, `follower`, ...; empty where it runs none."""
    guests: dict[str, GuestFigures] = {}
    transfers: dict[str, TransferFigures] = {}
    fences: dict[str, FenceAnswer] = {}
    """Node -> what its fence agent answered this one; the primary and one more coordinator ask them."""


class Telemetry:
    """The latest figures of all nodes, read on demand and kept for a moment."""

    def __init__(self, presence: Presence, clock: Clock) -> None:
        self._presence = presence
        self._clock = clock
        self._figures: dict[str, NodeFigures] = {}
        self._heard_s: dict[str, tuple[int, float]] = {}
        """Node -> the time it last said, and when we first saw that by our own clock."""
        self._read_s = float("-inf")

    async def read(self) -> Mapping[str, NodeFigures]:
        """The figures of nodes that were heard of lately; the last ones where nobody answers."""
        if self._clock.monotonic() - self._read_s >= FRESH_S:
            await self._read()
        return self.latest()

    def latest(self) -> Mapping[str, NodeFigures]:
        """What was read last, but for what is stale by now."""
        now_s = self._clock.monotonic()
        return {node: found for node, found in self._figures.items() if now_s - self._heard_s[node][1] <= STALE_S}

    def usage(self) -> dict[str, Utilisation]:
        """What a placement may go by."""
        return {
            node: Utilisation(memory_free_mib=found.memory_free_mib, load=found.load1 / max(found.vcpus, 1))
            for node, found in self.latest().items()
        }

    async def _read(self) -> None:
        try:
            published = await self._presence.telemetry()
        except PvcError as error:
            logger.debug("telemetry: not read error=%s", error)
            return
        now_s = self._read_s = self._clock.monotonic()
        for node, data in published.items():
            try:
                figures = msgspec.json.decode(data, type=NodeFigures)
            except msgspec.MsgspecError:
                continue  # of another version; it is only for show
            if self._heard_s.get(node, (0, 0.0))[0] != figures.time_us:
                self._heard_s[node] = (figures.time_us, now_s)
            self._figures[node] = figures
        for gone in self._figures.keys() - published.keys():
            del self._figures[gone], self._heard_s[gone]
