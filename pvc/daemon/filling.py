"""Has a log archived while it is filled again by a repair or a restore: ZooKeeper's memory could not hold all of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pvc.daemon.config import Config
from pvc.daemon.logs import LogCopies, archive_parts
from pvc.log.base import MAX_BATCH_ENTRIES, Log
from pvc.log.history import HistoryIndex
from pvc.node.archivist import Archivist, unsigned
from pvc.presence.alone import AlonePresence
from pvc.runtime.world import World


class Filling:
    """Counts what is appended."""

    def __init__(self, archive: Callable[[], Awaitable[None]] | None, segment_records: int) -> None:
        """`archive`: one pass of the archivist, made for every segment; None where the log has none."""
        self._archive = archive
        self._segment_records = segment_records
        self._archived_at = 0
        self.at_once = min(MAX_BATCH_ENTRIES, segment_records or MAX_BATCH_ENTRIES)
        """Records of one append: a segment takes no part of one."""

    async def note(self, position: int) -> None:
        """The log reaches to `position` now. Raises PvcError."""
        if self._archive is not None and position - self._archived_at >= self._segment_records:
            self._archived_at = position
            await self._archive()


def filling_of(config: Config, world: World, log: Log, history: HistoryIndex, copies: LogCopies) -> Filling:
    """With an archivist for whom no other node counts, where the log has segments."""
    parts = archive_parts(config, log, history, copies)
    if parts is None:
        return Filling(None, 0)
    archivist = Archivist(config.node_name, world, parts, AlonePresence(), epoch=lambda: None, sign=unsigned)
    return Filling(archivist.look_alone, config.log.segment_records)
