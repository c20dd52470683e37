"""Which events an endpoint wants. Pure; tags are those that a VM had at the event, not those it has now."""

from __future__ import annotations

from collections.abc import Mapping

from pvc.events import vm
from pvc.events.record import Record
from pvc.events.registry import Subject, UnknownEvent, decode_event, subject_of
from pvc.events.webhook import WebhookSettings
from pvc.projections.state import ClusterState


class Tags:
    """The tags of all VMs at one position, kept up to date record by record."""

    def __init__(self, position: int, state: ClusterState | None = None) -> None:
        self.position = position
        self._of: dict[str, frozenset[str]] = {}
        for found in state.vms.values() if state is not None else ():
            self._of[found.id] = frozenset(found.tags)

    def of(self, vm_id: str) -> frozenset[str]:
        """The tags of a VM."""
        return self._of.get(vm_id, frozenset())

    def around(self, record: Record) -> Mapping[str, frozenset[str]]:
        """VM -> its tags before or after the record, which is the next one; of the VMs that the record is about."""
        seen: dict[str, frozenset[str]] = {}
        for raw in record.events:
            try:
                event = decode_event(raw)
            except UnknownEvent:
                continue
            subject = subject_of(event)
            if subject.kind != "vm":
                continue
            before = self.of(subject.id)
            match event:
                case vm.VmDefined():
                    self._of[subject.id] = frozenset(event.tags)
                case vm.VmTagAdded():
                    self._of[subject.id] = before | {event.tag}
                case vm.VmTagRemoved():
                    self._of[subject.id] = before - {event.tag}
                case vm.VmRemoved():
                    self._of.pop(subject.id, None)
                case _:
                    pass
            seen[subject.id] = seen.get(subject.id, frozenset()) | before | self.of(subject.id)
        self.position = record.position
        return seen


def wanted(settings: WebhookSettings, record: Record, tags: Mapping[str, frozenset[str]]) -> list[int]:
    """The indices of the record's events that the endpoint wants."""
    return [i for i in range(len(record.events)) if _wants(settings, record, i, tags)]


def _wants(settings: WebhookSettings, record: Record, index: int, tags: Mapping[str, frozenset[str]]) -> bool:
    raw = record.events[index]
    if settings.types and not any(_is_type(raw.type, pattern) for pattern in settings.types):
        return False
    if not settings.subjects and not settings.tags:
        return True
    try:
        subject = subject_of(decode_event(raw))
    except UnknownEvent:  # of a newer version: what it is about is not known here but for its kind
        subject = Subject(raw.type.partition(".")[0], "")
    if settings.subjects and str(subject) not in settings.subjects and subject.kind not in settings.subjects:
        return False
    if not settings.tags:
        return True
    return subject.kind == "vm" and not tags.get(subject.id, frozenset()).isdisjoint(settings.tags)


def _is_type(name: str, pattern: str) -> bool:
    if pattern == "*":
        return True
    return name.startswith(pattern[:-1]) if pattern.endswith(".*") else name == pattern
