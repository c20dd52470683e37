"""Ports of one life of a daemon in the simulated cluster: what it asks for is done in the world, not in its process.

So a call goes on when the daemon is stopped or killed while it waits, as libvirt's, ZooKeeper's and an agent's do; only
its outcome is then heard late, or never. Any effect may be the daemon's last.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pvc.clock import Clock, Rng
from pvc.drivers.fence import Fence
from pvc.drivers.hypervisor import Console, Domain, Hypervisor, HypervisorInfo, MachineUsage, Transfer, always
from pvc.drivers.watchdog import SimulatedWatchdog
from pvc.errors import OutcomeUnknown, Unavailable
from pvc.events.fence import FenceSettings
from pvc.events.record import EMPTY, Entry, Head
from pvc.events.vm import VmSpec
from pvc.log.base import Log
from pvc.log.memory import MemoryLog
from pvc.runtime.appender import Appender, Outcome, Request
from pvc.runtime.world import World
from pvc.sim.cluster_process import Process, at, in_world
from pvc.sim.loop import EPOCH_US

T = TypeVar("T")

SILENCE_S = 4.0
"""After so long a call to a log that does not answer is given up."""

_FAULTS = ("refused", "lost", "late", "unheard")
"""What goes wrong with an append."""


class NodeClock:
    """The loop's time; the wall's is as wrong as somebody set it."""

    def __init__(self) -> None:
        self.off_us = 0

    def monotonic(self) -> float:
        """Virtual seconds."""
        return asyncio.get_running_loop().time()

    def wall_us(self) -> int:
        """Microseconds since the Unix epoch, as this machine believes."""
        return EPOCH_US + self.off_us + round(asyncio.get_running_loop().time() * 1_000_000)


class SharedLog(MemoryLog):
    """The cluster's log; whoever watches over the simulation sees each record as it is committed."""

    def __init__(self, committed: Callable[[Entry], None]) -> None:
        super().__init__()
        self._committed = committed

    @property
    def records(self) -> list[bytes]:
        """All of them."""
        return self._records

    async def append(self, entries: Sequence[Entry], *, after: Head) -> Head:
        """Commit."""
        head = await super().append(entries, after=after)
        for entry in entries:
            self._committed(entry)
        return head


class LogLink(msgspec.Struct, kw_only=True):
    """The way of one node to the log."""

    reachable: Callable[[], bool]
    lag_s: float = 0.0
    """By so much records come late, and answers about the log are old."""
    faults: float = 0.0
    """How often something goes wrong with an append."""


class LogView:
    """The shared log as one life of a node reaches it."""

    def __init__(self, log: MemoryLog, link: LogLink, rng: random.Random, struck: Callable[[str], None]) -> None:
        self._log = log
        self._link = link
        self._rng = rng
        self._struck = struck

    async def head(self) -> Head:
        """The head."""
        await self._way()
        return await self._log.head()

    async def append(self, entries: Sequence[Entry], *, after: Head) -> Head:
        """Append, unless a fault comes in between; afterwards the life may end."""
        try:
            async with asyncio.timeout(SILENCE_S):
                return await at(None, self._append(entries, after), "append")
        except TimeoutError:
            # It may have taken place, or still be on its way.
            raise OutcomeUnknown("no reply") from None

    async def read(self, first: int, limit: int) -> list[bytes]:
        """Read."""
        await self._way()
        return await self._log.read(first, limit)

    async def follow(self, after: int) -> AsyncIterator[list[bytes]]:
        """Follow, as late as the link is."""
        async for batch in self._log.follow(after):
            while not self._link.reachable():  # noqa: ASYNC110 - there is nothing else to wait for
                await asyncio.sleep(0.5)
            await asyncio.sleep(0.002 + self._rng.random() * self._link.lag_s)
            yield batch

    async def close(self) -> None:
        """The log beneath goes on."""

    async def _append(self, entries: Sequence[Entry], after: Head) -> Head:
        await asyncio.sleep(0.001 + 0.004 * self._rng.random())
        fault = self._rng.choice(_FAULTS) if self._rng.random() < self._link.faults else ""
        if fault == "refused":
            raise Unavailable("the log does not answer")
        if fault == "late":
            await asyncio.sleep(self._rng.random() * 2 * SILENCE_S)
        if fault == "lost" or not self._link.reachable():
            await asyncio.sleep(2 * SILENCE_S)
            return EMPTY  # nobody waits for it any more
        head = await self._log.append(entries, after=after)
        self._struck("append")
        if fault == "unheard" or not self._link.reachable():
            await asyncio.sleep(2 * SILENCE_S)
        return head

    async def _way(self) -> None:
        await asyncio.sleep(0.001 + 0.002 * self._rng.random())
        if not self._link.reachable():
            await asyncio.sleep(SILENCE_S)
            raise Unavailable("the log does not answer")


