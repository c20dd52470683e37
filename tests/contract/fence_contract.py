"""What every way of fencing must do, real or simulated. A test class per twin inherits it and gives `bench`."""

from __future__ import annotations

from typing import Protocol

import pytest

from pvc.drivers.fence import Fence
from pvc.errors import DriverError
from pvc.events.fence import FenceSettings

NODE = "hv1"


class Bench(Protocol):
    """One node, hv1, with power, and its device."""

    fence: Fence
    settings: FenceSettings

    def has_power(self) -> bool:
        """Whether the node has power, seen without the device."""
        ...

    def cut_off_device(self) -> FenceSettings:
        """The device is no longer reached; the settings to go on with."""
        ...


class FenceContract:
    """The shared suite."""

    async def test_a_node_that_is_switched_off_has_no_power(self, bench: Bench) -> None:
        assert await bench.fence.is_on(NODE, bench.settings)
        evidence = await bench.fence.off(NODE, bench.settings)
        assert not bench.has_power()
        assert not await bench.fence.is_on(NODE, bench.settings)
        assert bench.settings.agent in evidence and "OFF" in evidence
        assert "\n" not in evidence

    async def test_switching_off_twice_is_success_with_evidence(self, bench: Bench) -> None:
        first = await bench.fence.off(NODE, bench.settings)
        assert await bench.fence.off(NODE, bench.settings) == first

    async def test_a_node_gets_its_power_back(self, bench: Bench) -> None:
        await bench.fence.off(NODE, bench.settings)
        await bench.fence.on(NODE, bench.settings)
        assert bench.has_power()
        assert await bench.fence.is_on(NODE, bench.settings)
        await bench.fence.on(NODE, bench.settings)
        assert bench.has_power()

    async def test_a_device_that_is_not_reached_proves_nothing(self, bench: Bench) -> None:
        settings = bench.cut_off_device()
        for call in (bench.fence.off, bench.fence.on, bench.fence.is_on):
            with pytest.raises(DriverError) as failure:
                await call(NODE, settings)
            assert failure.value.code == "fence.failed"
        assert bench.has_power()
