"""Tells what an event means in a sentence, for the history and the event stream. One visible table, pure."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import msgspec

from pvc.events import access, cluster, node, vm, vm_moves, webhook
from pvc.events.record import RawEvent
from pvc.events.registry import Event, Subject, UnknownEvent, decode_event, subject_of
from pvc.events.sealed import erased_name
from pvc.events.types import Role

Tell = Callable[[Any], str]


def _elected(event: cluster.PrimaryElected) -> str:
    silent = f"; ZooKeeper had not answered it for {event.silent_s} s" if event.silent_s else ""
    return f"node {event.node} is primary (epoch {event.epoch}){silent}"


def _modified(event: vm.VmModified) -> str:
    changed = [field for field in event.__struct_fields__ if field != "vm" and getattr(event, field) is not None]
    return f"definition changed: {', '.join(changed)}"


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""


def _chosen(why: tuple[str, ...]) -> str:
    return f": {', '.join(why)}" if why else ""


def _migration(event: vm_moves.VmMigrationRequested) -> str:
    how = "live migration" if event.live else "migration by shutdown"
    return f"{how} from {event.source} to {event.target} requested{_because(event.reason)}{_chosen(event.why)}"


def _moved(event: vm_moves.VmMoved) -> str:
    if event.source == event.target:
        return f"its home is {event.target} now"
    return f"moved from {event.source} to {event.target}{_chosen(event.why)}"


def _terms(settings: webhook.WebhookSettings) -> str:
    """What an auditor has to see at once."""
    private = f", private addresses allowed: {', '.join(settings.allow_private)}" if settings.allow_private else ""
    revealed = ", names of people revealed" if settings.reveal_names else ""
    return f"{private}{revealed}{f', for what {settings.owner} may see' if settings.owner else ''}"


def _granted(grants: tuple[access.Grant, ...]) -> str:
    return "; ".join(told_grant(grant) for grant in grants) or "nothing"


def told_grant(grant: access.Grant) -> str:
    """`operator on VMs with tag shop, named web*`."""
    limits = [f"with tag {grant.tag}"] if grant.tag else []
    limits += [f"named {grant.name}"] if grant.name else []
    return f"{grant.role} on VMs {', '.join(limits)}" if limits else str(grant.role)


def _principal_modified(event: access.PrincipalModified) -> str:
    granted = f": {_granted(event.grants)}" if event.grants is not None else ""
    return f"access of {event.principal} changed{granted}"


def _token_created(event: access.TokenCreated) -> str:
    expires = f", until {_time(event.expires_us)}" if event.expires_us else ""
    most = f", for {event.role} at most" if event.role is not Role.ADMIN else ""
    return f"token {event.token} made for {event.principal}{most}{expires}"


def _and_more(unrecorded: int) -> str:
    return f" (and {unrecorded} more before it)" if unrecorded else ""


def _time(time_us: int) -> str:
    return f"{datetime.datetime.fromtimestamp(time_us // 1_000_000, datetime.UTC):%Y-%m-%d %H:%M} UTC"


TOLD: dict[type[Event], Tell] = {
    cluster.ClusterInitialised: lambda e: f"cluster {e.name} initialised",
    cluster.PrimaryElected: _elected,
    cluster.MaintenanceSet: lambda e: f"maintenance {'on' if e.on else 'off'}{_because(e.reason)}",
    cluster.FeatureLevelRaised: lambda e: f"feature level raised to {e.level}",
    cluster.FaultAcknowledged: lambda e: f"fault {e.fault} acknowledged",
    cluster.SigningKeyAdded: lambda e: f"node {e.node} signs checkpoints of the log with key {e.key_id}",
    cluster.SigningKeyRetired: lambda e: f"signing key {e.key_id} of node {e.node} retired{_because(e.reason)}",
    cluster.KeyRotationRequested: lambda e: f"a new signing key for node {e.node} requested, in place of {e.key_id}",
    cluster.LogRestored: lambda e: f"the log was restored up to record {e.position} on node {e.node}, from {e.source}",
    cluster.LogCheckpointed: lambda e: f"checkpoint: node {e.node} vouches for the first {e.size} records",
    cluster.AnchorFailed: lambda e: f"checkpoints cannot be delivered to the anchor {e.anchor}: {e.message}",
    cluster.AnchorRecovered: lambda e: f"checkpoints are delivered to the anchor {e.anchor} again",
    cluster.CommandRejected: lambda e: f"refused: {e.message}",
    access.PrincipalAdded: lambda e: f"{e.kind} {e.principal} added: {_granted(e.grants)}",
    access.PrincipalModified: _principal_modified,
    access.PrincipalRemoved: lambda e: f"{e.principal} removed, with all tokens",
    access.TokenCreated: _token_created,
    access.TokenRotated: lambda e: (
        f"token {e.token} is replaced by {e.replaced_by}, and opens until {_time(e.expires_us)}"
    ),
    access.TokenRevoked: lambda e: f"token {e.token} revoked",
    access.TokenUsed: lambda e: f"token {e.token} used at node {e.node}",
    access.LoggedIn: lambda e: f"logged in by {e.how} at {e.issuer}, with token {e.token}, at node {e.node}",
    access.LoginRefused: lambda e: (
        f"login refused ({e.code}) at node {e.node}, from {e.network}{_and_more(e.unrecorded)}"
    ),
    access.AccessRefused: lambda e: f"refused: {e.message}{_and_more(e.unrecorded)}",
    access.SecretRead: lambda e: f"secrets read: {e.what}{_and_more(e.unrecorded)}",
    access.ErasureRequested: lambda e: f"erasure of {erased_name(e.key)} requested: key {e.key} is to be destroyed",
    access.PersonErased: lambda e: f"key {e.key} of {erased_name(e.key)} is destroyed, by node {e.node}",
    node.NodeJoined: lambda e: (
        f"node {e.node} is a {'member and coordinator' if e.coordinator else 'member'}; it joins when pvcd starts there"
    ),
    node.NodeFenceSet: lambda e: (
        f"to be fenced by {e.settings.agent}" if e.settings else "not to be fenced by an agent"
    ),
    node.NodeFlushRequested: lambda e: "flush requested",
    node.NodeFlushed: lambda e: "flushed: no VM runs on it",
    node.NodeFlushIncomplete: lambda e: f"flushed, but for {'; '.join(e.left)}",
    node.NodeReturnRequested: lambda e: "takes VMs again",
    node.NodeReturned: lambda e: "its VMs are home" + (f", but for {'; '.join(e.left)}" if e.left else ""),
    node.NodeLost: lambda e: f"lost: {e.reason}",
    node.NodeFenced: lambda e: f"fenced ({e.method}): {e.evidence}",
    node.NodeFenceFailed: lambda e: f"cannot be fenced: {e.message}",
    node.NodeDiverged: lambda e: f"its state at position {e.position} differs from the primary's",
    node.NodeLogDiffers: lambda e: f"its copy of the log is not what the checkpoint of size {e.size} vouches for",
    node.NodeRemoved: lambda e: f"node {e.node} removed",
    node.NodeReady: lambda e: f"node {e.node} ready ({e.memory_mib} MiB, {e.vcpus} CPUs, {e.accelerator})",
    vm.VmDefined: lambda e: f"defined as {e.name}: {e.spec.memory_mib} MiB, {e.spec.vcpus} vCPU, on {e.node}",
    vm.VmModified: _modified,
    vm.VmRenamed: lambda e: f"renamed from {e.old_name} to {e.name}",
    vm.VmRemoved: lambda e: f"{e.name} removed",
    vm.VmAutostartSet: lambda e: f"autostart {'on' if e.autostart else 'off'}",
    vm.VmSelectorSet: lambda e: f"selector {e.selector}",
    vm.VmNodeLimitsSet: lambda e: f"node limits {', '.join(e.node_limits) or 'none'}",
    vm.VmMigrationMethodSet: lambda e: f"migration method {e.migration_method}",
    vm.VmMaxDowntimeSet: lambda e: f"maximum downtime {e.max_downtime_ms} ms",
    vm.VmPrioritySet: lambda e: f"priority {e.priority}",
    vm.VmAffinitySet: lambda e: f"affinity {', '.join(e.affinity) or 'none'}",
    vm.VmAntiAffinitySet: lambda e: f"anti-affinity {', '.join(e.anti_affinity) or 'none'}",
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
        "fenced": "off, like its whole node",
    }.get(e.how, "stopped"),
    vm.VmCrashed: lambda e: f"the VM {e.words}",
    vm.VmFailed: lambda e: f"given up: {e.reason}",
    vm.VmShutdownTimedOut: lambda e: "the guest did not power off in time, so it is forced off",
    vm.VmShutdownAbandoned: lambda e: "the guest did not power off in time, and is left running",
    vm.VmWasReset: lambda e: "reset",
    vm_moves.VmMigrationRequested: _migration,
    vm_moves.VmMigrationPrepared: lambda e: f"expected on {e.node}",
    vm_moves.VmMigrationCancelRequested: lambda e: "cancellation of the migration requested",
    vm_moves.VmMigrationFailed: lambda e: f"not migrated: {e.message}",
    vm_moves.VmMigrated: lambda e: f"has left {e.source} for {e.target}",
    vm_moves.VmArrived: lambda e: f"runs on, on {e.node}",
    vm_moves.VmRelocated: lambda e: f"off on {e.source}, to start on {e.target}",
    vm_moves.VmMoved: _moved,
    vm_moves.VmRecovered: lambda e: f"recovered from {e.source}, to start on {e.target}{_chosen(e.why)}",
    vm_moves.VmRecoveryDelayed: lambda e: f"cannot be recovered yet: {e.reason}",
    webhook.WebhookAdded: lambda e: f"webhook {e.name} to {e.settings.url} added{_terms(e.settings)}",
    webhook.WebhookModified: lambda e: f"changed, now to {e.settings.url}{_terms(e.settings)}",
    webhook.WebhookRemoved: lambda e: f"webhook {e.name} removed",
    webhook.WebhookPaused: lambda e: f"paused{_because(e.reason)}",
    webhook.WebhookResumed: lambda e: "resumed",
    webhook.WebhookSecretRotated: lambda e: f"signs with the new secret {e.secret.id}",
    webhook.WebhookReplayRequested: lambda e: f"records {e.first} to {e.last} are to be sent again",
    webhook.WebhookVerified: lambda e: f"{e.url} has proved that it wants to be sent events",
    webhook.WebhookDisabled: lambda e: f"disabled: {e.reason}",
    webhook.WebhookParked: lambda e: f"{e.event} of record {e.position} parked after {e.tries} tries: {e.reason}",
}

FAILURES: frozenset[str] = frozenset(
    {
        cluster.CommandRejected.TYPE,
        access.LoginRefused.TYPE,
        access.AccessRefused.TYPE,
        vm.VmStartFailed.TYPE,
        vm.VmCrashed.TYPE,
        vm.VmFailed.TYPE,
        vm.VmShutdownAbandoned.TYPE,
        node.NodeLost.TYPE,
        node.NodeFenceFailed.TYPE,
        node.NodeFlushIncomplete.TYPE,
        node.NodeDiverged.TYPE,
        node.NodeLogDiffers.TYPE,
        cluster.AnchorFailed.TYPE,
        vm_moves.VmMigrationFailed.TYPE,
        vm_moves.VmRecoveryDelayed.TYPE,
        webhook.WebhookDisabled.TYPE,
        webhook.WebhookParked.TYPE,
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
