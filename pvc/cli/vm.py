"""`pvc vm list`, `pvc vm info` and `pvc vm tag list`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from pvc.cli import complete
from pvc.cli.base import PvcCommand
from pvc.cli.past import at_option, note_past
from pvc.cli.session import Session, now_us
from pvc.cli.table import Cell, Column, render_facts
from pvc.cli.times import ago, mib
from pvc.cli.watch import transfer
from pvc.client.api_types import MigrationView, VmInfo, VmRow, VmUsage

COLUMNS = (
    Column("VM", rank=0),
    Column("STATE", rank=0),
    Column("NODE"),
    Column("MEMORY", right=True),
    Column("VCPUS", right=True),
    Column("AUTOSTART", rank=2),
    Column("TAGS", rank=2),
    Column("DESCRIPTION", rank=2, optional=True),
)

STATE_STYLES = {
    "running": "green",
    "failed": "red",
    "stopped": "",
    "disabled": "dim",
}
"""Any other state is on its way to one of these."""

STATES = (
    "stopped",
    "starting",
    "running",
    "shutting-down",
    "stopping",
    "restarting",
    "resetting",
    "migrating",
    "arriving",
    "failed",
    "disabled",
)
"""As the gateway knows them; a test holds the two together."""


AWAY = {"migrate": "migrated by hand", "flush": "its home is flushed", "recovery": "recovered from its home"}
"""Why a VM is not at home."""


def show_vms(
    session: Session, state: Sequence[str], tag: str | None, node: str | None, name: str | None, at: str | None
) -> None:
    """VMs, one a line."""
    rows = session.client.vms(state=",".join(state), tag=tag or "", node=node or "", name=name or "", at=at or "")
    past = note_past(session)
    if session.wants_data:
        session.show_data(rows)
        return
    session.show_table(COLUMNS, vm_rows(rows))
    if not rows:
        session.note(
            f"No VM {'was' if past else 'is'} like that."
            if state or tag or node or name
            else "There were no VMs."
            if past
            else "There are no VMs yet. Define one: pvc vm define -h"
        )
    elif not past and any(row["restart_required"] for row in rows):
        session.note("* changed since it was started; `pvc vm restart NAME` applies the change")


def vm_rows(rows: Sequence[VmRow]) -> list[list[str | Cell]]:
    """The rows of the table of VMs."""
    return [
        [
            row["name"],
            state_cell(row["state"], changed=row["restart_required"]),
            _where(row),
            mib(row["memory_mib"]),
            str(row["vcpus"]),
            "on" if row["autostart"] else "off",
            ",".join(row["tags"]),
            row["description"],
        ]
        for row in rows
    ]


def _where(row: VmRow) -> str:
    """The node, where it goes, and where it belongs: `hv1`, `hv1 → hv2`, `hv2 (home hv1)`."""
    going = f" → {row['target']}" if row["target"] not in ("", row["node"]) else ""
    return row["node"] + going + (f" (home {row['home']})" if row["home"] not in (row["node"], row["target"]) else "")


def state_cell(state: str, *, changed: bool = False) -> Cell:
    """A VM's state in its colour, with a star where the running VM differs from its definition."""
    return Cell(f"{state}*" if changed else state, STATE_STYLES.get(state, "yellow"))


def show_vm(session: Session, vm: str, at: str | None) -> None:
    """One VM in full."""
    found = session.client.vm(vm, at=at or "")
    note_past(session)
    if session.wants_data:
        session.show_data(found)
        return
    session.show(render_facts(vm_facts(found, now_us()), session.look))


def vm_facts(vm: VmInfo, at_us: int) -> list[tuple[str, str | Cell]]:
    """All that a person wants to know of a VM."""
    spec = vm["spec"]
    pending = ", ".join(vm["restart_required"])
    return [
        ("VM", vm["name"]),
        ("Id", vm["id"]),
        ("Description", vm["description"]),
        ("State", state_cell(vm["state"])),
        ("Error", Cell(vm["error"], "red")),
        ("Changed", ago(vm["changed_us"], at_us)),
        ("To apply", Cell(f"{pending}: pvc vm restart {vm['name']}" if pending else "", "yellow")),
        ("Node", vm["node"] + _away(vm)),
        ("Chosen", ", ".join(vm["why"])),
        *_migration(vm["migration"], at_us),
        ("Uses", _usage(vm["usage"])),
        ("Memory", mib(spec["memory_mib"])),
        ("vCPUs", str(spec["vcpus"])),
        *[("Disk" if i == 0 else "", _parts(disk)) for i, disk in enumerate(spec.get("disks", []))],
        *[("NIC" if i == 0 else "", _parts(nic)) for i, nic in enumerate(spec.get("nics", []))],
        ("Kernel", spec.get("kernel") or ""),
        ("Initrd", spec.get("initrd") or ""),
        ("Command line", spec.get("cmdline", "")),
        ("Devices", "from a libvirt XML (-o json shows it)" if spec.get("xml") else ""),
        ("Tags", ", ".join(tag["tag"] + (" (protected)" if tag["protected"] else "") for tag in vm["tags"])),
        ("Autostart", "on" if vm["autostart"] else "off"),
        ("When it ends", f"powers itself off: {vm['on_poweroff']}; crashes: {vm['on_crash']}"),
        ("Placement", f"selector {vm['selector']}, nodes {', '.join(vm['node_limits']) or 'any'}"),
        ("Affinity", ", ".join(vm["affinity"])),
        ("Anti-affinity", ", ".join(vm["anti_affinity"])),
        ("Priority", str(vm["priority"])),
        ("Migration", f"{vm['migration_method']}, stands still for {vm['max_downtime_ms']} ms at most"),
        ("Runs so far", str(vm["epoch"])),
        ("Defined", ago(vm["defined_us"], at_us)),
    ]


