"""`pvc node list` and `pvc node info`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from pvc.cli import complete
from pvc.cli.base import PvcCommand
from pvc.cli.past import at_option, note_past
from pvc.cli.session import Session, now_us
from pvc.cli.table import Cell, Column, render_facts
from pvc.cli.times import ago, mib
from pvc.client.api_types import FenceSettings, NodeInfo

COLUMNS = (
    Column("NODE", rank=0),
    Column("STATE", rank=0),
    Column("FLUSH", optional=True),
    Column("FAULTS", optional=True),
    Column("COORDINATOR", rank=2),
    Column("FENCE", rank=2),
    Column("VMS", right=True),
    Column("CPU", right=True, optional=True),
    Column("LOAD", right=True, rank=3, optional=True),
    Column("MEMORY", right=True),
    Column("ALLOCATED", right=True, rank=2),
    Column("USED", right=True, optional=True),
    Column("PVC", rank=3),
)

STATE_STYLES = {"ready": "green", "joining": "yellow", "lost": "red", "fenced": "red"}

UNKNOWN = "?"
"""What was not heard of lately."""

SESSIONS = {True: Cell("yes"), False: Cell("none", "red"), None: Cell(UNKNOWN)}


def show_nodes(session: Session, at: str | None) -> None:
    """All nodes, one a line."""
    nodes = session.client.nodes(at=at or "")
    past = note_past(session)
    if session.wants_data:
        session.show_data(nodes)
        return
    session.show_table(COLUMNS, node_rows(nodes, past=past))
    if not nodes:
        session.note("No node has joined yet.")
    elif len(nodes) > 1 and any(node["primary"] for node in nodes):
        session.note("* the primary: it acts for the whole cluster")


def node_rows(nodes: Sequence[NodeInfo], *, past: bool = False) -> list[list[str | Cell]]:
    """The rows of the table of nodes; of the past nothing that was measured."""
    return [_row(node, mark=len(nodes) > 1, past=past) for node in nodes]


def show_node(session: Session, node: str, at: str | None) -> None:
    """One node in full."""
    found = session.client.node(node, at=at or "")
    past = note_past(session)
    if session.wants_data:
        session.show_data(found)
        return
    session.show(render_facts(node_facts(found, now_us(), past=past), session.look))


def node_facts(node: NodeInfo, at_us: int, *, past: bool = False) -> list[tuple[str, str | Cell]]:
    """All that a person wants to know of a node; of the past nothing that was measured."""
    usage = node["usage"]
    cpu = f"{usage['cpu_per_cent']:.0f} % busy, load {usage['load1']:.2f}" if usage else UNKNOWN
    cpus = f"{node['vcpus']}: {'' if past else f'{cpu}, '}{node['vcpus_allocated']} given to running VMs"
    used = "" if past else f"{mib(usage['memory_used_mib']) if usage else UNKNOWN} used, "
    memory = f"{mib(node['memory_mib'])}: {used}{mib(node['memory_allocated_mib'])} allocated to running VMs"
    away = f", {node['vms_away']} of its own elsewhere" if node["vms_away"] else ""
    roles = [word for word, is_it in (("coordinator", node["coordinator"]), ("primary", node["primary"])) if is_it]
    return [
        ("Node", node["name"]),
        ("State", _state(node)),
        ("", f"since {ago(node['changed_us'], at_us)}"),
        *_wrong(node),
        ("Fenced", node["evidence"]),
        ("Flush", _flush(node)),
        ("Session", "" if past else SESSIONS[node["present"]]),
        ("Roles", ", ".join(roles)),
        ("VMs", f"{node['vms']} ({node['vms_running']} running{away})"),
        ("CPUs", cpus),
        ("Memory", f"{memory}, {mib(node['memory_provisioned_mib'])} were all its VMs to run"),
        ("Measured", ago(usage["time_us"], at_us) if usage else "" if past else "not lately"),
        ("ZooKeeper", usage["zookeeper"] if usage else ""),
        ("Fence agent", _fence(node["fence"])),
        ("", "" if past else _answer(node)),
        ("Self-fence", f"within {node['self_fence_s']} s after it lost its session" if node["self_fence_s"] else ""),
        ("Address", node["address"]),
        ("Hypervisor", node["hypervisor"]),
        ("Accelerator", node["accelerator"]),
        ("PVC", f"{node['version']} (feature level {node['level']})"),
        ("Joined", ago(node["joined_us"], at_us)),
        ("Ready since", ago(node["ready_us"], at_us)),
    ]


def _row(node: NodeInfo, *, mark: bool, past: bool) -> list[str | Cell]:
    usage = node["usage"]
    unknown = "" if past else UNKNOWN
    return [
        f"{node['name']}*" if node["primary"] and mark else node["name"],
        _state(node),
        _flush(node),
        _faults(node),
        "yes" if node["coordinator"] else "",
        _fencing(node, alone=not mark),
        f"{node['vms_running']}/{node['vms']}",
        f"{usage['cpu_per_cent']:.0f} %" if usage else unknown,
        f"{usage['load1']:.2f}" if usage else unknown,
        mib(node["memory_mib"]),
        mib(node["memory_allocated_mib"]),
        mib(usage["memory_used_mib"]) if usage else unknown,
        node["version"],
    ]


def _state(node: NodeInfo) -> Cell:
    if node["state"] == "ready" and node["present"] is False:
        return Cell("ready, no session", "red")
    return Cell(node["state"], STATE_STYLES.get(node["state"], "yellow"))


def _flush(node: NodeInfo) -> str | Cell:
    return "" if node["flush"] == "none" else Cell(node["flush"], "yellow")


def _faults(node: NodeInfo) -> str | Cell:
    """How many there are, and of how many somebody has taken notice."""
    faults = node.get("faults", [])
    new = [fault for fault in faults if not fault["acknowledged_by"]]
    known = f" ({len(faults) - len(new)} known)" if len(new) < len(faults) else ""
    return Cell(f"{len(faults)}{known}", "red" if new else "dim") if faults else ""


def _wrong(node: NodeInfo) -> list[tuple[str, str | Cell]]:
    """Its faults with what to do about them, and what else the cluster's health is not well for."""
    lines: list[tuple[str, str | Cell]] = []
    for fault in node.get("faults", []):
        known = f" (acknowledged by {fault['acknowledged_by']})" if fault["acknowledged_by"] else ""
        lines.append(("Fault", Cell(f"{fault['message']}{known}", "dim" if known else "red")))
        lines.append(("", Cell(fault["hint"], "dim")))
    told = {fault["message"] for fault in node.get("faults", [])}
    lines += [("Health", Cell(reason, "yellow")) for reason in node.get("reasons", []) if reason not in told]
    return lines


