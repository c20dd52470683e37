"""The effectful half of the VM handler: looks at one VM, carries out the next step of the plan, looks again.

Events only wake it. Every step is idempotent, and what it did or found goes back into the log as a report, which is
decided there against the state of that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from pvc.about import RECORD
from pvc.clock import Clock
from pvc.commands.facts import Report, ReportStartFailed
from pvc.commands.facts_moves import ReportMigrationFailed, ReportPrepared
from pvc.drivers.hypervisor import Domain, Hypervisor
from pvc.errors import DriverError
from pvc.events.vm import VmSpec
from pvc.handlers import vm_plan as plan
from pvc.handlers.effect_watch import EffectWatch
from pvc.handlers.transfers import Transfers
from pvc.projections.state import ClusterState, Vm
from pvc.projections.vm_machine import VmState

MAX_STEPS = 32
"""Steps in one go; the longest honest way (a restart) takes nine, so more means that two parties disagree."""

DISAGREEMENT_S = 1.0
"""Until the next look, when the steps have led nowhere."""

OBSTACLE_TIMEOUT_S = 20.0
"""For a look at a VM's files, which storage that is away may never answer; the source waits for 30 s to hear of it."""

MAX_MESSAGE = 500
"""Characters of a hypervisor's reason that go into the log: libvirt quotes QEMU's whole output at times."""

Obstacle = Callable[[VmSpec], Awaitable[str]]
"""What keeps this machine from running such a VM, in words for a person; empty: nothing."""

GiveReport = Callable[[Report, str], Awaitable[None]]
"""Appends a report, with the id of the record that caused it."""


async def nothing_missing(spec: VmSpec) -> str:
    """The obstacle to running a VM where there can be none."""
    return ""


class _Attempt(msgspec.Struct, kw_only=True):
    """What a node remembers of a request it works on; lost at a restart, so a time-out then begins anew."""

    key: tuple[object, ...]
    since_s: float
    asked_s: float | None = None
    moving: bool = False
    """The guest was seen on its way: before, it only waits for its turn, which does not count."""


