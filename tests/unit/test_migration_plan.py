"""The next step of a migration at each of its nodes, whatever is there: who waits, resumes, destroys."""

from __future__ import annotations

from typing import Any

import pytest

from pvc.commands.facts import Ending, ReportEnded, ReportShutdownTimedOut
from pvc.commands.facts_moves import ReportArrived, ReportMigrationFailed
from pvc.drivers.hypervisor import Domain, DomainState, OffReason
from pvc.handlers.vm_plan import (
    ARRIVAL_TIMEOUT_S,
    CANCELLED,
    PREPARE_TIMEOUT_S,
    PROGRESS_S,
    SOON_S,
    AskShutdown,
    CancelMigration,
    Define,
    Destroy,
    Forget,
    Migrate,
    Patience,
    Prepare,
    Report,
    Start,
    Step,
    Wait,
    plan_vm,
)
from pvc.projections.state import Vm
from tests.support.core import TinyCluster, a_cluster, bring

FRESH = Patience()
UNDER_WAY = Patience(transferring=True)
FAILED = Patience(failure=("driver.failed", "no route"))


def a_vm(stage: str, **fields: Any) -> Vm:
    """web01 on its way from hv1 to hv2, at this stage."""
    cluster = a_cluster("hv1", "hv2", "hv3")
    cluster.do("vm.define", **{"name": "web01", "memory_mib": 1024, "node": "hv1"} | fields)
    bring(cluster, "web01", "running")
    cluster.do("vm.migrate", vm="web01", node="hv2")
    _STAGES[stage](cluster)
    return cluster.vm()


def _nothing(cluster: TinyCluster) -> None:
    pass


def _cancelled(cluster: TinyCluster) -> None:
    cluster.do("vm.cancel_migration", vm="web01")


def _cancelled_later(cluster: TinyCluster) -> None:
    cluster.says_prepared()
    cluster.do("vm.cancel_migration", vm="web01")


def _arriving(cluster: TinyCluster) -> None:
    cluster.says_prepared()
    cluster.says_ended(Ending.MIGRATED)


def _forced(cluster: TinyCluster) -> None:
    cluster.says_prepared()
    cluster.says_timed_out()


def _stopping(cluster: TinyCluster) -> None:
    _arriving(cluster)
    cluster.do("vm.stop", vm="web01")


_STAGES: dict[str, Any] = {
    "asked": _nothing,
    "prepared": TinyCluster.says_prepared,
    "cancelled": _cancelled,
    "cancelled-late": _cancelled_later,
    "forced": _forced,
    "arriving": _arriving,
    "stopping": _stopping,
}
LIVE = {stage: a_vm(stage) for stage in _STAGES if stage != "forced"}
BY_SHUTDOWN = {stage: a_vm(stage, migration_method="shutdown") for stage in ("asked", "prepared", "forced")}


def up(epoch: int = 1, **about: Any) -> Domain:
    return Domain(**{"vm": "x", "name": "web01", "epoch": epoch, "state": DomainState.RUNNING} | about)


def off(reason: OffReason, epoch: int = 1) -> Domain:
    return Domain(vm="x", name="web01", epoch=epoch, state=DomainState.OFF, reason=reason)


PAUSED = up(state=DomainState.PAUSED)
INCOMING = up(state=DomainState.INCOMING)


def ended(vm: Vm, ending: Ending) -> Report:
    return Report(report=ReportEnded(vm=vm.id, node=vm.node, epoch=vm.epoch, ending=ending))


def failed(vm: Vm, code: str, message: str) -> Report:
    assert vm.migration is not None
    return Report(
        report=ReportMigrationFailed(vm=vm.id, node="hv1", migration=vm.migration.id, code=code, message=message)
    )


# The source.

