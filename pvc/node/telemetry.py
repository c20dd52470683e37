"""Publishes what this node uses every few seconds, and how far its migrations have come every second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from pvc import __version__
from pvc.clock import Clock
from pvc.drivers.hypervisor import Hypervisor, MachineUsage
from pvc.errors import PvcError
from pvc.handlers.transfers import Transfers
from pvc.presence.base import Presence
from pvc.runtime.telemetry import GuestFigures, NodeFigures, TransferFigures
from pvc.runtime.world import World

logger = logging.getLogger(__name__)

PUBLISH_S = 5.0

PROGRESS_S = 1.0
"""While something migrates, somebody may be watching it."""

PublishNow = Callable[[], Awaitable[None]]


class Publisher:
    """Runs until cancelled."""

    def __init__(
        self,
        node: str,
        world: World,
        presence: Presence,
        hypervisor: Hypervisor,
        transfers: Transfers,
        clock: Clock,
        zookeeper: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        self._node = node
        self._world = world
        self._presence = presence
        self._hypervisor = hypervisor
        self._transfers = transfers
        self._clock = clock
        self._zookeeper = zookeeper
        self._cpu_seconds: dict[str, float] = {}
        self._measured_s = 0.0
        self._last: NodeFigures | None = None

    async def run(self) -> None:
        """Publish, again and again."""
        measured_s = float("-inf")
        while True:
            try:
                if self._clock.monotonic() - measured_s >= PUBLISH_S - PROGRESS_S / 2:
                    measured_s = self._clock.monotonic()
                    self._last = await self._figures()
                if self._last is not None and self._presence.joined:
                    transfers = await self._transfer_figures()
                    figures = msgspec.structs.replace(
                        self._last,
                        transfers=transfers,
                        fences=dict(self._world.fences),
                        position=self._world.position,
                        time_us=self._clock.wall_us(),
                    )
                    await self._presence.publish(msgspec.json.encode(figures))
            except PvcError as error:
                logger.debug("telemetry: not published error=%s", error)
            await asyncio.sleep(PROGRESS_S if self._transfers.under_way() else PUBLISH_S)

    async def _figures(self) -> NodeFigures:
        usage = await self._hypervisor.usage()
        info = self._world.state.nodes.get(self._node)
        return NodeFigures(
            node=self._node,
            time_us=self._clock.wall_us(),
            cpu_per_cent=round(usage.cpu_per_cent, 1),
            memory_used_mib=usage.memory_used_mib,
            memory_free_mib=usage.memory_free_mib,
            load1=round(usage.load1, 2),
            vcpus=info.vcpus if info is not None and info.vcpus else 1,
            version=__version__,
            zookeeper=await self._zookeeper() if self._zookeeper is not None else "",
            guests=self._guests(usage),
        )

    def _guests(self, usage: MachineUsage) -> dict[str, GuestFigures]:
        now_s = self._clock.monotonic()
        passed_s = max(now_s - self._measured_s, 0.001)
        before, self._cpu_seconds, self._measured_s = self._cpu_seconds, {}, now_s
        guests = {}
        for guest in usage.guests:
            self._cpu_seconds[guest.vm] = guest.cpu_seconds
            used_s = guest.cpu_seconds - before.get(guest.vm, guest.cpu_seconds)
            guests[guest.vm] = GuestFigures(
                cpu_per_cent=round(max(100.0 * used_s / passed_s, 0.0), 1),
                memory_used_mib=guest.memory_used_mib,
                cpu_seconds=round(guest.cpu_seconds, 2),
                disk_read_bytes=guest.disk_read_bytes,
                disk_written_bytes=guest.disk_written_bytes,
                received_bytes=guest.received_bytes,
                sent_bytes=guest.sent_bytes,
            )
        return guests

    async def _transfer_figures(self) -> dict[str, TransferFigures]:
        found = {}
        for vm in self._transfers.under_way():
            transfer = await self._hypervisor.transfer(vm)
            if transfer is not None:
                found[vm] = TransferFigures(
                    per_cent=round(transfer.per_cent, 1),
                    total_bytes=transfer.total_bytes,
                    remaining_bytes=transfer.remaining_bytes,
                    seconds=round(transfer.seconds, 1),
                )
        return found
