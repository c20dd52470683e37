"""The figures of a run: how often what was broken, and how long each step of a failover took. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec

from pvc.events.node import NodeFenced, NodeLost
from pvc.events.vm import VmStarted
from pvc.events.vm_moves import VmRecovered
from pvc.lab.chaos.gateway import Asked
from pvc.lab.chaos.logbook import Told
from pvc.lab.chaos.windows import Run

_CAUSED_WITHIN_S = 60.0
"""A loss so long after a fault began is not put down to it."""


class Broken(msgspec.Struct, kw_only=True):
    """A fault that was in force."""

    kind: str
    what: str
    began_s: float
    healed_s: float = 0.0
    well_s: float = 0.0
    """When all nodes were ready again after it; 0: they were not within the bound."""


class Failover(msgspec.Struct, frozen=True, kw_only=True):
    """One node's loss, in seconds from step to step; None where a step did not come."""

    node: str
    detect_s: float | None
    """From the beginning of the fault to the record that says that the node is lost."""
    fence_s: float | None
    place_s: float | None
    start_s: float | None
    """Until the last of its VMs was reported to run."""
    total_s: float | None
    """From the beginning of the fault to the first heartbeat of the last of its VMs."""
    vms: int


def failovers(told: Sequence[Told], broken: Sequence[Broken], runs: Sequence[Run]) -> list[Failover]:
    """Every loss of a node that the log tells of."""
    found = []
    for number, one in enumerate(told):
        for event in one.events:
            if isinstance(event, NodeLost):
                found.append(_failover(event.node, told[number:], broken, runs))
    return found


def _failover(node: str, told: Sequence[Told], broken: Sequence[Broken], runs: Sequence[Run]) -> Failover:
    lost_s = told[0].arrived_s
    causes = [fault.began_s for fault in broken if fault.began_s <= lost_s <= fault.began_s + _CAUSED_WITHIN_S]
    fenced_s = placed_s = started_s = None
    placed: dict[str, int] = {}
    beats: list[float] = []
    for one in _until_lost_again(node, told):
        for event in one.events:
            if isinstance(event, NodeFenced) and event.node == node and fenced_s is None:
                fenced_s = one.arrived_s
            if isinstance(event, VmRecovered) and event.source == node:
                placed_s = placed_s or one.arrived_s
                placed[event.vm] = event.epoch
            if isinstance(event, VmStarted) and placed.get(event.vm) == event.epoch:
                started_s = one.arrived_s
                beats += [
                    run.first_beat.until_s
                    for run in runs
                    if run.vm == event.vm and run.host == event.node and run.first_beat
                    # This very run of it: it was reported to run moments after it began.
                    if lost_s <= run.born_s <= one.arrived_s
                ][-1:]
    began_s = max(causes, default=None)
    return Failover(
        node=node,
        detect_s=_between(began_s, lost_s),
        fence_s=_between(lost_s, fenced_s),
        place_s=_between(fenced_s, placed_s),
        start_s=_between(placed_s, started_s),
        total_s=_between(began_s, max(beats, default=None)),
        vms=len(placed),
    )


def _until_lost_again(node: str, told: Sequence[Told]) -> Sequence[Told]:
    for number, one in enumerate(told[1:], 1):
        if any(isinstance(event, NodeLost) and event.node == node for event in one.events):
            return told[:number]
    return told


def longest_silence_s(asked: Iterable[Asked]) -> float:
    """The longest time in which no command was answered by yes or no."""
    answered = sorted(one.answered_s for one in asked if one.verdict in ("acknowledged", "unchanged", "rejected"))
    return max((after - before for before, after in pairwise(answered)), default=0.0)


def render(
    *, told: Sequence[Told], broken: Sequence[Broken], runs: Sequence[Run], asked: Sequence[Asked], minutes: float
) -> list[str]:
    """The report's lines."""
    verdicts = Counter(one.verdict for one in asked)
    lines = [
        f"{minutes:.1f} minutes, {len(told)} records, {len(asked)} commands: "
        + ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())),
        f"longest time without an answer to a command: {longest_silence_s(asked):.1f} s",
        f"{len(runs)} runs of guests, {sum(len(run.beats) for run in runs)} heartbeats seen",
        f"{'FAULT':<24}{'TIMES':>6}{'WELL AGAIN AFTER HEALING (median, longest)':>46}",
    ]
    for kind, times in sorted(Counter(fault.kind for fault in broken).items()):
        took = sorted(f.well_s - f.healed_s for f in broken if f.kind == kind and f.well_s)
        lines.append(f"{kind:<24}{times:>6}{_span(took):>46}")
    found = failovers(told, broken, runs)
    with_vms = [one for one in found if one.vms]
    lines.append(f"nodes lost: {len(found)}, of which {len(with_vms)} had VMs to recover; median and longest of those:")
    for title, values in (
        ("fault to lost", [one.detect_s for one in with_vms]),
        ("lost to fenced", [one.fence_s for one in with_vms]),
        ("fenced to placed", [one.place_s for one in with_vms]),
        ("placed to started", [one.start_s for one in with_vms]),
        ("fault to last heartbeat elsewhere", [one.total_s for one in with_vms]),
    ):
        lines.append(f"  {title:<34}{_span(sorted(value for value in values if value is not None))}")
    return lines


def _between(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else end - begin


def _span(values: Sequence[float]) -> str:
    return f"{values[len(values) // 2]:.1f} s, {values[-1]:.1f} s" if values else "-"
