"""Durable append, one client: our log against the library beneath it, doing the same for the same bytes."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from kazoo.client import KazooClient
from kazoo.security import ACL, Id, Permissions

from pvc.events.record import Entry
from pvc.log.base import Log
from pvc.log.sqlite import SqliteLog
from pvc.log.zookeeper import ZookeeperLog
from tests.bench.measure import Bench, Row, Side, at_least, compare, skipped, stopwatch, take_turns
from tests.bench.records import Chain, a_cluster, daily_life

VMS = 100
HEAD_BYTES = bytes(130)
"""As long as the head that our log writes beside each record."""
SERVER_WARM_UP = 2_400
"""Appends until the server's Java is compiled; before that its speed doubles within seconds."""
READ_ONLY = [ACL(Permissions.READ, Id("world", "anyone"))]


async def measure(bench: Bench) -> list[Row]:
    return [await _zookeeper(bench), await _sqlite(bench)]


async def _zookeeper(bench: Bench) -> Row:
    what = "durable append, one client, ZooKeeper"
    if not bench.zookeeper:
        return skipped(what, "there is no ZooKeeper here (apt-get install zookeeper default-jre-headless)")
    count = bench.size(100, 200)
    log = await ZookeeperLog.open(bench.zookeeper, "append")
    client = KazooClient(hosts=bench.zookeeper)
    client.start(timeout=10)
    try:
        sides = _ours(log, count), _raw_multi(client, count)
        ours, raw = await take_turns(bench.rounds, *sides, warm_up=SERVER_WARM_UP // (2 * count))
    finally:
        client.stop()
        client.close()
        await log.close()
    return compare(what, "/s", ours, raw, "kazoo multi", at_least(0.8))


async def _sqlite(bench: Bench) -> Row:
    count = bench.size(100, 200)
    log = await SqliteLog.open(bench.home / "ours.db")
    db = _raw_database(bench.home / "raw.db")
    try:
        ours, raw = await take_turns(bench.rounds, _ours(log, count), _raw_commits(db, count))
    finally:
        db.close()
        await log.close()
    return compare("durable append, one client, SQLite", "/s", ours, raw, "INSERT + COMMIT", at_least(0.8))


def some_records(vms: int = VMS) -> Iterator[Entry]:
    """An endless log of a small cluster."""
    chain = Chain()
    return itertools.chain(a_cluster(chain, vms), daily_life(chain, vms, 1 << 40))


def _ours(log: Log, count: int) -> Side:
    records = some_records()

    async def round_() -> float:
        entries = list(itertools.islice(records, count))
        after = await log.head()
        with stopwatch() as watch:
            for entry in entries:
                after = await log.append([entry], after=after)
        return count / watch.seconds

    return round_


def _raw_multi(client: KazooClient, count: int) -> Side:
    """The same two operations, bare: the next head by its version, and the record as a sequential znode."""
    client.create("/raw", b"")
    records = some_records()
    versions = itertools.count()

    async def round_() -> float:
        entries = list(itertools.islice(records, count))
        with stopwatch() as watch:
            for entry in entries:
                transaction = client.transaction()
                transaction.set_data("/raw", HEAD_BYTES, version=next(versions))
                transaction.create("/raw/e-", entry.data, acl=READ_ONLY, sequence=True)
                results = transaction.commit()
                assert not any(isinstance(result, Exception) for result in results), results
        return count / watch.seconds

    return round_


def _raw_database(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE record (position INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT")
    return db


def _raw_commits(db: sqlite3.Connection, count: int) -> Side:
    records = some_records()

    async def round_() -> float:
        entries = list(itertools.islice(records, count))
        with stopwatch() as watch:
            for entry in entries:
                db.execute("BEGIN IMMEDIATE")
                db.execute("INSERT INTO record VALUES (?, ?)", (entry.position, entry.data))
                db.execute("COMMIT")
        return count / watch.seconds

    return round_
