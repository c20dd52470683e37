"""Group commit: 24 clients at once, each command decided, sealed, committed and folded, against bare znodes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager

from kazoo.client import KazooClient

from pvc.commands.vm_settings import AddVmTag, RemoveVmTag
from pvc.log.base import Log
from pvc.log.memory import MemoryLog
from pvc.log.sqlite import SqliteLog
from pvc.log.zookeeper import ZookeeperLog
from pvc.runtime.appender import Appender
from tests.bench.append import READ_ONLY, some_records
from tests.bench.measure import (
    Bench,
    Row,
    Side,
    Stopwatch,
    at_least,
    compare,
    cpu_stopwatch,
    skipped,
    stopwatch,
    take_turns,
)
from tests.bench.records import Chain, a_cluster, vm_name
from tests.bench.running import ask, fill, running

Timed = Callable[[], AbstractContextManager[Stopwatch]]

CLIENTS = 24
MANY = 10_000
WARM_UP = 2
"""Some 4,000 requests: the server's Java is compiled by then."""


async def measure(bench: Bench) -> list[Row]:
    return [await _zookeeper(bench), await _sqlite(bench), await _among_many(bench)]


async def _zookeeper(bench: Bench) -> Row:
    what = f"{CLIENTS} clients through the appender, ZooKeeper"
    if not bench.zookeeper:
        return skipped(what, "there is no ZooKeeper here (apt-get install zookeeper default-jre-headless)")
    each = bench.size(30, 50)
    log = await ZookeeperLog.open(bench.zookeeper, "group")
    client = KazooClient(hosts=bench.zookeeper)
    client.start(timeout=10)
    try:
        await _prepare(log)
        async with running(log) as (_, appender):
            sides = commands(appender, each), _raw_creates(client, CLIENTS * each)
            ours, raw = await take_turns(bench.rounds, *sides, warm_up=WARM_UP)
    finally:
        client.stop()
        client.close()
        await log.close()
    return compare(what, "/s", ours, raw, "kazoo pipelined creates", at_least(1.5))


async def _sqlite(bench: Bench) -> Row:
    each = bench.size(30, 50)
    log = await SqliteLog.open(bench.home / "log.db")
    try:
        await _prepare(log)
        async with running(log) as (_, appender):
            ours, alone = await take_turns(
                bench.rounds, commands(appender, each), commands(appender, CLIENTS * each // 8, clients=1)
            )
    finally:
        await log.close()
    return compare(f"{CLIENTS} clients through the appender, SQLite", "/s", ours, alone, "1 client")


async def _among_many(bench: Bench) -> Row:
    """A batch is decided against a fork of the state; what the fork costs grows with the state."""
    each = bench.size(30, 50)
    few, many = MemoryLog(), MemoryLog()
    await _prepare(few)
    await _prepare(many, MANY)
    async with running(few) as (_, among_few), running(many) as (_, among_many):
        sides = (commands(appender, each, timed=cpu_stopwatch) for appender in (among_many, among_few))
        ours, reference = await take_turns(bench.rounds, *sides)
    what = f"{CLIENTS} clients through the appender at {MANY:,} VMs, memory log"
    return compare(what, "/s", ours, reference, f"at {CLIENTS} VMs")


async def _prepare(log: Log, vms: int = CLIENTS) -> None:
    await fill(log, a_cluster(Chain(), vms))


def commands(appender: Appender, each: int, clients: int = CLIENTS, timed: Timed = stopwatch) -> Side:
    """Each client puts tags on a VM of its own and takes them off again, waiting for each answer."""

    async def one(name: str) -> None:
        for number in range(each // 2):
            await ask(appender, "vm.add_tag", AddVmTag(vm=name, tag=f"t{number % 8}"))
            await ask(appender, "vm.remove_tag", RemoveVmTag(vm=name, tag=f"t{number % 8}"))

    async def round_() -> float:
        with timed() as watch:
            await asyncio.gather(*(one(vm_name(number)) for number in range(clients)))
        return clients * (each // 2) * 2 / watch.seconds

    return round_


def _raw_creates(client: KazooClient, count: int) -> Side:
    """All sent without waiting for any: as fast as kazoo can."""
    client.create("/raw-group", b"")
    records = some_records()

    async def round_() -> float:
        entries = list(itertools.islice(records, count))
        with stopwatch() as watch:
            pending = [
                client.create_async("/raw-group/e-", entry.data, acl=READ_ONLY, sequence=True) for entry in entries
            ]
            for result in pending:
                result.get(timeout=30)
        return count / watch.seconds

    return round_
