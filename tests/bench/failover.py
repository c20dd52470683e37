"""A host's power fails: how long until its VMs run elsewhere, and which part of that is whose."""

from __future__ import annotations

import asyncio
import statistics
import time

import msgspec

from pvc.events.node import NodeFenced, NodeLost
from pvc.events.vm import VmStarted
from pvc.events.vm_moves import VmRecovered
from pvc.presence.base import SESSION_TIMEOUT_S
from pvc.projections.vm_machine import VmState
from tests.bench.measure import Bench, Row, at_most, figure, percentile, skipped
from tests.bench.real import Real, missing, real_lab

VMS = 2
"""On the host that dies; the emulated processors of more would be what is waited for."""
RECOVERY_S = 3.0
"""What it may take beyond session timeout and fence."""
KILLS = 3
MANY_KILLS = 20
"""With --full; half a minute each."""


class _Kill(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of one failover, from step to step."""

    detect: float
    fence: float
    place: float
    start: float
    was_primary: bool

    @property
    def total(self) -> float:
        return self.detect + self.fence + self.place + self.start


async def measure(bench: Bench) -> list[Row]:
    what = f"a host's power fails, until its {VMS} VMs run elsewhere"
    if why := missing():
        return [skipped(what, why)]
    count = 1 if bench.quick else MANY_KILLS if bench.full else KILLS
    kills = []
    async with real_lab() as real:
        await real.until_ready()
        for number in range(VMS):
            await real.define(f"vm{number}", real.names[0])
            await real.start(f"vm{number}")
        for number in range(count):
            kills.append(await _kill(real, number))
    return _rows(what, kills)


async def _kill(real: Real, number: int) -> _Kill:
    names = [f"vm{number}" for number in range(VMS)]
    victim = await _gather(real, names)
    assert real.world.state.cluster is not None
    was_primary = real.world.state.cluster.primary == victim
    seen = len(real.told)
    killed_s = time.time()
    await asyncio.to_thread(real.lab.host(victim).cut_power)
    await real.until(
        lambda: all(_runs_elsewhere(real, name, victim) for name in names), f"all run that ran on {victim}"
    )
    told = real.told[seen:]
    lost_s = next(at for at, event in told if isinstance(event, NodeLost))
    fenced_s = next(at for at, event in told if isinstance(event, NodeFenced))
    placed_s = max(at for at, event in told if isinstance(event, VmRecovered))
    started_s = max(at for at, event in told if isinstance(event, VmStarted))
    # Fencing switches it on again. Were we to do that too, a late "on" could undo the next kill.
    await real.until_ready()
    return _Kill(
        detect=lost_s - killed_s,
        fence=fenced_s - lost_s,
        place=placed_s - fenced_s,
        start=started_s - placed_s,
        was_primary=was_primary,
    )


async def _gather(real: Real, names: list[str]) -> str:
    """Have them all on one host, at rest in between, and return it; a recovery may have spread them."""
    node = real.vm(names[0]).node
    for name in names[1:]:
        if real.vm(name).node != node:
            await real.ask(f"/vms/{name}/stop")
            await real.until(lambda name=name: real.vm(name).state is VmState.STOPPED, f"{name} is off")  # type: ignore[misc]
            await real.ask(f"/vms/{name}/move", {"node": node})
            await real.until(lambda name=name: real.vm(name).node == node, f"{name} is on {node}")  # type: ignore[misc]
            await real.start(name)
    return node


def _runs_elsewhere(real: Real, name: str, victim: str) -> bool:
    vm = real.vm(name)
    return vm.node != victim and vm.state is VmState.RUNNING


def _rows(what: str, kills: list[_Kill]) -> list[Row]:
    fence = statistics.median(kill.fence for kill in kills)
    allowed = SESSION_TIMEOUT_S + fence
    totals = [kill.total for kill in kills]
    primaries = sum(kill.was_primary for kill in kills)
    late = sum(kill.total > SESSION_TIMEOUT_S + kill.fence + RECOVERY_S for kill in kills)
    note = (
        f"{len(kills)} times, {primaries} of them the primary's; longer than session timeout + its fence + 3 s: {late}"
    )
    rows = [
        Row(
            what=what,
            measured=figure(statistics.median(totals), "s"),
            reference=f"session timeout + fence: {figure(allowed, 's')}",
            ratio=statistics.median(totals) / allowed,
            spread=(min(totals) / allowed, max(totals) / allowed),
            target=at_most(round((allowed + RECOVERY_S) / allowed, 2)),
            note=note,
        )
    ]
    for part, meaning in _PARTS.items():
        values = [getattr(kill, part) for kill in kills]
        spread = f"smallest {min(values):.2f}, p90 {percentile(values, 90):.2f}, largest {max(values):.2f}"
        rows.append(Row(what=f"... {meaning}", measured=figure(statistics.median(values), "s"), note=spread))
    return rows


_PARTS = {
    "detect": "its session ends, and the primary says so",
    "fence": "its power is cut and verified, by fence_ipmilan",
    "place": "its VMs are placed",
    "start": "the last of them is started",
}
