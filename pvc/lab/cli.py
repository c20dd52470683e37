"""`pvc lab`: the commands. It hangs at `pvc`'s tree of commands by name and works without it: `python -m pvc.lab`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pvc.errors import PvcError
from pvc.lab.plan import DEFAULT_NAME

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_DAEMONS = ("pvcd", "libvirtd", "virtlogd", "zookeeper", "bmc")
_HINTS = re.compile(r"`pvc lab ")


class LabGroup(click.Group):
    """Turns PVC's errors into messages with a hint, and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except PvcError as error:
            raise (WrongArgument if error.field else LabError)(error) from error


class LabError(click.ClickException):
    """What went wrong; the hint is shown below it."""

    exit_code = 1

    def __init__(self, error: PvcError) -> None:
        super().__init__(error.message)
        self.hint = _HINTS.sub(f"`{called()} ", error.hint)

    def show(self, file: Any = None) -> None:
        """Message and hint, on stderr."""
        super().show(file)
        if self.hint:
            click.echo(f"Hint: {self.hint}", err=True)


class WrongArgument(LabError):
    """An argument or option that cannot be."""

    exit_code = 2


def called() -> str:
    """How the person calls these commands."""
    return os.environ.get("PVC_LAB_CALLED", "pvc lab")


def _example(*lines: str) -> str:
    return "\b\nExample:\n" + "\n".join(f"  pvc lab {line}" for line in lines)


@click.group(
    cls=LabGroup,
    name="lab",
    context_settings=CONTEXT,
    short_help="A real cluster of namespaced hosts on this machine, to be broken at will.",
    epilog=_example("up", "exec hv1 -- pvc node list", "kill hv3", "down"),
)
@click.option(
    "--name", default=DEFAULT_NAME, envvar="PVC_LAB_NAME", show_default=True, help="The lab, where there are several."
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="PVC_LAB_DIR",
    help="Where it keeps all it has.  [default: /var/lib/pvc-lab, or /var/lib/pvc-lab-NAME]",
)
@click.pass_context
def lab(ctx: click.Context, name: str, directory: Path | None) -> None:
    """A real cluster of namespaced hosts on this machine, to be broken at will.

    Each host has its own network, processes, files, libvirtd, pvcd and BMC; some have a ZooKeeper. Needs root.
    """
    default = Path("/var/lib/pvc-lab" if name == DEFAULT_NAME else f"/var/lib/pvc-lab-{name}")
    ctx.meta["pvc.lab"] = (name, directory or default)


def _output(command: Any) -> Any:
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json", "yaml"]),
        default="table",
        show_default=True,
        help="How to write the answer.",
    )(command)


def _host(command: Any) -> Any:
    return click.argument("host", shell_complete=lambda ctx, _, start: _complete(ctx, start))(command)


def _complete(ctx: click.Context, start: str) -> list[str]:
    try:
        return [host.name for host in _lab(ctx).hosts if host.name.startswith(start)]
    except (PvcError, KeyError):
        return []


def _lab(ctx: click.Context) -> Any:
    from pvc.lab.lab import Lab
    from pvc.lab.shell import check_root

    check_root()
    return Lab.load(ctx.meta["pvc.lab"][1])


@lab.command(epilog=_example("up", "up --nodes 1 --coordinators 1", "up --self-fencing hv3", "--name two up"))
@click.option("--nodes", default=3, show_default=True, help="Hosts, called hv1, hv2, ...")
@click.option(
    "--coordinators", type=int, help="How many of them run ZooKeeper: 1, 3 or 5.  [default: 3, or 1 below 3 nodes]"
)
@click.option(
    "--self-fencing",
    multiple=True,
    metavar="HOST",
    help="A host that has a watchdog and no BMC; may be repeated, or all.",
)
@click.pass_context
def up(ctx: click.Context, nodes: int, coordinators: int | None, self_fencing: Sequence[str]) -> None:
    """Start the lab and make a cluster of it; hosts that are off are switched on."""
    from pvc.lab.cluster import next_steps
    from pvc.lab.lab import create_lab

    name, directory = ctx.meta["pvc.lab"]
    began = time.monotonic()

    def progress(line: str) -> None:
        click.echo(f"{time.monotonic() - began:5.1f} s  {line}", err=True)

    coordinators = coordinators or (3 if nodes >= 3 else 1)
    made = create_lab(directory, nodes=nodes, coordinators=coordinators, name=name, self_fencing=self_fencing)
    if made.is_up:
        click.echo(f"The lab is up already: {len(made.hosts)} hosts, in {made.directory}.")
        return
    made.up(progress)
    click.echo(f"\n{next_steps(made.directory, made.hosts, command=called())}", nl=False)


