"""A node that fences itself: no VM of its runs longer than it promised, whatever dies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from pvc.drivers.hypervisor import DomainState
from pvc.drivers.simulated import SimulatedHypervisor
from pvc.drivers.simulated_guest import Behaviour
from pvc.drivers.watchdog import SimulatedWatchdog
from pvc.errors import DriverError
from pvc.events.vm import VmSpec
from pvc.node.self_fence import ARM_AGAIN_S, PETS_PER_TIMEOUT, SelfFence
from pvc.presence.memory import MemoryPresence
from pvc.presence.memory_server import PresenceServer
from pvc.sim.loop import VirtualClock, run_virtual

WATCHDOG_S = 10
SESSION_S = 10.0
VM = "0b9f6d1e-8f0a-5b5e-9c55-0d7e9b1c2a3f"


class House:
    """One node with a running VM, in its place."""

    def __init__(self) -> None:
        self.server = PresenceServer(VirtualClock(), session_timeout_s=SESSION_S)
        self.presence = MemoryPresence(self.server, "hv1")
        self.machine = SimulatedHypervisor()
        self.machine.default_behaviour = Behaviour(heartbeat=False)
        self.reset_at: list[float] = []
        self.watchdog = SimulatedWatchdog(lambda: self.reset_at.append(now_s()))
        self.fence = SelfFence(self.presence, self.machine, self.watchdog, WATCHDOG_S)
        self.daemon: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        await self.machine.define(VM, "web01", VmSpec(memory_mib=64, vcpus=1), epoch=1)
        await self.machine.start(VM)
        await self.presence.join("hv1", b"{}")
        self.daemon = asyncio.create_task(self.fence.run())
        await asyncio.sleep(3)

    async def kill(self) -> None:
        assert self.daemon is not None
        self.daemon.cancel()
        await asyncio.gather(self.daemon, return_exceptions=True)

    @property
    def runs(self) -> bool:
        """Whether the VM does: not where the machine was reset."""
        return not self.reset_at and self.machine.snapshot()[VM].state is DomainState.RUNNING


def now_s() -> float:
    return asyncio.get_running_loop().time()


def live(story: Callable[[House], Awaitable[None]]) -> None:
    async def main() -> None:
        house = House()
        await house.begin()
        await story(house)
        await house.kill()
        house.watchdog.disarm()
        await house.presence.close()

    run_virtual(main())


def test_while_the_lease_holds_the_vms_run_and_the_watchdog_is_quiet() -> None:
    async def story(house: House) -> None:
        assert house.watchdog.armed
        await asyncio.sleep(600)
        assert house.runs and house.reset_at == []

    live(story)


@pytest.mark.parametrize("what", ["cut", "lose_replies", "go_down"])
def test_a_lost_lease_ends_the_vms_within_the_promise_and_the_machine_goes_on(what: str) -> None:
    async def story(house: House) -> None:
        getattr(house.server, what)(*([] if what == "go_down" else ["hv1"]))
        while house.presence.lease_left_s() > 0:
            await asyncio.sleep(0.1)
        await asyncio.sleep(house.fence.promise_s)
        assert not house.runs
        await asyncio.sleep(600)
        assert house.reset_at == [], "nothing runs on it, so nobody minds it"

    live(story)


def test_vms_that_cannot_be_ended_go_down_with_the_machine_within_the_promise() -> None:
    async def story(house: House) -> None:
        house.machine.lose_connection()
        house.server.cut("hv1")
        while house.presence.lease_left_s() > 0:
            await asyncio.sleep(0.1)
        over_s = now_s()
        await asyncio.sleep(house.fence.promise_s)
        (reset_s,) = house.reset_at
        assert reset_s - over_s <= house.fence.promise_s

    live(story)


def test_a_daemon_that_dies_leaves_the_watchdog_to_it() -> None:
    async def story(house: House) -> None:
        await house.kill()
        died_s = now_s()
        await asyncio.sleep(WATCHDOG_S + 1)
        assert [reset_s - died_s <= WATCHDOG_S for reset_s in house.reset_at] == [True]

    live(story)


def test_a_daemon_that_is_back_in_time_goes_on_petting() -> None:
    async def story(house: House) -> None:
        await house.kill()
        await asyncio.sleep(WATCHDOG_S / 2)
        house.daemon = asyncio.create_task(house.fence.run())
        await asyncio.sleep(600)
        assert house.runs

    live(story)


def test_a_daemon_without_a_lease_yet_neither_pets_nor_ends_anything() -> None:
    async def story(house: House) -> None:
        await house.kill()
        house.server.cut("hv1")
        await asyncio.sleep(2)
        other = MemoryPresence(house.server, "hv1")
        fence = SelfFence(other, house.machine, house.watchdog, WATCHDOG_S)
        house.daemon = asyncio.create_task(fence.run())
        await asyncio.sleep(WATCHDOG_S / PETS_PER_TIMEOUT * 2)
        assert house.machine.snapshot()[VM].state is DomainState.RUNNING
        await asyncio.sleep(WATCHDOG_S)
        assert house.reset_at != [], "nobody pets in place of one that has no lease"
        await other.close()

    live(story)


def test_a_node_whose_watchdog_is_not_there_promises_nothing_until_it_is() -> None:
    async def story(house: House) -> None:
        await house.kill()
        house.watchdog.disarm()
        arm = house.watchdog.arm

        def taken(timeout_s: int) -> None:
            raise DriverError("somebody else holds it", code="watchdog.unavailable")

        house.watchdog.arm = taken  # type: ignore[method-assign]
        fence = SelfFence(house.presence, house.machine, house.watchdog, WATCHDOG_S)
        house.daemon = asyncio.create_task(fence.run())
        await asyncio.sleep(60)
        assert not fence.armed and not house.watchdog.armed
        house.watchdog.arm = arm  # type: ignore[method-assign]
        await asyncio.sleep(ARM_AGAIN_S + 1)
        assert fence.armed and house.watchdog.armed

    live(story)


def test_vms_that_run_again_after_the_lease_is_back_are_left_alone() -> None:
    async def story(house: House) -> None:
        house.server.cut("hv1")
        await asyncio.sleep(60)
        assert not house.runs
        house.server.restore("hv1")
        await house.presence.join("hv1", b"{}")
        await house.machine.forget(VM)
        await house.machine.define(VM, "web01", VmSpec(memory_mib=64, vcpus=1), epoch=2)
        await house.machine.start(VM)
        await asyncio.sleep(60)
        assert house.runs

    live(story)


def refuse(house: House, code: str = "watchdog.unavailable") -> Callable[[], None]:
    """The watchdog cannot be armed from now on; call the result to let it."""
    arm = house.watchdog.arm

    def refused(timeout_s: int) -> None:
        raise DriverError("it takes 60 s where 10 s were asked for", code=code)

    house.watchdog.arm = refused  # type: ignore[method-assign]

    def let() -> None:
        house.watchdog.arm = arm  # type: ignore[method-assign]

    return let


def test_a_node_that_cannot_arm_its_watchdog_ends_its_vms_all_the_same() -> None:
    async def story(house: House) -> None:
        await house.kill()
        house.watchdog.disarm()
        refuse(house)
        fence = SelfFence(house.presence, house.machine, house.watchdog, WATCHDOG_S)
        house.daemon = asyncio.create_task(fence.run())
        await asyncio.sleep(30)
        assert house.runs and not fence.armed
        house.server.cut("hv1")
        while house.presence.lease_left_s() > 0:
            await asyncio.sleep(0.1)
        # The log may still have the promise of its predecessor.
        await asyncio.sleep(2 * WATCHDOG_S)
        assert not house.runs

    live(story)


def test_what_a_node_promises_follows_its_watchdog_and_each_change_is_told() -> None:
    async def story(house: House) -> None:
        await house.kill()
        let, told = refuse(house), []
        fence = SelfFence(
            house.presence, house.machine, house.watchdog, WATCHDOG_S, changed=lambda: told.append(fence.promise_s)
        )
        assert not fence.known, "before it was tried nothing can be said"
        house.daemon = asyncio.create_task(fence.run())
        await asyncio.sleep(3)
        assert fence.known and told == [0]
        let()
        await asyncio.sleep(ARM_AGAIN_S + 1)
        assert told == [0, 2 * WATCHDOG_S + 2]

    live(story)


def test_a_watchdog_that_does_not_take_the_new_time_is_petted_on_with_the_old() -> None:
    async def story(house: House) -> None:
        await house.kill()
        refuse(house)
        fence = SelfFence(house.presence, house.machine, house.watchdog, WATCHDOG_S)
        house.daemon = asyncio.create_task(fence.run())
        await asyncio.sleep(600)
        assert house.runs and house.watchdog.armed and fence.promise_s == 0

    live(story)


def test_a_watchdog_that_fails_is_promised_no_more_until_it_is_armed_anew() -> None:
    async def story(house: House) -> None:
        let = refuse(house)
        pet = house.watchdog.pet

        def broken() -> None:
            raise DriverError("No such device", code="watchdog.unavailable")

        house.watchdog.pet = broken  # type: ignore[method-assign]
        await asyncio.sleep(3)
        assert house.daemon is not None and not house.daemon.done(), "the daemon goes on"
        assert not house.fence.armed and house.fence.promise_s == 0
        house.watchdog.pet = pet  # type: ignore[method-assign]
        let()
        await asyncio.sleep(ARM_AGAIN_S + 1)
        assert house.fence.armed and house.fence.promise_s > 0

    live(story)


def test_a_daemon_without_a_lease_ends_the_vms_of_a_machine_that_should_have_been_reset() -> None:
    async def story(house: House) -> None:
        await house.kill()
        house.watchdog.disarm()
        house.server.cut("hv1")
        other = MemoryPresence(house.server, "hv1")
        fence = SelfFence(other, house.machine, house.watchdog, WATCHDOG_S)
        house.daemon = asyncio.create_task(fence.run())
        await asyncio.sleep(WATCHDOG_S + 3)
        assert not house.runs
        await other.close()

    live(story)
