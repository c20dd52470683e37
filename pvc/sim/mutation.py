"""What a mutant is: a known bug, put into the real code of this process, that the simulation must notice.

A simulation that finds nothing proves nothing until it has been seen to find something. So each guard that matters is
taken away in turn, and has to be missed within a stated number of seeds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any
from unittest.mock import patch

import msgspec

from pvc.errors import OutcomeUnknown
from pvc.sim.cluster import ClusterSimulation
from pvc.sim.cluster_nemesis import Faults
from pvc.sim.log_simulation import LogFaults, LogSimulation
from pvc.sim.simulation import Simulation


class Kind(StrEnum):
    """What is simulated."""

    LOG = "log"
    NODE = "node"
    CLUSTER = "cluster"
    ZOOKEEPER = "zookeeper"


class Mutant(msgspec.Struct, frozen=True, kw_only=True):
    """One bug."""

    name: str
    kind: Kind
    within: int
    """Seeds, from 0 on, in which it must have been noticed."""
    changes: tuple[tuple[object, Any, Any], ...]
    """A class, module or dict, the name or key of what is replaced in it, and what with."""
    known: int = 0
    """The first seed that noticed it when it was last looked at: where a bounded test begins."""
    faults: Faults | LogFaults | None = None
    """What befalls the cluster, where the usual mixture would take long."""


class Caught(msgspec.Struct, frozen=True, kw_only=True):
    """How a mutant was noticed."""

    seeds: int
    """The number that it took."""
    by: str


@contextlib.contextmanager
def mutated(mutant: Mutant) -> Iterator[None]:
    """Within the block the code has the bug."""
    with contextlib.ExitStack() as stack:
        for where, name, replacement in mutant.changes:
            if isinstance(where, dict):
                stack.enter_context(patch.dict(where, {name: replacement}))
            else:
                stack.enter_context(patch.object(where, name, replacement))
        yield


def hunt(
    mutant: Mutant, *, first: int = 0, seeds: int, progress: Callable[[int], None] = lambda seed: None
) -> Caught | None:
    """Run so many seeds; how the mutant was noticed, None if it was not."""
    with mutated(mutant):
        for seed in range(first, first + seeds):
            progress(seed)
            try:
                simulate(mutant.kind, seed, mutant.faults)
            except (AssertionError, BaseExceptionGroup, OutcomeUnknown) as error:
                return Caught(seeds=seed - first + 1, by=str(error) or type(error).__name__)
    return None


def simulation(kind: Kind, seed: int, faults: Faults | LogFaults | None = None) -> Any:
    """One run of that kind; `run` runs it, and its `trace` says what happened."""
    match kind:
        case Kind.LOG:
            assert faults is None or isinstance(faults, LogFaults), "these are a cluster's faults"
            return LogSimulation(seed, faults=faults)
        case Kind.NODE:
            return Simulation(seed)
        case Kind.CLUSTER | Kind.ZOOKEEPER:
            assert faults is None or isinstance(faults, Faults), "these are the log's faults"
            return ClusterSimulation(seed, faults=faults, zookeeper=kind is Kind.ZOOKEEPER)


def simulate(kind: Kind, seed: int, faults: Faults | LogFaults | None = None) -> Any:
    """Run one. Raises AssertionError when something does not hold."""
    return simulation(kind, seed, faults).run()
