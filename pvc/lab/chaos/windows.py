"""Whether a VM ever ran twice, from what its guests were seen to do. Pure.

A guest's run on a host is one process and one boot of the guest (its token): from the first sign of life to the last.
A sign is only known to lie between two looks, so two runs overlap surely only if they do so by the latest reading of
their beginnings and the earliest of their ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import msgspec


class Sign(msgspec.Struct, frozen=True, kw_only=True):
    """A guest did something between two looks."""

    after_s: float
    until_s: float


class Run(msgspec.Struct, kw_only=True):
    """What was seen of one process."""

    vm: str
    host: str
    pid: int
    born_s: float
    """When the process was first seen."""
    gone_s: float | None = None
    """When it was first seen to be gone."""
    first_beat: Sign | None = None
    last_beat: Sign | None = None
    first_work: Sign | None = None
    """Its virtual CPU used time of a real one."""
    last_work: Sign | None = None
    beats: list[tuple[str, int]] = msgspec.field(default_factory=list)
    """Token and number of each heartbeat."""

    @property
    def place(self) -> str:
        """For a person."""
        return f"{self.host} (process {self.pid})"


def add_beat(run: Run, sign: Sign, token: str, number: int) -> None:
    """The guest has written a heartbeat."""
    run.first_beat = run.first_beat or sign
    run.last_beat = sign
    run.beats.append((token, number))


def add_work(run: Run, sign: Sign) -> None:
    """The guest has used a CPU."""
    run.first_work = run.first_work or sign
    run.last_work = sign


def doubles(runs: Iterable[Run]) -> list[str]:
    """Each pair of runs of one VM of which both made progress at one time."""
    found = []
    by_vm: dict[str, list[Run]] = {}
    for run in runs:
        by_vm.setdefault(run.vm, []).append(run)
    for vm, group in by_vm.items():
        for one, other in combinations(group, 2):
            where = f"VM {vm} on {one.place} and {other.place}"
            for what, ours, theirs in (
                ("beat", (one.first_beat, one.last_beat), (other.first_beat, other.last_beat)),
                ("worked", (one.first_work, one.last_work), (other.first_work, other.last_work)),
            ):
                seconds = _overlap_s(*ours, *theirs)
                if seconds > 0:
                    found.append(f"{where} {what} in both places for {seconds:.1f} s or longer")
            same = set(one.beats) & set(other.beats)
            if same:
                found.append(f"{where} said the same heartbeats: {sorted(same)[:5]}")
        for run in group:
            twice = len(run.beats) - len(set(run.beats))
            if twice:
                found.append(f"VM {vm} on {run.place} said {twice} heartbeats twice")
    return found


def _overlap_s(first: Sign | None, last: Sign | None, others_first: Sign | None, others_last: Sign | None) -> float:
    if first is None or last is None or others_first is None or others_last is None:
        return 0.0
    return min(last.after_s, others_last.after_s) - max(first.until_s, others_first.until_s)
