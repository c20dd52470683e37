"""The one table of event types, and how an event is encoded and decoded.

Fields are only ever added, with defaults. Where that is not enough a type gets a new version `V` and an upcaster
in `UPCASTERS`, applied in a chain when an older version is read.

While a cluster is upgraded, its older members must understand every record. So what is added is of a new feature
level, in `TYPE_LEVELS` or `FIELD_LEVELS`, and is written only once the cluster has that level, which all must know.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from pvc.errors import PvcError
from pvc.events import access, cluster, node, vm, vm_moves, webhook
from pvc.events.record import RawEvent, Record
from pvc.events.versions import UnknownEvent, Upcaster, Versions, version_of

__all__ = [
    "BY_TYPE",
    "EVENTS",
    "FEATURE_LEVEL",
    "FIELD_LEVELS",
    "FIRST_LEVEL",
    "TYPE_LEVELS",
    "UPCASTERS",
    "Event",
    "NewerLevel",
    "Subject",
    "UnknownEvent",
    "decode_event",
    "encode_event",
    "knows_level",
    "level_of",
    "refuse_newer_level",
    "subject_of",
    "version_of",
]

Event: TypeAlias = (
    cluster.ClusterInitialised
    | cluster.PrimaryElected
    | cluster.MaintenanceSet
    | cluster.FeatureLevelRaised
    | cluster.FaultAcknowledged
    | cluster.SigningKeyAdded
    | cluster.SigningKeyRetired
    | cluster.KeyRotationRequested
    | cluster.LogRestored
    | cluster.LogCheckpointed
    | cluster.AnchorFailed
    | cluster.AnchorRecovered
    | cluster.CommandRejected
    | access.PrincipalAdded
    | access.PrincipalModified
    | access.PrincipalRemoved
    | access.TokenCreated
    | access.TokenRotated
    | access.TokenRevoked
    | access.TokenUsed
    | access.LoggedIn
    | access.LoginRefused
    | access.AccessRefused
    | access.SecretRead
    | access.ErasureRequested
    | access.PersonErased
    | node.NodeJoined
    | node.NodeReady
    | node.NodeFenceSet
    | node.NodeFlushRequested
    | node.NodeFlushed
    | node.NodeFlushIncomplete
    | node.NodeReturnRequested
    | node.NodeReturned
    | node.NodeLost
    | node.NodeFenced
    | node.NodeFenceFailed
    | node.NodeDiverged
    | node.NodeLogDiffers
    | node.NodeRemoved
    | vm.VmDefined
    | vm.VmModified
    | vm.VmRenamed
    | vm.VmRemoved
    | vm.VmAutostartSet
    | vm.VmSelectorSet
    | vm.VmNodeLimitsSet
    | vm.VmMigrationMethodSet
    | vm.VmMaxDowntimeSet
    | vm.VmPrioritySet
    | vm.VmAffinitySet
    | vm.VmAntiAffinitySet
    | vm.VmTagAdded
    | vm.VmTagRemoved
    | vm.VmStartRequested
    | vm.VmShutdownRequested
    | vm.VmStopRequested
    | vm.VmRestartRequested
    | vm.VmResetRequested
    | vm.VmDisabled
    | vm.VmEnabled
    | vm.VmStarted
    | vm.VmStartFailed
    | vm.VmStopped
    | vm.VmCrashed
    | vm.VmFailed
    | vm.VmShutdownTimedOut
    | vm.VmShutdownAbandoned
    | vm.VmWasReset
    | vm_moves.VmMigrationRequested
    | vm_moves.VmMigrationPrepared
    | vm_moves.VmMigrationCancelRequested
    | vm_moves.VmMigrationFailed
    | vm_moves.VmMigrated
    | vm_moves.VmArrived
    | vm_moves.VmRelocated
    | vm_moves.VmMoved
    | vm_moves.VmRecovered
    | vm_moves.VmRecoveryDelayed
    | webhook.WebhookAdded
    | webhook.WebhookModified
    | webhook.WebhookRemoved
    | webhook.WebhookPaused
    | webhook.WebhookResumed
    | webhook.WebhookSecretRotated
    | webhook.WebhookReplayRequested
    | webhook.WebhookVerified
    | webhook.WebhookDisabled
    | webhook.WebhookParked
)

EVENTS: tuple[type[Event], ...] = Event.__args__

BY_TYPE: dict[str, type[Event]] = {event.TYPE: event for event in EVENTS}

FIRST_LEVEL = 1

FEATURE_LEVEL = 1
"""The highest level of records that this version can read; it writes those of the cluster's level."""

