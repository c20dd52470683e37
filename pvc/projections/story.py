"""Tells what an event means in a sentence, for the history and the event stream. One visible table, pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from pvc.events import access, cluster, node, vm
from pvc.events.record import RawEvent
from pvc.events.registry import Event, Subject, UnknownEvent, decode_event, subject_of

Tell = Callable[[Any], str]


def _modified(event: vm.VmModified) -> str:
    changed = [field for field in event.__struct_fields__ if field != "vm" and getattr(event, field) is not None]
    return f"definition changed: {', '.join(changed)}"


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""


TOLD: dict[type[Event], Tell] = {
    cluster.ClusterInitialised: lambda e: f"cluster {e.name} initialised",
    cluster.CommandRejected: lambda e: f"refused: {e.message}",
    access.TokenCreated: lambda e: f"{e.role} token {e.token} made for {e.principal}",
    node.NodeJoined: lambda e: f"node {e.node} joined",
    node.NodeReady: lambda e: f"node {e.node} ready ({e.memory_mib} MiB, {e.vcpus} CPUs, {e.accelerator})",
    vm.VmDefined: lambda e: f"defined as {e.name}: {e.spec.memory_mib} MiB, {e.spec.vcpus} vCPU, on {e.node}",
    vm.VmModified: _modified,
    vm.VmRenamed: lambda e: f"renamed from {e.old_name} to {e.name}",
    vm.VmRemoved: lambda e: f"{e.name} removed",
    vm.VmAutostartSet: lambda e: f"autostart {'on' if e.autostart else 'off'}",
    vm.VmSelectorSet: lambda e: f"selector {e.selector}",
    vm.VmNodeLimitsSet: lambda e: f"node limits {', '.join(e.node_limits) or 'none'}",
    vm.VmMigrationMethodSet: lambda e: f"migration method {e.migration_method}",
    vm.VmTagAdded: lambda e: f"tag {e.tag} added{' (protected)' if e.protected else ''}",
    vm.VmTagRemoved: lambda e: f"tag {e.tag} removed",
    vm.VmStartRequested: lambda e: f"start requested on {e.node}{_because(e.reason)}",
    vm.VmShutdownRequested: lambda e: f"shutdown requested, within {e.timeout_s} s, then {e.on_timeout}",
    vm.VmStopRequested: lambda e: "forced stop requested",
    vm.VmRestartRequested: lambda e: f"restart requested, shutdown within {e.timeout_s} s",
    vm.VmResetRequested: lambda e: "reset requested",
    vm.VmDisabled: lambda e: "disabled",
    vm.VmEnabled: lambda e: "enabled",
    vm.VmStarted: lambda e: f"running on {e.node}",
    vm.VmStartFailed: lambda e: f"start failed on {e.node}: {e.message}",
    vm.VmStopped: lambda e: {
        "guest": "the guest powered off" if e.requested else "the guest powered itself off, unasked",
        "forced": "forced off",
    }.get(e.how, "stopped"),
    vm.VmCrashed: lambda e: f"the VM {e.words}",
    vm.VmFailed: lambda e: f"given up: {e.reason}",
    vm.VmShutdownTimedOut: lambda e: "the guest did not power off in time, so it is forced off",
    vm.VmShutdownAbandoned: lambda e: "the guest did not power off in time, and is left running",
    vm.VmWasReset: lambda e: "reset",
}

FAILURES: frozenset[str] = frozenset(
    {
        cluster.CommandRejected.TYPE,
        vm.VmStartFailed.TYPE,
        vm.VmCrashed.TYPE,
        vm.VmFailed.TYPE,
        vm.VmShutdownAbandoned.TYPE,
    }
)
"""Event types that tell of something that went wrong."""


class ToldEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event for a reader: what it is about, what it says in a sentence, and its data."""

    type: str
    v: int = 1
    subject: str
    """`vm/<id>`, `node/<name>`, `cluster`, ...; the type's first word where the event is unknown here."""
    summary: str
    failure: bool = False
    data: Any
    """As JSON-compatible values."""


def tell(raw: RawEvent) -> ToldEvent:
    """The event for a reader; one of an unknown type is told by its type."""
    data = msgspec.msgpack.decode(raw.data)
    try:
        event = decode_event(raw)
    except UnknownEvent:
        kind = raw.type.partition(".")[0]
        return ToldEvent(type=raw.type, v=raw.v, subject=str(Subject(kind, "")), summary=raw.type, data=data)
    return ToldEvent(
        type=raw.type,
        v=raw.v,
        subject=str(subject_of(event)),
        summary=TOLD[type(event)](event),
        failure=raw.type in FAILURES,
        data=data,
    )