class NotingAppender(Appender):
    """Tells what each command was asked with, of which the record keeps only the name."""

    def __init__(
        self, world: World, log: Log, *, origin: str, clock: Clock, rng: Rng, note: Callable[[Request], None]
    ) -> None:
        super().__init__(world, log, origin=origin, clock=clock, rng=rng)
        self._note = note

    async def submit(self, request: Request) -> Outcome:
        """Note, and submit."""
        request = self._identified(request)
        self._note(request)
        return await super().submit(request)


class FencePort:
    """The agents, as one life starts them: they do their work to the end without it, but not without the machine.

    A daemon that no longer wants an agent's work ends the agent.
    """

    def __init__(self, fence: Fence, agents: Process) -> None:
        self._fence = fence
        self._agents = agents

    async def off(self, node: str, settings: FenceSettings) -> str:
        """Off."""
        return await self._run(self._fence.off(node, settings))

    async def on(self, node: str, settings: FenceSettings) -> None:
        """On."""
        await self._run(self._fence.on(node, settings))

    async def is_on(self, node: str, settings: FenceSettings) -> bool:
        """Status."""
        return await self._run(self._fence.is_on(node, settings))

    async def _run(self, agent: Coroutine[Any, Any, T]) -> T:
        task = self._agents.run(agent, "agent")
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await task


class WatchdogPort:
    """The machine's watchdog: its time goes on whoever stands still."""

    def __init__(self, watchdog: SimulatedWatchdog) -> None:
        self._watchdog = watchdog

    def arm(self, timeout_s: int) -> None:
        """Arm."""
        in_world(self._watchdog.arm, timeout_s)

    def pet(self) -> None:
        """Pet."""
        in_world(self._watchdog.pet)

    def disarm(self) -> None:
        """Disarm."""
        in_world(self._watchdog.disarm)


class HypervisorPort:
    """The machine's hypervisor as one life reaches it; the work is done in the machine's own process."""

    def __init__(self, hypervisor: Hypervisor, machine: Process) -> None:
        self._hypervisor = hypervisor
        self._machine = machine

    async def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return await at(self._machine, coroutine, "hypervisor")

    async def info(self) -> HypervisorInfo:
        """Capacity."""
        return await self._call(self._hypervisor.info())

    async def list_domains(self) -> list[Domain]:
        """All domains."""
        return await self._call(self._hypervisor.list_domains())

    async def get_domain(self, vm: str) -> Domain | None:
        """One domain."""
        return await self._call(self._hypervisor.get_domain(vm))

    async def define(self, vm: str, name: str, spec: VmSpec, *, epoch: int) -> None:
        """Define."""
        await self._call(self._hypervisor.define(vm, name, spec, epoch=epoch))

    async def start(self, vm: str, *, may_run: Callable[[], bool] = always) -> None:
        """Start."""
        await self._call(self._hypervisor.start(vm, may_run=may_run))

    async def shutdown(self, vm: str) -> None:
        """Press the power button."""
        await self._call(self._hypervisor.shutdown(vm))

    async def destroy(self, vm: str) -> None:
        """Force off."""
        await self._call(self._hypervisor.destroy(vm))

    async def reset(self, vm: str, *, mark: str) -> None:
        """Reset."""
        await self._call(self._hypervisor.reset(vm, mark=mark))

    async def forget(self, vm: str) -> None:
        """Undefine."""
        await self._call(self._hypervisor.forget(vm))

    async def migrate(self, vm: str, *, epoch: int, target: str, max_downtime_ms: int, force: bool) -> None:
        """Migrate."""
        await self._call(
            self._hypervisor.migrate(vm, epoch=epoch, target=target, max_downtime_ms=max_downtime_ms, force=force)
        )

    async def cancel_migration(self, vm: str) -> None:
        """Cancel."""
        await self._call(self._hypervisor.cancel_migration(vm))

    async def transfer(self, vm: str) -> Transfer | None:
        """Progress."""
        return await self._call(self._hypervisor.transfer(vm))

    async def usage(self) -> MachineUsage:
        """Usage."""
        return await self._call(self._hypervisor.usage())

    def events(self) -> AsyncIterator[str]:
        """Hints."""
        return self._hypervisor.events()

    async def open_console(self, vm: str) -> Console:
        """The console."""
        return await self._hypervisor.open_console(vm)

    def console_log(self, vm: str) -> Path:
        """The console's file."""
        return self._hypervisor.console_log(vm)

    async def close(self) -> None:
        """The hypervisor beneath goes on."""
