"""The simulated hypervisor keeps the hypervisors' contract, and does what only a simulated one can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pvc.drivers.hypervisor import DomainState, Hypervisor, OffReason
from pvc.drivers.simulated import SimulatedHypervisor
from pvc.drivers.simulated_guest import Behaviour
from pvc.errors import DriverError, Unavailable
from pvc.events.vm import VmSpec
from pvc.sim.loop import run_virtual
from tests.contract.hypervisor_contract import HypervisorContract, new_id

SPEC = VmSpec(memory_mib=64, vcpus=1)


class SimulatedMachine:
    """The object lives on between connections, as a machine does."""

    def __init__(self, console_dir: Path) -> None:
        self.simulated = SimulatedHypervisor(console_dir=console_dir)
        self.hypervisor: Hypervisor = self.simulated
        self.simulated.default_behaviour = Behaviour(obeys_acpi_after_s=0.05)

    def spec(self, name: str, *, deaf: bool = False) -> VmSpec:
        if deaf:
            self.simulated.default_behaviour = Behaviour(obeys_acpi_after_s=None)
        return SPEC

    def broken_spec(self, name: str) -> tuple[VmSpec, str]:
        self.simulated.default_behaviour = Behaviour(refuses_start="no such disk")
        return SPEC, "no such disk"

    async def reopen(self) -> Hypervisor:
        await self.hypervisor.close()
        return self.hypervisor

    async def destroy_behind_our_back(self, vm: str) -> None:
        self.simulated.end_behind_our_back(vm, OffReason.DESTROYED)


class TestSimulatedHypervisor(HypervisorContract):
    @pytest.fixture
    async def machine(self, tmp_path: Path) -> AsyncIterator[SimulatedMachine]:
        machine = SimulatedMachine(tmp_path)
        yield machine
        for vm in machine.simulated.snapshot():
            await machine.hypervisor.destroy(vm)


class TestSimulatedFromAStateFile(HypervisorContract):
    """As in a daemon without libvirt: every new connection is a new process that knows only the file."""

    @pytest.fixture
    async def machine(self, tmp_path: Path) -> AsyncIterator[SimulatedMachine]:
        machine = PersistentMachine(tmp_path)
        yield machine
        for vm in machine.simulated.snapshot():
            await machine.hypervisor.destroy(vm)


class PersistentMachine(SimulatedMachine):
    def __init__(self, tmp_path: Path) -> None:
        self._tmp_path = tmp_path
        self._open()

    async def reopen(self) -> Hypervisor:
        await self.hypervisor.close()
        self._open()
        return self.hypervisor

    def _open(self) -> None:
        self.simulated = SimulatedHypervisor(
            console_dir=self._tmp_path / "console", state_file=self._tmp_path / "state" / "simulated.json"
        )
        self.hypervisor = self.simulated
        self.simulated.default_behaviour = Behaviour(obeys_acpi_after_s=0.05)


@pytest.mark.parametrize("effect", ["define", "start", "shutdown", "destroy", "reset", "forget"])
def test_a_daemon_killed_right_after_an_effect_finds_it_done(effect: str) -> None:
    class KilledError(BaseException):
        pass

    async def scenario() -> None:
        machine = SimulatedHypervisor()
        machine.default_behaviour = Behaviour(obeys_acpi_after_s=1)
        vm = new_id()

        def strike(done: str) -> None:
            if done == effect:
                raise KilledError

        machine.after_effect = strike
        with pytest.raises(KilledError):
            await machine.define(vm, "web", SPEC, epoch=1)
            await machine.start(vm)
            if effect == "reset":
                await machine.reset(vm, mark="m1")
            if effect == "shutdown":
                await machine.shutdown(vm)
            await machine.destroy(vm)
            await machine.forget(vm)
        machine.after_effect = None
        await asyncio.sleep(2)
        domain = await machine.get_domain(vm)
        assert machine.effects[-1] == (effect, vm)
        if effect == "forget":
            assert domain is None
            return
        assert domain is not None
        assert (domain.state, domain.reason, domain.reset_mark) == {
            "define": (DomainState.OFF, OffReason.NEVER_RAN, ""),
            "start": (DomainState.RUNNING, None, ""),
            "shutdown": (DomainState.OFF, OffReason.GUEST, ""),
            "destroy": (DomainState.OFF, OffReason.DESTROYED, ""),
            "reset": (DomainState.RUNNING, None, "m1"),
        }[effect]

    run_virtual(scenario())


def test_a_day_of_a_guest_that_crashes_every_hour_is_the_same_every_time() -> None:
    async def scenario() -> list[tuple[float, str]]:
        machine = SimulatedHypervisor(delay_s=0.25)
        machine.default_behaviour = Behaviour(crashes_after_s=3600, heartbeat=False)
        vm, story = "7b0c7f0e-6d0e-4f7a-9f59-0d8b54a1a001", []

        async def restart() -> None:
            async for _ in machine.events():
                domain = machine.snapshot()[vm]
                if domain.state is DomainState.OFF:
                    story.append((asyncio.get_running_loop().time(), str(domain.reason)))
                    await machine.start(vm)

        keeper = asyncio.create_task(restart())
        await asyncio.sleep(0)
        await machine.define(vm, "web", SPEC, epoch=1)
        await asyncio.sleep(24 * 3600)
        keeper.cancel()
        return story

    first, second = run_virtual(scenario()), run_virtual(scenario())
    assert first == second
    assert [reason for _, reason in first] == ["never_ran"] + ["crashed"] * 23


def test_an_unreachable_hypervisor_refuses_everything_and_its_guests_go_on() -> None:
    async def scenario() -> None:
        machine, vm = SimulatedHypervisor(), new_id()
        await machine.define(vm, "web", SPEC, epoch=1)
        await machine.start(vm)
        heard = asyncio.create_task(anext(machine.events()))
        await asyncio.sleep(1)
        machine.lose_connection()
        for call in (machine.info(), machine.list_domains(), machine.start(vm), machine.destroy(vm)):
            with pytest.raises(Unavailable):
                await call
        assert machine.snapshot()[vm].state is DomainState.RUNNING
        machine.regain_connection()
        assert await heard == ""
        assert (await machine.list_domains())[0].state is DomainState.RUNNING

    run_virtual(scenario())


def test_a_definition_can_be_refused() -> None:
    async def scenario() -> None:
        machine = SimulatedHypervisor()
        machine.default_behaviour = Behaviour(refuses_define="unsupported configuration")
        with pytest.raises(DriverError, match="unsupported configuration"):
            await machine.define(new_id(), "web", SPEC, epoch=1)
        assert await machine.list_domains() == []

    run_virtual(scenario())


def test_a_guest_that_leaves_by_itself_does_so_in_its_own_time() -> None:
    async def scenario() -> None:
        machine, vm = SimulatedHypervisor(), new_id()
        machine.behaviours[vm] = Behaviour(powers_off_after_s=10)
        await machine.define(vm, "web", SPEC, epoch=1)
        await machine.start(vm)
        await asyncio.sleep(9.9)
        assert machine.snapshot()[vm].state is DomainState.RUNNING
        await asyncio.sleep(0.2)
        assert machine.snapshot()[vm].reason is OffReason.GUEST

    run_virtual(scenario())


async def test_a_broken_state_file_is_named_each_time_and_never_taken_for_no_domains(tmp_path: Path) -> None:
    (tmp_path / "simulated.json").write_text("{nonsense")
    machine = SimulatedHypervisor(state_file=tmp_path / "simulated.json")
    for _ in range(2):
        with pytest.raises(DriverError, match="does not hold simulated domains") as refusal:
            await machine.list_domains()
        assert refusal.value.code == "hypervisor.bad_state_file"
    assert (tmp_path / "simulated.json").read_text() == "{nonsense"


def test_a_guest_outlives_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, vm = SimulatedHypervisor(console_dir=tmp_path), new_id()
        await machine.define(vm, "web", SPEC, epoch=1)
        await machine.start(vm)
        machine.console_log(vm).mkdir()
        await asyncio.sleep(3.5)
        machine.console_log(vm).rmdir()
        await asyncio.sleep(1)
        assert "heartbeat 4" in machine.console_log(vm).read_text()

    run_virtual(scenario())
