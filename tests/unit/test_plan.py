"""The one next step, case by case as a person would check it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from pvc.commands.facts import Ending, ReportEnded, ReportReset, ReportRunning, ReportShutdownTimedOut
from pvc.commands.facts_moves import ReportMigrationFailed
from pvc.drivers.hypervisor import Domain, DomainState, OffReason
from pvc.handlers.vm_plan import (
    ASK_AGAIN_S,
    AskShutdown,
    Define,
    Destroy,
    Forget,
    Patience,
    Report,
    Reset,
    Start,
    Wait,
    plan_vm,
)
from pvc.projections.state import Vm
from tests.support.core import a_cluster_with_vm

FRESH = Patience()
VMS: dict[str, Vm] = {
    state: a_cluster_with_vm(state).vm()
    for state in ("stopped", "starting", "running", "shutting-down", "stopping", "restarting", "resetting", "disabled")
}


def up(epoch: int = 1, **about: Any) -> Domain:
    return Domain(vm="x", name="web01", epoch=epoch, state=DomainState.RUNNING, **about)


def off(reason: OffReason, epoch: int = 1) -> Domain:
    return Domain(vm="x", name="web01", epoch=epoch, state=DomainState.OFF, reason=reason)


def ended(state: str, ending: Ending, epoch: int = 1) -> Report:
    return Report(report=ReportEnded(vm=VMS[state].id, node="hv1", epoch=epoch, ending=ending))


def about(state: str, report: Any, **fields: Any) -> Report:
    return Report(report=report(vm=VMS[state].id, node="hv1", epoch=1, **fields))


PLANS = [
    # At rest.
    ("stopped", None, None),
    ("stopped", up(), Destroy()),
    ("stopped", off(OffReason.GUEST), Forget()),
    ("disabled", up(), Destroy()),
    # On its way up.
    ("starting", None, Define(name="web01", spec=VMS["starting"].spec, epoch=1)),
    ("starting", off(OffReason.NEVER_RAN), Start(epoch=1)),
    ("starting", off(OffReason.GUEST, epoch=0), Define(name="web01", spec=VMS["starting"].spec, epoch=1)),
    ("starting", up(epoch=0), Destroy()),
    ("starting", up(), about("starting", ReportRunning)),
    ("starting", off(OffReason.CRASHED), ended("starting", Ending.CRASHED)),
    ("starting", off(OffReason.UNKNOWN), ended("starting", Ending.UNKNOWN)),
    # Running.
    ("running", up(), None),
    ("running", None, ended("running", Ending.LOST)),
    ("running", off(OffReason.GUEST), ended("running", Ending.GUEST)),
    ("running", off(OffReason.DESTROYED), ended("running", Ending.DESTROYED)),
    ("running", off(OffReason.GUEST, epoch=0), ended("running", Ending.LOST)),
    ("running", up(epoch=0), Destroy()),
    # On its way down.
    ("shutting-down", up(), AskShutdown()),
    ("shutting-down", off(OffReason.GUEST), ended("shutting-down", Ending.GUEST)),
    ("stopping", up(), Destroy()),
    ("stopping", off(OffReason.DESTROYED), ended("stopping", Ending.DESTROYED)),
    ("stopping", None, ended("stopping", Ending.LOST)),
    # Down and up again: the run that ends is the one before.
    ("restarting", up(epoch=1), AskShutdown()),
    ("restarting", off(OffReason.GUEST, epoch=1), ended("restarting", Ending.GUEST, epoch=1)),
    ("restarting", up(epoch=2), Destroy()),
    # Reset.
    ("resetting", up(), Reset(mark=VMS["resetting"].reset_mark)),
    (
        "resetting",
        up(reset_mark=VMS["resetting"].reset_mark),
        about("resetting", ReportReset, mark=VMS["resetting"].reset_mark),
    ),
    ("resetting", off(OffReason.CRASHED), ended("resetting", Ending.CRASHED)),
]


@pytest.mark.parametrize(("state", "domain", "step"), PLANS)
def test_the_next_step_is_the_one_that_is_missing(state: str, domain: Domain | None, step: Any) -> None:
    assert plan_vm(VMS[state], domain, "hv1", FRESH) == step


def test_a_vm_of_another_node_or_none_is_cleared_away_here() -> None:
    running = VMS["running"]
    assert plan_vm(running, up(), "hv2", FRESH) == Destroy()
    assert plan_vm(running, off(OffReason.GUEST), "hv2", FRESH) == Forget()
    assert plan_vm(running, None, "hv2", FRESH) is None
    assert plan_vm(None, up(), "hv1", FRESH) == Destroy()


@pytest.mark.parametrize("state", ["shutting-down", "restarting"])
def test_the_power_button_is_pressed_again_until_the_time_is_over(state: str) -> None:
    def step(waited_s: float, since_asked_s: float | None) -> Any:
        return plan_vm(VMS[state], up(), "hv1", Patience(waited_s=waited_s, since_asked_s=since_asked_s))

    assert step(0, None) == AskShutdown()
    assert step(1, 1) == Wait(delay_s=ASK_AGAIN_S - 1)
    assert step(89, 1) == Wait(delay_s=1)
    assert step(ASK_AGAIN_S, ASK_AGAIN_S) == AskShutdown()
    assert step(90, 1) == about(state, ReportShutdownTimedOut, request=VMS[state].cause)


def test_a_run_uses_the_spec_it_was_asked_for_with_though_it_changed_meanwhile() -> None:
    cluster = a_cluster_with_vm("starting")
    cluster.do("vm.modify", vm="web01", memory_mib=2048)
    step = plan_vm(cluster.vm(), None, "hv1", FRESH)
    assert isinstance(step, Define) and step.spec.memory_mib == 1024


def test_a_restart_whose_time_is_over_forces_the_old_run_off() -> None:
    cluster = a_cluster_with_vm("restarting")
    cluster.says_timed_out()
    assert plan_vm(cluster.vm(), up(epoch=1), "hv1", FRESH) == Destroy()


def test_a_guest_that_a_broken_migration_left_standing_runs_on_before_its_cancellation_is_told() -> None:
    vm = a_cluster_with_vm("migrating").vm()
    assert vm.migration is not None
    vm = replace(vm, migration=replace(vm.migration, prepared=True, cancel=True))
    standing = Domain(vm="x", name="web01", epoch=vm.epoch, state=DomainState.PAUSED)
    assert plan_vm(vm, standing, vm.node, FRESH) == Start(epoch=vm.epoch)
    step = plan_vm(vm, up(vm.epoch), vm.node, FRESH)
    assert isinstance(step, Report) and isinstance(step.report, ReportMigrationFailed)
