"""`pvc cluster status` and `pvc cluster init`, which shows the first token once and says what to do with it."""

from __future__ import annotations

import sys

import click

from pvc.cli import exits
from pvc.cli.base import PvcCommand
from pvc.cli.past import at_option, note_past
from pvc.cli.progress import ProgressLine
from pvc.cli.run import sentence
from pvc.cli.session import Session
from pvc.cli.table import Cell, Column, render_facts
from pvc.cli.text import paint
from pvc.client.api_types import ClusterInfo, Reply
from pvc.client.connections import DEFAULT_PORT
from pvc.client.errors import WaitTimedOut

SUMMARY = (
    Column("NAME", rank=2),
    Column("HEALTH", rank=0),
    Column("NODES", right=True),
    Column("VMS", right=True),
    Column("FAULTS", right=True),
    Column("PRIMARY", rank=2),
    Column("WHY"),
)
"""One line for each of several clusters."""

NO_CLUSTER = "There is no cluster here yet. Make one: pvc cluster init NAME"

HEALTH_STYLES = {"ok": "green", "degraded": "yellow", "critical": "red"}


def show_status(session: Session, at: str | None) -> None:
    """The cluster at one look."""
    info = session.client.cluster(at=at or "")
    past = note_past(session)
    if session.wants_data:
        session.show_data(info)
        return
    if session.among_several:
        session.show_table(SUMMARY, [_summary(info)])
        return
    if not info["initialised"]:
        session.say(NO_CLUSTER)
        return
    session.show(render_facts(status_facts(info, past=past), session.look))


def status_facts(info: ClusterInfo, *, past: bool = False) -> list[tuple[str, str | Cell]]:
    """All that a person wants to know of the cluster, its health first; of the past it is what the log tells."""
    style = HEALTH_STYLES.get(info["health"], "red")
    states = ", ".join(f"{count} {state}" for state, count in info["vms_by_state"].items())
    why = f" ({info['maintenance_reason']})" if info["maintenance_reason"] else ""
    primary = f"{info['primary']} (epoch {info['primary_epoch']})" if info["primary"] else "none yet"
    several = info["coordinators"] > 1
    known = f", {info['faults_acknowledged']} acknowledged" if info["faults_acknowledged"] else ""
    return [
        ("Health", Cell(f"{info['health']}{', as far as the log tells' if past else ''}", style)),
        *[line for reason in info["reasons"] for line in _reason(reason, info.get("hints", {}).get(reason, ""), style)],
        ("Cluster", info["name"]),
        ("Id", info["id"]),
        ("Maintenance", Cell(f"on{why}", "yellow") if info["maintenance"] else ""),
        ("Primary", primary if info["primary"] or several else ""),
        ("Nodes", _ready(info["nodes_ready"], info["nodes"])),
        ("Coordinators", _ready(info["coordinators_ready"], info["coordinators"])),
        ("ZooKeeper", ", ".join(f"{node} {mode}" for node, mode in info["zookeeper"].items())),
        ("VMs", f"{info['vms']} ({states})" if states else str(info["vms"])),
        ("Faults", f"{info['faults']}{known}: pvc fault list" if info["faults"] else "none"),
        ("Feature level", str(info["level"])),
        ("Log position", str(info["position"])),
        ("State hash", info["state_hash"]),
    ]


def show_health(session: Session) -> int:
    """The health alone, each reason with its code and remedy; the exit code says whether it is `ok`."""
    info = session.client.cluster()
    if session.wants_data:
        session.show_data({key: info[key] for key in ("initialised", "health", "problems", "position")})
    elif session.among_several:
        session.show_table(SUMMARY, [_summary(info)])
    elif not info["initialised"]:
        session.say(NO_CLUSTER)
    else:
        facts: list[tuple[str, str | Cell]] = [
            ("Health", Cell(info["health"], HEALTH_STYLES.get(info["health"], "red")))
        ]
        for problem in info["problems"]:
            style = HEALTH_STYLES.get(problem["health"], "red")
            facts += [(problem["code"], Cell(problem["message"], style)), ("", Cell(problem["hint"], "dim"))]
        session.show(render_facts(facts, session.look))
    return exits.OK if info["initialised"] and info["health"] == "ok" else exits.REJECTED


