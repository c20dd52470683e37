"""`python -m pvc.sim`: run seeds, or replay one with its trace."""

from __future__ import annotations

import logging

import click

from pvc.sim.cluster import ClusterSimulation
from pvc.sim.simulation import Simulation


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seed", type=int, default=1, show_default=True, help="The first seed.")
@click.option("--count", type=int, default=1, show_default=True, help="How many seeds to run.")
@click.option("--trace", is_flag=True, help="Show what happened, with virtual seconds.")
@click.option("--cluster", is_flag=True, help="Simulate a whole cluster instead of one node.")
@click.option("--operations", type=int, default=50, show_default=True, help="How much happens in a cluster's run.")
def main(seed: int, count: int, trace: bool, cluster: bool, operations: int) -> None:
    """Run the node, or a cluster of them, in simulation, with faults from a seed, and check what must hold.

    \b
    Example:
      python -m pvc.sim --seed 1 --count 500
      python -m pvc.sim --seed 27 --trace
      python -m pvc.sim --cluster --seed 1 --count 100
    """
    logging.disable(logging.ERROR)
    seconds = 0.0
    for number in range(seed, seed + count):
        simulation = ClusterSimulation(number, operations=operations) if cluster else Simulation(number)
        try:
            result = simulation.run()
        except AssertionError as error:
            click.echo("\n".join(simulation.trace))
            click.echo(f"seed {number} fails: {error}", err=True)
            raise SystemExit(1) from None
        if trace:
            click.echo("\n".join(result.trace))
        if trace or count == 1:
            click.echo(
                f"seed {number}: {result.position} records, {result.acknowledged} commands, {result.refused} refused, "
                f"{result.account}; all checks hold"
            )
        seconds += result.virtual_s
    if count > 1:
        click.echo(f"{count} seeds from {seed} on, {seconds / 3600:.1f} virtual hours: all checks hold")


if __name__ == "__main__":
    main()
