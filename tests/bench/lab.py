"""The same log on a real cluster of three hosts: command to effect, event to all nodes, and a leader that dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import libvirt
from kazoo.client import KazooClient

from pvc.lab.status import zookeeper_mode
from pvc.log.zookeeper import ZookeeperLog
from tests.bench.append import some_records
from tests.bench.daemon import Api
from tests.bench.effect import Client
from tests.bench.follow import among
from tests.bench.measure import Bench, Row, compare, figure, percentile, skipped, stopwatch
from tests.bench.real import Real, bare, missing, real_lab

WRITE_EVERY_S = 0.02
SETTLE_S = 3.0
"""Of writing before the leader is killed."""
AFTER_S = 12.0
"""Of writing afterwards; a new leader is there within some seconds."""


async def measure(bench: Bench) -> list[Row]:
    if why := missing():
        return [skipped("a lab of three hosts", why)]
    async with real_lab() as real:
        await real.until_ready()
        hosts = real.lab.plan.zookeeper_hosts
        each = [f"{host.plan.address}:2181" for host in real.lab.hosts]
        return [
            await _effect(bench, real),
            *await among(bench, hosts, each, "on all three nodes of a lab"),
            await _leader(bench, real, hosts),
        ]


async def _effect(bench: Bench, real: Real) -> Row:
    """A guest of 128 MiB under QEMU, without waiting for its boot."""
    host = real.lab.hosts[0]
    await real.define("vm0", host.name)
    client = Client(Api(host.socket))
    connection = await asyncio.to_thread(libvirt.open, host.libvirt_uri)
    ours: list[float] = []
    raw: list[float] = []
    try:
        for number in range(bench.size(3, 15) + 1):
            taken = [await asyncio.to_thread(client.start, "vm0")]
            domain = await asyncio.to_thread(connection.lookupByUUIDString, real.vm("vm0").id)
            xml = await asyncio.to_thread(domain.XMLDesc, libvirt.VIR_DOMAIN_XML_INACTIVE)
            await asyncio.to_thread(client.stop, "vm0")
            taken.append(await asyncio.to_thread(_create, connection, xml))
            if number:  # the first warms up
                ours.append(taken[0])
                raw.append(taken[1])
    finally:
        await asyncio.to_thread(connection.close)
    note = f"p90 is {percentile(ours, 90):.0f} ms against {percentile(raw, 90):.0f} ms"
    return compare(
        "`vm start` until its VmStarted is told, QEMU in a lab", "ms", ours, raw, "libvirt's create alone", note=note
    )


def _create(connection: libvirt.virConnect, xml: str) -> float:
    """Milliseconds of libvirt's part: the same domain under another name, started and destroyed."""
    xml = bare(xml)
    with stopwatch() as watch:
        domain = connection.createXML(xml)
    domain.destroy()
    return watch.seconds * 1_000


async def _leader(bench: Bench, real: Real, hosts: str) -> Row:
    """The longest time between two writes that were acknowledged, through our log and through bare kazoo."""
    log = await ZookeeperLog.open(hosts, "gap")
    client = KazooClient(hosts=hosts, timeout=10)
    await asyncio.to_thread(client.start, 10)
    client.create("/raw-gap", b"")
    ours: list[float] = []
    raw: list[float] = []
    records, head = some_records(), await log.head()

    async def append() -> None:
        nonlocal head
        head = await log.append([next(records)], after=head)

    async def set_() -> None:
        await asyncio.to_thread(client.retry, client.set, "/raw-gap", bytes(330))

    try:
        for _ in range(bench.size(1, 5)):
            gaps = await _gaps_around(real, append, set_)
            ours.append(gaps[0])
            raw.append(gaps[1])
    finally:
        await asyncio.to_thread(client.stop)
        client.close()
        await log.close()
    note = f"ours: {', '.join(figure(gap, 's') for gap in ours)}"
    what = "ZooKeeper's leader is killed: longest time without an acknowledged write"
    return compare(what, "s", ours, raw, "kazoo set, with its retry", note=note)


async def _gaps_around(real: Real, *writes: Callable[[], Awaitable[None]]) -> list[float]:
    ended = asyncio.Event()
    writers = [asyncio.create_task(_longest_gap(write, ended)) for write in writes]
    await asyncio.sleep(SETTLE_S)
    leader = next(host for host in real.lab.hosts if zookeeper_mode(host) == "leader")
    await asyncio.to_thread(leader.kill_daemon, "zookeeper")
    await asyncio.sleep(AFTER_S)
    ended.set()
    return list(await asyncio.gather(*writers))


async def _longest_gap(write: Callable[[], Awaitable[None]], ended: asyncio.Event) -> float:
    longest, last = 0.0, time.monotonic()
    while not ended.is_set():
        await write()
        now = time.monotonic()
        longest, last = max(longest, now - last), now
        await asyncio.sleep(WRITE_EVERY_S)
    return longest