def _summary(info: ClusterInfo) -> list[str | Cell]:
    return [
        info["name"],
        Cell(info["health"], HEALTH_STYLES.get(info["health"], "red")) if info["initialised"] else "no cluster yet",
        f"{info['nodes_ready']}/{info['nodes']}",
        str(info["vms"]),
        str(info["faults"]),
        info["primary"],
        "; ".join(info["reasons"]),
    ]


def _reason(reason: str, hint: str, style: str) -> list[tuple[str, Cell]]:
    return [("", Cell(f"- {reason}", style)), ("", Cell(f"  {hint}" if hint else "", "dim"))]


def _ready(ready: int, of: int) -> Cell:
    return Cell(f"{ready} of {of} ready", "green" if ready == of else "yellow")


READY_S = 30
"""A node that has taken notice of its cluster is ready within a second; a person should not have to look for it."""


def initialise(
    session: Session, name: str, coordinators: tuple[str, ...], admin: str | None, dry_run: bool, wait: bool
) -> None:
    """Make the cluster; show its token before anything can go wrong; wait for the first node."""
    members = [word.strip() for words in coordinators for word in words.split(",") if word.strip()]
    fields = {"name": name, "coordinators": members or None, "admin": admin}
    reply = session.client.command("cluster.init", fields, dry_run=dry_run)
    if session.wants_data:
        session.show_data(reply)
        return
    if dry_run:
        beside = f", {', '.join(members)} its coordinators" if members else ""
        session.say(f"Would be: cluster {name} initialised{beside}, and a first admin token made.")
        return
    session.say(f"The cluster {name} is initialised.")
    if members:
        session.say(f"Its coordinators: {', '.join(members)}. Each joins when pvcd starts there.")
    token = reply.get("token")
    if not token:
        session.note("Note: this was done before; the token was shown then, and never again.")
        return
    urls = " ".join(f"https://{node}:{DEFAULT_PORT}" for node in members or ["THIS-NODE"])
    session.show(
        "\nIts first admin token, shown only this once (the log keeps but its hash; put it in a safe place):\n\n"
        f"  {paint(token, 'bold', session.look)}\n\n"
        "On this node, root needs no token. From another machine, with the token at hand, once the gateways listen\n"
        "there by TLS (gateway.listen in pvc.toml):\n\n"
        f"  pvc connection add {name} {urls}\n"
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
        session.say(f"{sentence('', outcome.text)}.")


health = PvcCommand(
    "health",
    show_health,
    reads=True,
    help="Show whether anything is wrong with the cluster, and what to do about it.\n\nThe exit code is 0 if the "
    "health is ok, else 1, also where there is no cluster yet. docs/reference/health.md lists the codes.",
    short_help="Show what is wrong with the cluster, and what to do about it.",
    example="pvc cluster health || echo 'look at the cluster'",
)

status = PvcCommand(
    "status",
    show_status,
    reads=True,
    params=[at_option()],
    help="Show the cluster at one look, and what is wrong with it.",
    example="pvc cluster status",
)

init = PvcCommand(
    "init",
    initialise,
    params=[
        click.Argument(["name"]),
        click.Option(
            ["--coordinators"],
            metavar="NODE,...",
            multiple=True,
            help="1, 3 or 5 nodes that run ZooKeeper and may be primary.  [default: the first node that joins]",
        ),
        click.Option(["--admin"], metavar="NAME", help="Whose the first admin token is.  [default: admin]"),
        click.Option(["--dry-run"], is_flag=True, help="Say what would happen; change nothing."),
        click.Option(["--wait/--no-wait"], default=True, show_default=True, help="Wait until the first node is ready."),
    ],
    about={"name": "Name of the cluster: a-z, 0-9 and inner hyphens, at most 63 characters."},
    help="Initialise the cluster and make the first admin token.\n\nDone once, as root on the first node.",
    short_help="Initialise the cluster and make the first admin token.",
    example="pvc cluster init main --coordinators hv1,hv2,hv3",
)