def _fence(fence: FenceSettings | None) -> str | Cell:
    if fence is None:
        return "none"
    options = " ".join(f"{name}={value}" for name, value in fence.get("options", {}).items())
    password = f"password in {fence['password_file']}" if fence.get("password_file") else ""
    return ", ".join(part for part in (f"{fence['agent']} {options}".strip(), password) if part)


def _fencing(node: NodeInfo, *, alone: bool) -> str | Cell:
    """How it is made sure of that the node runs nothing, were it lost; a mark where that would fail."""
    if node["fence"] is not None:
        check = node.get("fence_check")
        return Cell("agent!", "red") if check is not None and check["trouble"] else "agent"
    if node["self_fence_s"]:
        return "watchdog"
    return "none" if alone else Cell("none", "yellow")


def _answer(node: NodeInfo) -> str | Cell:
    check = node.get("fence_check")
    if node["fence"] is None:
        return ""
    if check is None:
        return "not asked lately whether it would do its work"
    return Cell(check["trouble"], "red") if check["trouble"] else f"answers {check['asked_by']}"


list_nodes = PvcCommand("list", show_nodes, params=[at_option()], help="List the nodes.", example="pvc node list")

info = PvcCommand(
    "info",
    show_node,
    reads=True,
    params=[click.Argument(["node"], shell_complete=complete.node_names), at_option()],
    about={"node": "Name of the node."},
    help="Show a node in full.",
    example="pvc node info hv1",
)
