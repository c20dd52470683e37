"""Simulated fencing keeps the contract, and does what only a simulated one can."""

from __future__ import annotations

import asyncio

import pytest

from pvc.drivers.fence_simulated import SimulatedFence
from pvc.errors import DriverError
from pvc.events.fence import FenceSettings
from pvc.sim.loop import run_virtual
from tests.contract.fence_contract import NODE, FenceContract

SETTINGS = FenceSettings(agent="fence_ipmilan", options={"ip": "192.0.2.7"})


class SimulatedBench:
    def __init__(self) -> None:
        self.fence = SimulatedFence()
        self.settings = SETTINGS

    def has_power(self) -> bool:
        return self.fence.power(NODE)

    def cut_off_device(self) -> FenceSettings:
        self.fence.fails.add(NODE)
        return self.settings


class TestSimulatedFence(FenceContract):
    @pytest.fixture
    def bench(self) -> SimulatedBench:
        return SimulatedBench()


def test_who_simulates_the_node_hears_of_each_switch_once() -> None:
    heard: list[tuple[str, bool]] = []

    async def scenario() -> None:
        fence = SimulatedFence(switched=lambda node, on: heard.append((node, on)))
        await fence.off("hv1", SETTINGS)
        await fence.off("hv1", SETTINGS)
        await fence.on("hv1", SETTINGS)

    run_virtual(scenario())
    assert heard == [("hv1", False), ("hv1", True)]


def test_a_device_that_only_pretends_to_obey_is_found_out() -> None:
    async def scenario() -> None:
        fence = SimulatedFence()
        fence.stuck.add("hv1")
        with pytest.raises(DriverError, match="did not obey"):
            await fence.off("hv1", SETTINGS)
        assert fence.power("hv1")
        assert await fence.is_on("hv1", SETTINGS)

    run_virtual(scenario())


def test_a_device_slower_than_its_time_is_given_up_in_that_time() -> None:
    async def scenario() -> None:
        fence = SimulatedFence(delay_s=100)
        with pytest.raises(DriverError) as failure:
            await fence.off("hv1", SETTINGS)
        assert failure.value.code == "fence.timeout"
        assert asyncio.get_running_loop().time() == SETTINGS.timeout_s

    run_virtual(scenario())
