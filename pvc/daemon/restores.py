"""Restores the log from a backup: record by record into an empty one, which nobody else may append to meanwhile.

A restore that is broken off goes on where it stood. The embedded log is written beside its place and put there at the
end; the log in ZooKeeper is held. At the end stands a record that says so: no VM is started before every node of the
restored cluster has been heard of, since the backup does not know where they run by now.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pvc.clock import Clock, Rng
from pvc.daemon.config import Config
from pvc.daemon.filling import Filling, filling_of
from pvc.daemon.logs import LogCopies, open_zookeeper_log
from pvc.errors import Conflict, LogDamaged, Unavailable
from pvc.events.record import Entry, Head, unseal
from pvc.files import flush_directory
from pvc.log.base import Log
from pvc.log.history import HistoryIndex
from pvc.log.zookeeper_layout import RESTORE
from pvc.runtime.repair import end_of_restore, reappend, restored_entry
from pvc.runtime.world import World

if TYPE_CHECKING:
    from pvc.log.zookeeper import ZookeeperLog

logger = logging.getLogger(__name__)


class Restores:
    """Restores of one node's log. One at a time."""

    def __init__(
        self,
        config: Config,
        world: World,
        history: HistoryIndex,
        copies: LogCopies,
        clock: Clock,
        rng: Rng,
        begin_anew: Callable[[], None],
    ) -> None:
        """`begin_anew` has the daemon forget everything and start over."""
        self._config = config
        self._world = world
        self._history = history
        self._copies = copies
        self._clock = clock
        self._rng = rng
        self._begin_anew = begin_anew
        self._log: Log | None = None
        self._filling = Filling(None, 0)

    async def begin(self) -> int:
        """Make the log ready; returns its position. Raises Conflict when it is not empty, Unavailable, LogDamaged."""
        if self._log is None:
            self._log = await self._open()
            self._filling = filling_of(self._config, self._world, self._log, self._history, self._copies)
            # From here on this node only looks on: it folds the restored log when it is whole.
            self._world.fault = Unavailable(
                "the log is being restored from a backup", code="log.held", hint="wait until `pvc cluster restore` ends"
            )
            logger.warning("restore: begun")
        elif not (await self._log.head()).position:
            await self._hold(self._log)
        return (await self._log.head()).position

    async def append(self, records: Sequence[bytes]) -> int:
        """The next records. Those that are there already may be among them, and are compared: what goes on is to begin
        with the last one.

        Raises Conflict when they are of another backup, or without `begin`; LogDamaged when they do not continue the
        log.
        """
        log = self._begun()
        if await self._has_all(log, records):
            return (await log.head()).position
        head = await reappend(log, _once(records), self._filling.note, at_once=self._filling.at_once)
        return head.position

    async def _has_all(self, log: Log, records: Sequence[bytes]) -> bool:
        """Whether the log has them all, and behind them the end of their restore. Raises Conflict if it has others."""
        head = await log.head()
        first, last = (unseal(records[0]), unseal(records[-1])) if records else (None, None)
        if first is None or last is None or first.position > head.position:
            return False
        (newest,) = await log.read(head.position, 1)
        if last.position < head.position:
            if unseal(newest).record.prev == last.hash and end_of_restore(newest) is not None:
                return True
        elif records[head.position - first.position : head.position - first.position + 1] == [newest]:
            return False
        raise Conflict(
            f"the log is half restored from another backup: its record {head.position} is not in this one",
            code="log.other_backup",
            hint=f"go on with that one; or begin anew with {self._place}",
        )

    @property
    def _place(self) -> str:
        if self._config.log.kind == "sqlite":
            return f"pvcd stopped and {self._scratch} removed"
        return "an empty ensemble"

    async def end(self, source: str) -> None:
        """All records are there. Raises Conflict without `begin`, LogDamaged when there are none, Unavailable where the
        log cannot be put in its place: `begin` goes on there."""
        log = self._begun()
        head = await log.head()
        if not head.position:
            raise LogDamaged("the backup has no records", code="log.gap")
        (newest,) = await log.read(head.position, 1)
        ended = end_of_restore(newest)
        if ended is None or ended.source != source:
            entry = restored_entry(newest, self._config.node_name, source, self._clock, self._rng)
            head = await self._append_last(log, entry, head)
        elif getattr(log, "held_by", ""):
            await _of_zookeeper(log).mending.release()
        self._log = None
        await log.close()
        if self._config.log.kind == "sqlite":
            await asyncio.to_thread(self._put_in_place)
        logger.warning("restore: done position=%d", head.position)
        self._begin_anew()

    async def close(self) -> None:
        """Leave it as it stands; `begin` goes on."""
        if self._log is not None:
            await self._log.close()

    async def _append_last(self, log: Log, entry: Entry, head: Head) -> Head:
        """The record that ends it. In ZooKeeper the hold ends with it: a log that is held by a restore is never whole,
        so that nobody need ask whether it is."""
        if self._config.log.kind != "zookeeper":
            return await log.append([entry], after=head)
        return await _of_zookeeper(log).append([entry], after=head, release=True)

    async def _open(self) -> Log:
        if self._config.log.kind == "sqlite":
            from pvc.log.sqlite import SqliteLog

            if self._world.position:
                raise _not_empty()
            return await SqliteLog.open(self._scratch)
        if self._config.log.kind == "zookeeper":
            log = await open_zookeeper_log(self._config, self._copies, may_found=True, holder=RESTORE)
            try:
                await self._hold(log)
            except BaseException:
                await log.close()
                raise
            return log
        raise Conflict("a log in memory cannot be restored", code="log.held", hint="set log.kind")

    async def _hold(self, log: Log) -> None:
        """Have it for the restore alone, also where somebody has let go of it meanwhile."""
        if self._config.log.kind != "zookeeper":
            return
        kept = _of_zookeeper(log)
        if (await kept.head()).position and kept.held_by != RESTORE:
            raise _not_empty()
        await kept.mending.hold()

    @property
    def _scratch(self) -> Path:
        return self._config.data_dir / "log.db.restoring"

    def _put_in_place(self) -> None:
        from pvc.log.sqlite_file import fold_wal

        place = self._config.data_dir / "log.db"
        fold_wal(self._scratch)  # only the file is moved: what is not in it would be lost
        for suffix in ("-wal", "-shm"):
            place.with_name(f"log.db{suffix}").unlink(missing_ok=True)
        self._scratch.replace(place)
        for suffix in ("-wal", "-shm"):  # left, and empty, where a reader has come meanwhile
            self._scratch.with_name(f"{self._scratch.name}{suffix}").unlink(missing_ok=True)
        flush_directory(place.parent)

    def _begun(self) -> Log:
        if self._log is None:
            raise Conflict(
                "no restore has been begun", code="log.not_restoring", hint="run `pvc cluster restore` again"
            )
        return self._log


def _not_empty() -> Conflict:
    return Conflict(
        "the log is not empty: this node belongs to a cluster already",
        code="log.not_empty",
        hint="a backup is restored where there is nothing: on a new node, with an empty ensemble",
    )


def _of_zookeeper(log: Log) -> ZookeeperLog:
    from pvc.log.zookeeper import ZookeeperLog

    assert isinstance(log, ZookeeperLog), "opened so"
    return log


async def _once(records: Sequence[bytes]) -> AsyncIterator[Sequence[bytes]]:
    yield records
