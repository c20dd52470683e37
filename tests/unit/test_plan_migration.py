"""The source's next step while a guest is on its way: it waits as long as that makes sense, and no longer."""

from __future__ import annotations

from msgspec.structs import replace

from pvc.commands.facts_moves import ReportMigrationFailed
from pvc.drivers.hypervisor import Domain, DomainState
from pvc.handlers.vm_plan import TRANSFER_TIMEOUT_S, CancelMigration, Patience, Report, Wait, plan_vm
from pvc.projections.state import Vm
from tests.support.core import a_cluster_with_vm

LONG_S = TRANSFER_TIMEOUT_S * 1000
STOPPED = ("hypervisor.migration_cancelled", "it was cancelled")


def a_vm_under_way() -> tuple[Vm, Domain]:
    vm = a_cluster_with_vm("migrating").vm()
    assert vm.migration is not None
    vm = replace(vm, migration=replace(vm.migration, prepared=True))
    return vm, Domain(vm=vm.id, name=vm.name, epoch=vm.epoch, state=DomainState.RUNNING, migrating=True)


def failure(vm: Vm, domain: Domain, patience: Patience) -> str:
    step = plan_vm(vm, replace(domain, migrating=False), vm.node, patience)
    assert isinstance(step, Report) and isinstance(step.report, ReportMigrationFailed)
    return step.report.code


def test_a_migration_under_way_is_waited_for() -> None:
    vm, domain = a_vm_under_way()
    assert isinstance(plan_vm(vm, domain, vm.node, Patience(waited_s=60, transferring=True)), Wait)


def test_a_migration_that_never_ends_is_given_up() -> None:
    vm, domain = a_vm_under_way()
    assert plan_vm(vm, domain, vm.node, Patience(waited_s=LONG_S, transferring=True)) == CancelMigration()
    assert failure(vm, domain, Patience(waited_s=LONG_S, failure=STOPPED)) == "vm.migration_endless"


def test_a_large_guest_gets_more_time() -> None:
    vm, domain = a_vm_under_way()
    large = replace(vm, running_spec=replace(vm.spec, memory_mib=1 << 20))
    hour = Patience(waited_s=3600, transferring=True)
    assert isinstance(plan_vm(large, domain, vm.node, hour), Wait)
    assert plan_vm(vm, domain, vm.node, hour) == CancelMigration()


def test_a_cancelled_migration_is_called_that_however_long_it_took() -> None:
    vm, domain = a_vm_under_way()
    assert vm.migration is not None
    cancelled = replace(vm, migration=replace(vm.migration, cancel=True))
    assert failure(cancelled, domain, Patience(waited_s=LONG_S, failure=STOPPED)) == STOPPED[0]
