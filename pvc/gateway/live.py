"""What is measured and not folded: the nodes' figures and sessions, asked for within bounds.

An answer about the state never waits long for it: where those who know do not answer, it goes out without.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from pvc.clock import Clock
from pvc.errors import PvcError
from pvc.presence.base import Presence
from pvc.presence.hello import Hello, read_hello
from pvc.projections.cluster_views import FenceCheck, NodeUsage
from pvc.projections.state import ClusterState, NodeState, Vm
from pvc.projections.views import MigrationProgress, VmUsage
from pvc.runtime.telemetry import NodeFigures, Telemetry

logger = logging.getLogger(__name__)

DEADLINE_S = 1.0
"""ZooKeeper answers within milliseconds; who asks shall not wait for one that does not."""

FRESH_S = 1.0
"""Readers within this time share one reading."""

AGAIN_S = 5.0
"""After a reading that failed, so that not every request in an outage waits out the deadline."""


class Live:
    """What is known of the nodes just now. Lives in one event loop."""

    def __init__(self, telemetry: Telemetry | None, presence: Presence | None, clock: Clock) -> None:
        self._telemetry = telemetry
        self._presence = presence
        self._clock = clock
        self._lock = asyncio.Lock()
        self._hellos: dict[str, Hello | None] | None = None
        self._hellos_until_s = float("-inf")
        self._figures_again_s = float("-inf")

    @property
    def measured(self) -> bool:
        """Whether anything is measured here at all."""
        return self._telemetry is not None

    async def figures(self) -> Mapping[str, NodeFigures]:
        """The latest figures of the nodes that were heard of lately."""
        if self._telemetry is None:
            return {}
        async with self._lock:
            if self._clock.monotonic() >= self._figures_again_s:
                try:
                    async with asyncio.timeout(DEADLINE_S):
                        return await self._telemetry.read()
                except TimeoutError:
                    self._figures_again_s = self._clock.monotonic() + AGAIN_S
            return self._telemetry.latest()

    async def hellos(self) -> Mapping[str, Hello | None] | None:
        """Who is there, and what each says of itself; None where that is not known just now.

        Whose hello cannot be read, as it is of another version, is there all the same, with None.
        """
        if self._presence is None:
            return None
        async with self._lock:
            if self._clock.monotonic() >= self._hellos_until_s:
                self._hellos = await self._ask(self._presence)
                self._hellos_until_s = self._clock.monotonic() + (AGAIN_S if self._hellos is None else FRESH_S)
            return self._hellos

    async def _ask(self, presence: Presence) -> dict[str, Hello | None] | None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                members = await presence.members()
        except (PvcError, TimeoutError) as error:
            logger.debug("live: members not read error=%s", error)
            return None
        return {name: read_hello(member.hello) for name, member in members.items()}


def node_usage(figures: NodeFigures | None) -> NodeUsage | None:
    """A node's figures for a reader."""
    if figures is None:
        return None
    return NodeUsage(**{field: getattr(figures, field) for field in NodeUsage.__struct_fields__})


def fence_checks(state: ClusterState, figures: Mapping[str, NodeFigures]) -> dict[str, FenceCheck]:
    """Node -> what its fence agent answered; of several that asked, the primary counts."""
    primary = state.cluster.primary if state.cluster is not None else ""
    checks: dict[str, FenceCheck] = {}
    for asker in sorted(figures, key=lambda name: (name == primary, name)):
        for name, answer in figures[asker].fences.items():
            node = state.nodes.get(name)
            if node is None or node.fence is None or node.state is not NodeState.READY:
                continue
            trouble = f"does not answer {asker}: {answer.error}" if answer.error else ""
            if not answer.error and not answer.on:
                trouble = f"tells {asker} that {name} is off, which it is not: does it switch another machine?"
            checks[name] = FenceCheck(asked_by=asker, trouble=trouble)
    return checks


def vm_usage(figures: Mapping[str, NodeFigures], vm: Vm) -> VmUsage | None:
    """What the VM's node says of it."""
    node = figures.get(vm.node)
    guest = node.guests.get(vm.id) if node is not None else None
    if guest is None:
        return None
    return VmUsage(cpu_per_cent=guest.cpu_per_cent, memory_used_mib=guest.memory_used_mib)


def migration_progress(figures: Mapping[str, NodeFigures], vm: Vm) -> MigrationProgress | None:
    """How far the source says that the VM's migration has come."""
    source = figures.get(vm.migration.source) if vm.migration is not None else None
    transfer = source.transfers.get(vm.id) if source is not None else None
    if transfer is None:
        return None
    return MigrationProgress(**{field: getattr(transfer, field) for field in MigrationProgress.__struct_fields__})
