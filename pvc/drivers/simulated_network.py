"""What simulated hypervisors reach each other over, and a guest's way from one of them to another.

A migration belongs to the two machines, not to the node that asked for it: it goes on when that node dies, as libvirt's
does. Tests cut the network, take power away, or fail any phase, also the last, at which nobody can know how it ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from pvc.drivers.hypervisor import Transfer
from pvc.errors import DriverError, PvcError, Unavailable

_MIB = 1024 * 1024
_RESTLESS_REST = 0.1
"""The part of its memory that a busy guest has always changed again."""


class MigrationPhase(StrEnum):
    """Where a migration can be made to fail."""

    PREPARE = "prepare"
    """The target does not take the guest in."""
    TRANSFER = "transfer"
    """It breaks half-way; the target's part vanishes."""
    FINISH = "finish"
    """The target has a complete copy, paused, but the source does not hear so, and lets the guest run on."""
    CONFIRM = "confirm"
    """As before, and the source is cut off too: its copy stays paused, and who asked learns nothing."""


class Side(Protocol):
    """What a migration needs of either hypervisor."""

    address: str
    powered: bool
    unavailable: bool

    def take_in(self, vm: str, source: Side) -> None:
        """The target makes room: its domain is incoming now. Raises DriverError when it cannot."""
        ...

    def give_up(self, vm: str) -> None:
        """The target forgets what has come so far; quiet when the guest has arrived, or nothing came."""
        ...

    def arrive(self, vm: str, source: Side) -> None:
        """The target has all of the guest, paused. Raises DriverError when it was given up meanwhile."""
        ...

    def hold(self, vm: str) -> None:
        """The source stops the guest for the last part."""
        ...

    def run_on(self, vm: str) -> None:
        """The source lets the guest it stopped run on."""
        ...

    def depart(self, vm: str) -> None:
        """The source's copy ends: the guest has moved."""
        ...


class SimulatedNetwork:
    """Addresses and what lies between them. `fails(vm, phase)` says whether a migration breaks there; tests set it."""

    def __init__(self, *, mib_per_s: float = 256.0, setup_s: float = 0.2, notice_s: float = 5.0) -> None:
        self.mib_per_s = mib_per_s
        self.setup_s = setup_s
        self.notice_s = notice_s
        """How long it takes until a silent connection is given up."""
        self.fails: Callable[[str, MigrationPhase], bool] = lambda vm, phase: False
        self._sides: dict[str, Side] = {}
        self._cuts: set[frozenset[str]] = set()
        self._migrations: dict[SimulatedMigration, None] = {}
        """In the order of their beginning, so that a simulation can be repeated."""

    def join(self, side: Side) -> None:
        """A hypervisor can be reached at its address from now on (in the place of one that was before)."""
        self._sides[side.address] = side

    def find(self, address: str) -> Side | None:
        """Who is at `address`."""
        return self._sides.get(address)

    def cut(self, one: str, other: str) -> None:
        """No packet goes between the two any more."""
        self._cuts.add(frozenset((one, other)))
        self.changed()

    def heal(self, one: str, other: str) -> None:
        """Packets go again."""
        self._cuts.discard(frozenset((one, other)))
        self.changed()

    def reachable(self, one: Side, other: Side) -> bool:
        """Whether packets go between the two."""
        return one.powered and other.powered and frozenset((one.address, other.address)) not in self._cuts

    def changed(self) -> None:
        """A cable or a machine is not what it was; each migration notices in its time."""
        for migration in list(self._migrations):
            migration.network_changed()

    def refused(self, vm: str, target: Side) -> None:
        """The target wants no more of what is arriving."""
        for migration in list(self._migrations):
            migration.refused(vm, target)

    def add(self, migration: SimulatedMigration) -> None:
        """It wants to hear of changes until it is discarded."""
        self._migrations[migration] = None

    def discard(self, migration: SimulatedMigration) -> None:
        """It has ended."""
        self._migrations.pop(migration, None)


