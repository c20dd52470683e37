"""One of many nodes that report at once, for `tests.bench.writers`: a process with a log, a fold and an appender.

Usage: python -m tests.bench.writers_peer HOSTS CLUSTER NODE. Prints "ready"; then, for each line "WAY AT-ONCE COUNT"
that it reads, reports so many VMs as running and prints when it began and ended (CLOCK_MONOTONIC) and what each took.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator

import msgspec

from pvc.clock import SystemClock, SystemRng
from pvc.commands.facts import REPORTS, ReportRunning
from pvc.events.record import Actor
from pvc.log.inbox_zookeeper import ZookeeperInbox
from pvc.log.zookeeper import ZookeeperLog
from pvc.projections.state import Vm
from pvc.projections.vm_machine import VmState
from pvc.runtime.appender import Appender, Request
from pvc.runtime.drainer import Drainer
from pvc.runtime.forwarder import Forwarder
from pvc.runtime.world import World, catch_up, follow


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one line."""

    began_s: float
    ended_s: float
    took_ms: list[float]


async def main(hosts: str, cluster: str, node: str) -> None:
    log = await ZookeeperLog.open(hosts, cluster)
    inbox = await ZookeeperInbox.open(hosts, cluster, log)
    world, clock, rng = World(), SystemClock(), SystemRng()
    await catch_up(world, log)
    appender = Appender(world, log, origin=node, clock=clock, rng=rng, inbox=inbox)
    # Always a crowd: whether to forward is what the bench says.
    forwarder = Forwarder(node, world, appender, inbox, clock, rng, crowd=0)
    elected = world.state.cluster
    epoch = elected.primary_epoch if elected is not None and elected.primary == node else None
    drainer = Drainer(world, appender, inbox, epoch=lambda: epoch)
    work = appender.run(), follow(world, log), forwarder.run(), drainer.run()
    tasks = [asyncio.create_task(each) for each in work]
    waiting = iter([vm for vm in map(world.state.vms.__getitem__, world.state.placed.ids_on(node)) if _starts(vm)])
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        way, at_once, count = line.split()
        submit = forwarder.submit if way == "forwarded" else appender.submit
        vms = iter([next(waiting) for _ in range(int(count))])
        took_ms: list[float] = []

        async def report(vms: Iterator[Vm] = vms, took_ms: list[float] = took_ms) -> None:
            for vm in vms:
                begun = time.monotonic()
                outcome = await submit(_running(node, vm))  # noqa: B023 - it ends before the next line is read
                assert outcome.entry is not None, f"{vm.name} was reported already"
                took_ms.append((time.monotonic() - begun) * 1_000)

        began_s = time.monotonic()
        await asyncio.gather(*(report() for _ in range(int(at_once))))
        told = Told(began_s=began_s, ended_s=time.monotonic(), took_ms=took_ms)
        print(msgspec.json.encode(told).decode(), flush=True)
    for task in tasks:
        task.cancel()


def _starts(vm: Vm) -> bool:
    return vm.state is VmState.STARTING


def _running(node: str, vm: Vm) -> Request:
    name, decide = REPORTS[ReportRunning]
    report = ReportRunning(vm=vm.id, node=node, epoch=vm.epoch)
    return Request(name=name, command=report, decide=decide, actor=Actor(principal=f"node/{node}", method="node"))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
