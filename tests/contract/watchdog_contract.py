"""What every watchdog must do, real or simulated. A test class per twin inherits it and gives the fixture `bench`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import pytest

from pvc.drivers.watchdog import Watchdog
from pvc.errors import DriverError

TIMEOUT_S = 3
PET_EVERY_S = 0.5
PATIENCE_S = 30.0


class Bench(Protocol):
    """A watchdog, and what hears it bite."""

    watchdog: Watchdog

    def run(self, story: Callable[[], Awaitable[None]]) -> None:
        """Run it on this watchdog's time."""
        ...

    def bites(self) -> int:
        """How often it bit."""
        ...

    def daemon_dies(self) -> None:
        """The process that armed it is gone, without a word."""
        ...


class WatchdogContract:
    """The shared suite."""

    def test_a_machine_that_is_not_petted_is_reset_once(self, bench: Bench) -> None:
        async def story() -> None:
            bench.watchdog.arm(TIMEOUT_S)
            await bitten(bench, 1)
            await asyncio.sleep(TIMEOUT_S + 1)
            assert bench.bites() == 1

        bench.run(story)

    def test_a_machine_that_is_petted_goes_on_and_is_reset_when_that_ends(self, bench: Bench) -> None:
        async def story() -> None:
            bench.watchdog.arm(TIMEOUT_S)
            for _ in range(int((TIMEOUT_S + 1) / PET_EVERY_S)):
                await asyncio.sleep(PET_EVERY_S)
                bench.watchdog.pet()
            assert bench.bites() == 0
            await bitten(bench, 1)

        bench.run(story)

    def test_a_machine_whose_daemon_dies_is_reset(self, bench: Bench) -> None:
        async def story() -> None:
            bench.watchdog.arm(TIMEOUT_S)
            bench.watchdog.pet()
            bench.daemon_dies()
            await bitten(bench, 1)

        bench.run(story)

    def test_a_disarmed_watchdog_lets_the_machine_go_on(self, bench: Bench) -> None:
        async def story() -> None:
            bench.watchdog.arm(TIMEOUT_S)
            bench.watchdog.pet()
            bench.watchdog.disarm()
            bench.watchdog.disarm()
            await asyncio.sleep(TIMEOUT_S + 1)
            assert bench.bites() == 0

        bench.run(story)

    def test_a_watchdog_can_be_armed_anew_with_another_time(self, bench: Bench) -> None:
        async def story() -> None:
            bench.watchdog.arm(600)
            bench.watchdog.disarm()
            bench.watchdog.arm(600)
            bench.watchdog.arm(TIMEOUT_S)
            await bitten(bench, 1)

        bench.run(story)

    @pytest.mark.parametrize("timeout_s", [0, 1, 601])
    def test_a_time_that_hardware_may_not_have_is_refused(self, bench: Bench, timeout_s: int) -> None:
        async def story() -> None:
            with pytest.raises(DriverError) as failure:
                bench.watchdog.arm(timeout_s)
            assert failure.value.code == "watchdog.unavailable"

        bench.run(story)

    def test_a_watchdog_that_is_not_armed_cannot_be_petted(self, bench: Bench) -> None:
        async def story() -> None:
            with pytest.raises(DriverError) as failure:
                bench.watchdog.pet()
            assert failure.value.code == "watchdog.not_armed"

        bench.run(story)


async def bitten(bench: Bench, times: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while bench.bites() < times:
            await asyncio.sleep(0.05)