SOURCE: list[tuple[str, Domain | None, Patience, Any]] = [
    ("asked", up(), FRESH, Wait(delay_s=PREPARE_TIMEOUT_S)),
    ("asked", up(), Patience(waited_s=10), Wait(delay_s=PREPARE_TIMEOUT_S - 10)),
    ("asked", up(), Patience(waited_s=PREPARE_TIMEOUT_S), "vm.target_silent"),
    ("cancelled", up(), FRESH, CANCELLED[0]),
    ("prepared", up(), FRESH, Migrate),
    ("prepared", up(), UNDER_WAY, Wait(delay_s=PROGRESS_S)),
    ("prepared", up(migrating=True), FRESH, Migrate),  # the daemon was started anew: it waits for what goes on
    ("prepared", PAUSED, UNDER_WAY, Wait(delay_s=PROGRESS_S)),
    ("prepared", up(), FAILED, "driver.failed"),
    ("cancelled-late", up(), FRESH, CANCELLED[0]),
    ("cancelled-late", up(migrating=True), FRESH, Migrate),
    ("cancelled-late", up(migrating=True), UNDER_WAY, CancelMigration()),
    ("cancelled-late", PAUSED, FRESH, Start(epoch=1)),
    ("cancelled-late", up(), FAILED, "driver.failed"),
    # Ends.
    ("asked", None, FRESH, Ending.LOST),
    ("prepared", None, UNDER_WAY, Ending.LOST),
    ("prepared", off(OffReason.MIGRATED), FRESH, Ending.MIGRATED),
    ("prepared", off(OffReason.MIGRATED), UNDER_WAY, Ending.MIGRATED),
    ("prepared", off(OffReason.UNKNOWN), UNDER_WAY, Wait(delay_s=SOON_S)),
    ("prepared", off(OffReason.UNKNOWN), Patience(transferring=True, queued=True), CancelMigration()),
    ("prepared", off(OffReason.UNKNOWN), FRESH, Ending.UNKNOWN),
    ("prepared", off(OffReason.GUEST), FRESH, Ending.GUEST),
    ("prepared", off(OffReason.CRASHED), FAILED, Ending.CRASHED),
    # Another run has no business there.
    ("prepared", up(epoch=7), FRESH, Destroy()),
    ("prepared", off(OffReason.GUEST, epoch=7), FRESH, Ending.LOST),
]


@pytest.mark.parametrize(("stage", "domain", "patience", "expected"), SOURCE)
def test_the_source_of_a_live_migration(stage: str, domain: Domain | None, patience: Patience, expected: Any) -> None:
    vm = LIVE[stage]
    step = plan_vm(vm, domain, "hv1", patience)
    if expected is Migrate:
        assert step == Migrate(migration=vm.migration)  # type: ignore[arg-type]
    elif isinstance(expected, Ending):
        assert step == ended(vm, expected)
    elif isinstance(expected, str):
        assert isinstance(step, Report) and isinstance(step.report, ReportMigrationFailed)
        assert step == failed(vm, expected, step.report.message)
    else:
        assert step == expected


def test_the_source_of_a_migration_by_shutdown_asks_and_then_forces() -> None:
    asked, prepared, forced = BY_SHUTDOWN["asked"], BY_SHUTDOWN["prepared"], BY_SHUTDOWN["forced"]
    assert plan_vm(asked, up(), "hv1", FRESH) == Wait(delay_s=PREPARE_TIMEOUT_S), "the guest runs on till then"
    assert plan_vm(prepared, up(), "hv1", FRESH) == AskShutdown()
    over = plan_vm(prepared, up(), "hv1", Patience(waited_s=90, since_asked_s=1))
    assert over == Report(report=ReportShutdownTimedOut(vm=prepared.id, node="hv1", epoch=1, request=prepared.cause))
    assert plan_vm(forced, up(), "hv1", FRESH) == Destroy()
    for reason, ending in ((OffReason.GUEST, Ending.GUEST), (OffReason.DESTROYED, Ending.DESTROYED)):
        assert plan_vm(prepared, off(reason), "hv1", FRESH) == ended(prepared, ending)


def test_the_source_is_done_with_a_guest_that_has_left() -> None:
    vm = LIVE["arriving"]
    assert plan_vm(vm, off(OffReason.MIGRATED), "hv1", FRESH) == Forget()
    assert plan_vm(vm, None, "hv1", FRESH) is None
    assert plan_vm(vm, up(), "hv1", FRESH) == Destroy(), "whatever made it run again, it is the target's now"


# The target.

TARGET: list[tuple[str, Domain | None, Patience, Any]] = [
    ("asked", None, FRESH, Prepare),
    ("asked", PAUSED, FRESH, Destroy()),  # left of an earlier try
    ("asked", off(OffReason.DESTROYED), FRESH, Forget()),
    ("cancelled", None, FRESH, None),
    ("prepared", None, FRESH, None),
    ("prepared", INCOMING, FRESH, None),
    ("prepared", PAUSED, FRESH, None),  # it is here, but not yet its own
    ("prepared", off(OffReason.UNKNOWN), FRESH, None),
    ("cancelled-late", INCOMING, FRESH, None),
    ("arriving", PAUSED, FRESH, Start(epoch=1)),
    ("arriving", up(), FRESH, ReportArrived),
    ("arriving", INCOMING, FRESH, Wait(delay_s=SOON_S)),
    ("arriving", INCOMING, Patience(waited_s=ARRIVAL_TIMEOUT_S), Destroy()),
    ("arriving", None, FRESH, Ending.LOST),
    ("arriving", off(OffReason.DESTROYED), FRESH, Ending.DESTROYED),
    ("arriving", off(OffReason.NEVER_RAN), FRESH, Forget()),  # then it is lost
    ("arriving", up(epoch=7), FRESH, Destroy()),
    ("stopping", PAUSED, FRESH, Destroy()),
]


