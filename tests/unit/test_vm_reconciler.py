"""The reconciler with a simulated hypervisor: from a request to its outcome, over crashes and refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pvc.about import RECORD
from pvc.drivers.hypervisor import DomainState, OffReason, always
from pvc.drivers.simulated import EFFECTS, SimulatedHypervisor
from pvc.drivers.simulated_guest import Behaviour
from pvc.errors import DriverError, Unavailable
from pvc.events.registry import decode_event
from pvc.events.vm import VmSpec
from pvc.handlers.transfers import Transfers
from pvc.handlers.vm_plan import ASK_AGAIN_S
from pvc.handlers.vm_reconciler import DISAGREEMENT_S, MAX_MESSAGE, VmReconciler
from pvc.projections.vm_machine import VmState
from pvc.sim.loop import VirtualClock
from tests.support.core import TinyCluster, a_cluster_with_vm
from tests.support.virtual import virtual


class Killed(BaseException):
    """The daemon is no more."""


class House:
    """A node's reconciler, its machine, and the cluster that hears its reports."""

    def __init__(self, state: str = "stopped", **fields: Any) -> None:
        self.cluster: TinyCluster = a_cluster_with_vm(state, **fields)
        self.vm = self.cluster.vm().id
        self.machine = SimulatedHypervisor()
        self.machine.default_behaviour = Behaviour(heartbeat=False)
        self.causes: list[str] = []
        self.heard: Callable[[], None] = lambda: None
        self.obstacle = ""
        self.may_start = True
        self.restart_daemon()

    def restart_daemon(self) -> None:
        self.transfers = Transfers(self.machine, lambda vm: None)
        self.reconciler = VmReconciler(
            "hv1",
            lambda: self.cluster.state,
            self.machine,
            self._hear,
            VirtualClock(),
            transfers=self.transfers,
            obstacle=self._obstacle,
            may_start=lambda: self.may_start,
        )

    async def _obstacle(self, spec: VmSpec) -> str:
        return self.obstacle

    async def _hear(self, report: Any, cause: str) -> None:
        self.causes.append(cause)
        self.heard()
        self.cluster.report(report)

    async def settle(self, limit_s: float = 300) -> None:
        """Reconcile whenever it is asked for, until nothing is."""
        end = asyncio.get_running_loop().time() + limit_s
        while (delay_s := await self.reconciler.reconcile(self.vm)) is not None:
            await asyncio.sleep(delay_s)
            assert asyncio.get_running_loop().time() < end, "it does not settle"

    def told(self) -> list[str]:
        return [decode_event(raw).TYPE for entry in self.cluster.entries for raw in entry.record.events]

    @property
    def state(self) -> VmState:
        return self.cluster.vm().state


@virtual
async def test_a_start_is_carried_out_and_reported_with_its_cause() -> None:
    house = House("starting")
    request = house.cluster.vm().cause
    await house.settle()
    assert house.state is VmState.RUNNING
    assert house.machine.snapshot()[house.vm].state is DomainState.RUNNING
    assert house.causes == [request]


@virtual
async def test_what_happens_to_a_running_vm_has_no_cause_in_the_log() -> None:
    house = House("starting", on_crash="stop")
    await house.settle()
    house.machine.end_behind_our_back(house.vm, OffReason.CRASHED)
    await house.settle()
    assert house.causes[-1] == ""
    assert house.state is VmState.FAILED
    assert house.machine.snapshot() == {}


@virtual
async def test_a_definition_that_is_refused_fails_the_start_with_a_short_reason() -> None:
    house = House("starting")
    house.machine.default_behaviour = Behaviour(refuses_define="no " * 1000)
    request = house.cluster.vm().cause
    await house.settle()
    assert house.state is VmState.FAILED
    assert len(house.cluster.vm().error) == MAX_MESSAGE
    assert house.causes == [request]


