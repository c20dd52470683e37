"""`pvc node list` and `pvc node info`."""

from __future__ import annotations

import click

from pvc.cli import complete
from pvc.cli.base import PvcCommand
from pvc.cli.session import Session, now_us
from pvc.cli.table import Cell, Column, render_facts, render_table
from pvc.cli.times import ago, mib
from pvc.client.api_types import NodeInfo

COLUMNS = (
    Column("NODE"),
    Column("STATE"),
    Column("VMS", right=True),
    Column("RUNNING", right=True),
    Column("CPUS", right=True),
    Column("VCPUS USED", right=True),
    Column("MEMORY", right=True),
    Column("USED", right=True),
    Column("ACCEL"),
    Column("PVC"),
)


def show_nodes(session: Session) -> None:
    """All nodes, one a line."""
    nodes = session.client.nodes()
    if session.wants_data:
        session.show_data(nodes)
        return
    session.show(render_table(COLUMNS, [_row(node) for node in nodes], session.look))
    if not nodes:
        session.note("No node has joined yet.")


def show_node(session: Session, node: str) -> None:
    """One node in full."""
    found = session.client.node(node)
    if session.wants_data:
        session.show_data(found)
        return
    facts: list[tuple[str, str | Cell]] = [
        ("Node", found["name"]),
        ("State", _state(found)),
        ("VMs", f"{found['vms']} ({found['vms_running']} running)"),
        ("CPUs", f"{found['vcpus']} ({found['vcpus_used']} used by VMs)"),
        ("Memory", f"{mib(found['memory_mib'])} ({mib(found['memory_used_mib'])} used by VMs)"),
        ("Hypervisor", found["hypervisor"]),
        ("Accelerator", found["accelerator"]),
        ("PVC", found["version"]),
        ("Joined", ago(found["joined_us"], now_us())),
        ("Ready since", ago(found["ready_us"], now_us())),
    ]
    session.show(render_facts(facts, session.look))


def _row(node: NodeInfo) -> list[str | Cell]:
    return [
        node["name"],
        _state(node),
        str(node["vms"]),
        str(node["vms_running"]),
        str(node["vcpus"]),
        str(node["vcpus_used"]),
        mib(node["memory_mib"]),
        mib(node["memory_used_mib"]),
        node["accelerator"],
        node["version"],
    ]


def _state(node: NodeInfo) -> Cell:
    return Cell("ready", "green") if node["ready"] else Cell("not ready", "yellow")


list_nodes = PvcCommand("list", show_nodes, help="List the nodes.", example="pvc node list")

info = PvcCommand(
    "info",
    show_node,
    params=[click.Argument(["node"], shell_complete=complete.node_names)],
    about={"node": "Name of the node."},
    help="Show a node in full.",
    example="pvc node info hv1",
)
