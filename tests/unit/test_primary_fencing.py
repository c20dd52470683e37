"""When fencing itself goes wrong: what is tried again, what is told, and that nothing is switched without a reason."""

from __future__ import annotations

import asyncio

import pytest

from pvc.drivers.hypervisor import Domain
from pvc.errors import DriverError
from pvc.events.fence import FenceSettings
from pvc.handlers import cluster_plan as plan
from pvc.handlers.cluster_plan import FENCE_AGAIN_S, UNREADY_S
from pvc.projections.state import NodeState
from pvc.projections.vm_machine import VmState
from tests.unit.primary_house import Host, House, live, other_than


class Broken:
    """Calls of the fence raise the error while there is one; `tried` counts them."""

    def __init__(self, house: House, *actions: str, error: Exception) -> None:
        self.error: Exception | None = error
        self.tried = 0
        for action in actions:
            self._break(house, action)

    def _break(self, house: House, action: str) -> None:
        works = getattr(house.fence, action)

        async def call(node: str, settings: FenceSettings) -> object:
            if self.error is not None:
                self.tried += 1
                raise self.error
            return await works(node, settings)

        setattr(house.fence, action, call)


ERRORS = [BlockingIOError(11, "Resource temporarily unavailable"), AssertionError("a defect")]


# What nobody expected.


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_a_fencing_that_ends_as_nobody_expected_is_told_and_tried_again(error: Exception) -> None:
    async def story(house: House) -> None:
        victim = other_than(house.primary)
        await house.run_a_vm(node=victim)
        broken = Broken(house, "off", error=error)
        house.hosts[victim].kill()
        await house.until(lambda: f"node.unfenced/{victim}" in house.state.faults)
        assert type(error).__name__ in house.state.faults[f"node.unfenced/{victim}"].message
        await house.until(lambda: broken.tried >= 3)
        assert (await house.told()).count("node.fence_failed") == 1
        broken.error = None
        took_s = await house.until(lambda: house.vm().node != victim and house.vm().state is VmState.RUNNING)
        assert took_s <= FENCE_AGAIN_S + 10

    live(story)


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_a_node_whose_switching_on_ends_as_nobody_expected_is_switched_on_later(error: Exception) -> None:
    async def story(house: House) -> None:
        victim = other_than(house.primary)
        broken = Broken(house, "on", error=error)
        house.hosts[victim].kill()
        await house.until(lambda: broken.tried >= 2)
        assert house.node(victim).state is NodeState.FENCED
        broken.error = None
        await house.until(lambda: house.node(victim).state is NodeState.READY, FENCE_AGAIN_S + 10)

    live(story)


def test_an_agent_whose_asking_ends_as_nobody_expected_is_told_of_and_asked_again() -> None:
    async def story(house: House) -> None:
        broken = Broken(house, "is_on", error=RuntimeError("a defect"))
        await house.do("node.set_fence", node="hv3", agent="fence_ipmilan", option=["ip=10.0.1.9"])
        watching = house.hosts[house.primary if house.primary != "hv3" else other_than("hv3")].world
        await house.until(lambda: "hv3" in watching.fences)
        assert "RuntimeError" in watching.fences["hv3"].error
        broken.error = None
        await house.until(lambda: watching.fences["hv3"].error == "")

    live(story)


def test_a_node_that_is_removed_while_it_is_being_fenced_takes_no_daemon_down() -> None:
    async def story(house: House) -> None:
        first = house.primary
        victim = other_than(first)
        house.fence.delay_s = 30
        house.hosts[victim].kill()
        await house.until(lambda: house.node(victim).state is NodeState.LOST)
        await asyncio.sleep(3)
        await house.do("node.confirm_fenced", node=victim)
        await house.do("node.remove", node=victim)
        await asyncio.sleep(120)
        daemon = house.hosts[first].daemon
        assert daemon is not None and not daemon.done()
        assert victim not in house.state.nodes and house.primary == first

    live(story)


# Off stays off.


def test_a_device_that_switches_off_and_does_not_say_so_in_time_never_gets_the_node_switched_on() -> None:
    async def story(house: House) -> None:
        victim = other_than(house.primary)
        works = house.fence.off

        async def slow(node: str, settings: FenceSettings) -> str:
            await works(node, settings)
            raise DriverError("did not finish `off` within 60 s", code="fence.timeout")

        house.fence.off = slow  # type: ignore[method-assign]
        house.hosts[victim].kill()
        await house.until(lambda: house.switched(victim).count("off") >= 4)
        assert house.switched(victim) == ["off"] * 4, "off stays off, whatever its device says"
        house.fence.off = works  # type: ignore[method-assign]
        await house.until(lambda: house.node(victim).state is NodeState.READY)
        assert house.switched(victim) == ["off"] * 5 + ["on"]

    live(story)