@lab.command(epilog=_example("down"))
@click.pass_context
def down(ctx: click.Context) -> None:
    """End the lab and remove all of it, also what a crash left."""
    from pvc.lab.lab import destroy

    name, directory = ctx.meta["pvc.lab"]
    found = destroy(directory, name if _names_it(ctx) else None)
    click.echo("The lab is gone." if found else f"There is no lab in {directory}.")


@lab.command(epilog=_example("status", "status -o json"))
@_output
@click.pass_context
def status(ctx: click.Context, output: str) -> None:
    """Show hosts, their power, daemons and VMs, and what is cut."""
    from pvc.lab.status import render, status_of

    told = status_of(_lab(ctx))
    if output == "json":
        click.echo(json.dumps(told, indent=2))
    elif output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(told, sort_keys=False), nl=False)
    else:
        click.echo(render(told), nl=False)


@lab.command(
    name="exec",
    context_settings={**CONTEXT, "ignore_unknown_options": True},
    epilog=_example("exec hv1 -- pvc vm list", "exec hv2 -- virsh list"),
)
@_host
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def exec_(ctx: click.Context, host: str, command: Sequence[str]) -> None:
    """Run a command on a host; its exit code is this one's."""
    place = _lab(ctx).host(host)
    ctx.exit(_run_here(place.command(command), place.environment()))


@lab.command(epilog=_example("shell hv1"))
@_host
@click.pass_context
def shell(ctx: click.Context, host: str) -> None:
    """Open a shell on a host."""
    place = _lab(ctx).host(host)
    prompt = {"PS1": rf"\[\e[1m\]{host}\[\e[0m\]:\w# ", "TERM": os.environ.get("TERM", "dumb")}
    ctx.exit(_run_here(place.command(["bash", "--norc"]), {**place.environment(), **prompt}))


@lab.command(epilog=_example("logs hv1", "logs hv2 -f", "logs hv1 zookeeper --lines 50"))
@_host
@click.argument("daemon", default="pvcd")
@click.option("-f", "--follow", is_flag=True, help="Go on showing what is added.")
@click.option("--lines", default=20, show_default=True, help="How many of the last lines.")
@click.pass_context
def logs(ctx: click.Context, host: str, daemon: str, follow: bool, lines: int) -> None:
    """Show what a host's daemon says: pvcd, libvirtd, virtlogd, zookeeper, init, bmc or watchdog."""
    place = _lab(ctx).host(host)
    path = place.log_of(daemon)
    if not path.is_file():
        there = ", ".join(name for name in (*_DAEMONS, "init", "watchdog") if place.log_of(name).is_file())
        raise click.UsageError(f"{host} has no log of {daemon}; it has {there}", ctx)
    ctx.exit(_run_here(["tail", f"--lines={lines}", *(["--follow=name"] if follow else []), str(path)], None))


@lab.command(epilog=_example("kill hv3"))
@_host
@click.pass_context
def kill(ctx: click.Context, host: str) -> None:
    """Cut a host's power: everything in it dies at once, and nobody is told."""
    _lab(ctx).host(host).cut_power()
    click.echo(f"{host} is off. On again: {called()} power {host} on")


@lab.command(epilog=_example("power hv3 on", "power hv3 status"))
@_host
@click.argument("action", type=click.Choice(["on", "off", "status"]))
@click.pass_context
def power(ctx: click.Context, host: str, action: str) -> None:
    """Switch a host on or off as its power button does, or tell which it is."""
    place = _lab(ctx).host(host)
    if action == "on":
        place.boot()
    elif action == "off":
        place.cut_power()
    click.echo(f"{host} is {place.power}.")


