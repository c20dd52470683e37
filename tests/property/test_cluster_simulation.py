"""A whole cluster on virtual time, under seeded faults: what must hold holds, and known bugs would be seen."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator

import pytest
from msgspec.structs import replace

from pvc.commands import facts_cluster
from pvc.commands.base import Context
from pvc.drivers.fence_simulated import SimulatedFence
from pvc.drivers.hypervisor import Domain, DomainState
from pvc.errors import DriverError
from pvc.events import vm_moves as m
from pvc.events.fence import FenceSettings
from pvc.events.registry import Event
from pvc.handlers import vm_plan
from pvc.node.standing import Standing
from pvc.presence.memory import MemoryPresence
from pvc.projections.state import Cluster, ClusterState, Vm
from pvc.sim.cluster import ClusterResult, ClusterSimulation
from pvc.sim.cluster_nemesis import Faults

SEEDS = int(os.environ.get("PVC_SIM_CLUSTER_SEEDS", "40"))
BLOCKS = 8
MUTANT_SEEDS = 150
"""Within so many seeds every mutant below must have been caught."""

unmeasured = pytest.mark.unmeasured
"""What runs in these tests runs in the first block as well."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("block", [0, *(pytest.param(block, marks=unmeasured) for block in range(1, BLOCKS))])
def test_whatever_fails_no_vm_runs_twice_and_all_that_should_run_do(block: int) -> None:
    per_block = max(1, SEEDS // BLOCKS)
    results = [run(seed) for seed in range(block * per_block, (block + 1) * per_block)]
    assert sum(result.lives - result.nodes for result in results) > 0, "nothing was tried"


@unmeasured
def test_the_same_seed_gives_the_same_run() -> None:
    assert ClusterSimulation(7).run().trace == ClusterSimulation(7).run().trace


def run(seed: int) -> ClusterResult:
    try:
        return ClusterSimulation(seed).run()
    except AssertionError as error:
        pytest.fail(f"seed {seed}: {error}  (replay: python -m pvc.sim --cluster --seed {seed})")


real_plan = vm_plan._plan
real_recover = facts_cluster._recover


def resume_what_has_come(
    vm: Vm | None, domain: Domain | None, node: str, patience: vm_plan.Patience
) -> vm_plan.Step | None:
    """Mutant: the target lets the guest run when it is there, not when the log says so."""
    coming = vm is not None and vm.migration is not None and vm.migration.target == node
    if coming and domain is not None and domain.state is DomainState.PAUSED:
        return vm_plan.Start(epoch=domain.epoch)
    return real_plan(vm, domain, node, patience)


def resume_unasked(patch: pytest.MonkeyPatch) -> None:
    """Both guards against it away: the plan, and the last question before the guest runs."""
    patch.setattr(vm_plan, "_plan", resume_what_has_come)
    patch.setattr(vm_plan, "may_run", lambda vm, node, epoch: True)


def leave_what_is_not_ours(
    vm: Vm | None, domain: Domain | None, node: str, patience: vm_plan.Patience
) -> vm_plan.Step | None:
    """Mutant: domains that belong elsewhere are left alone."""
    if vm is not None and vm.node != node and (vm.migration is None or vm.migration.target != node):
        return None
    return real_plan(vm, domain, node, patience)


def same_epoch(ahead: ClusterState, vm: Vm, context: Context) -> tuple[Event, ...]:
    """Mutant: what is recovered keeps its run's number."""
    return tuple(
        replace(event, epoch=vm.epoch) if isinstance(event, m.VmRecovered) else event
        for event in real_recover(ahead, vm, context)
    )


async def believe_the_order(self: SimulatedFence, node: str, settings: FenceSettings) -> str:
    """Mutant: that the device was told is enough."""
    with contextlib.suppress(DriverError):
        await self._switch(node, settings, "off")
    return "told to switch off"


def whoever_says_so(state: ClusterState, report: object) -> Cluster:
    """Mutant: acts of an earlier primary count."""
    assert state.cluster is not None
    return state.cluster


def believe_at_once(self: object, node: str) -> float:
    """Mutant: a promise is believed without waiting."""
    return 1e9


SHARP = Faults(
    kill=0.0,
    freeze=0.04,
    befalls=(("isolate", 4), ("bmc", 4), ("freeze_primary", 4), ("freeze_daemon", 2), ("mute", 2), ("slow", 1)),
)
"""What tries the guards against lost nodes and late primaries, and nothing else."""

Change = Callable[[pytest.MonkeyPatch], None]

MUTANTS: dict[str, tuple[int, Faults, Change]] = {
    "the target resumes before the log says so": (
        0,
        Faults(),
        resume_unasked,
    ),
    "what is not a node's own is left alone": (
        0,
        Faults(),
        lambda patch: patch.setattr(vm_plan, "_plan", leave_what_is_not_ours),
    ),
    "starts need no lease": (14, SHARP, lambda patch: patch.setattr(Standing, "may_start", lambda self: True)),
    "leases never end": (14, SHARP, lambda patch: patch.setattr(MemoryPresence, "lease_left_s", lambda self: 10.0)),
    "fencing is not verified": (2, SHARP, lambda patch: patch.setattr(SimulatedFence, "off", believe_the_order)),
    "a promise is believed at once": (
        6,
        SHARP,
        lambda patch: patch.setattr("pvc.handlers.cluster_plan.Watch.gone_for_s", believe_at_once),
    ),
    "what is recovered keeps its epoch": (
        1,
        Faults(),
        lambda patch: patch.setattr(facts_cluster, "_recover", same_epoch),
    ),
    "a stale primary is obeyed": (
        6,
        SHARP,
        lambda patch: patch.setattr(facts_cluster, "_require_primary", whoever_says_so),
    ),
}


# Each begins with the first seed that is known to catch it; when the code around it changes it may take some more.
@unmeasured
@pytest.mark.parametrize("name", MUTANTS)
def test_the_simulation_catches_a_mutant(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, faults, change = MUTANTS[name]
    change(monkeypatch)
    for seed in range(first, first + MUTANT_SEEDS):
        try:
            ClusterSimulation(seed, faults=faults).run()
        except AssertionError:
            return
    pytest.fail(f"{MUTANT_SEEDS} seeds did not notice that {name}")


@unmeasured
def test_what_the_mutants_are_tried_with_does_no_harm_without_them() -> None:
    for seed in range(SEEDS // BLOCKS):
        ClusterSimulation(seed, faults=SHARP).run()
