"""The simulated watchdog keeps the contract, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from pvc.drivers.watchdog import SimulatedWatchdog
from pvc.sim.loop import run_virtual
from tests.contract.watchdog_contract import TIMEOUT_S, WatchdogContract


class SimulatedBench:
    def __init__(self) -> None:
        self.bitten_at: list[float] = []
        self.watchdog = SimulatedWatchdog(lambda: self.bitten_at.append(asyncio.get_running_loop().time()))

    def run(self, story: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            await story()

        run_virtual(main())

    def bites(self) -> int:
        return len(self.bitten_at)

    def daemon_dies(self) -> None:
        """Nothing to do: the object is the hardware."""


@pytest.fixture
def bench() -> SimulatedBench:
    return SimulatedBench()


class TestSimulatedWatchdog(WatchdogContract):
    """The shared suite."""


def test_it_bites_at_the_very_instant(bench: SimulatedBench) -> None:
    async def story() -> None:
        bench.watchdog.arm(TIMEOUT_S)
        await asyncio.sleep(1.5)
        bench.watchdog.pet()
        assert bench.watchdog.armed
        await asyncio.sleep(10)
        assert bench.bitten_at == [1.5 + TIMEOUT_S]
        assert not bench.watchdog.armed

    bench.run(story)