@virtual
async def test_a_start_that_is_refused_leaves_no_domain() -> None:
    house = House("starting")
    house.machine.default_behaviour = Behaviour(refuses_start="no such disk")
    await house.settle()
    assert (house.state, house.cluster.vm().error) == (VmState.FAILED, "no such disk")
    assert house.machine.snapshot() == {}


@virtual
async def test_a_refusal_names_the_vm_and_not_its_id() -> None:
    house = House("starting")
    vm = house.cluster.vm()
    refusal = f"libvirt could not start VM {vm.id}: no such disk"
    house.machine.default_behaviour = Behaviour(refuses_start=refusal)
    await house.settle()
    assert house.cluster.vm().error == "libvirt could not start web01: no such disk"


@virtual
async def test_a_guest_that_hears_the_button_is_down_at_once() -> None:
    house = House("starting")
    await house.settle()
    house.cluster.do("vm.shutdown", vm="web01")
    await house.settle()
    assert house.state is VmState.STOPPED
    assert house.told()[-1] == "vm.stopped"


@virtual
async def test_a_deaf_guest_is_asked_again_and_then_forced() -> None:
    house = House("starting")
    house.machine.default_behaviour = Behaviour(obeys_acpi_after_s=None, heartbeat=False)
    await house.settle()
    house.cluster.do("vm.shutdown", vm="web01", timeout_s=12)
    begin = asyncio.get_running_loop().time()
    await house.settle()
    assert asyncio.get_running_loop().time() - begin == pytest.approx(12, abs=0.1)
    assert [effect for effect, _ in house.machine.effects].count("shutdown") == 3
    assert house.told()[-2:] == ["vm.shutdown_timed_out", "vm.stopped"]
    assert house.state is VmState.STOPPED


@virtual
async def test_a_button_that_could_not_be_pressed_is_pressed_as_soon_as_it_can() -> None:
    house = House("starting")
    await house.settle()
    house.cluster.do("vm.shutdown", vm="web01")
    pressed = house.machine.shutdown

    async def stuck(vm: str) -> None:
        house.machine.shutdown = pressed  # type: ignore[method-assign]
        raise Unavailable("libvirtd is away")

    house.machine.shutdown = stuck  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await house.reconciler.reconcile_in_task(house.vm)
    assert RECORD.get() == house.cluster.vm().cause != "", "what is written of the failure names the request"
    await asyncio.sleep(ASK_AGAIN_S / 10)
    await house.reconciler.reconcile(house.vm)
    assert ("shutdown", house.vm) in house.machine.effects


@virtual
async def test_a_restart_runs_the_new_spec() -> None:
    house = House("starting")
    await house.settle()
    house.cluster.do("vm.modify", vm="web01", memory_mib=2048, restart=True)
    await house.settle()
    assert house.state is VmState.RUNNING
    assert house.machine.spec(house.vm).memory_mib == 2048
    assert house.machine.snapshot()[house.vm].epoch == 2


@virtual
async def test_a_reset_is_done_once() -> None:
    house = House("starting")
    await house.settle()
    house.cluster.do("vm.reset", vm="web01")
    await house.settle()
    await house.settle()
    assert [effect for effect, _ in house.machine.effects].count("reset") == 1
    assert house.state is VmState.RUNNING


@virtual
async def test_a_removed_vm_and_a_stray_are_cleared_away() -> None:
    house = House("starting")
    await house.settle()
    house.cluster.do("vm.stop", vm="web01")
    house.cluster.says_ended()
    house.cluster.do("vm.remove", vm="web01")
    assert house.reconciler.unsettled(await house.machine.list_domains()) == [house.vm]
    await house.reconciler.reconcile(house.vm)
    assert house.machine.snapshot() == {}
    assert house.reconciler.unsettled([]) == []


