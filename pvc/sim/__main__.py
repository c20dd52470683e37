"""`python -m pvc.sim`, mostly as `./dev sim`: many seeds, one with its trace, the mutants, the loss of a rack."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

import click
import msgspec

from pvc.sim.mutants import MUTANTS
from pvc.sim.mutation import Caught, Kind, hunt, simulation
from pvc.sim.scale import Scale, ScaleSimulation

MIXTURE = (
    Kind.ZOOKEEPER,
    Kind.CLUSTER,
    Kind.NODE,
    Kind.NODE,
    Kind.LOG,
    Kind.LOG,
    Kind.LOG,
    Kind.LOG,
    Kind.LOG,
    Kind.LOG,
)
"""By a seed's last digit: so that a number alone names a run. A run of a cluster takes thirty times one of the log."""

COUNT = 500
SHOWN = 60
"""Lines of a failed run's trace that are shown unasked."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one seed."""

    seed: int
    kind: Kind
    broken: str
    line: str
    trace: list[str]
    virtual_s: float


def run_one(seed: int, only: Kind | None) -> Run:
    """Run it, also in another process."""
    logging.disable(logging.CRITICAL)
    kind = only or MIXTURE[seed % len(MIXTURE)]
    subject = simulation(kind, seed)
    try:
        result = subject.run()
    except AssertionError as error:
        return Run(seed=seed, kind=kind, broken=str(error), line="", trace=subject.trace, virtual_s=0.0)
    line = (
        f"{result.position} records, {result.acknowledged} acknowledged, {result.refused} refused, {result.account}; "
        "all checks hold"
    )
    return Run(seed=seed, kind=kind, broken="", line=line, trace=result.trace, virtual_s=result.virtual_s)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seed", type=int, help="Run this seed alone, or with --count from this one on.")
@click.option(
    "--count", type=click.IntRange(min=1), help=f"How many seeds to run. [default: {COUNT}, or 1 with --seed]"
)
@click.option("--trace", is_flag=True, help="Show what happened, with virtual seconds.")
@click.option(
    "--only",
    type=click.Choice([kind.value for kind in Kind]),
    help="One node, a cluster, one over ZooKeeper, or the log's protocol; else the seed's last digit decides.",
)
@click.option("--jobs", type=click.IntRange(min=1), default=os.cpu_count() or 1, show_default=True, help="Processes.")
@click.option("--mutants", is_flag=True, help="Put known bugs into the code, one at a time: each must be noticed.")
@click.option("--scale", is_flag=True, help="Lose a rack of a large cluster.")
@click.option("--nodes", type=int, default=Scale().nodes, show_default=True, help="With --scale.")
@click.option("--vms", type=int, default=Scale().vms, show_default=True, help="With --scale.")
@click.option("--rack", type=int, default=Scale().rack, show_default=True, help="Nodes that are lost, with --scale.")
def main(
    seed: int | None,
    count: int | None,
    trace: bool,
    only: str | None,
    jobs: int,
    mutants: bool,
    scale: bool,
    nodes: int,
    vms: int,
    rack: int,
) -> None:
    """Run PVC on virtual time with faults from a seed, and check at every step what must hold.

    One seed is one run, the same each time. docs/simulator.md says what is simulated.

    \b
    Example:
      ./dev sim
      ./dev sim --seed 123 --trace
      ./dev sim --only log --count 5000
      ./dev sim --mutants
    """
    logging.disable(logging.CRITICAL)
    if mutants:
        sys.exit(try_mutants(jobs))
    if scale:
        click.echo(ScaleSimulation(Scale(nodes=nodes, vms=vms, rack=rack), say=click.echo).run().table())
        return
    kind = Kind(only) if only else None
    if seed is not None and count in (None, 1):
        run = run_one(seed, kind)
        if trace or run.broken:
            click.echo("\n".join(run.trace))
        if run.broken:
            sys.exit(failed(run))
        click.echo(f"seed {seed}, {run.kind}: {run.line}")
        return
    sys.exit(run_many(seed if seed is not None else 1, count or COUNT, kind, jobs, trace=trace))


def run_many(first: int, count: int, only: Kind | None, jobs: int, *, trace: bool) -> int:
    """Run them all, or up to the first that fails; the exit status."""
    began, virtual_s, done = time.monotonic(), 0.0, dict.fromkeys(Kind, 0)
    for run in _runs(first, count, only, jobs):
        _progress(f"{sum(done.values())} of {count} seeds")
        if run.broken:
            _progress("")
            click.echo("\n".join(run.trace if trace else run.trace[-SHOWN:]))
            return failed(run)
        if trace:
            click.echo("\n".join(run.trace))
            click.echo(f"seed {run.seed}, {run.kind}: {run.line}")
        virtual_s += run.virtual_s
        done[run.kind] += 1
    _progress("")
    kinds = ", ".join(f"{number} {kind}" for kind, number in done.items() if number)
    click.echo(
        f"{count} seeds from {first} on ({kinds}), {virtual_s / 3600:.1f} virtual hours "
        f"in {time.monotonic() - began:.0f} s: all checks hold"
    )
    return 0


def failed(run: Run) -> int:
    """Say what failed, and how to see it again; the exit status."""
    click.echo(f"seed {run.seed}, {run.kind}, fails: {run.broken}", err=True)
    click.echo(f"again: ./dev sim --only {run.kind} --seed {run.seed} --trace", err=True)
    return 1


def try_mutants(jobs: int) -> int:
    """Try them all; the exit status says whether each was noticed."""
    escaped = 0
    click.echo(f"{'mutant':58} {'simulated':9} {'seeds':>9}  noticed by")
    with ProcessPoolExecutor(jobs) as pool:
        hunts = [pool.submit(_hunt, number) for number in range(len(MUTANTS))]
        for mutant, pending in zip(MUTANTS, hunts, strict=True):
            _progress(f"{mutant.name} ...")
            caught = pending.result()
            _progress("")
            seeds = f"{caught.seeds} of {mutant.within}" if caught is not None else f"> {mutant.within}"
            by = " ".join(caught.by.split())[:100] if caught is not None else "nothing: it ESCAPED"
            escaped += caught is None
            click.echo(f"{mutant.name:58} {mutant.kind:9} {seeds:>9}  {by}")
    click.echo(f"{len(MUTANTS)} mutants, " + (f"{escaped} escaped" if escaped else "each was noticed"))
    return 1 if escaped else 0


def _hunt(number: int) -> Caught | None:
    logging.disable(logging.CRITICAL)
    return hunt(MUTANTS[number], seeds=MUTANTS[number].within)


def _runs(first: int, count: int, only: Kind | None, jobs: int) -> Iterator[Run]:
    seeds = range(first, first + count)
    if jobs == 1 or count == 1:
        for seed in seeds:
            yield run_one(seed, only)
        return
    with ProcessPoolExecutor(jobs) as pool:
        pending = [pool.submit(run_one, seed, only) for seed in seeds]
        try:
            for run in as_completed(pending):
                yield run.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _progress(what: str) -> None:
    """On a terminal, one line that is written over."""
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{what}", err=True, nl=False)


if __name__ == "__main__":
    main()
