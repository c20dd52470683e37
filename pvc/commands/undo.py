"""The command that takes back what an earlier one did: which it is, where there is one, and why there is none. Pure.

An inverse is an ordinary command, decided like any other. It is given only while what the record set is still so: what
was changed again since must not be overwritten. Settings are set back exactly, or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pvc.commands.registry import BY_NAME
from pvc.commands.undo_access import INVERSES as OF_ACCESS
from pvc.commands.undo_access import NO_INVERSE as NOT_OF_ACCESS
from pvc.commands.undoing import ChangedSince, Find, Inverse, Undoing, no_inverse
from pvc.errors import Rejected
from pvc.events.access import AccessRefused
from pvc.events.cluster import CommandRejected
from pvc.events.record import Record
from pvc.events.registry import decode_event
from pvc.projections.state import ClusterState, FlushState, Vm
from pvc.projections.vm_machine import ACTIVE


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
    return find(Undoing(before, record, events, now))


def _setting(field: str) -> Find:
    def find(undoing: Undoing) -> Inverse:
        before, after, now = undoing.vm()
        undoing.unchanged(f"{field} of {now.name}", getattr(after, field), getattr(now, field))
        inverse = undoing.inverse(undoing.name, vm=now.id, **{field: getattr(before, field)})
        return undoing.exactly(inverse, lambda state: getattr(state.vms[now.id], field))

    return find


def _tag(undoing: Undoing) -> Inverse:
    before, after, now = undoing.vm()
    tag: str = getattr(undoing.events[0], "tag", "")
    undoing.unchanged(f"tag {tag} of {now.name}", after.tags.get(tag), now.tags.get(tag))
    if tag not in before.tags:
        return undoing.inverse("vm.remove_tag", vm=now.id, tag=tag)
    return undoing.inverse("vm.add_tag", vm=now.id, tag=tag, protected=before.tags[tag])


def _define(undoing: Undoing) -> Inverse:
    vm_id: str = getattr(undoing.events[0], "vm", "")
    after, now = undoing.after.vms[vm_id], undoing.now.vms.get(vm_id)
    if now is None:
        raise ChangedSince(after.name, f"vm/{vm_id}", ("vm.removed",))
    if now != after:
        raise ChangedSince(now.name, f"vm/{vm_id}")
    return undoing.inverse("vm.remove", vm=vm_id)


def _remove(undoing: Undoing) -> Inverse:
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


def _modify(undoing: Undoing) -> Inverse:
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


def _rename(undoing: Undoing) -> Inverse:
    before, after, now = undoing.vm()
    undoing.unchanged(f"the name of {now.name}", after.name, now.name)
    return undoing.inverse("vm.rename", vm=now.id, name=before.name)


def _power(name: str, *notes: str) -> Find:
    """Only of the same run: who started it again since did so for a reason."""

    def find(undoing: Undoing) -> Inverse:
        _, after, now = undoing.vm()
        undoing.unchanged(f"the run of {now.name}", after.epoch, now.epoch)
        if name == "vm.shutdown" and now.state not in ACTIVE:
            raise ChangedSince(f"the run of {now.name}", f"vm/{now.id}")
        return undoing.inverse(name, *notes, vm=now.id)

    return find


def _migrate(undoing: Undoing) -> Inverse:
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


def _move(undoing: Undoing) -> Inverse:
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
    def find(undoing: Undoing) -> Inverse:
        _, _, now = undoing.node()
        undoing.unchanged(f"the flush of node {now.name}", True, now.flush in still)
        return undoing.inverse(name, node=now.name)

    return find


def _add_node(undoing: Undoing) -> Inverse:
    _, _, now = undoing.node()
    return undoing.inverse("node.remove", node=now.name)


def _set_fence(undoing: Undoing) -> Inverse:
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


def _maintenance(undoing: Undoing) -> Inverse:
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
    **OF_ACCESS,
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
    "log.rotate_key": "the old key is destroyed; `pvc log rotate-key` makes another one",
    **NOT_OF_ACCESS,
}
"""Command -> why there is no inverse."""
