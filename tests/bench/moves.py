"""Live migrations on a real lab: how long one takes, how long its guest stands still, and a node that is flushed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import libvirt
import msgspec

from pvc.events.node import NodeFlushed, NodeFlushIncomplete
from pvc.events.vm_moves import VmArrived, VmMigrated, VmMigrationFailed, VmMigrationRequested
from pvc.projections.vm_machine import VmState
from tests.bench.cluster import PARALLEL_MOVES
from tests.bench.measure import Bench, Row, compare, figure, percentile, skipped, stopwatch
from tests.bench.real import MEMORY_MIB, RAW, WAIT_S, Real, bare, missing, real_lab

BEAT_S = 0.1
"""Of the guest that is migrated: as often as an emulated one can."""
LOOK_S = 0.005
"""Between two looks at the consoles."""
BEATS = 20
"""Of them before a migration: in the middle of a boot an emulated guest may not survive it."""


async def measure(bench: Bench) -> list[Row]:
    if why := missing():
        return [skipped("live migration on a lab of three hosts", why)]
    libvirt.registerErrorHandler(lambda context, error: None, None)  # what is raised need not be printed too
    async with real_lab() as real:
        await real.until_ready()
        rows, seconds = await _migrations(bench, real)
        return [*rows, await _flush(real, bench.size(4, 20), seconds)]


class _Took(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of one migration."""

    all: float
    still: float
    """By the guest's own heartbeats: from the last one here to the first one there, less what is between two."""
    handover: float = 0.0
    """From VmMigrated to VmArrived."""


async def _migrations(bench: Bench, real: Real) -> tuple[list[Row], float]:
    name = "mover"
    await real.define(name, real.names[0], beat_s=BEAT_S)
    await real.start(name)
    ours: list[_Took] = []
    raw: list[_Took] = []
    for _ in range(bench.size(2, 8)):
        source = real.vm(name).node
        target = next(other for other in real.names[:2] if other != source)
        raw.append(await _raw_migration(real, name, source, target))
        ours.append(await _migration(real, name, source, target))
    what = f"live migration of a {MEMORY_MIB} MiB guest"
    against = "libvirt's own"
    handover = [took.handover for took in ours]
    rows = [
        compare(what, "s", [took.all for took in ours], [took.all for took in raw], against),
        compare(
            "... its guest stands still",
            "s",
            [took.still for took in ours],
            [took.still for took in raw],
            against,
            note=f"largest {max(took.still for took in ours):.2f} s against {max(took.still for took in raw):.2f} s; "
            f"by its heartbeats every {BEAT_S:g} s",
        ),
        Row(
            what="... from VmMigrated to VmArrived",
            measured=figure(percentile(handover, 50) * 1_000, "ms"),
            note=f"largest {max(handover) * 1_000:.0f} ms; the log's part of that",
        ),
    ]
    await real.ask(f"/vms/{name}/stop")
    await real.until(lambda: real.vm(name).state is VmState.STOPPED, f"{name} is off")
    return rows, percentile([took.all for took in ours], 50)


async def _migration(real: Real, name: str, source: str, target: str) -> _Took:
    seen = len(real.told)
    async with _eyes(real, name, source, target) as (here, there):
        await here.until_beats()
        await real.ask(f"/vms/{name}/migrate", {"node": target})
        await real.until(lambda: _has_ended(real, seen), f"{name} has arrived on {target}")
        await there.until_beats()
    at = {type(event): at_s for at_s, event in real.told[seen:]}
    assert VmMigrationFailed not in at, f"it failed: {real.told[seen:]}"
    return _Took(
        all=at[VmArrived] - at[VmMigrationRequested],
        still=there.beats_s[0] - here.beats_s[-1] - BEAT_S,
        handover=at[VmArrived] - at[VmMigrated],
    )


async def _raw_migration(real: Real, name: str, source: str, target: str) -> _Took:
    """Of the same domain under another name, by libvirt alone."""
    hosts = [real.lab.host(host) for host in (source, target)]
    here, there = [await asyncio.to_thread(libvirt.open, host.libvirt_uri) for host in hosts]
    flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
    try:
        xml = here.lookupByUUIDString(real.vm(name).id).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        async with _eyes(real, RAW, source, target) as (eye, other):
            domain = await asyncio.to_thread(here.createXML, bare(xml))
            await eye.until_beats()
            uri = f"qemu+tcp://{hosts[1].plan.address}/system"
            with stopwatch() as watch:
                await asyncio.to_thread(domain.migrateToURI3, uri, {}, flags)
            await other.until_beats()
    finally:
        for connection in (here, there):
            with contextlib.suppress(libvirt.libvirtError):
                connection.lookupByName(RAW).destroy()
            connection.close()
    return _Took(all=watch.seconds, still=other.beats_s[0] - eye.beats_s[-1] - BEAT_S)


def _has_ended(real: Real, seen: int) -> bool:
    return any(isinstance(event, VmArrived | VmMigrationFailed) for _, event in real.told[seen:])


def _is_flushed(real: Real, seen: int) -> bool:
    return any(isinstance(event, NodeFlushed | NodeFlushIncomplete) for _, event in real.told[seen:])


async def _flush(real: Real, vms: int, seconds: float) -> Row:
    """Off one node to the two others; the guests do next to nothing."""
    name = real.names[0]
    for number in range(vms):
        await real.define(f"vm{number:02}", name)
        await real.start(f"vm{number:02}")  # one by one: emulated processors boot slowly enough
    await asyncio.sleep(BEATS)  # until the last has surely booted
    seen = len(real.told)
    with stopwatch() as watch:
        await real.ask(f"/nodes/{name}/flush")
        await real.until(lambda: _is_flushed(real, seen), f"{name} is flushed")
    failed = sum(isinstance(event, VmMigrationFailed) for _, event in real.told[seen:])
    state = real.world.state
    left = sum(state.vms[vm].state is not VmState.STOPPED for vm in state.placed.ids_on(name))
    alone_s = max(vms / PARALLEL_MOVES, 1) * seconds
    return Row(
        what=f"flush of a node with {vms} VMs of {MEMORY_MIB} MiB",
        measured=figure(watch.seconds, "s"),
        reference=f"one migration's time, {PARALLEL_MOVES} at once: {figure(alone_s, 's')}",
        ratio=watch.seconds / alone_s,
        note=f"{failed} migrations failed and were tried again, {left} VMs left",
    )


class _Eye:
    """On a console's file: when its guest wrote its beats."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = path.stat().st_size if path.exists() else 0
        self.beats_s: list[float] = []

    def look(self) -> None:
        if not self._path.exists() or self._path.stat().st_size == self._read:
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        self._read += len(new)
        self.beats_s += [time.time()] * new.count(b" up ")

    async def until_beats(self) -> None:
        """Return when so many more have come."""
        enough = len(self.beats_s) + BEATS
        async with asyncio.timeout(WAIT_S):
            while len(self.beats_s) < enough:
                await asyncio.sleep(LOOK_S)


@contextlib.asynccontextmanager
async def _eyes(real: Real, name: str, *nodes: str) -> AsyncIterator[list[_Eye]]:
    """On the guest's consoles on these nodes, within the block."""
    eyes = [_Eye(real.console(node, name)) for node in nodes]

    async def look() -> None:
        while True:
            for eye in eyes:
                eye.look()
            await asyncio.sleep(LOOK_S)

    looking = asyncio.create_task(look())
    try:
        yield eyes
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
