"""A node that fences itself: it ends its VMs when its lease is over, or the watchdog ends it; and promises no more."""

from __future__ import annotations

import asyncio

from pvc.drivers.simulated import SimulatedHypervisor
from pvc.drivers.simulated_guest import Behaviour
from pvc.drivers.watchdog import SimulatedWatchdog
from pvc.errors import DriverError
from pvc.events.vm import VmSpec
from pvc.node.self_fence import ARM_AGAIN_S, SelfFence
from pvc.presence.memory import MemoryPresence
from pvc.presence.memory_server import PresenceServer
from pvc.sim.loop import VirtualClock, run_virtual

TIMEOUT_S = 10
SESSION_S = 10.0
VM = "0b9f6d1e-8f0a-5b5e-9c55-0d7e9b1c2a3f"


class House:
    """A node with a VM and a watchdog, among others."""

    def __init__(self) -> None:
        clock = VirtualClock()
        self.server = PresenceServer(clock, session_timeout_s=SESSION_S)
        self.presence = MemoryPresence(self.server, "hv1", machine="m1")
        self.machine = SimulatedHypervisor()
        self.machine.default_behaviour = Behaviour(heartbeat=False)
        self.bitten = False
        self.watchdog = SimulatedWatchdog(self._bite)
        self.fence = SelfFence(self.presence, self.machine, self.watchdog, TIMEOUT_S)

    def _bite(self) -> None:
        self.bitten = True

    async def begin(self) -> asyncio.Task[None]:
        await self.presence.join("hv1", b"")
        await self.machine.define(VM, "web01", VmSpec(memory_mib=64, vcpus=1), epoch=1)
        await self.machine.start(VM)
        return asyncio.create_task(self.fence.run())

    async def runs(self) -> bool:
        domain = await self.machine.get_domain(VM)
        return domain is not None and domain.state.value != "off"


def test_a_lease_that_is_over_ends_the_vms_within_the_promise_and_spares_the_machine() -> None:
    async def life() -> None:
        house = House()
        running = await house.begin()
        await asyncio.sleep(60)
        assert await house.runs() and house.fence.armed
        house.server.cut("hv1")
        await asyncio.sleep(SESSION_S + house.fence.promise_s)
        assert not await house.runs()
        assert not house.bitten, "a machine without VMs may stay"
        running.cancel()

    run_virtual(life())


def test_a_daemon_that_stands_still_is_ended_by_the_watchdog_within_the_promise() -> None:
    async def life() -> None:
        house = House()
        running = await house.begin()
        await asyncio.sleep(60)
        running.cancel()
        await asyncio.sleep(house.fence.promise_s)
        assert house.bitten

    run_virtual(life())


def test_vms_that_cannot_be_ended_end_with_the_machine() -> None:
    async def life() -> None:
        house = House()
        running = await house.begin()
        await asyncio.sleep(60)
        house.server.cut("hv1")
        house.machine.lose_connection()
        await asyncio.sleep(SESSION_S + house.fence.promise_s)
        assert house.bitten
        running.cancel()

    run_virtual(life())


def test_without_a_watchdog_nothing_is_promised_until_there_is_one() -> None:
    class Missing(SimulatedWatchdog):
        there = False

        def arm(self, timeout_s: int) -> None:
            if not self.there:
                raise DriverError("there is no watchdog", code="watchdog.unavailable")
            super().arm(timeout_s)

    async def life() -> None:
        house = House()
        watchdog = Missing(lambda: None)
        house.fence = SelfFence(house.presence, house.machine, watchdog, TIMEOUT_S)
        running = await house.begin()
        await asyncio.sleep(20)
        assert not house.fence.armed and not running.done()
        watchdog.there = True
        await asyncio.sleep(2 * ARM_AGAIN_S)
        assert house.fence.armed
        running.cancel()

    run_virtual(life())
