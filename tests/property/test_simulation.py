"""The node's real code on virtual time, under seeded faults: what must hold holds, and known bugs would be seen."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator

import pytest

from pvc.commands import facts
from pvc.commands.base import Context, Decision
from pvc.commands.vm_power import start_of
from pvc.drivers.hypervisor import Domain, DomainState
from pvc.errors import OutcomeUnknown
from pvc.events import vm as e
from pvc.events.record import Entry
from pvc.handlers import vm_plan
from pvc.projections.state import ClusterState, Vm
from pvc.runtime.appender import Appender
from pvc.sim.simulation import Faults, Result, Simulation

SEEDS = int(os.environ.get("PVC_SIM_SEEDS", "300"))
BLOCKS = 10
MUTANT_SEEDS = 60
"""Within so many seeds every mutant below must have been caught."""
FEWEST_KILLS = 50
"""Of one undisturbed run: with fewer effects it would not have tried much."""

unmeasured = pytest.mark.unmeasured
"""What runs in these tests runs in the first block as well."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("block", [0, *(pytest.param(block, marks=unmeasured) for block in range(1, BLOCKS))])
def test_whatever_fails_everything_heals_and_nothing_is_lost(block: int) -> None:
    per_block = max(1, SEEDS // BLOCKS)
    lives = 0
    for seed in range(block * per_block, (block + 1) * per_block):
        lives += run(seed).lives
    assert lives > per_block, "no node was ever killed, so nothing was tried"


@unmeasured
@pytest.mark.parametrize("seed", range(1, 6))
def test_a_kill_after_each_single_effect_heals(seed: int) -> None:
    """Without any other fault: first the run undisturbed, then one run per effect of it, killed right after it."""
    calm = Faults(kill=0.0, log=0.0)
    undisturbed = Simulation(seed, faults=calm).run()
    assert undisturbed.effects > FEWEST_KILLS
    for kill_at in range(1, undisturbed.effects + 1):
        try:
            result = Simulation(seed, faults=calm, kill_at=kill_at).run()
        except AssertionError as error:
            pytest.fail(f"seed {seed}, killed after effect {kill_at}: {error}")
        assert result.lives == 2, f"seed {seed}: the node was not killed at effect {kill_at}"


@unmeasured
def test_the_same_seed_gives_the_same_run() -> None:
    assert Simulation(7).run().trace == Simulation(7).run().trace


def run(seed: int) -> Result:
    try:
        return Simulation(seed).run()
    except AssertionError as error:
        pytest.fail(f"seed {seed}: {error}  (replay: python -m pvc.sim --seed {seed} --trace)")


def start_whatever_is_off(vm: Vm, domain: Domain | None) -> vm_plan.Step:
    """Mutant: a run that has ended is started again under its old number."""
    if domain is not None and domain.state is DomainState.OFF and domain.epoch == vm.epoch:
        return vm_plan.Start(epoch=vm.epoch)
    return real_start(vm, domain)


def forget_nothing(domain: Domain | None) -> vm_plan.Step | None:
    """Mutant: domains that are off stay defined."""
    return None if domain is None or domain.state is DomainState.OFF else vm_plan.Destroy()


def believe_every_crash(state: ClusterState, report: facts.ReportEnded, context: Context) -> Decision:
    """Mutant: reports are not decided, so one that comes late brings a VM back up."""
    vm = state.vms[report.vm]
    crashed = e.VmCrashed(vm=vm.id, node=report.node, epoch=report.epoch, how="crashed")
    return Decision(events=(crashed, start_of(vm)))


async def take_unknown_for_failed(self: Appender, entries: list[Entry]) -> bool:
    """Mutant: an append whose outcome is not known is taken for one that did not take place."""
    from pvc.errors import Rejected

    raise Rejected("it failed", code="mutant")


async def take_unknown_for_done(self: Appender, entries: list[Entry]) -> bool:
    """Mutant: an append whose outcome is not known is taken for one that took place."""
    return True


real_start = vm_plan._start
ended_name, _ = facts.REPORTS[facts.ReportEnded]

Change = Callable[[pytest.MonkeyPatch], None]

MUTANTS: dict[str, tuple[int, Change]] = {
    "an ended run is started again": (14, lambda patch: patch.setattr(vm_plan, "_start", start_whatever_is_off)),
    "off domains are never forgotten": (0, lambda patch: patch.setattr(vm_plan, "_clear_away", forget_nothing)),
    "reports are not decided": (
        72,
        lambda patch: patch.setitem(facts.REPORTS, facts.ReportEnded, (ended_name, believe_every_crash)),
    ),
    "unknown is taken for failed": (
        0,
        lambda patch: patch.setattr(Appender, "_learn_outcome", take_unknown_for_failed),
    ),
    "unknown is taken for done": (0, lambda patch: patch.setattr(Appender, "_learn_outcome", take_unknown_for_done)),
    "idempotency keys are forgotten": (
        0,
        lambda patch: patch.setattr(ClusterState, "remember_command", lambda self, command_id: None),
    ),
}


# Each begins with the first seed that is known to catch it; when the code around it changes it may take some more.
@unmeasured
@pytest.mark.parametrize("name", MUTANTS)
def test_the_simulation_catches_a_mutant(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, change = MUTANTS[name]
    change(monkeypatch)
    for seed in range(first, first + MUTANT_SEEDS):
        try:
            Simulation(seed).run()
        except (AssertionError, BaseExceptionGroup, OutcomeUnknown):
            return
    pytest.fail(f"{MUTANT_SEEDS} seeds did not notice that {name}")
