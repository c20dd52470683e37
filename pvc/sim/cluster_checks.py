"""What must hold in the simulated cluster: at every instant, with every record, and once all is healed.

The watcher sees every change of every domain and every record in the moment of its commit, and knows nothing else of
what the nodes believe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pvc.drivers.hypervisor import DomainState
from pvc.events import node as n
from pvc.events import vm_moves as m
from pvc.events.cluster import PrimaryElected
from pvc.events.record import Entry
from pvc.events.registry import Event, decode_event
from pvc.projections.evolve_node import FLUSH_INCOMPLETE
from pvc.projections.evolve_vm import FAILED
from pvc.projections.fold import fold
from pvc.projections.state import ClusterState, FlushState, NodeState
from pvc.projections.vm_machine import AT_REST, WANTED, VmState
from pvc.runtime.appender import Request
from pvc.sim.cluster_machine import Machine

PRIMARY_ACTS = frozenset(
    {"node.report_lost", "node.report_fenced", "node.report_fence_failed", "node.report_recovery"}
    | {"node.report_flush_step", "cluster.report_level"}
)


class Watcher:
    """Watches. The first thing that does not hold is `broken`, and everything ends."""

    def __init__(self, machines: Mapping[str, Machine], note: Callable[[str], object]) -> None:
        self.truth = ClusterState()
        """The fold of the log as it is, whatever any node has seen of it."""
        self.broken = ""
        self._machines = machines
        self._note = note
        self._running: dict[str, set[str]] = {}
        """VM -> the machines that execute it."""
        self._newest: dict[str, int] = {}
        """VM -> the highest epoch that has run."""
        self._turns: dict[str, int] = {}
        """VM -> how often a machine has begun to execute it, or gone on."""
        self._copied: dict[tuple[str, str], int] = {}
        """Machine and VM -> the turn that its standing copy is of."""
        self._epochs: dict[str, int] = {}
        """Id of a primary's act -> the epoch that it was done with."""

    def breaks(self, what: str) -> None:
        """Something does not hold."""
        self._note(f"BROKEN: {what}")
        self.broken = self.broken or what

    # -- At every instant ------------------------------------------------------------------------------------------

    def looks(self, name: str, vm: str) -> None:
        """This VM's domain on this machine has changed, or the machine has."""
        machine = self._machines[name]
        runs = machine.executes(vm) and not machine.process.frozen
        before = self._running.setdefault(vm, set())
        if not runs:
            before.discard(name)
            if not machine.executes(vm) and machine.holds_copy(vm):
                self._copied.setdefault((name, vm), self._turns.get(vm, 0))
            else:
                self._copied.pop((name, vm), None)
            return
        if name in before:
            return
        self._begins(machine, vm)
        before.add(name)
        if len(before) > 1:
            self.breaks(f"VM {self._name(vm)} executes on {' and '.join(sorted(before))}")

    def _begins(self, machine: Machine, vm: str) -> None:
        epoch, copied = machine.epoch_of(vm), self._copied.pop((machine.name, vm), None)
        if epoch < self._newest.get(vm, 0):
            self.breaks(f"VM {self._name(vm)} runs epoch {epoch} on {machine.name} after {self._newest[vm]} has run")
        if copied is not None and copied != self._turns[vm]:
            self.breaks(f"VM {self._name(vm)} goes on on {machine.name} from a copy that is older than its last run")
        known = self.truth.vms.get(vm)
        if known is not None and known.node != machine.name and not machine.thawing:
            self.breaks(f"VM {known.name} begins to execute on {machine.name}, but it is {known.node}'s")
        self._newest[vm] = epoch
        self._turns[vm] = self._turns.get(vm, 0) + 1
        self._note(f"VM {self._name(vm)} epoch {epoch} executes on {machine.name}")

    def _name(self, vm: str) -> str:
        known = self.truth.vms.get(vm)
        return known.name if known is not None else vm

    # -- With every record -----------------------------------------------------------------------------------------

    def asked(self, request: Request) -> None:
        """A daemon asks for this record."""
        if request.name in PRIMARY_ACTS:
            self._epochs[request.command_id] = getattr(request.command, "epoch", 0)

    def committed(self, entry: Entry) -> None:
        """A record is in the log now."""
        record, state = entry.record, self.truth
        events = [decode_event(raw) for raw in record.events]
        if record.command.name in PRIMARY_ACTS:
            now = (state.cluster.primary, state.cluster.primary_epoch) if state.cluster is not None else ("", 0)
            acted = (record.origin, self._epochs.get(record.command.id, -1))
            if acted != now:
                self.breaks(f"{record.command.name} by {acted}, but the primary is {now}")
        for event in events:
            self._check_event(state, event, events)
        fold(state, entry)
        self._note(f"#{record.position} {record.origin} {' '.join(_words(self, event) for event in events)}")

    def _check_event(self, state: ClusterState, event: Event, events: list[Event]) -> None:
        match event:
            case n.NodeFenced(node=node):
                running = [self._name(vm) for vm in self._machines[node].executing()]
                if running:
                    self.breaks(f"{node} counts as fenced ({event.method}), but has {', '.join(running)}")
                if self._machines[node].may_start:
                    self.breaks(f"{node} counts as fenced ({event.method}), and may start VMs")
            case m.VmRecovered(source=source):
                known = state.vms[event.vm]
                if state.nodes[source].state is not NodeState.FENCED:
                    self.breaks(f"{known.name} is recovered from {source}, which is {state.nodes[source].state}")
                if (known.node, event.epoch) != (source, known.epoch + 1):
                    self.breaks(f"{known.name} is recovered from {source} as epoch {event.epoch}: {known}")
            case n.NodeLost(epoch=epoch) if state.cluster is not None and epoch != state.cluster.primary_epoch:
                self.breaks(f"{event.node} is lost by epoch {epoch}, not {state.cluster.primary_epoch}")
            case PrimaryElected(epoch=epoch) if state.cluster and epoch != state.cluster.primary_epoch + 1:
                self.breaks(f"epoch {epoch} follows {state.cluster.primary_epoch}")

    # -- In the end ------------------------------------------------------------------------------------------------

    def unsettled(self) -> str:
        """What is still to come to rest, according to the log and the machines; empty: nothing."""
        state = self.truth
        for node in state.nodes.values():
            if node.state is not NodeState.READY:
                return f"{node.name} is {node.state}"
            if node.flush in (FlushState.FLUSHING, FlushState.RETURNING):
                return f"{node.name} is {node.flush}"
        for vm in state.vms.values():
            if vm.state not in AT_REST and vm.state is not VmState.RUNNING:
                return f"{vm.name} is {vm.state} on {vm.node}"
        return self._misplaced(state) or self._groundless(state) or self._behind(state)

    def _misplaced(self, state: ClusterState) -> str:
        for name, machine in self._machines.items():
            for vm_id, domain in machine.snapshot().items():
                vm = state.vms.get(vm_id)
                if vm is None or vm.state in AT_REST or vm.node != name:
                    return f"{name} has a domain of {self._name(vm_id)}, which may not be there: {domain} {vm}"
        for vm in state.vms.values():
            if vm.state not in WANTED:
                continue
            here = self._machines[vm.node].snapshot().get(vm.id)
            if here is None or here.state is not DomainState.RUNNING or here.epoch != vm.epoch:
                return f"{vm.name} should run on {vm.node} with epoch {vm.epoch}: {here}"
        return ""

    def _groundless(self, state: ClusterState) -> str:
        for fault in state.faults.values():
            kind, _, name = fault.subject.partition("/")
            vm, node = state.vms.get(name), state.nodes.get(name)
            failed = kind == "vm" and fault.code == FAILED and vm is not None and vm.state is VmState.FAILED
            kept = fault.code == FLUSH_INCOMPLETE and node is not None and node.flush is FlushState.FLUSHED
            if not failed and not kept:
                return f"a fault without a cause: {fault}"
        return ""

    def _behind(self, state: ClusterState) -> str:
        for name, machine in self._machines.items():
            if machine.world.state.head != state.head:
                return f"{name} is at {machine.world.position}, the log at {state.position}"
            if machine.world.state.state_hash() != state.state_hash():
                self.breaks(f"{name} has another state than the replay at {state.position}")
        return ""


def _words(watcher: Watcher, event: Event) -> str:
    fields: dict[str, Any] = {field: getattr(event, field) for field in event.__struct_fields__}
    if "vm" in fields:
        fields["vm"] = watcher._name(fields["vm"])
    shown = ("vm", "node", "source", "target", "epoch", "method", "code", "how", "on", "primary")
    return f"{event.TYPE}({' '.join(str(fields[name]) for name in shown if name in fields)})"