@pytest.mark.parametrize(("stage", "domain", "patience", "expected"), TARGET)
def test_the_target(stage: str, domain: Domain | None, patience: Patience, expected: Any) -> None:
    vm = LIVE[stage]
    step = plan_vm(vm, domain, "hv2", patience)
    if expected is Prepare:
        assert step == Prepare(migration=vm.migration.id, spec=vm.running_spec)  # type: ignore[union-attr,arg-type]
    elif expected is ReportArrived:
        assert step == Report(report=ReportArrived(vm=vm.id, node="hv2", epoch=1))
    elif isinstance(expected, Ending):
        assert step == ended(vm, expected)
    else:
        assert step == expected


def test_the_target_lets_no_guest_run_while_it_is_not_in_good_standing() -> None:
    waits = plan_vm(LIVE["arriving"], PAUSED, "hv2", Patience(may_start=False))
    assert isinstance(waits, Wait)
    assert plan_vm(LIVE["asked"], None, "hv2", Patience(may_start=False)) == plan_vm(LIVE["asked"], None, "hv2", FRESH)


# Everybody.

DOMAINS = [
    None,
    *(
        up(epoch=epoch, state=state, migrating=migrating)
        for epoch in (0, 1, 2)
        for state in (DomainState.RUNNING, DomainState.PAUSED, DomainState.INCOMING)
        for migrating in (False, True)
    ),
    *(off(reason, epoch) for epoch in (0, 1, 2) for reason in OffReason),
]
PATIENCES = [FRESH, UNDER_WAY, FAILED, Patience(waited_s=1e6, since_asked_s=1.0), Patience(may_start=False)]


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
@pytest.mark.parametrize("node", ["hv1", "hv2", "hv3"])
def test_only_the_owner_ever_lets_a_guest_run_and_only_its_own_run(node: str, domain: Domain | None) -> None:
    for vm in (*LIVE.values(), *BY_SHUTDOWN.values()):
        for patience in PATIENCES:
            step: Step | None = plan_vm(vm, domain, node, patience)
            if isinstance(step, Define | Start | Migrate | AskShutdown):
                assert vm.node == node, "it is another node's"
            if isinstance(step, Start):
                assert patience.may_start and domain is not None and domain.epoch == vm.epoch
                assert domain.state is DomainState.PAUSED
            if isinstance(step, Destroy):
                assert domain is not None and domain.state is not DomainState.OFF
            if isinstance(step, Forget):
                assert domain is not None and domain.state is DomainState.OFF
            if node == "hv3":
                assert (step is None) == (domain is None)


# What the log does not want.


@pytest.mark.parametrize("state", ["running", "shutting-down", "resetting"])
def test_a_guest_that_is_not_to_move_any_more_stays(state: str) -> None:
    cluster = a_cluster("hv1", "hv2")
    cluster.do("vm.define", name="web01", memory_mib=1024, node="hv1")
    bring(cluster, "web01", state)
    vm = cluster.vm()
    assert plan_vm(vm, up(migrating=True), "hv1", FRESH) == CancelMigration()
    waiting = Patience(transferring=True, unwanted=True)
    assert plan_vm(vm, up(), "hv1", waiting) == CancelMigration(), "its turn has not come yet"
    assert plan_vm(vm, up(), "hv1", FRESH) != CancelMigration()


def test_a_move_to_another_node_does_not_join_the_one_that_was_given_up() -> None:
    assert plan_vm(LIVE["prepared"], up(), "hv1", Patience(transferring=True, unwanted=True)) == CancelMigration()
    assert plan_vm(LIVE["stopping"], up(migrating=True), "hv2", FRESH) == Destroy(), "that ends it as well"


def test_a_target_that_has_said_yes_cannot_say_no() -> None:
    cluster = a_cluster("hv1", "hv2")
    cluster.do("vm.define", name="web01", memory_mib=1024, node="hv1")
    bring(cluster, "web01", "running")
    cluster.do("vm.migrate", vm="web01", node="hv2")
    move = cluster.vm().migration
    assert move is not None
    cluster.says_prepared()
    unable = {"vm": cluster.vm().id, "migration": move.id, "code": "vm.target_unable", "message": "no"}
    cluster.report(ReportMigrationFailed(node="hv2", **unable))
    assert cluster.vm().migration is not None, "the guest may be on its way by now"
    cluster.report(ReportMigrationFailed(node="hv1", **unable))
    assert cluster.vm().migration is None
