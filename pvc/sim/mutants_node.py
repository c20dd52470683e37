"""Bugs in what one node does with log and hypervisor, for the simulator to notice."""

from __future__ import annotations

import asyncio
import contextlib

from pvc.commands import facts
from pvc.commands.base import Context, Decision
from pvc.commands.vm_power import start_of
from pvc.drivers.hypervisor import Domain, DomainState
from pvc.errors import PvcError, Rejected
from pvc.events import vm as e
from pvc.events.record import Entry
from pvc.events.registry import Event
from pvc.handlers import vm_plan
from pvc.node.node import Node
from pvc.projections.state import ClusterState, Vm
from pvc.runtime.appender import Appender
from pvc.sim.mutation import Kind, Mutant

real_start = vm_plan._start
real_catch_up = Node._catch_up
ended_name, _ = facts.REPORTS[facts.ReportEnded]


def start_whatever_is_off(vm: Vm, domain: Domain | None) -> vm_plan.Step:
    """A run that has ended is started again under its old number."""
    if domain is not None and domain.state is DomainState.OFF and domain.epoch == vm.epoch:
        return vm_plan.Start(epoch=vm.epoch)
    return real_start(vm, domain)


def forget_nothing(domain: Domain | None) -> vm_plan.Step | None:
    """Domains that are off stay defined."""
    return None if domain is None or domain.state is DomainState.OFF else vm_plan.Destroy()


def believe_every_crash(state: ClusterState, report: facts.ReportEnded, context: Context) -> Decision:
    """Reports are not decided, so one that comes late brings a VM back up."""
    vm = state.vms[report.vm]
    crashed = e.VmCrashed(vm=vm.id, node=report.node, epoch=report.epoch, how="crashed")
    return Decision(events=(crashed, start_of(vm)))


async def take_unknown_for_failed(self: Appender, entries: list[Entry]) -> bool:
    """An append whose outcome is not known is taken for one that did not take place."""
    raise Rejected("it failed")


async def take_unknown_for_done(self: Appender, entries: list[Entry]) -> bool:
    """An append whose outcome is not known is taken for one that took place."""
    return True


async def effects_on_replay(self: Node) -> None:
    """What the log says that this node has started, it starts, also when the log is only read again."""
    started: list[e.VmStarted] = []

    def note(entry: Entry, events: tuple[Event, ...]) -> None:
        started.extend(event for event in events if isinstance(event, e.VmStarted))

    with self._world.listening(note):
        await real_catch_up(self)
    for event in started:
        vm = self._world.state.vms.get(event.vm)
        if vm is not None and event.node == self._services.name:
            with contextlib.suppress(PvcError):
                await self._hypervisor.define(vm.id, vm.name, vm.spec, epoch=event.epoch)
                await self._hypervisor.start(vm.id)
    await asyncio.sleep(0)


def forget_ids(self: ClusterState, command_id: str) -> None:
    """Idempotency keys are forgotten."""


NODE_MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="an ended run is started again",
        kind=Kind.NODE,
        within=60,
        known=14,
        changes=((vm_plan, "_start", start_whatever_is_off),),
    ),
    Mutant(
        name="domains that are off are never forgotten",
        kind=Kind.NODE,
        within=10,
        changes=((vm_plan, "_clear_away", forget_nothing),),
    ),
    Mutant(
        name="reports are not decided",
        kind=Kind.NODE,
        within=60,
        known=72,
        changes=((facts.REPORTS, facts.ReportEnded, (ended_name, believe_every_crash)),),
    ),
    Mutant(
        name="an unknown outcome is taken for failure",
        kind=Kind.NODE,
        within=10,
        changes=((Appender, "_learn_outcome", take_unknown_for_failed),),
    ),
    Mutant(
        name="an unknown outcome is taken for success",
        kind=Kind.NODE,
        within=10,
        changes=((Appender, "_learn_outcome", take_unknown_for_done),),
    ),
    Mutant(
        name="idempotency keys are forgotten",
        kind=Kind.NODE,
        within=10,
        changes=((ClusterState, "remember_command", forget_ids),),
    ),
    Mutant(
        name="replaying the log has effects",
        kind=Kind.NODE,
        within=10,
        changes=((Node, "_catch_up", effects_on_replay),),
    ),
)
