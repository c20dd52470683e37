"""Whole migrations between two simulated machines, over refusals, deaf guests and daemons that die."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pvc.commands.facts_moves import LIVE_REFUSED
from pvc.drivers.hypervisor import DomainState, OffReason
from pvc.drivers.simulated import EFFECTS, SimulatedHypervisor
from pvc.drivers.simulated_network import MigrationPhase
from pvc.errors import DriverError, Unavailable
from pvc.events.registry import decode_event
from pvc.events.vm import VmSpec
from pvc.events.vm_moves import VmMigrationFailed
from pvc.handlers.transfers import Transfers
from pvc.handlers.vm_plan import PREPARE_TIMEOUT_S, PROGRESS_S, TRANSFER_TIMEOUT_S
from pvc.handlers.vm_reconciler import VmReconciler
from pvc.projections.vm_machine import VmState
from pvc.sim.loop import VirtualClock
from tests.support.virtual import virtual
from tests.unit.migration_house import NODES, PACE_S, Daemon, House, Killed, now_s


@virtual
async def test_a_guest_goes_live_and_back() -> None:
    house = House()
    await house.start()
    for target in ("hv2", "hv1"):
        house.cluster.do("vm.migrate", vm="web01", node=target)
        await house.settle()
        assert (house.vm.node, house.vm.epoch) == (target, 1)
    assert [effect for effect, _ in house.machines["hv1"].effects].count("start") == 1


@virtual
async def test_a_guest_that_cannot_go_live_is_shut_down_and_starts_there() -> None:
    house = House()
    await house.start()
    house.behave(refuses_migration="it has a disk of its own")
    house.cluster.do("vm.migrate", vm="web01", node="hv2")
    await house.settle()
    assert (house.vm.node, house.vm.epoch) == ("hv2", 2)
    assert LIVE_REFUSED == "hypervisor.migration_refused"
    last = ["vm.migration_requested", "vm.migration_prepared", "vm.relocated", "vm.started"]
    assert house.told()[-len(last) :] == last


@virtual
async def test_a_deaf_guest_is_forced_off_when_its_time_is_over_which_begins_with_the_shutdown() -> None:
    house = House(migration_method="shutdown")
    await house.start()
    house.behave(obeys_acpi_after_s=None)
    house.silent.add("hv2")
    house.cluster.do("vm.migrate", vm="web01", node="hv2", timeout_s=20)
    await house.run(15)
    house.silent.clear()
    begin = now_s()
    while "vm.shutdown_timed_out" not in house.told():
        await house.run(PACE_S)
    assert now_s() - begin == pytest.approx(20, abs=2), "the wait for the target is not taken off"
    await house.settle()
    assert house.vm.node == "hv2"


@virtual
async def test_a_fallback_has_the_time_of_a_new_try() -> None:
    house = House()
    await house.start()
    house.behave(refuses_migration="it has a disk of its own")
    house.silent.add("hv2")
    house.cluster.do("vm.migrate", vm="web01", node="hv2")
    await house.run(PREPARE_TIMEOUT_S - 2)
    house.silent.clear()
    await house.look("hv2")
    house.silent.add("hv2")
    await house.run(10)
    assert house.told()[-1] == "vm.migration_requested" and house.vm.migration is not None
    assert house.vm.state is VmState.MIGRATING, "the target has its full time once more"
    house.silent.clear()
    await house.settle()
    assert house.vm.node == "hv2"


@virtual
async def test_a_target_that_does_not_answer_or_lacks_something_leaves_the_vm_where_it_is() -> None:
    house = House()
    await house.start()
    house.silent.add("hv2")
    house.cluster.do("vm.migrate", vm="web01", node="hv2")
    begin = now_s()
    await house.settle()
    assert now_s() - begin == pytest.approx(PREPARE_TIMEOUT_S, abs=3)
    assert (house.vm.node, house.told()[-1]) == ("hv1", "vm.migration_failed")
    house.silent.clear()
    house.obstacles["hv2"] = "there is no /images/web01.raw"
    house.cluster.do("vm.migrate", vm="web01", node="hv2")
    await house.settle()
    assert (house.vm.node, house.told()[-1]) == ("hv1", "vm.migration_failed")


@virtual
async def test_a_restless_guest_goes_on_until_that_is_cancelled() -> None:
    house = House()
    await house.start()
    house.behave(restless=True)
    house.cluster.do("vm.migrate", vm="web01", node="hv2")
    await house.run(60)
    assert house.vm.state is VmState.MIGRATING and house.daemons["hv1"].transfers.under_way() == (house.vm_id,)
    house.cluster.do("vm.cancel_migration", vm="web01")
    await house.settle()
    assert (house.vm.node, house.told()[-1]) == ("hv1", "vm.migration_failed")
    house.cluster.do("vm.migrate", vm="web01", node="hv2", force_live=True)
    await house.settle()
    assert house.vm.node == "hv2"


@pytest.mark.parametrize("phase", list(MigrationPhase))
@virtual
async def test_a_migration_that_breaks_in_any_phase_ends_with_one_running_guest(phase: MigrationPhase) -> None:
    house = House()
    await house.start()
    house.network.fails = lambda vm, at: at is phase
    house.cluster.do("vm.migrate", vm="web01", node="hv2", force_live=True)
    await house.settle()
    assert house.vm.state is VmState.RUNNING
    house.network.fails = lambda vm, at: False
    house.cluster.do("vm.migrate", vm="web01")
    await house.settle()
    assert house.vm.state is VmState.RUNNING


@pytest.mark.parametrize("reason", [OffReason.GUEST, OffReason.CRASHED, OffReason.DESTROYED])
@pytest.mark.parametrize("live", [True, False])
@virtual
async def test_a_guest_that_ends_on_its_way_leaves_nothing_behind(reason: OffReason, live: bool) -> None:
    house = House(migration_method="live" if live else "shutdown")
    await house.start()
    house.behave(restless=True, obeys_acpi_after_s=None)
    house.cluster.do("vm.migrate", vm="web01", node="hv2")
    await house.run(3)
    house.machines["hv1"].end_behind_our_back(house.vm_id, reason)
    house.behave()
    await house.settle()
    if live and reason is OffReason.GUEST:
        assert house.vm.state is VmState.STOPPED
    else:
        assert (house.vm.state, house.vm.node) == (VmState.RUNNING, "hv1" if live else "hv2")


@virtual
async def test_a_target_in_doubt_of_its_standing_lets_the_guest_stand_until_it_is_sure() -> None:
    house = House()
    await house.start()
    house.unsure.add("hv2")
    house.cluster.do("vm.migrate", vm="web01", node="hv2")
    await house.run(20)
    assert house.vm.state is VmState.ARRIVING
    assert house.machines["hv2"].snapshot()[house.vm_id].state is DomainState.PAUSED
    house.unsure.clear()
    await house.settle()
    assert (house.vm.state, house.vm.node) == (VmState.RUNNING, "hv2")


@virtual
async def test_a_guest_that_cannot_be_let_run_on_is_started_anew() -> None:
    house = House()
    await house.start()
    start = house.machines["hv2"].start

    async def locked(vm: str, **given: object) -> None:
        house.machines["hv2"].start = start  # type: ignore[method-assign]
        raise DriverError("its disk is locked", code="hypervisor.start_failed")

    house.machines["hv2"].start = locked  # type: ignore[method-assign]
    house.cluster.do("vm.migrate", vm="web01", node="hv2")
    await house.settle()
    assert (house.vm.node, house.vm.state, house.vm.epoch) == ("hv2", VmState.RUNNING, 2)


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("method", ["live", "shutdown"])
@virtual
async def test_a_daemon_killed_after_any_effect_on_either_side_heals_when_it_is_back(
    method: str, node: str, effect: str
) -> None:
    house = House(migration_method=method)
    await house.start()
    killed: list[str] = []

    def kill(done: str) -> None:
        if done == effect and not killed:
            killed.append(done)
            raise Killed

    house.machines[node].after_effect = kill
    house.cluster.do("vm.migrate", vm="web01", node="hv2")
    await house.settle()
    assert (house.vm.state, house.vm.node) == (VmState.RUNNING, "hv2")


@virtual
async def test_a_daemon_that_is_stopped_in_the_middle_goes_on_waiting_when_it_is_back() -> None:
    house = House()
    await house.start()
    house.network.mib_per_s = 16
    house.cluster.do("vm.migrate", vm="web01", node="hv2")
    await house.run(5)
    await house.daemons["hv1"].transfers.close()
    house.daemons["hv1"] = Daemon(house, "hv1")
    await house.run(PROGRESS_S)
    assert house.daemons["hv1"].transfers.under_way() == (house.vm_id,)
    await house.settle()
    assert (house.vm.node, house.told().count("vm.migration_failed")) == ("hv2", 0)


# What a node remembers of its migrations.


@virtual
async def test_a_failure_is_known_of_the_migration_that_failed_until_it_is_told() -> None:
    house = House()
    await house.start()
    woken: list[str] = []
    transfers = Transfers(house.machines["hv1"], woken.append)
    house.behave(refuses_migration="it has a disk of its own")
    house.cluster.do("vm.migrate", vm="web01", node="hv2")
    move = house.vm.migration
    assert move is not None and transfers.known_of(house.vm_id, move.id) == (False, None)
    transfers.begin(house.vm_id, 1, move, "10.0.0.2")
    transfers.begin(house.vm_id, 1, move, "10.0.0.2")
    assert transfers.known_of(house.vm_id, move.id) == (True, None)
    transfers.forget(house.vm_id)
    await asyncio.sleep(1)
    assert woken == [house.vm_id] and transfers.under_way() == ()
    waiting, failure = transfers.known_of(house.vm_id, move.id)
    assert not waiting and failure == (LIVE_REFUSED, "it has a disk of its own")
    assert transfers.known_of(house.vm_id, "another") == (False, None)
    transfers.forget(house.vm_id)
    assert transfers.known_of(house.vm_id, move.id) == (False, None)


@virtual
async def test_a_migration_whose_end_nobody_knows_is_looked_at_again() -> None:
    house = House()
    await house.start()
    house.cluster.do("vm.migrate", vm="web01", node="hv2")
    move = house.vm.migration
    assert move is not None
    woken: list[str] = []
    transfers = Transfers(house.machines["hv1"], woken.append)

    async def away(*_: object, **__: object) -> None:
        raise Unavailable("libvirtd is away")

    house.machines["hv1"].migrate = away  # type: ignore[method-assign]
    transfers.begin(house.vm_id, 1, move, "10.0.0.2")
    await asyncio.sleep(1)
    assert (woken, transfers.known_of(house.vm_id, move.id)) == ([house.vm_id], (False, None))


class Turnstile:
    """In front of the machine's `migrate`: nobody's turn comes until it is opened, and who waits can be dropped."""

    def __init__(self, machine: SimulatedHypervisor) -> None:
        self.open = asyncio.Event()
        self.waiting: asyncio.Task[bool] | None = None
        self.cancels = 0
        self._migrate, self._cancel = machine.migrate, machine.cancel_migration
        machine.migrate = self.migrate  # type: ignore[method-assign]
        machine.cancel_migration = self.cancel  # type: ignore[method-assign]

    async def migrate(self, vm: str, **arguments: Any) -> None:
        self.waiting = asyncio.ensure_future(self.open.wait())
        await asyncio.wait({self.waiting})
        if self.waiting.cancelled():
            raise DriverError("it was cancelled", code="hypervisor.migration_cancelled")
        await self._migrate(vm, **arguments)

    async def cancel(self, vm: str) -> None:
        self.cancels += 1
        if self.waiting is not None and not self.waiting.done():
            self.waiting.cancel()
        await self._cancel(vm)


@virtual
async def test_the_time_of_a_migration_begins_with_its_turn() -> None:
    house = House()
    await house.start()
    turnstile = Turnstile(house.machines["hv1"])
    house.cluster.do("vm.migrate", vm="web01", node="hv2")
    await house.run(TRANSFER_TIMEOUT_S * 2)
    assert house.vm.state is VmState.MIGRATING
    turnstile.open.set()
    await house.settle()
    assert (house.vm.node, house.vm.state) == ("hv2", VmState.RUNNING)


@virtual
async def test_a_guest_that_is_started_anew_while_it_waits_for_its_turn_is_not_moved() -> None:
    house = House(on_crash="restart")
    await house.start()
    turnstile = Turnstile(house.machines["hv1"])
    house.cluster.do("vm.migrate", vm="web01", node="hv2")
    await house.run(5)
    house.machines["hv1"].end_behind_our_back(house.vm_id, OffReason.CRASHED)
    await house.run(5)
    assert (house.vm.node, house.vm.epoch, house.vm.state) == ("hv1", 2, VmState.RUNNING)
    assert house.daemons["hv1"].transfers.under_way() == ()
    assert 1 <= turnstile.cancels < 5
    turnstile.open.set()
    await house.run(60)
    assert (house.vm.node, house.vm.epoch) == ("hv1", 2)
    assert house.told().count("vm.crashed") == 1


@virtual
async def test_storage_that_does_not_answer_at_the_target_makes_it_unable() -> None:
    house = House()
    await house.start()
    never = asyncio.Event()

    async def hang(spec: VmSpec) -> str:
        await never.wait()
        return ""

    async def hear(report: Any, cause: str) -> None:
        house.cluster.report(report)

    reconciler = VmReconciler(
        "hv2",
        lambda: house.cluster.state,
        house.machines["hv2"],
        hear,
        VirtualClock(),
        transfers=Transfers(house.machines["hv2"], lambda vm: None),
        obstacle=hang,
    )
    house.cluster.do("vm.migrate", vm="web01", node="hv2")
    begin_s = now_s()
    await reconciler.reconcile(house.vm_id)
    assert now_s() - begin_s < PREPARE_TIMEOUT_S
    assert (house.vm.node, house.vm.state) == ("hv1", VmState.RUNNING)
    failed = decode_event(house.cluster.entries[-1].record.events[0])
    assert isinstance(failed, VmMigrationFailed)
    assert failed.code == "vm.target_unable" and "20 s" in failed.message


@virtual
async def test_a_migration_by_shutdown_that_is_cancelled_leaves_the_guest_running() -> None:
    house = House(migration_method="shutdown")
    await house.start()
    house.behave(obeys_acpi_after_s=None)
    house.cluster.do("vm.migrate", vm="web01", node="hv2", timeout_s=30)
    await house.run(10)
    house.cluster.do("vm.cancel_migration", vm="web01")
    await house.run(120)
    assert (house.vm.node, house.vm.state, house.vm.epoch) == ("hv1", VmState.RUNNING, 1)
    assert house.machines["hv1"].snapshot()[house.vm_id].state is DomainState.RUNNING
    assert house.told()[-1] == "vm.migration_failed"
