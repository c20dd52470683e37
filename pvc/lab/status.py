"""What there is to tell of a lab: hosts, power, daemons, VMs, what is cut; as data, and as a table."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from pvc.errors import Unavailable
from pvc.lab.host import QEMU, LabHost
from pvc.lab.lab import Lab
from pvc.lab.plan import ZOOKEEPER_PORT

_ASK_S = 0.5
"""A ZooKeeper next door answers within milliseconds; one that is frozen never does."""
_TITLES = ("HOST", "ADDRESS", "FENCED BY", "POWER", "ZOOKEEPER", "PVCD", "LIBVIRTD", "VMS")


def status_of(lab: Lab) -> dict[str, Any]:
    """All of it, for programs."""
    cut = lab.cut
    return {
        "name": lab.plan.name,
        "directory": str(lab.directory),
        "bridge": lab.plan.bridge,
        "partition": cut and {"groups": cut.groups, "one_way": cut.one_way, "link_down": cut.link_down, "bmc": cut.bmc},
        "hosts": [_host(lab, host) for host in lab.hosts],
    }


def render(told: dict[str, Any]) -> str:
    """The same for a person."""
    rows = [_TITLES, *(_row(host) for host in told["hosts"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if cut := told["partition"]:
        groups = [",".join(group) for group in cut["groups"]]
        words = [word for word in ("one_way", "link_down", "bmc") if cut[word]]
        more = f" ({', '.join(word.replace('_', '-') for word in words)})" if words else ""
        lines += ["", f"Cut: {' | '.join(groups)}{more}"]
    return "\n".join([*lines, ""])


def _host(lab: Lab, host: LabHost) -> dict[str, Any]:
    power = host.power
    found: dict[str, Any] = {
        "name": host.name,
        "address": host.plan.address,
        "power": power,
        "coordinator": host.plan.coordinator,
        "self_fencing": host.plan.self_fencing,
        "bmc": None if host.plan.self_fencing else {"address": host.plan.bmc_address, "running": lab.bmc(host).running},
        "zookeeper": zookeeper_mode(host) if host.plan.coordinator and power == "on" else "",
        "vms": list(host.processes().values()).count(QEMU),
        "daemons": {},
    }
    with contextlib.suppress(Unavailable):
        found["daemons"] = {
            unit.name: {
                "running": bool(unit.pid),
                "wanted": unit.wanted,
                "running_s": unit.running_s,
                "starts": unit.starts,
                "last_exit": unit.last_exit,
            }
            for unit in host.units()
        }
    return found


def _row(host: dict[str, Any]) -> tuple[str, ...]:
    zookeeper = (host["zookeeper"] or _silent(host)) if host["coordinator"] and host["power"] == "on" else "-"
    daemons = [_daemon(host["daemons"].get(name)) for name in ("pvcd", "libvirtd")]
    bmc = "watchdog"
    if host["bmc"] is not None:
        bmc = host["bmc"]["address"] if host["bmc"]["running"] else "down"
    return (host["name"], host["address"], bmc, host["power"], zookeeper, *daemons, str(host["vms"]))


def _silent(host: dict[str, Any]) -> str:
    """What a ZooKeeper is that does not serve."""
    wanted = host["daemons"].get("zookeeper", {}).get("wanted", True)
    return "down" if wanted else "stopped"


def _daemon(daemon: dict[str, Any] | None) -> str:
    if daemon is None:
        return "-"
    if not daemon["wanted"]:
        return "stopping" if daemon["running"] else "stopped"
    if not daemon["running"]:
        return "waits" if daemon["last_exit"] is None else f"died ({daemon['last_exit']})"
    return f"up {daemon['running_s']:.0f} s" + (f", {daemon['starts']} starts" if daemon["starts"] > 1 else "")


def zookeeper_mode(host: LabHost) -> str:
    """leader, follower or standalone; empty when it does not serve, or cannot be reached from here."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection((host.plan.address, ZOOKEEPER_PORT), timeout=_ASK_S) as connection,
    ):
        connection.sendall(b"srvr")
        said = b""
        while part := connection.recv(4096):
            said += part
        for line in said.decode(errors="replace").splitlines():
            if line.startswith("Mode: "):
                return line.removeprefix("Mode: ")
    return ""
