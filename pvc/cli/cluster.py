"""`pvc cluster status` and `pvc cluster init`, which shows the first token once and says what to do with it."""

from __future__ import annotations

import sys

import click

from pvc.cli.base import PvcCommand
from pvc.cli.progress import ProgressLine
from pvc.cli.run import sentence
from pvc.cli.session import Session
from pvc.cli.table import Cell, render_facts
from pvc.cli.text import paint
from pvc.client.api_types import Reply
from pvc.client.connections import DEFAULT_PORT
from pvc.client.errors import WaitTimedOut


def show_status(session: Session) -> None:
    """The cluster at one look."""
    info = session.client.cluster()
    if session.wants_data:
        session.show_data(info)
        return
    if not info["initialised"]:
        session.say("There is no cluster here yet. Make one: pvc cluster init NAME")
        return
    ready = f"{info['nodes_ready']} of {info['nodes']} ready"
    states = ", ".join(f"{count} {state}" for state, count in info["vms_by_state"].items())
    facts: list[tuple[str, str | Cell]] = [
        ("Cluster", info["name"]),
        ("Id", info["id"]),
        ("Nodes", Cell(ready, "green" if info["nodes_ready"] == info["nodes"] else "yellow")),
        ("VMs", f"{info['vms']} ({states})" if states else str(info["vms"])),
        ("Log position", str(info["position"])),
        ("State hash", info["state_hash"]),
    ]
    session.show(render_facts(facts, session.look))


READY_S = 30
"""A node that has taken notice of its cluster is ready within a second; a person should not have to look for it."""


def initialise(session: Session, name: str, dry_run: bool, wait: bool) -> None:
    """Make the cluster; show its token before anything can go wrong; wait for the first node."""
    reply = session.client.command("cluster.init", {"name": name}, dry_run=dry_run)
    if session.wants_data:
        session.show_data(reply)
        return
    if dry_run:
        session.say(f"Would be: cluster {name} initialised, and a first admin token made.")
        return
    session.say(f"The cluster {name} is initialised.")
    token = reply.get("token")
    if not token:
        session.note("Note: this was done before; the token was shown then, and never again.")
        return
    session.show(
        "\nIts first admin token, shown only this once (the log keeps but its hash; put it in a safe place):\n\n"
        f"  {paint(token, 'bold', session.look)}\n\n"
        "On this node, root needs no token. From another machine, with the token at hand:\n\n"
        f"  pvc connection add {name} http://THIS-NODE:{DEFAULT_PORT}\n"
    )
    if wait:
        sys.stdout.flush()
        _wait_for_node(session, reply)


def _wait_for_node(session: Session, reply: Reply) -> None:
    try:
        with ProgressLine(sys.stderr, plain=False) as progress:
            progress.step("waiting for the first node")
            outcome = session.client.wait_for(reply, timeout_s=READY_S)
    except WaitTimedOut:
        session.note("Note: no node is ready yet; `pvc node list` shows when one is.")
        return
    if outcome is not None:
        session.show("\n")
        session.say(f"{sentence('', outcome.event['summary'])}.")


status = PvcCommand("status", show_status, help="Show the cluster at one look.", example="pvc cluster status")

init = PvcCommand(
    "init",
    initialise,
    params=[
        click.Argument(["name"]),
        click.Option(["--dry-run"], is_flag=True, help="Say what would happen; change nothing."),
        click.Option(["--wait/--no-wait"], default=True, show_default=True, help="Wait until the first node is ready."),
    ],
    about={"name": "Name of the cluster: a-z, 0-9 and inner hyphens, at most 63 characters."},
    help="Initialise the cluster and make the first admin token.\n\nDone once, as root on the first node.",
    short_help="Initialise the cluster and make the first admin token.",
    example="pvc cluster init main",
)