def test_a_node_whose_loss_is_over_when_its_switching_off_has_failed_is_switched_on() -> None:
    async def story(house: House) -> None:
        victim = other_than(house.primary)
        works = house.fence.off
        confirmed = asyncio.Event()

        async def slow(node: str, settings: FenceSettings) -> str:
            await works(node, settings)
            await confirmed.wait()
            raise DriverError("did not finish `off` within 60 s", code="fence.timeout")

        house.fence.off = slow  # type: ignore[method-assign]
        house.hosts[victim].kill()
        await house.until(lambda: house.switched(victim) == ["off"])
        await house.do("node.confirm_fenced", node=victim)
        confirmed.set()
        await house.until(lambda: house.node(victim).state is NodeState.READY)
        assert house.switched(victim).count("off") == 1

    live(story)


# Plans that are old when their turn comes.


@pytest.mark.parametrize("meanwhile", ["ready", "maintenance"])
def test_a_node_is_not_fenced_by_a_plan_that_is_no_longer_true(meanwhile: str) -> None:
    async def story(house: House) -> None:
        victim, first = other_than(house.primary), house.hosts[house.primary]
        primary = first.node._primary
        assert primary is not None
        house.fence.fails.add(victim)
        house.hosts[victim].kill()
        await house.until(lambda: house.node(victim).state is NodeState.LOST)
        duty = plan.Fence(node=victim, lost_at=house.node(victim).lost_at)
        house.fence.fails.clear()
        if meanwhile == "ready":
            house.hosts[victim].start()
            await house.until(lambda: house.node(victim).state is NodeState.READY)
        else:
            await house.do("cluster.set_maintenance", maintenance=True)
        await house.until(lambda: first.world.position == house.state.position)
        house.fence.delay_s = 0.0  # a device that is quicker than the next look at what is needless
        await primary._do(duty)
        await asyncio.sleep(30)
        assert "off" not in house.switched(victim)

    live(story)


def test_an_agent_that_is_at_it_when_maintenance_begins_switches_nothing_and_goes_on_after_it() -> None:
    async def story(house: House) -> None:
        victim = other_than(house.primary)
        await house.run_a_vm(node=victim)
        house.fence.delay_s = 40
        house.hosts[victim].kill()
        await house.until(lambda: house.node(victim).state is NodeState.LOST)
        await asyncio.sleep(5)
        await house.do("cluster.set_maintenance", maintenance=True)
        await asyncio.sleep(120)
        assert house.switched(victim) == [] and house.node(victim).state is NodeState.LOST
        house.fence.delay_s = 1
        await house.do("cluster.set_maintenance", maintenance=False)
        await house.until(lambda: house.vm().node != victim and house.vm().state is VmState.RUNNING, 10)
        await house.until(lambda: house.node(victim).state is NodeState.READY)
        assert house.switched(victim) == ["off", "on"]

    live(story)


# There, and of no use.


def deaf(host: Host) -> None:
    """Its libvirt does not come up, until it is mended."""

    async def list_domains() -> list[Domain]:
        raise DriverError("libvirtd does not answer", code="driver.unavailable")

    host.machine.list_domains = list_domains  # type: ignore[method-assign, assignment]


def mend(host: Host) -> None:
    del host.machine.list_domains


async def lose_and_bring_back_deaf(house: House, victim: str) -> None:
    house.fence.fails.add(victim)
    host = house.hosts[victim]
    host.power(False)
    house.fence.press(victim, on=False)
    await house.until(lambda: f"node.unfenced/{victim}" in house.state.faults)
    deaf(host)
    house.fence.press(victim, on=True)
    await house.until(lambda: host.presence.joined)
    house.fence.fails.discard(victim)


def test_a_lost_node_that_is_there_and_cannot_say_that_it_is_ready_is_fenced_after_a_minute() -> None:
    async def story(house: House) -> None:
        victim = other_than(house.primary)
        await house.run_a_vm(node=victim)
        await lose_and_bring_back_deaf(house, victim)
        took_s = await house.until(lambda: house.vm().node != victim and house.vm().state is VmState.RUNNING)
        assert took_s >= UNREADY_S - 1
        assert house.switched(victim) == ["off"], "it is switched on when its session is over"
        mend(house.hosts[victim])
        await house.until(lambda: house.node(victim).state is NodeState.READY)
        assert house.switched(victim) == ["off", "on"]

    live(story)


def test_a_lost_node_that_is_there_without_a_way_to_be_fenced_is_a_fault_with_the_reason() -> None:
    async def story(house: House) -> None:
        victim = other_than(house.primary)
        await house.run_a_vm(node=victim)
        await lose_and_bring_back_deaf(house, victim)
        fault = f"node.unfenced/{victim}"
        await house.until(lambda: "libvirtd does not answer" in house.state.faults[fault].message, UNREADY_S + 10)
        assert "it is there, but" in house.state.faults[fault].message
        await asyncio.sleep(3 * UNREADY_S)
        assert (await house.told()).count("node.fence_failed") == 2, "gone without a guard, and this"
        mend(house.hosts[victim])
        await house.until(lambda: house.node(victim).state is NodeState.READY, 20)
        assert fault not in house.state.faults
        await house.until(lambda: house.runs_on() == [victim])

    live(story, agents=False)
