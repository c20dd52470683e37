"""Reads events of every version that there ever was: an older one is brought up step by step to the one of today.

A type has one present version, and for each older one an upcaster: a pure function from the data of version v to that
of v + 1. That none is missing is checked when the table is made, which is when PVC is imported. What is newer than the
table is refused; where only bytes are passed on (storage, history, stream) nobody asks this table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from pvc.errors import PvcError
from pvc.events.record import RawEvent

T = TypeVar("T")

Upcaster: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
"""It is given a dict of its own, as it was decoded, and may change it. It must not ask clock, environment or files."""

Upcasters: TypeAlias = Mapping[tuple[str, int], Upcaster]
"""(type, v) -> from version v to v + 1."""

FIRST = 1


class UnknownEvent(PvcError):
    """The log holds an event this version of PVC cannot read; the fold stops here, history and stream go on."""

    status = 503
    default_code = "fold.unknown_event"


class Versions(Generic[T]):
    """The event types with their versions. Raises ValueError, with all that is wrong, unless the table is whole."""

    def __init__(self, events: Sequence[type[T]], upcasters: Upcasters, raised: Collection[str]) -> None:
        """`raised` are the types that have a feature level of their own, as every one of a later version must."""
        self._types = {type_of(event): event for event in events}
        self._present = {type_of(event): version_of(event) for event in events}
        self._decoders = {name: msgspec.msgpack.Decoder(event) for name, event in self._types.items()}
        self._upcasters = dict(upcasters)
        wrong = [*_gaps(self._present, self._upcasters), *_without_level(self._present, raised)]
        if len(self._types) != len(events):
            wrong.append("two events share a type")
        if wrong:
            raise ValueError(f"the table of events is not whole: {'; '.join(wrong)}")

    def decode(self, raw: RawEvent) -> T:
        """The event in its present version. Raises UnknownEvent for a type, version or value from the future."""
        present = self._present.get(raw.type, 0)
        if not FIRST <= raw.v <= present:
            raise UnknownEvent(
                f"the log holds an event {raw.type!r} version {raw.v}, which this version of PVC does not know",
                hint="update PVC on this node",
            )
        try:
            return self._decoders[raw.type].decode(raw.data) if raw.v == present else self._brought_up(raw, present)
        except (msgspec.MsgspecError, LookupError, TypeError, ValueError) as error:
            raise UnknownEvent(
                f"the log holds an event {raw.type!r} version {raw.v} that this version of PVC cannot read: {error}",
                code="fold.unreadable_event",
                hint="update PVC on this node",
            ) from error

    def _brought_up(self, raw: RawEvent, present: int) -> T:
        data: dict[str, Any] = msgspec.msgpack.decode(raw.data)
        for version in range(raw.v, present):
            data = self._upcasters[raw.type, version](data)
        return msgspec.convert(data, self._types[raw.type])


def version_of(event: type[Any]) -> int:
    """The present version of an event type (its class variable `V`, 1 unless set)."""
    version: int = getattr(event, "V", FIRST)
    return version


def type_of(event: type[Any]) -> str:
    """An event's type as records name it."""
    name: str = event.TYPE
    return name


def _gaps(present: Mapping[str, int], upcasters: Upcasters) -> list[str]:
    needed = {(name, version) for name, current in present.items() for version in range(FIRST, current)}
    return [
        *(
            f"{name} has version {current}; the first is {FIRST}"
            for name, current in present.items()
            if current < FIRST
        ),
        *(f"{name} has no upcaster from version {version}" for name, version in sorted(needed - upcasters.keys())),
        *(
            f"the upcaster of {name} from {version} leads nowhere"
            for name, version in sorted(upcasters.keys() - needed)
        ),
    ]


def _without_level(present: Mapping[str, int], raised: Collection[str]) -> list[str]:
    """Members that do not know the new version must not meet it; only a feature level keeps it from them."""
    return [
        f"{name} is at version {current} without a feature level of its own"
        for name, current in present.items()
        if current > FIRST and name not in raised
    ]