@virtual
async def test_what_is_unsettled_is_told_without_touching_anything() -> None:
    house = House("starting")
    assert house.reconciler.unsettled([]) == [house.vm]
    await house.settle()
    assert house.reconciler.unsettled(await house.machine.list_domains()) == []
    assert house.reconciler.unsettled([]) == [house.vm], "its domain is gone"


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("command", ["vm.start", "vm.shutdown", "vm.stop", "vm.restart", "vm.reset"])
@virtual
async def test_a_daemon_killed_after_any_effect_heals_when_it_is_back(command: str, effect: str) -> None:
    house = House("stopped" if command == "vm.start" else "starting")
    if command != "vm.start":
        await house.settle()
    house.cluster.do(command, vm="web01")
    killed: list[str] = []

    def kill(done: str) -> None:
        if done == effect and not killed:
            killed.append(done)
            raise Killed

    house.machine.after_effect = kill
    try:
        await house.settle()
    except Killed:
        house.restart_daemon()
        await house.settle()
    ends = {"vm.shutdown": VmState.STOPPED, "vm.stop": VmState.STOPPED}
    assert house.state is ends.get(command, VmState.RUNNING)
    starts = [done for done, _ in house.machine.effects].count("start")
    assert starts == (2 if command == "vm.restart" else 1), "no run was begun twice"
    assert house.told().count("vm.crashed") == 0


@virtual
async def test_steps_that_lead_nowhere_come_to_an_end_for_now() -> None:
    house = House("running")

    async def deaf(report: Any, cause: str) -> None:
        """The log has it, and nothing follows from it."""

    house.reconciler._report = deaf
    assert await house.reconciler.reconcile(house.vm) == DISAGREEMENT_S


def hang(house: House) -> list[Callable[[], bool]]:
    """From now on a start does not come to an end; returns what each asks before its guest runs, if it ever does."""
    asked: list[Callable[[], bool]] = []

    async def start(vm: str, *, may_run: Callable[[], bool] = always) -> None:
        asked.append(may_run)
        raise Unavailable("libvirt did not start it within 120 s")

    house.machine.start = start  # type: ignore[method-assign]
    return asked


@virtual
async def test_a_start_that_hung_may_not_run_what_was_stopped_and_started_again_meanwhile() -> None:
    house = House("starting")
    start, asked = house.machine.start, hang(house)
    with pytest.raises(Unavailable):
        await house.reconciler.reconcile(house.vm)
    (may_run,) = asked
    assert may_run()
    house.may_start = False
    assert not may_run()
    house.may_start = True
    house.cluster.do("vm.stop", vm="web01")
    assert not may_run()
    await house.settle()
    assert house.told()[-1] == "vm.stopped"
    assert not may_run()
    house.machine.start = start  # type: ignore[method-assign]
    house.cluster.do("vm.start", vm="web01")
    assert not may_run(), "that is another run"
    await house.settle()
    assert house.state is VmState.RUNNING
    assert not may_run()


@virtual
async def test_a_domain_that_was_made_and_never_ran_is_gone_before_its_end_is_told() -> None:
    house = House("starting")
    hang(house)
    with pytest.raises(Unavailable):
        await house.reconciler.reconcile(house.vm)
    assert house.vm in house.machine.snapshot()
    house.cluster.do("vm.stop", vm="web01")
    there: list[bool] = []
    house.heard = lambda: there.append(house.vm in house.machine.snapshot())
    await house.settle()
    assert there == [False], "whatever hangs there could run it when it is another's"
    assert house.state is VmState.STOPPED


@virtual
async def test_a_guest_that_runs_though_its_start_failed_is_ended_before_the_failure_is_told() -> None:
    house = House("starting")
    start = house.machine.start

    async def spoilt(vm: str, *, may_run: Callable[[], bool] = always) -> None:
        await start(vm, may_run=may_run)
        raise DriverError("its mark could not be written", code="hypervisor.start_failed")

    house.machine.start = spoilt  # type: ignore[method-assign]
    states: list[DomainState] = []
    house.heard = lambda: states.append(house.machine.snapshot()[house.vm].state)
    await house.settle()
    assert states == [DomainState.OFF]
    assert house.state is VmState.FAILED
