"""Simulated hypervisors keep the contract of migrations, and fail at every phase as real ones can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from pvc.drivers.hypervisor import DomainState, OffReason
from pvc.drivers.simulated import SimulatedHypervisor
from pvc.drivers.simulated_guest import Behaviour
from pvc.drivers.simulated_network import MigrationPhase, SimulatedNetwork
from pvc.errors import DriverError, PvcError, Unavailable
from pvc.events.vm import VmSpec
from pvc.sim.loop import run_virtual
from pvc.sim.mortal import Killed, Life, MortalHypervisor
from tests.contract.hypervisor_contract import new_id
from tests.contract.migration_contract import MigrationContract

SPEC = VmSpec(memory_mib=64, vcpus=1)
HERE, THERE = "10.0.0.1", "10.0.0.2"


class SimulatedPair:
    def __init__(self, folder: Path | None = None) -> None:
        # As quick as tests on real time want it.
        self.network = SimulatedNetwork(mib_per_s=6400, setup_s=0.01)
        self.source = SimulatedHypervisor(console_dir=folder, network=self.network, address=HERE)
        self.target = SimulatedHypervisor(console_dir=folder, network=self.network, address=THERE)
        self.source_address, self.target_address, self.nobodys_address = HERE, THERE, "10.0.0.3"

    def spec(self, name: str) -> VmSpec:
        return SPEC

    async def slow_down(self) -> None:
        self.network.mib_per_s = 128

    async def restart_source_daemon(self) -> None:
        await self.source.close()


class TestSimulatedMigration(MigrationContract):
    @pytest.fixture
    async def pair(self, tmp_path: Path) -> AsyncIterator[SimulatedPair]:
        pair = SimulatedPair(tmp_path)
        yield pair
        for machine in (pair.source, pair.target):
            for vm in machine.snapshot():
                await machine.destroy(vm)


class House:
    """A guest that runs on the source of a pair, on virtual time; the migration takes 64 s and its downtime 1 s."""

    def __init__(self) -> None:
        self.pair = SimulatedPair()
        self.pair.network.mib_per_s = 1
        self.pair.network.setup_s = 0
        self.source, self.target, self.network = self.pair.source, self.pair.target, self.pair.network
        self.vm = new_id()

    async def begin(self, *, force: bool = False) -> asyncio.Task[None]:
        await self.source.define(self.vm, "web", SPEC, epoch=1)
        await self.source.start(self.vm)
        return self.again(force=force)

    def again(self, *, force: bool = False) -> asyncio.Task[None]:
        return asyncio.create_task(
            self.source.migrate(self.vm, epoch=1, target=THERE, max_downtime_ms=1000, force=force)
        )

    def at(self, machine: SimulatedHypervisor) -> str:
        domain = machine.snapshot().get(self.vm)
        return "" if domain is None else f"{domain.state}{' ' + domain.reason if domain.reason else ''}"

    @property
    def both(self) -> tuple[str, str]:
        return self.at(self.source), self.at(self.target)


def scenario(story: Callable[[House], Awaitable[None]]) -> None:
    async def main() -> None:
        await story(House())

    run_virtual(main())


def test_progress_is_told_from_the_time_that_has_passed() -> None:
    async def story(house: House) -> None:
        moving = await house.begin()
        await asyncio.sleep(16)
        transfer = await house.source.transfer(house.vm)
        assert transfer is not None
        assert round(transfer.per_cent) == 25
        assert transfer.total_bytes == 64 * 1024 * 1024
        assert house.both == ("running", "incoming")
        await asyncio.sleep(48.5)
        assert house.both == ("running", "incoming"), "the guest stands still, and is not there yet"
        await moving
        assert round(asyncio.get_running_loop().time()) == 65
        assert house.both == ("off migrated", "paused")

    scenario(story)


@pytest.mark.parametrize(
    ("phase", "error", "after"),
    [
        (MigrationPhase.PREPARE, DriverError, ("running", "")),
        (MigrationPhase.TRANSFER, DriverError, ("running", "")),
        (MigrationPhase.FINISH, DriverError, ("running", "paused")),
        (MigrationPhase.CONFIRM, Unavailable, ("paused", "paused")),
    ],
)
def test_whichever_phase_fails_the_guest_goes_on_at_its_source(
    phase: MigrationPhase, error: type[PvcError], after: tuple[str, str]
) -> None:
    async def story(house: House) -> None:
        house.network.fails = lambda vm, at: at is phase
        moving = await house.begin()
        with pytest.raises(error):
            await moving
        assert house.both == after
        if after[0] == "paused":
            with pytest.raises(DriverError) as refusal:
                await house.again()
            assert refusal.value.code == "hypervisor.migration_failed"
            assert house.both == ("running", "paused")
        await house.target.destroy(house.vm)
        house.network.fails = lambda vm, at: False
        await house.again()
        assert house.both == ("off migrated", "paused")

    scenario(story)


@pytest.mark.parametrize("after_s", [0, 10, 31, 63, 64.5])
@pytest.mark.parametrize("what", ["cut", "target power", "source power"])
def test_a_broken_way_is_noticed_and_the_guest_is_in_one_place_or_none(after_s: float, what: str) -> None:
    async def story(house: House) -> None:
        moving = await house.begin()
        await asyncio.sleep(after_s)
        match what:
            case "cut":
                house.network.cut(HERE, THERE)
            case "target power":
                house.target.lose_power()
            case "source power":
                house.source.lose_power()
        await asyncio.sleep(house.network.notice_s + 1)
        assert moving.done()
        with pytest.raises(PvcError):
            await moving
        assert house.both == ("off unknown" if what == "source power" else "running", "")

    scenario(story)


def test_a_cut_that_heals_before_it_is_noticed_only_delays() -> None:
    async def story(house: House) -> None:
        moving = await house.begin()
        await asyncio.sleep(62)
        house.network.cut(HERE, THERE)
        await asyncio.sleep(4)
        house.network.heal(HERE, THERE)
        await moving
        assert house.both == ("off migrated", "paused")
        assert asyncio.get_running_loop().time() == pytest.approx(67)

    scenario(story)


def test_a_busy_guest_moves_by_force_only() -> None:
    async def story(house: House) -> None:
        house.source.behaviours[house.vm] = Behaviour(restless=True)
        moving = await house.begin()
        await asyncio.sleep(3600)
        assert not moving.done()
        await house.source.cancel_migration(house.vm)
        with pytest.raises(DriverError) as refusal:
            await moving
        assert refusal.value.code == "hypervisor.migration_cancelled"
        assert house.both == ("running", "")
        await house.again(force=True)
        assert house.both == ("off migrated", "paused")

    scenario(story)


def test_a_guest_that_cannot_be_moved_live_is_refused() -> None:
    async def story(house: House) -> None:
        house.source.behaviours[house.vm] = Behaviour(refuses_migration="it has a disk of its own")
        with pytest.raises(DriverError, match="disk of its own") as refusal:
            await (await house.begin())
        assert refusal.value.code == "hypervisor.migration_refused"
        assert house.both == ("running", "")

    scenario(story)


def test_no_time_passes_for_a_guest_that_waits_to_be_let_run() -> None:
    async def story(house: House) -> None:
        house.source.behaviours[house.vm] = Behaviour(powers_off_after_s=100)
        await (await house.begin())
        await asyncio.sleep(1000)
        assert house.both == ("off migrated", "paused")
        await house.target.start(house.vm)
        await asyncio.sleep(35)
        assert house.at(house.target) == "running"
        await asyncio.sleep(2)
        assert house.at(house.target) == f"off {OffReason.GUEST}"

    scenario(story)


def test_a_daemon_that_dies_in_the_midst_finds_the_migration_done() -> None:
    async def story(house: House) -> None:
        await (await house.begin())
        await house.target.start(house.vm)
        await house.source.forget(house.vm)
        mortal = MortalHypervisor(house.target, Life(lambda effect: effect == "migrate_begun"))
        with pytest.raises(Killed):
            await mortal.migrate(house.vm, epoch=1, target=HERE, max_downtime_ms=1000, force=False)
        assert house.both == ("incoming", "running")
        await house.target.migrate(house.vm, epoch=1, target=HERE, max_downtime_ms=1000, force=False)
        assert house.both == ("paused", "off migrated")
        assert house.target.effects[-1] == ("migrate", house.vm)

    scenario(story)


async def test_a_moved_and_an_arrived_domain_are_kept_in_the_state_file(tmp_path: Path) -> None:
    network = SimulatedNetwork(mib_per_s=6400, setup_s=0)
    source, target = (
        SimulatedHypervisor(state_file=tmp_path / address, network=network, address=address)
        for address in (HERE, THERE)
    )
    vm = new_id()
    await source.define(vm, "web", SPEC, epoch=1)
    await source.start(vm)
    await target.list_domains()
    await source.migrate(vm, epoch=1, target=THERE, max_downtime_ms=1, force=False)
    await source.close()
    await target.close()
    source, target = SimulatedHypervisor(state_file=tmp_path / HERE), SimulatedHypervisor(state_file=tmp_path / THERE)
    there, here = await target.get_domain(vm), await source.get_domain(vm)
    assert there is not None
    assert here is not None
    assert (here.state, here.reason) == (DomainState.OFF, OffReason.MIGRATED)
    assert there.state is DomainState.PAUSED
    await target.start(vm)
    assert (await target.list_domains())[0].state is DomainState.RUNNING
    await target.destroy(vm)