@lab.command(epilog=_example("reboot hv2", "reboot hv2 --hard"))
@_host
@click.option("--hard", is_flag=True, help="By its reset button, not in good order.")
@click.pass_context
def reboot(ctx: click.Context, host: str, hard: bool) -> None:
    """Reboot a host."""
    place = _lab(ctx).host(host)
    if hard:
        place.reset()
    else:
        place.shut_down()
        place.boot()
    click.echo(f"{host} has booted.")


@lab.command(epilog=_example("freeze hv2"))
@_host
@click.pass_context
def freeze(ctx: click.Context, host: str) -> None:
    """Stop every process of a host where it stands, as if it hung."""
    _lab(ctx).host(host).freeze()
    click.echo(f"{host} is frozen. On it goes with: {called()} thaw {host}")


@lab.command(epilog=_example("thaw hv2"))
@_host
@click.pass_context
def thaw(ctx: click.Context, host: str) -> None:
    """Let a frozen host go on."""
    _lab(ctx).host(host).thaw()
    click.echo(f"{host} goes on.")


@lab.command(epilog=_example("partition hv3", "partition hv1,hv2 hv3 --one-way", "partition hv1 hv3 --bridge"))
@click.argument("groups", nargs=-1, required=True)
@click.option("--one-way", is_flag=True, help="Lose only what the first group sends; the others still reach it.")
@click.option("--link-down", is_flag=True, help="Pull the first group's cables out: it has no carrier, and no BMCs.")
@click.option("--bmc", is_flag=True, help="Part the first group from all BMCs too, so that it cannot fence.")
@click.option(
    "--bridge", is_flag=True, help="Hosts that are not named reach all groups, which do not reach each other."
)
@click.pass_context
def partition(
    ctx: click.Context, groups: Sequence[str], one_way: bool, link_down: bool, bmc: bool, bridge: bool
) -> None:
    """Cut the network between groups of hosts (hv1,hv2 hv3), instead of what was cut before.

    Hosts that are not named are one more group together, unless they bridge the gap. BMCs stay within reach, as if on
    a network of their own.
    """
    made = _lab(ctx).partition(list(groups), one_way=one_way, link_down=link_down, bmc=bmc, bridge=bridge)
    sign = "  -/->  " if one_way else "  |  "
    click.echo(f"Cut: {sign.join(','.join(group) for group in made.groups)}. It ends with: {called()} heal")


@lab.command(epilog=_example("heal"))
@click.pass_context
def heal(ctx: click.Context) -> None:
    """End every partition."""
    _lab(ctx).heal()
    click.echo("All hosts reach each other.")


@lab.command(epilog=_example("daemon hv1 kill pvcd", "daemon hv2 stop zookeeper", "daemon hv3 stop bmc"))
@_host
@click.argument("action", type=click.Choice(["kill", "stop", "start", "restart"]))
@click.argument("daemon", type=click.Choice(_DAEMONS), default="pvcd")
@click.pass_context
def daemon(ctx: click.Context, host: str, action: str, daemon: str) -> None:
    """Kill, stop or start one daemon of a host. What is killed is started again, what is stopped is not.

    ZooKeeper is started by pvcd, within 5 s; a stopped one stays down over a reboot too, by a file that pvcd minds.
    """
    made = _lab(ctx)
    made.host(host)
    made.do_with_daemon(host, action, daemon)
    done = {"kill": "was killed", "stop": "is stopped", "start": "runs", "restart": "was restarted"}[action]
    click.echo(f"{daemon} on {host} {done}.")


def _names_it(ctx: click.Context) -> bool:
    """Whether the kernel's things of this name are ours to clear: not when only another directory was given."""
    parent = ctx.parent
    assert parent is not None, "these are commands of a group"
    given = click.core.ParameterSource.DEFAULT
    return parent.get_parameter_source("directory") == given or parent.get_parameter_source("name") != given


def _run_here(command: list[str], environment: dict[str, str] | None) -> int:
    """Run at the person's terminal; Ctrl-C is the command's."""
    with subprocess.Popen(command, env=environment, cwd="/") as process:  # noqa: S603 - it is the person's own
        while True:
            try:
                code = process.wait()
                return 128 - code if code < 0 else code
            except KeyboardInterrupt:
                continue
