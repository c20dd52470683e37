"""Defining a VM costs the same however many there are: the whole way through the appender, on two logs."""

from __future__ import annotations

import contextlib
import itertools

from pvc.commands.vm_define import DefineVm, RemoveVm
from pvc.events.vm import Disk
from pvc.log.base import Log
from pvc.log.memory import MemoryLog
from pvc.log.sqlite import SqliteLog
from pvc.runtime.appender import Appender
from pvc.runtime.world import World
from tests.bench.measure import Bench, Row, Side, at_most, compare, cpu_stopwatch, stopwatch, take_turns
from tests.bench.records import Chain, a_cluster
from tests.bench.running import ask, fill, running

SIZES = (0, 1_000, 10_000)
TARGETS = {1_000: at_most(1.2), 10_000: at_most(1.5)}


async def measure(bench: Bench) -> list[Row]:
    rows: list[Row] = []
    for kind in ("memory", "SQLite"):
        async with contextlib.AsyncExitStack() as stack:
            sides = []
            for size in SIZES:
                log = MemoryLog() if kind == "memory" else await SqliteLog.open(bench.home / f"{size}.db")
                stack.push_async_callback(log.close)
                sides.append(await _define_at(log, size, bench.size(40, 100), stack))
            figures = await take_turns(bench.rounds, *sides)
        for size, times in list(zip(SIZES, figures, strict=True))[1:]:
            what = f"define a VM at {size:,} VMs, {kind} log"
            rows.append(compare(what, "ms", times, figures[0], "at 0 VMs", TARGETS[size]))
    return rows


async def _define_at(log: Log, size: int, count: int, stack: contextlib.AsyncExitStack) -> Side:
    await fill(log, a_cluster(Chain(), size))
    world, appender = await stack.enter_async_context(running(log))
    numbers = itertools.count()
    timed = cpu_stopwatch if isinstance(log, MemoryLog) else stopwatch  # memory waits for nothing, a disk does

    async def round_() -> float:
        names = [f"new-{next(numbers)}" for _ in range(count)]
        with timed() as watch:
            for name in names:
                await _define(appender, name)
        await _remove_again(world, appender, names, size)
        return watch.seconds / count * 1_000

    return round_


async def _define(appender: Appender, name: str) -> None:
    disk = Disk(path=f"/var/lib/libvirt/images/{name}.raw")
    await ask(appender, "vm.define", DefineVm(name=name, memory_mib=2048, vcpus=2, disks=(disk,), tags=("bench",)))


async def _remove_again(world: World, appender: Appender, names: list[str], size: int) -> None:
    """So that the next round finds the same number of VMs."""
    for name in names:
        await ask(appender, "vm.remove", RemoveVm(vm=name))
    assert len(world.state.vms) == size
