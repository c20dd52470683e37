"""What operations see of a record: its events, and what each of them does to its VM. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from pvc.events import vm as e
from pvc.events import vm_moves as m
from pvc.events.record import RawEvent, Record
from pvc.events.registry import Event, UnknownEvent, decode_event, subject_of
from pvc.projections.story import TOLD
from pvc.projections.vm_machine import AT_REST, VmState, next_state


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """An event as operations look at it."""

    subject: str
    raw: RawEvent
    event: Event
    settled: bool = False
    """It brought its VM to rest, or to run with nothing left to do."""
    moved: bool = False
    """It changed where its VM stands."""

    @property
    def text(self) -> str:
        """What it says in a sentence."""
        return TOLD[type(self.event)](self.event)

    @property
    def code(self) -> str:
        """What programs go by: that of the error where it has one, else the event's type."""
        return str(getattr(self.event, "code", "") or self.raw.type)


class VmPlace(msgspec.Struct, frozen=True, kw_only=True):
    """As much of a VM as operations have to know, followed from the events alone."""

    name: str
    node: str
    state: VmState = VmState.STOPPED

    @property
    def active(self) -> bool:
        """Whether it takes room on its node."""
        return self.state not in AT_REST


def place_after(place: VmPlace | None, event: Event, event_type: str) -> VmPlace | None:
    """The VM after an event about it; None where it is gone, or not known."""
    match event:
        case e.VmDefined():
            return VmPlace(name=event.name, node=event.node)
        case e.VmRemoved():
            return None
        case e.VmRenamed() if place is not None:
            return replace(place, name=event.name)
    if place is None:
        return None
    state = next_state(place.state, event_type)
    if state is None:
        return place
    node = getattr(event, "target", place.node) if isinstance(event, _ARRIVALS) else place.node
    return replace(place, state=state, node=node)


def seen_of(record: Record, places: dict[str, VmPlace]) -> list[Seen]:
    """The events of a record, with what they do to VMs; `places` (by id) goes on with them. Unknown ones are left
    out."""
    found = []
    for raw in record.events:
        try:
            event = decode_event(raw)
        except UnknownEvent:
            continue
        subject = subject_of(event)
        settled = moved = False
        if subject.kind == "vm":
            before = places.get(subject.id)
            after = place_after(before, event, raw.type)
            if after is None:
                places.pop(subject.id, None)
                settled = moved = before is not None
            else:
                places[subject.id] = after
                moved = before is not None and next_state(before.state, raw.type) is not None
                settled = moved and after.state in _SETTLED and raw.type not in _NO_END
        found.append(Seen(subject=str(subject), raw=raw, event=event, settled=settled, moved=moved))
    return found


_SETTLED = frozenset({*AT_REST, VmState.RUNNING})
_NO_END = frozenset({m.VmRecoveryDelayed.TYPE})
_ARRIVALS: tuple[type[Any], ...] = (m.VmMigrated, m.VmRelocated, m.VmMoved, m.VmRecovered)
