"""The command that takes back what an earlier one did: which it is, where there is one, and why there is none. Pure.

An inverse is an ordinary command, decided like any other. It is given only while what the record set is still so: what
was changed again since must not be overwritten. Settings are set back exactly, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from pvc.commands.base import CommandSpec, Context
from pvc.commands.registry import BY_NAME
from pvc.errors import Rejected
from pvc.events.access import AccessRefused
from pvc.events.cluster import CommandRejected
from pvc.events.record import Record
from pvc.events.registry import Event, decode_event
from pvc.projections.fold import EVOLVE
from pvc.projections.state import ClusterState, FlushState, Node, Vm
from pvc.projections.vm_machine import ACTIVE


class Inverse(msgspec.Struct, frozen=True, kw_only=True):
    """A command that takes back what a record did."""

    spec: CommandSpec
    command: msgspec.Struct
    notes: tuple[str, ...] = ()
    """What it does not bring back."""


class ChangedSince(Rejected):
    """What the record did was changed again since."""

    default_code = "undo.changed_since"

    def __init__(self, what: str, subject: str, types: tuple[str, ...] = ()) -> None:
        super().__init__(
            f"{what} was changed since", hint="see what happened to it first; the newest change can be undone first"
        )
        self.subject = subject
        """What the later record is about, to find it by."""
        self.types = types
        """The types of its event; empty: any."""


def inverse_of(before: ClusterState, record: Record, now: ClusterState) -> Inverse:
    """The inverse of a record, which was decided on `before`. Raises Rejected with the reason where there is none."""
    events = tuple(decode_event(raw) for raw in record.events)
    name = record.command.name
    if any(isinstance(event, CommandRejected | AccessRefused) for event in events):
        raise Rejected(
            f"position {record.position} is the refusal of a command: nothing was done",
            code="undo.nothing_done",
            hint="there is nothing to undo",
        )
    if record.actor.method == "node" or name not in BY_NAME:
        raise Rejected(
            f"position {record.position} is a fact that {record.actor.principal} reported; facts cannot be undone",
            code="undo.is_fact",
            hint="undo the command that led to it",
        )
    find = INVERSES.get(name)
    if find is None:
        raise no_inverse(name, NO_INVERSE.get(name, "no command takes it back"))
    return find(_Undoing(before, record, events, now))


def no_inverse(name: str, why: str) -> Rejected:
    """The refusal of an undo that would be none."""
    return Rejected(
        f"{name} cannot be undone: {why}", code="undo.no_inverse", hint="see docs/time-travel.md for what can"
    )


class _Undoing:
    """A record to be undone: what was before it, what it did, and what is now."""

    def __init__(self, before: ClusterState, record: Record, events: tuple[Event, ...], now: ClusterState) -> None:
        self.before = before
        self.events = events
        self.now = now
        self.record = record
        self.name = record.command.name
        self.after = before.fork()
        for event in events:
            EVOLVE[type(event)](self.after, event, record)

    def vm(self) -> tuple[Vm, Vm, Vm]:
        """The VM before the record, after it and now. Raises ChangedSince where it is gone."""
        vm_id: str = getattr(self.events[0], "vm", "")
        before, after, now = (state.vms.get(vm_id) for state in (self.before, self.after, self.now))
        assert before is not None and after is not None, f"{self.name} is about a VM that there was"
        if now is None:
            raise ChangedSince(before.name, f"vm/{vm_id}", ("vm.removed",))
        return before, after, now

    def node(self) -> tuple[Node | None, Node | None, Node]:
        """The node before the record, after it and now. Raises ChangedSince where it is gone."""
        name: str = getattr(self.events[0], "node", "")
        now = self.now.nodes.get(name)
        if now is None:
            raise ChangedSince(f"node {name}", f"node/{name}", ("node.removed",))
        return self.before.nodes.get(name), self.after.nodes.get(name), now

    def inverse(self, name: str, /, *notes: str, **fields: Any) -> Inverse:
        """The inverse with these fields."""
        spec = BY_NAME[name]
        return Inverse(spec=spec, command=spec.struct(**fields), notes=notes)

    def unchanged(self, what: str, after: object, now: object) -> None:
        """Raise ChangedSince unless what the record set is still so."""
        if after != now:
            first = self.events[0]
            kind, _, _ = first.TYPE.partition(".")
            ref = getattr(first, "vm", "") or getattr(first, "node", "")
            raise ChangedSince(what, f"{kind}/{ref}" if ref else kind, tuple(event.TYPE for event in self.events))

    def exactly(self, inverse: Inverse, look: Callable[[ClusterState], object]) -> Inverse:
        """The inverse, if it brings back just what was before. Raises what it would be refused with, too."""
        ahead = self.now.fork()
        context = Context(command_id="undo", time_us=self.record.time_us, actor=self.record.actor)
        for event in inverse.spec.decide(ahead, inverse.command, context).events:
            EVOLVE[type(event)](ahead, event, self.record)
        if look(ahead) != look(self.before):
            raise no_inverse(self.name, "no command brings back exactly what was before")
        return inverse


Find = Callable[[_Undoing], Inverse]


def _setting(field: str) -> Find:
    def find(undoing: _Undoing) -> Inverse:
        before, after, now = undoing.vm()
        undoing.unchanged(f"{field} of {now.name}", getattr(after, field), getattr(now, field))
        inverse = undoing.inverse(undoing.name, vm=now.id, **{field: getattr(before, field)})
        return undoing.exactly(inverse, lambda state: getattr(state.vms[now.id], field))

    return find


def _tag(undoing: _Undoing) -> Inverse:
    before, after, now = undoing.vm()
    tag: str = getattr(undoing.events[0], "tag", "")
    undoing.unchanged(f"tag {tag} of {now.name}", after.tags.get(tag), now.tags.get(tag))
    if tag not in before.tags:
        return undoing.inverse("vm.remove_tag", vm=now.id, tag=tag)
    return undoing.inverse("vm.add_tag", vm=now.id, tag=tag, protected=before.tags[tag])


def _define(undoing: _Undoing) -> Inverse:
    vm_id: str = getattr(undoing.events[0], "vm", "")
    after, now = undoing.after.vms[vm_id], undoing.now.vms.get(vm_id)
    if now is None:
        raise ChangedSince(after.name, f"vm/{vm_id}", ("vm.removed",))
    if now != after:
        raise ChangedSince(now.name, f"vm/{vm_id}")
    return undoing.inverse("vm.remove", vm=vm_id)


def _remove(undoing: _Undoing) -> Inverse:
    vm = undoing.before.vms[getattr(undoing.events[0], "vm", "")]
    spec = vm.spec
    devices: dict[str, Any] = {"xml": spec.xml} if spec.xml else _devices(vm)
    return undoing.inverse(
        "vm.define",
        "it is defined anew, under a new id and at rest; the history of the old one stays with its name",
        name=vm.name,
        memory_mib=spec.memory_mib,
        vcpus=spec.vcpus,
        **devices,
        node=vm.home if vm.home in undoing.now.nodes else None,
        description=vm.description,
        selector=vm.selector,
        node_limits=vm.node_limits,
        migration_method=vm.migration_method,
        autostart=vm.autostart,
        on_poweroff=vm.on_poweroff,
        on_crash=vm.on_crash,
        tags=tuple(vm.tags),
        max_downtime_ms=vm.max_downtime_ms,
        priority=vm.priority,
        affinity=vm.affinity,
        anti_affinity=vm.anti_affinity,
    )


def _modify(undoing: _Undoing) -> Inverse:
    before, after, now = undoing.vm()
    changed = [field for field in _DEFINITION if getattr(before, field) != getattr(after, field)]
    if not changed:
        raise no_inverse(undoing.name, "it only restarted the VM")
    for field in changed:
        undoing.unchanged(f"{'the definition' if field == 'spec' else field} of {now.name}", *_both(field, after, now))
    fields: dict[str, Any] = {field: getattr(before, field) for field in changed if field != "spec"}
    if "spec" in changed:
        spec = before.spec
        fields |= {"memory_mib": spec.memory_mib, "vcpus": spec.vcpus}
        fields |= {"xml": spec.xml} if spec.xml else _devices(before)
    inverse = undoing.inverse("vm.modify", vm=now.id, **fields)
    return undoing.exactly(inverse, lambda state: [getattr(state.vms[now.id], field) for field in changed])


_DEFINITION = ("spec", "description", "on_poweroff", "on_crash")


def _both(field: str, after: Vm, now: Vm) -> tuple[object, object]:
    return getattr(after, field), getattr(now, field)


def _devices(vm: Vm) -> dict[str, Any]:
    return {field: getattr(vm.spec, field) for field in ("disks", "nics", "kernel", "initrd", "cmdline")}


def _rename(undoing: _Undoing) -> Inverse:
    before, after, now = undoing.vm()
    undoing.unchanged(f"the name of {now.name}", after.name, now.name)
    return undoing.inverse("vm.rename", vm=now.id, name=before.name)


def _power(name: str, *notes: str) -> Find:
    """Only of the same run: who started it again since did so for a reason."""

    def find(undoing: _Undoing) -> Inverse:
        _, after, now = undoing.vm()
        undoing.unchanged(f"the run of {now.name}", after.epoch, now.epoch)
        if name == "vm.shutdown" and now.state not in ACTIVE:
            raise ChangedSince(f"the run of {now.name}", f"vm/{now.id}")
        return undoing.inverse(name, *notes, vm=now.id)

    return find


def _migrate(undoing: _Undoing) -> Inverse:
    before, after, now = undoing.vm()
    if after.migration is not None and now.migration is not None and after.migration.id == now.migration.id:
        return undoing.inverse("vm.cancel_migration", vm=now.id)
    target = after.migration.target if after.migration is not None else after.node
    undoing.unchanged(f"the node of {now.name}", (target, after.home), (now.node, now.home))
    if now.migration is not None:
        raise ChangedSince(f"the node of {now.name}", f"vm/{now.id}")
    if before.node == now.home:
        return undoing.inverse("vm.unmigrate", vm=now.id)
    return undoing.inverse("vm.migrate", vm=now.id, node=before.node)


def _move(undoing: _Undoing) -> Inverse:
    before, after, now = undoing.vm()
    if after.migration is not None and now.migration is not None and after.migration.id == now.migration.id:
        return undoing.inverse("vm.cancel_migration", vm=now.id)
    if before.node != before.home:
        raise no_inverse(
            undoing.name, f"{before.name} was not at home: it was on {before.node}, its home {before.home}"
        )
    target = after.migration.target if after.migration is not None else after.node
    undoing.unchanged(f"the node of {now.name}", (target, target, None), (now.node, now.home, now.migration))
    return undoing.inverse("vm.move", vm=now.id, node=before.node)


def _flush(name: str, still: tuple[FlushState, ...]) -> Find:
    def find(undoing: _Undoing) -> Inverse:
        _, _, now = undoing.node()
        undoing.unchanged(f"the flush of node {now.name}", True, now.flush in still)
        return undoing.inverse(name, node=now.name)

    return find


def _add_node(undoing: _Undoing) -> Inverse:
    _, _, now = undoing.node()
    return undoing.inverse("node.remove", node=now.name)


def _set_fence(undoing: _Undoing) -> Inverse:
    before, after, now = undoing.node()
    undoing.unchanged(f"the fence agent of node {now.name}", after.fence if after else None, now.fence)
    fence = before.fence if before else None
    if fence is None:
        return undoing.inverse("node.set_fence", node=now.name)
    return undoing.inverse(
        "node.set_fence",
        node=now.name,
        agent=fence.agent,
        option=tuple(f"{name}={value}" for name, value in fence.options.items()),
        password_file=fence.password_file,
        timeout_s=fence.timeout_s,
    )


def _maintenance(undoing: _Undoing) -> Inverse:
    before, after, now = undoing.before.cluster, undoing.after.cluster, undoing.now.cluster
    assert before is not None and after is not None and now is not None, "there was a cluster"
    undoing.unchanged(
        "the maintenance", (after.maintenance, after.maintenance_reason), (now.maintenance, now.maintenance_reason)
    )
    return undoing.inverse("cluster.set_maintenance", maintenance=before.maintenance, reason=before.maintenance_reason)


INVERSES: Mapping[str, Find] = {
    "vm.define": _define,
    "vm.remove": _remove,
    "vm.modify": _modify,
    "vm.rename": _rename,
    "vm.start": _power("vm.shutdown"),
    "vm.shutdown": _power("vm.start"),
    "vm.stop": _power("vm.start", "what the guest had not written to its disks is lost all the same"),
    "vm.disable": _power("vm.enable"),
    "vm.enable": _power("vm.disable"),
    "vm.set_autostart": _setting("autostart"),
    "vm.set_selector": _setting("selector"),
    "vm.set_node_limits": _setting("node_limits"),
    "vm.set_migration_method": _setting("migration_method"),
    "vm.set_max_downtime": _setting("max_downtime_ms"),
    "vm.set_priority": _setting("priority"),
    "vm.set_affinity": _setting("affinity"),
    "vm.set_anti_affinity": _setting("anti_affinity"),
    "vm.add_tag": _tag,
    "vm.remove_tag": _tag,
    "vm.migrate": _migrate,
    "vm.unmigrate": _migrate,
    "vm.move": _move,
    "node.add": _add_node,
    "node.set_fence": _set_fence,
    "node.flush": _flush("node.ready", (FlushState.FLUSHING, FlushState.FLUSHED)),
    "node.ready": _flush("node.flush", (FlushState.RETURNING, FlushState.NONE)),
    "cluster.set_maintenance": _maintenance,
}
"""Command -> how its inverse is found."""

NO_INVERSE: Mapping[str, str] = {
    "vm.restart": "the run that ended is gone, with what its guest had in memory",
    "vm.reset": "the guest was reset, and what it had in memory is gone",
    "vm.cancel_migration": "ask for the migration again: pvc vm migrate",
    "node.remove": "its daemon has forgotten the cluster; make it a member again: pvc node add",
    "node.confirm_fenced": "its VMs may have been started elsewhere",
    "audit.erase": "the key is destroyed, and nothing brings it back",
    "cluster.init": "it was the beginning of the log",
    "cluster.rebalance": "it asked for many migrations, each of which has ended in its own way",
    "fault.acknowledge": "somebody has taken notice, and that stays so",
}
"""Command -> why there is no inverse."""
