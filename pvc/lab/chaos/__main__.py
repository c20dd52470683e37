"""`python -m pvc.lab.chaos`: run seeds, one after the other, and say what they found."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from pvc.errors import PvcError
from pvc.lab.chaos.run import Settings, run
from pvc.lab.chaos.schedule import NAMES
from pvc.lab.plan import make_plan

_LONGEST_MIN = 15.0
"""Of one seed; more minutes are more seeds, each with a lab of its own."""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--minutes", default=5.0, show_default=True, help="How long to break things, in all.")
@click.option("--seed", type=int, help="What to break, in which order.  [default: by the time of day]")
@click.option("--nodes", type=click.IntRange(3, 9), default=3, show_default=True, help="Hosts.")
@click.option("--coordinators", type=click.Choice(["3", "5"]), default="3", show_default=True, help="With a ZooKeeper.")
@click.option("--vms", type=click.IntRange(1, 50), default=6, show_default=True, help="VMs that are worked with.")
@click.option("--each", default=_LONGEST_MIN, show_default=True, help="Minutes of one seed; then comes the next one.")
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="Only such faults; may be repeated.")
@click.option("--no-overlaps", is_flag=True, help="One fault at a time.")
@click.option("--keep", is_flag=True, help="Keep timeline and logs although nothing is wrong.")
@click.option("--self-fencing", multiple=True, metavar="HOST", help="A host with a watchdog and no BMC; or all.")
@click.option("--name", default="chaos", show_default=True, help="The lab's name.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("/tmp/pvc-chaos"),  # noqa: S108 - for a person to read and throw away
    show_default=True,
    help="Timelines, logs.",
)
def main(
    minutes: float,
    seed: int | None,
    nodes: int,
    coordinators: str,
    vms: int,
    each: float,
    only: tuple[str, ...],
    no_overlaps: bool,
    keep: bool,
    self_fencing: tuple[str, ...],
    name: str,
    out: Path,
) -> None:
    """Break a lab of real hosts in many ways while clients work with it, and check what must hold all the same.

    \b
    Example:
      ./dev chaos --minutes 3 --seed 7
      ./dev chaos --only power-cut --only freeze-host --no-overlaps
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the lab is cleared away
    number = int(time.time()) % 100_000 if seed is None else seed
    with _told():
        plan = make_plan(nodes=nodes, coordinators=int(coordinators), name=name, self_fencing=self_fencing)
    bad = 0
    left = minutes
    while left > 0:
        settings = Settings(
            directory=Path(f"/var/lib/pvc-lab-{name}"),
            plan=plan,
            seed=number,
            minutes=min(left, each),
            out=out,
            vms=vms,
            only=only,
            overlaps=not no_overlaps,
            keep=keep,
        )
        again = f"--seed {number} --minutes {settings.minutes:g} --nodes {nodes} --vms {vms}"
        again += f" --coordinators {coordinators}" if coordinators != "3" else ""
        again += "".join(f" --only {kind}" for kind in only) + (" --no-overlaps" if no_overlaps else "")
        again += "".join(f" --self-fencing {host}" for host in plan.self_fencing)
        with _told():
            result = run(settings, lambda line: click.echo(line, err=True))
        click.echo("\n".join(f"  {line}" for line in result.lines))
        for remark in result.remarks:
            click.echo(f"  worth a look: {remark}")
        for violation in result.violations:
            click.echo(f"  VIOLATION: {violation}")
        if result.kept is not None:
            click.echo(f"  timeline and logs: {result.kept}")
        click.echo(f"seed {number}: {len(result.violations)} violations; again: ./dev chaos {again}")
        bad += bool(result.violations)
        left -= each
        number += 1
    if bad:
        raise SystemExit(1)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """PVC's errors as click's, with their hints."""
    try:
        yield
    except PvcError as error:
        raise click.ClickException(f"{error.message}\nHint: {error.hint}" if error.hint else error.message) from error


if __name__ == "__main__":
    main()
