"""What differs between two states: objects that came, went or changed, and their fields with old and new value. Pure.

There is a difference exactly where the states' hashes differ: both are about the same objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from pvc.events.sealed import erased_name
from pvc.projections.access_state import Erasure, PrincipalState, Token
from pvc.projections.state import ClusterState, Fault, Node, Vm
from pvc.projections.webhook_state import Webhook

SECRET = frozenset({"secret_sha256", "secrets"})
"""Fields that no reader is shown."""


class Change(StrEnum):
    """What became of an object."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


class FieldChange(msgspec.Struct, frozen=True, kw_only=True):
    """A field and its two values, as JSON has them; inner fields are spelled `spec.memory_mib`."""

    field: str
    old: Any
    new: Any


class ObjectChange(msgspec.Struct, frozen=True, kw_only=True):
    """An object that differs."""

    kind: str
    """`cluster`, `node`, `vm`, `webhook`, `fault`, `principal`, `token` or `erasure`."""
    id: str
    name: str
    """As people call it; its newer name where that changed."""
    subject: str
    """What its history is found under."""
    change: Change
    fields: list[FieldChange]
    position: int
    """The last record that touched it, where the object itself remembers; else 0."""


def diff_states(old: ClusterState, new: ClusterState) -> list[ObjectChange]:
    """Every object that differs: the cluster, then nodes, VMs, webhooks, faults, and what is about access, by name."""
    if old.head == new.head:
        return []
    changes = [change for kind, tables in _tables(old, new).items() for change in _of_kind(kind, *tables)]
    return sorted(changes, key=lambda change: (KINDS.index(change.kind), change.name, change.id))


def _tables(old: ClusterState, new: ClusterState) -> dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]]:
    return {
        "cluster": ({"": old.cluster} if old.cluster else {}, {"": new.cluster} if new.cluster else {}),
        "node": (old.nodes, new.nodes),
        "vm": (old.vms, new.vms),
        "webhook": (old.webhooks, new.webhooks),
        "fault": (old.faults, new.faults),
        "principal": (old.principals, new.principals),
        "token": (old.tokens, new.tokens),
        "erasure": (old.erasures, new.erasures),
    }


KINDS = ("cluster", "node", "vm", "webhook", "fault", "principal", "token", "erasure")
"""Kinds of objects, in the order in which they are told."""


def _of_kind(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[ObjectChange]:
    for key in (*old, *(key for key in new if key not in old)):
        before, after = old.get(key), new.get(key)
        if before is after or before == after:
            continue
        change = Change.ADDED if before is None else Change.REMOVED if after is None else Change.CHANGED
        either = after if after is not None else before
        yield ObjectChange(
            kind=kind,
            id=getattr(either, "id", key) if kind == "principal" else key,
            name=_name(kind, either),
            subject=_subject(kind, either),
            change=change,
            fields=_fields(before, after),
            position=getattr(after, "position", 0),
        )


def _name(kind: str, thing: Any) -> str:
    if kind == "erasure":
        return erased_name(thing.key)
    return str(thing.name) if kind in ("cluster", "node", "vm", "webhook", "principal") else str(thing.id)


def _subject(kind: str, thing: Any) -> str:
    match thing:
        case Vm():
            return f"vm/{thing.id}"
        case Node():
            return f"node/{thing.name}"
        case Fault():
            return thing.subject
        case Webhook():
            return f"webhook/{thing.id}"
        case PrincipalState():
            return f"access/{thing.id}"
        case Token():
            return f"access/{thing.id}"
        case Erasure():
            return f"access/{thing.key}"
    return kind


def _fields(before: Any, after: Any) -> list[FieldChange]:
    old, new = (_flat(msgspec.to_builtins(thing)) if thing is not None else {} for thing in (before, after))
    names = [*new, *(name for name in old if name not in new)]
    return [
        FieldChange(field=name, old=old.get(name), new=new.get(name))
        for name in names
        if old.get(name) != new.get(name) and name not in SECRET
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
