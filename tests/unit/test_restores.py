"""A restore into the embedded log: what is put in its place at the end is the whole of it, or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pvc.clock import SystemClock, SystemRng
from pvc.daemon.config import ArchiveConfig, Config, LogConfig, NodeConfig
from pvc.daemon.logs import make_copies
from pvc.daemon.restores import Restores
from pvc.errors import Conflict, Unavailable
from pvc.events.record import EMPTY
from pvc.log import sqlite_file
from pvc.log.history import HistoryIndex
from pvc.log.sqlite import SqliteLog
from pvc.runtime.repair import end_of_restore
from pvc.runtime.world import World
from tests.contract.log_records import a_chain

RECORDS = 300


class Station:
    """What restores there are on a node without a log, and how often it was to start over."""

    def __init__(self, directory: Path, history: HistoryIndex) -> None:
        config = Config(
            node=NodeConfig(name="hv1", data_dir=str(directory)), log=LogConfig(kind="sqlite"), archive=ArchiveConfig()
        )
        self.begun_anew = 0
        self.place = directory / "log.db"
        self.scratch = directory / "log.db.restoring"
        self.restores = Restores(
            config, World(), history, make_copies(config), SystemClock(), SystemRng(), self._begin_anew
        )

    def _begin_anew(self) -> None:
        self.begun_anew += 1

    async def records(self) -> list[bytes]:
        """Of the log that is in its place."""
        log = await SqliteLog.open(self.place)
        try:
            return await log.read(1, 10 * RECORDS)
        finally:
            await log.close()


@contextlib.asynccontextmanager
async def a_station(directory: Path) -> AsyncIterator[Station]:
    history = await HistoryIndex.open(directory / "history.db")
    station = Station(directory, history)
    try:
        yield station
    finally:
        await station.restores.close()
        await history.close()


def test_what_somebody_keeps_in_the_wal_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_S", 0.1)
    chain = [entry.data for entry in a_chain(EMPTY, RECORDS)]

    async def live() -> None:
        async with a_station(tmp_path) as station:
            restores = station.restores
            assert await restores.begin() == 0
            assert await restores.append(chain) == RECORDS
            with contextlib.closing(sqlite3.connect(station.scratch)) as reader:  # a backup of the files, say
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM record").fetchone()
                with pytest.raises(Unavailable) as refusal:
                    await restores.end("a backup")
                assert refusal.value.code == "log.busy"
            assert not station.place.exists() and station.begun_anew == 0
            assert await restores.begin() == RECORDS + 1, "its end has been recorded"
            assert await restores.append(chain[-1:]) == RECORDS + 1, "and the same backup goes on with it"
            with pytest.raises(Conflict, match="another backup"):
                await restores.append(chain[-2:-1])
            await restores.end("a backup")
            assert station.begun_anew == 1
            *records, last = await station.records()
            assert records == chain
            said = end_of_restore(last)
            assert said is not None and (said.position, said.source) == (RECORDS, "a backup")
            assert not list(tmp_path.glob("log.db.restoring*"))

    asyncio.run(live())


def test_a_backup_that_ends_with_an_earlier_restore_gets_an_end_of_its_own(tmp_path: Path) -> None:
    async def live() -> None:
        async with a_station(tmp_path) as station:
            restores = station.restores
            await restores.begin()
            await restores.append([entry.data for entry in a_chain(EMPTY, 3)])
            await restores.end("a backup of the first day")
        station.place.rename(station.scratch)  # as if all of that came from the next backup
        async with a_station(tmp_path) as station:
            assert await station.restores.begin() == 4
            await station.restores.end("a backup of the second day")
            ends = [said.source for data in await station.records() if (said := end_of_restore(data))]
            assert ends == ["a backup of the first day", "a backup of the second day"]

    asyncio.run(live())
