"""A log that does as it is told: the next appends meet the troubles that a test lines up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pvc.errors import Conflict, OutcomeUnknown, Unavailable
from pvc.events.record import Entry, Head
from pvc.log.memory import MemoryLog

Trouble = Callable[["TroubledLog", Sequence[Entry], Head], None]
"""Called before an append; raises what the append shall raise."""


class TroubledLog(MemoryLog):
    """A memory log whose appends can fail in every way that the protocol knows."""

    def __init__(self) -> None:
        super().__init__()
        self.troubles: list[Trouble] = []
        self.batches: list[int] = []
        """How many entries each append had that took place."""
        self.tries = 0
        self.unreadable = False

    async def append(self, entries: Sequence[Entry], *, after: Head) -> Head:
        """Meet the next trouble, if there is one, else append."""
        self.tries += 1
        if self.troubles:
            trouble = self.troubles.pop(0)
            if trouble is unknown_but_done:
                await self._really_append(entries, after)
            trouble(self, entries, after)
        return await self._really_append(entries, after)

    async def read(self, first: int, limit: int) -> list[bytes]:
        """As ever, unless `unreadable`."""
        if self.unreadable:
            raise Unavailable("the log does not answer")
        return await super().read(first, limit)

    async def _really_append(self, entries: Sequence[Entry], after: Head) -> Head:
        head = await super().append(entries, after=after)
        self.batches.append(len(entries))
        return head


def conflict(log: TroubledLog, entries: Sequence[Entry], after: Head) -> None:
    """Lost a race, though nobody is to be seen."""
    raise Conflict("somebody was faster")


def unavailable(log: TroubledLog, entries: Sequence[Entry], after: Head) -> None:
    """Nothing was written."""
    raise Unavailable("the disk is full", code="log.disk_full", hint="make room")


def unknown_and_not_done(log: TroubledLog, entries: Sequence[Entry], after: Head) -> None:
    """The request was lost."""
    raise OutcomeUnknown("no answer")


def unknown_but_done(log: TroubledLog, entries: Sequence[Entry], after: Head) -> None:
    """The reply was lost."""
    raise OutcomeUnknown("no answer")