class SimulatedMigration:
    """One guest's way. `wait` returns when it has moved, or raises what the port's `migrate` raises."""

    def __init__(
        self,
        network: SimulatedNetwork,
        vm: str,
        source: Side,
        target: str,
        *,
        memory_mib: int,
        downtime_s: float,
        force: bool,
        restless: bool,
        ended: Callable[[], None],
    ) -> None:
        self._network = network
        self._vm = vm
        self._source = source
        self._address = target
        self._target: Side | None = None
        self._memory_mib = memory_mib
        self._downtime_s = downtime_s
        self._restless = restless
        self._converges = force or not restless
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._wake = asyncio.Event()
        self._error: PvcError | None = None
        network.add(self)
        self._task = asyncio.create_task(self._run(), name=f"simulated-migration-{vm}")
        # Whoever waited may be gone by then.
        self._task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def wait(self) -> None:
        """Until its end, whoever else waits and whoever gives up waiting."""
        await asyncio.shield(self._task)

    def interrupt(self, error: PvcError) -> None:
        """End it, unless it has ended; the guest stays at its source."""
        self._error = self._error or error
        self._wake.set()

    def network_changed(self) -> None:
        """If the way is cut now, and still is when that is noticed, the migration has failed."""
        self._wake.set()
        if not self._connected():
            self._loop.call_later(self._network.notice_s, self._notice)

    def refused(self, vm: str, target: Side) -> None:
        """If this is the one, it has failed."""
        if vm == self._vm and target is self._target:
            self.interrupt(_failed(vm, f"{self._address} wants it no more"))

    def transfer(self) -> Transfer:
        """Computed from the time that has passed."""
        seconds = self._loop.time() - self._began
        sent = min(1.0, max(0.0, seconds - self._network.setup_s) / self._seconds())
        rest = max(1 - sent, _RESTLESS_REST if self._restless else 0.0)
        total = self._memory_mib * _MIB
        return Transfer(total_bytes=total, remaining_bytes=round(total * rest), seconds=seconds)

    async def _run(self) -> None:
        try:
            await self._rest(self._network.setup_s)
            target = self._target = self._network.find(self._address)
            if target is None or target.unavailable or not self._connected() or self._fails(MigrationPhase.PREPARE):
                raise _failed(self._vm, f"the hypervisor at {self._address} cannot be reached")
            target.take_in(self._vm, self._source)
            await self._rest(self._seconds() / 2)
            if self._fails(MigrationPhase.TRANSFER):
                raise _failed(self._vm, "the connection broke")
            await self._rest(self._seconds() / 2)
            await self._until(lambda: self._converges and self._connected())
            self._source.hold(self._vm)
            await self._rest(self._downtime_s)
            await self._until(self._connected)
            target.arrive(self._vm, self._source)
            if self._fails(MigrationPhase.CONFIRM):
                raise Unavailable(f"nobody knows whether VM {self._vm} has moved", code="hypervisor.unavailable")
            if self._fails(MigrationPhase.FINISH):
                self._source.run_on(self._vm)
                raise _failed(self._vm, "the target's answer was lost")
            self._source.depart(self._vm)
        except DriverError:
            if self._target is not None:
                self._target.give_up(self._vm)
            self._source.run_on(self._vm)
            raise
        finally:
            self._network.discard(self)
            self._ended()

    def _seconds(self) -> float:
        """Of the transfer; slowing a busy guest down takes as long again."""
        return self._memory_mib / self._network.mib_per_s * (2 if self._restless else 1)

    async def _rest(self, seconds: float) -> None:
        """Let time pass, unless something comes in between."""
        until = self._loop.time() + seconds
        while self._error is None and (left := until - self._loop.time()) > 0:
            self._wake.clear()
            timer = self._loop.call_later(left, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()
        self._check()

    async def _until(self, holds: Callable[[], bool]) -> None:
        self._check()
        while not holds():
            self._wake.clear()
            await self._wake.wait()
            self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _connected(self) -> bool:
        return self._target is None or self._network.reachable(self._source, self._target)

    def _notice(self) -> None:
        if not self._connected():
            self.interrupt(_failed(self._vm, f"the connection to {self._address} broke"))

    def _fails(self, phase: MigrationPhase) -> bool:
        return self._network.fails(self._vm, phase)


def _failed(vm: str, why: str) -> DriverError:
    return DriverError(
        f"VM {vm} could not be migrated: {why}",
        code="hypervisor.migration_failed",
        hint="it goes on where it was; see the hypervisors' logs, then try again",
    )
