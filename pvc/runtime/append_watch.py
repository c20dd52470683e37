"""What the appender's work took: for the meters always, and as spans where somebody traces.

It also keeps which chain of causes the latest records belong to, from the fold, so that a report is told of in the
trace of the command that it answers, whichever node took that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

from pvc.clock import Clock
from pvc.errors import Conflict, OutcomeUnknown, PvcError
from pvc.events.record import Entry
from pvc.events.registry import Event
from pvc.meters import Meters
from pvc.runtime.request import Outcome, Request
from pvc.spans import Span, Tracer

MAX_CHAINS = 10_000
"""Records whose chain is remembered; what answers an older one begins a trace with that one."""

LIVE_US = 60_000_000
"""A record older than that is being read after a start or an outage, which is not the work that a trace is about."""


class Chains:
    """Record -> the record that its chain of causes began with."""

    def __init__(self) -> None:
        self._began_with: dict[str, str] = {}

    def note(self, record: str, cause: str) -> str:
        """A record was folded; returns what its chain began with."""
        first = self.of(cause) if cause else record
        self._began_with[record] = first
        if len(self._began_with) > MAX_CHAINS:
            del self._began_with[next(iter(self._began_with))]
        return first

    def of(self, record: str) -> str:
        """What the chain of this record began with."""
        return self._began_with.get(record, record)


class AppendWatch:
    """Watches one appender and the fold beside it. Lives in one event loop."""

    def __init__(
        self,
        clock: Clock,
        *,
        node: str = "",
        meters: Meters | None = None,
        tracer: Tracer | None = None,
        caught_up: Callable[[], bool] = lambda: True,
    ) -> None:
        self.meters = meters or Meters()
        self.tracer = tracer
        self.chains = Chains()
        self._clock = clock
        self._node = node
        self._caught_up = caught_up
        self._decide_us = self._append_us = self._appended_us = 0

    def deciding(self) -> None:
        """A batch is about to be decided."""
        if self.tracer is not None:
            self._decide_us = self._clock.wall_us()

    @contextlib.contextmanager
    def appending(self, records: int) -> Iterator[None]:
        """Measure an append of so many records."""
        meters, began_s = self.meters, self._clock.monotonic()
        self._append_us = self._clock.wall_us()
        try:
            yield
        except Conflict:
            meters.append_failures.add("conflict")
            raise
        except OutcomeUnknown:
            meters.append_failures.add("unknown")
            raise
        except PvcError:
            meters.append_failures.add("unavailable")
            raise
        meters.append_seconds.observe(self._clock.monotonic() - began_s)
        meters.appended.add(by=records)
        self._appended_us = self._clock.wall_us()

    def committed(self, answered: Iterable[tuple[Request, Outcome | PvcError]]) -> None:
        """What was asked stands in the log, and is folded."""
        if self.tracer is None:
            return
        for request, answer in answered:
            if isinstance(answer, PvcError) or answer.entry is None or answer.repeated:
                continue
            record = answer.entry.record
            chain = self.chains.of(record.id)
            about: dict[str, str | int] = {"pvc.record": record.id, "pvc.position": record.position}
            if not request.told_by_caller:
                self.tracer.tell(
                    Span(
                        name=request.name,
                        trace=chain,
                        record=record.id,
                        parent=record.cause,
                        began_us=self._decide_us,
                        ended_us=self._appended_us,
                        attributes={**about, "pvc.origin": record.origin},
                    )
                )
            parts = ("decide", self._decide_us, self._append_us), ("append", self._append_us, self._appended_us)
            for name, began_us, ended_us in parts:
                self.tracer.tell(
                    Span(
                        name=name, trace=chain, parent=record.id, began_us=began_us, ended_us=ended_us, attributes=about
                    )
                )

    def folded(self, entry: Entry, events: tuple[Event, ...]) -> None:
        """A record was folded here; a listener of the world."""
        if self._caught_up():  # what is read again at each start happened long ago: a counter that had it would leap
            for event in events:
                self.meters.events.add(event.TYPE)
        if self.tracer is None:
            return
        record = entry.record
        chain = self.chains.note(record.id, record.cause)
        now_us = self._clock.wall_us()
        if now_us - record.time_us > LIVE_US:
            return
        # From the decision on: how long it took to become true on this node, as its clock has it.
        self.tracer.tell(
            Span(
                name="fold",
                trace=chain,
                parent=record.id,
                began_us=min(record.time_us, now_us),
                ended_us=now_us,
                attributes={"pvc.node": self._node, "pvc.position": record.position},
            )
        )