class VmReconciler:
    """Brings the domains of one node in line with the state."""

    def __init__(
        self,
        node: str,
        state: Callable[[], ClusterState],
        hypervisor: Hypervisor,
        report: GiveReport,
        clock: Clock,
        *,
        transfers: Transfers,
        obstacle: Obstacle,
        may_start: Callable[[], bool] = lambda: True,
        watch: EffectWatch | None = None,
    ) -> None:
        self._watch = watch or EffectWatch(node, clock)
        self._node = node
        self._state = state
        self._hypervisor = hypervisor
        self._report = report
        self._clock = clock
        self._transfers = transfers
        self._obstacle = obstacle
        self._may_start = may_start
        self._attempts: dict[str, _Attempt] = {}

    async def reconcile(self, vm_id: str) -> float | None:
        """Work on one VM until nothing is left to do now; returns after how many seconds to look again, if at all.

        Raises Unavailable when the hypervisor or the log do not answer, DriverError when an effect keeps failing.
        """
        for _ in range(MAX_STEPS):
            # Asked before the domain is looked at: what ended in between is then seen as ended.
            transferring, failure = self._transfers.known_of(vm_id, self._migration_of(vm_id))
            domain = await self._hypervisor.get_domain(vm_id)
            vm = self._state().vms.get(vm_id)
            step = plan.plan_vm(vm, domain, self._node, self._patience(vm_id, vm, domain, transferring, failure))
            if step is None:
                self._attempts.pop(vm_id, None)
                return None
            if isinstance(step, plan.Wait):
                return step.delay_s
            await self._do(vm_id, vm, step)
            if isinstance(step, plan.CancelMigration) and self._transfers.known_of(vm_id, "")[0]:
                return plan.SOON_S
        return DISAGREEMENT_S

    async def reconcile_in_task(self, vm_id: str) -> float | None:
        """The same in a task that does nothing else: all that is written in it, of a failure too, names the request."""
        RECORD.set(_cause(self._state().vms.get(vm_id)))
        return await self.reconcile(vm_id)

    def unsettled(self, domains: list[Domain]) -> list[str]:
        """The ids of this node's VMs, and of strays, that need a step; one pass over state and domains, no calls."""
        found = {domain.vm: domain for domain in domains}
        state = self._state()
        placed = state.placed
        ids = {*placed.ids_on(self._node), *placed.incoming.get(self._node, ()), *found}
        return sorted(
            vm_id
            for vm_id in ids
            if plan.plan_vm(state.vms.get(vm_id), found.get(vm_id), self._node, plan.Patience()) is not None
        )

    async def _do(self, vm_id: str, vm: Vm | None, step: plan.Step) -> None:
        match step:
            case plan.Define(name=name, spec=spec, epoch=epoch):
                effect = self._hypervisor.define(vm_id, name, spec, epoch=epoch)
                await self._attempt_start("define", vm_id, vm, epoch, effect)
            case plan.Start(epoch=epoch):
                effect = self._hypervisor.start(vm_id, may_run=lambda: self._may_run(vm_id, epoch))
                await self._attempt_start("start", vm_id, vm, epoch, effect)
            case plan.AskShutdown():
                with self._watch.doing("ask_shutdown", vm_id, _cause(vm)):
                    await self._hypervisor.shutdown(vm_id)
                self._attempts[vm_id].asked_s = self._clock.monotonic()
            case plan.Destroy():
                with self._watch.doing("destroy", vm_id, _cause(vm)):
                    await self._hypervisor.destroy(vm_id)
            case plan.Reset(mark=mark):
                with self._watch.doing("reset", vm_id, _cause(vm)):
                    await self._hypervisor.reset(vm_id, mark=mark)
            case plan.Forget():
                with self._watch.doing("forget", vm_id, _cause(vm)):
                    await self._hypervisor.forget(vm_id)
            case plan.Report(report=report):
                await self._report(report, _cause(vm))
                if isinstance(report, ReportMigrationFailed):
                    self._transfers.forget(vm_id)
            case plan.Prepare(migration=migration, spec=spec):
                await self._prepare(vm_id, vm, migration, spec)
            case plan.Migrate(migration=move):
                target = self._state().nodes[move.target].address
                self._transfers.begin(vm_id, vm.epoch if vm is not None else 0, move, target)
            case plan.CancelMigration():
                with self._watch.doing("cancel_migration", vm_id, _cause(vm)):
                    await self._hypervisor.cancel_migration(vm_id)

    async def _attempt_start(self, name: str, vm_id: str, vm: Vm | None, epoch: int, effect: Awaitable[None]) -> None:
        try:
            with self._watch.doing(name, vm_id, _cause(vm)):
                await effect
        except DriverError as error:
            if vm is not None and vm.state is not VmState.MIGRATING:
                # It may have failed after the guest began to run. Once it is told the VM may be started elsewhere.
                await self._hypervisor.destroy(vm_id)
            # The hypervisor knows the VM by its id; whoever reads the history knows it by its name.
            message = error.message.replace(f"VM {vm_id}", vm.name if vm else vm_id)[:MAX_MESSAGE]
            failure = ReportStartFailed(vm=vm_id, node=self._node, epoch=epoch, code=error.code, message=message)
            await self._report(failure, _cause(vm))

    def _may_run(self, vm_id: str, epoch: int) -> bool:
        return self._may_start() and plan.may_run(self._state().vms.get(vm_id), self._node, epoch)

    def _migration_of(self, vm_id: str) -> str:
        vm = self._state().vms.get(vm_id)
        return vm.migration.id if vm is not None and vm.migration is not None else ""

    async def _prepare(self, vm_id: str, vm: Vm | None, migration: str, spec: VmSpec) -> None:
        try:
            async with asyncio.timeout(OBSTACLE_TIMEOUT_S):
                obstacle = await self._obstacle(spec)
        except TimeoutError:
            obstacle = f"its storage did not answer within {OBSTACLE_TIMEOUT_S:.0f} s"
        report: Report = ReportPrepared(vm=vm_id, node=self._node, migration=migration)
        if obstacle:
            message = f"{self._node} cannot take it: {obstacle}"[:MAX_MESSAGE]
            report = ReportMigrationFailed(
                vm=vm_id, node=self._node, migration=migration, code="vm.target_unable", message=message
            )
        await self._report(report, _cause(vm))

    def _patience(
        self,
        vm_id: str,
        vm: Vm | None,
        domain: Domain | None,
        transferring: bool,
        failure: tuple[str, str] | None,
    ) -> plan.Patience:
        may_start = self._may_start()
        if vm is None:
            self._attempts.pop(vm_id, None)
            return plan.Patience(may_start=may_start)
        # A migration has two times: for the target to be prepared, and then for the guest to shut down.
        stage = (vm.migration.id, vm.migration.prepared) if vm.migration is not None else ()
        key = (vm.state.value, vm.epoch, vm.cause, *stage)
        now_s = self._clock.monotonic()
        attempt = self._attempts.get(vm_id)
        if attempt is None or attempt.key != key:
            attempt = self._attempts[vm_id] = _Attempt(key=key, since_s=now_s)
        if transferring and not attempt.moving:
            attempt.since_s, attempt.moving = now_s, domain is not None and domain.migrating
        asked_s = attempt.asked_s
        return plan.Patience(
            waited_s=now_s - attempt.since_s,
            since_asked_s=None if asked_s is None else now_s - asked_s,
            may_start=may_start,
            transferring=transferring,
            queued=transferring and not attempt.moving,
            unwanted=self._transfers.unwanted(vm_id, vm.migration.id if vm.migration is not None else ""),
            failure=failure,
        )


def _cause(vm: Vm | None) -> str:
    """The request that a report answers; what happens to a VM that simply runs has no cause in the log."""
    return vm.cause if vm is not None and vm.state is not VmState.RUNNING else ""
