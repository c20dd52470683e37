"""Live migrations that this node waits for, in the background: each takes long, and its VM must stay open to a cancel.

What is known here is lost with the daemon; the migration is not. The next life asks the hypervisor to wait for the end
of the one that is under way, which is the same call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from pvc.drivers.hypervisor import Hypervisor
from pvc.errors import DriverError, PvcError
from pvc.projections.state import Migration

logger = logging.getLogger(__name__)


class _Transfer(msgspec.Struct, kw_only=True):
    migration: str
    task: asyncio.Task[None] | None
    failure: tuple[str, str] | None = None


class Transfers:
    """The migrations away from this node. `wake` is called with a VM's id when one has ended."""

    def __init__(self, hypervisor: Hypervisor, wake: Callable[[str], None]) -> None:
        self._hypervisor = hypervisor
        self._wake = wake
        self._known: dict[str, _Transfer] = {}

    def known_of(self, vm: str, migration: str) -> tuple[bool, tuple[str, str] | None]:
        """Whether any is being waited for, and with which code and message this one failed."""
        known = self._known.get(vm)
        if known is None:
            return False, None
        return known.task is not None, known.failure if known.migration == migration else None

    def unwanted(self, vm: str, migration: str) -> bool:
        """Whether one is being waited for that is not this one: the log has dropped it."""
        known = self._known.get(vm)
        return known is not None and known.task is not None and known.migration != migration

    def begin(self, vm: str, epoch: int, move: Migration, address: str) -> None:
        """Move the guest of this run to the hypervisor at `address`, or wait for the move under way; nothing if that
        is so."""
        known = self._known.get(vm)
        if known is not None and known.task is not None:
            return
        task = asyncio.create_task(self._run(vm, epoch, move, address), name=f"migration of {vm}")
        self._known[vm] = _Transfer(migration=move.id, task=task)

    def forget(self, vm: str) -> None:
        """A failure has been reported."""
        known = self._known.get(vm)
        if known is not None and known.task is None:
            del self._known[vm]

    def under_way(self) -> tuple[str, ...]:
        """The VMs whose migration is being waited for."""
        return tuple(vm for vm, known in self._known.items() if known.task is not None)

    async def close(self) -> None:
        """Wait for nothing any more; the migrations go on."""
        tasks = [known.task for known in self._known.values() if known.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, vm: str, epoch: int, move: Migration, address: str) -> None:
        failure: tuple[str, str] | None = None
        try:
            await self._hypervisor.migrate(
                vm, epoch=epoch, target=address, max_downtime_ms=move.max_downtime_ms, force=move.force_live
            )
        except DriverError as error:
            failure = (error.code, error.message)
        except PvcError as error:
            logger.warning("migration: how it ended is not known, looking again vm=%s error=%s", vm, error)
        if failure is None:
            self._known.pop(vm, None)
        else:
            self._known[vm] = _Transfer(migration=move.id, task=None, failure=failure)
        self._wake(vm)