def _away(vm: VmInfo) -> str:
    if vm["home"] in ("", vm["node"]):
        return ""
    return f" (home {vm['home']}{'; ' + AWAY.get(vm['away'], vm['away']) if vm['away'] else ''})"


def _migration(move: MigrationView | None, at_us: int) -> list[tuple[str, str | Cell]]:
    if move is None:
        return []
    how = "live" if move["live"] else "by shutdown and start"
    stage = "being given up" if move["cancel"] else "" if move["prepared"] else "to be prepared there"
    about = ", ".join(part for part in (how, "for good" if move["permanent"] else "", stage, move["reason"]) if part)
    facts: list[tuple[str, str | Cell]] = [
        ("Migrates", Cell(f"from {move['source']} to {move['target']}, {about}", "yellow")),
        ("", ", ".join(move["why"])),
        ("", f"since {ago(move['since_us'], at_us)}"),
    ]
    if move["progress"] is not None:
        facts.append(("", transfer(move["progress"])))
    return facts


def _usage(usage: VmUsage | None) -> str:
    if usage is None:
        return ""
    return f"{usage['cpu_per_cent']:.0f} % of a CPU, {mib(usage['memory_used_mib'])} of its node's memory"


def show_tags(session: Session, vm: str | None, at: str | None) -> None:
    """The tags of a VM, or all tags with the VMs that have them."""
    if vm is not None:
        tags = session.client.vm(vm, at=at or "")["tags"]
        note_past(session)
        if session.wants_data:
            session.show_data(tags)
            return
        cells = [[tag["tag"], "yes" if tag["protected"] else "no"] for tag in tags]
        session.show_table([Column("TAG", rank=0), Column("PROTECTED")], cells)
        return
    having: dict[str, list[str]] = {}
    rows = session.client.vms(at=at or "")
    note_past(session)
    for row in rows:
        for name in row["tags"]:
            having.setdefault(name, []).append(row["name"])
    if session.wants_data:
        session.show_data([{"tag": tag, "vms": vms} for tag, vms in sorted(having.items())])
        return
    session.show_table(
        [Column("TAG", rank=0), Column("COUNT", right=True), Column("VMS")],
        [[tag, str(len(vms)), ", ".join(vms)] for tag, vms in sorted(having.items())],
    )


def vm_argument(*, required: bool = True) -> click.Argument:
    """The argument that names a VM."""
    return click.Argument(["vm"], required=required, shell_complete=complete.vm_names)


ABOUT_VM = {"vm": "Name or id of the VM."}


def _parts(device: dict[str, Any]) -> str:
    first, *rest = device.items()
    told = [key.replace("_", "-") if value is True else f"{key} {value}" for key, value in rest if value]
    return ", ".join([str(first[1]), *told])


list_vms = PvcCommand(
    "list",
    show_vms,
    params=[
        click.Option(
            ["--state"],
            type=click.Choice(STATES),
            multiple=True,
            metavar="STATE",
            help=f"Only those in this state: {', '.join(STATES)}. Can be repeated.",
        ),
        click.Option(["--tag"], metavar="TAG", shell_complete=complete.tag_names, help="Only those with this tag."),
        click.Option(["--node"], metavar="NODE", shell_complete=complete.node_names, help="Only those on this node."),
        click.Option(["--name"], metavar="PATTERN", help="Only those with such a name: * and ? stand for anything."),
        at_option(),
    ],
    help="List the VMs.",
    example="pvc vm list --state running --name 'web*'",
)

info = PvcCommand(
    "info",
    show_vm,
    reads=True,
    params=[vm_argument(), at_option()],
    about=ABOUT_VM,
    help="Show a VM in full.",
    example="pvc vm info web01",
)

list_tags = PvcCommand(
    "list",
    show_tags,
    params=[vm_argument(required=False), at_option()],
    about={"vm": "Name or id of the VM; without one, all tags there are."},
    help="List the tags of a VM, or all tags with the VMs that have them.",
    example="pvc vm tag list web01",
)
