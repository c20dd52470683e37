"""A record on its way to readers: encoded once, its names opened once, and so the same bytes for all who are told.

Names leave the gateway opened, by the one door there is for it (`People.readable`). What was opened is forgotten when
a key is let go of: a record that waits here while its person is erased goes out with the pseudonym.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from enum import Enum

import msgspec

from pvc.gateway.event_sight import Sees, sees_all
from pvc.gateway.records import RECORDS, record_view
from pvc.log.history import FoundEvents
from pvc.log.history_keys import EventFilter, RecordKeys, matches
from pvc.runtime.people import People

MAX_FRAMES = 4_096
"""Records kept encoded; with MAX_FRAME_BYTES, so many that who was cut finds them ready when it comes back."""

MAX_FRAME_BYTES = 4 * 1024 * 1024
"""Of the stored records; encoded and opened in both forms they take some five times as much."""


class Form(Enum):
    """How events are sent."""

    SSE = "text/event-stream"
    NDJSON = "application/x-ndjson"


class Frame:
    """One record, encoded when it is first asked for."""

    __slots__ = ("_form", "_found", "_generation", "_kept", "_opened", "_parts", "_sealed", "keys", "size")

    def __init__(self, found: FoundEvents, kept: tuple[int, ...] | None = None) -> None:
        """With `kept` only these of its events are shown."""
        self.keys: RecordKeys = found.keys
        """Of what is shown."""
        self.size = len(found.found.data)
        """Of the stored record, in bytes."""
        self._found = found
        self._kept = kept
        if kept is not None:
            self.keys = found.keys._replace(events=tuple(found.keys.events[index] for index in kept))
        self._parts: dict[tuple[int, ...], Frame] = {}
        self._sealed = b""
        self._opened = b""
        self._generation = -1
        self._form: dict[Form, bytes] = {}

    @property
    def position(self) -> int:
        """Of the record."""
        return self.keys.position

    @property
    def sealed(self) -> bytes:
        """The record as JSON, with names as they stand in the log: for replies whose names are opened as a whole."""
        if not self._sealed:
            view = record_view(self._found.found)
            if self._kept is not None:
                view = msgspec.structs.replace(view, events=[view.events[index] for index in self._kept])
            self._sealed = msgspec.json.encode(view)
        return self._sealed

    def seen_by(self, sees: Sees) -> Frame | None:
        """What may be seen of it: itself, or a frame with some of its events, the same for all who see the same; None
        where that is nothing."""
        kept = tuple(index for index, event in enumerate(self.keys.events) if sees(event))
        if len(kept) == len(self.keys.events):
            return self
        if kept and kept not in self._parts:
            self._parts[kept] = Frame(self._found, kept)
        return self._parts.get(kept)

    def is_open(self, people: People) -> bool:
        """Whether its names are those that may be shown just now."""
        return self._generation == people.generation

    async def open(self, people: People) -> None:
        """Open its names."""
        while not self.is_open(people):
            generation = people.generation
            opened = await people.readable(self.sealed)
            self._opened, self._generation = opened, generation
            self._form = {}

    def written(self, form: Form, fields: Sequence[str] = ()) -> bytes:
        """As it is sent, with these fields alone where some are named; its names were opened before."""
        if fields:
            # Not kept: there are as many choices of fields as readers, at most.
            [cut] = RECORDS.cut([msgspec.Raw(self._opened)], fields)
            return _WRITE[form](self.position, bytes(cut))
        written = self._form.get(form)
        if written is None:
            written = self._form[form] = _WRITE[form](self.position, self._opened)
        return written


class Frames:
    """The frames of the newest records that were asked for, so that each is made once."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, Frame] = OrderedDict()
        self._bytes = 0

    def of(self, found: Sequence[FoundEvents]) -> list[Frame]:
        """The frames of these records."""
        return [self._of(one) for one in found]

    def _of(self, found: FoundEvents) -> Frame:
        frame = self._kept.get(found.keys.position)
        # After a restored log another record may be at the position.
        if frame is not None and frame.keys.id == found.keys.id:
            return frame
        if frame is not None:
            self._bytes -= frame.size
        frame = self._kept[found.keys.position] = Frame(found)
        self._bytes += frame.size
        while len(self._kept) > MAX_FRAMES or self._bytes > MAX_FRAME_BYTES:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= gone.size
        return frame


def seen_of(frames: list[Frame], sees: Sees, wanted: EventFilter) -> list[Frame]:
    """What may be seen of these, as far as it is still wanted: nothing is found by what is hidden of it."""
    if sees is sees_all:
        return frames
    return [
        seen for seen in (frame.seen_by(sees) for frame in frames) if seen is not None and matches(wanted, seen.keys)
    ]


def write_note(form: Form, name: str, value: msgspec.Struct, position: int | None = None) -> bytes:
    """Something that is no record: a bookmark, the end. With a position, a reader goes on from there."""
    data = msgspec.json.encode(value)
    if form is Form.NDJSON:
        return data + b"\n"
    at = b"" if position is None else b"id: %d\n" % position
    return at + b"event: %s\ndata: %s\n\n" % (name.encode(), data)


def _sse(position: int, data: bytes) -> bytes:
    return b"id: %d\ndata: %s\n\n" % (position, data)


def _ndjson(_: int, data: bytes) -> bytes:
    return data + b"\n"


_WRITE = {Form.SSE: _sse, Form.NDJSON: _ndjson}