TYPE_LEVELS: dict[str, int] = {}
"""Event type -> the level that it came with; not here: the first. A new version of a type is a new level too."""

FIELD_LEVELS: dict[tuple[str, str], int] = {}
"""(type, field) -> the level that the field came with. An older member would pass over it, and fold something else."""

UPCASTERS: dict[tuple[str, int], Upcaster] = {}
"""(type, v) -> a pure function from the data of version v to that of version v + 1. docs/log-format.md says how."""


class NewerLevel(PvcError):
    """The cluster's records are of a feature level that this version of PVC does not know; the fold stops here."""

    status = 503
    default_code = "fold.newer_level"


class Subject(msgspec.Struct, frozen=True):
    """What an event is about: its kind (`vm`, `node`, `cluster`, `access`, `webhook`) and id."""

    kind: str
    id: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.id}" if self.id else self.kind


def encode_event(event: Event) -> RawEvent:
    """An event as it goes into a record."""
    data = msgspec.Raw(_encoder.encode(event))
    return RawEvent(type=event.TYPE, v=version_of(type(event)), data=data)


def decode_event(raw: RawEvent) -> Event:
    """An event as this version knows it. Raises UnknownEvent for a type, version or value from the future."""
    return _VERSIONS.decode(raw)


def level_of(event: Event) -> int:
    """The lowest feature level whose records may have this event."""
    level = TYPE_LEVELS.get(event.TYPE, FIRST_LEVEL)
    for (kind, field), since in FIELD_LEVELS.items():
        if kind == event.TYPE and getattr(event, field) != _default_of(type(event), field):
            level = max(level, since)
    return level


def knows_level(level: int) -> bool:
    """Whether this version can read records of a level."""
    return level <= FEATURE_LEVEL


def refuse_newer_level(record: Record) -> None:
    """Raise NewerLevel where a record is of a level that this version does not know, or raises the cluster to one.

    Also where each of its events is known: there may be fields in them that came with that level.
    """
    level = record.level
    for raw in record.events:
        if raw.type == cluster.FeatureLevelRaised.TYPE:
            raised = decode_event(raw)
            assert isinstance(raised, cluster.FeatureLevelRaised), "its type says so"
            level = max(level, raised.level)
    if not knows_level(level):
        raise NewerLevel(
            f"record {record.position} is of feature level {level}; this PVC knows none above {FEATURE_LEVEL}",
            hint="install the newer PVC of the other nodes on this one; its VMs go on meanwhile",
        )


def subject_of(event: Event) -> Subject:
    """What the event is about."""
    kind, _, _ = event.TYPE.partition(".")
    if kind == "command":
        vm_id: str = getattr(event, "vm", "")
        return Subject("vm", vm_id) if vm_id else Subject("cluster", "")
    if isinstance(event, access.ErasureRequested | access.PersonErased):
        return Subject(kind, event.key)
    if isinstance(event, access.PrincipalAdded | access.PrincipalModified | access.PrincipalRemoved):
        return Subject(kind, event.id)
    if isinstance(event, access.AccessRefused) and event.vm:
        return Subject("vm", event.vm)
    id_field = _ID_FIELDS[kind]
    return Subject(kind, getattr(event, id_field) if id_field else "")


_ID_FIELDS = {"vm": "vm", "node": "node", "access": "token", "cluster": "", "webhook": "hook"}
_encoder = msgspec.msgpack.Encoder()
_VERSIONS: Versions[Event] = Versions(EVENTS, UPCASTERS, TYPE_LEVELS)


def _default_of(event: type[Event], name: str) -> object:
    return next(field.default for field in msgspec.structs.fields(event) if field.name == name)
