"""The lab's network: one bridge, one cable to each host, and what cuts them.

Partitions are rules on the bridge, in the machine's own namespace, as the switch between real hosts is nobody's
of them: they outlive a host's reboot, and no host can heal them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Set
from pathlib import Path

import msgspec

from pvc.errors import DriverError
from pvc.lab.plan import DEFAULT_SUBNET, HostPlan, LabPlan, bridge_of, prefix_of
from pvc.lab.shell import run

NETNS_DIR = Path("/run/netns")
INTERFACE = "eth0"
"""The network interface as the host sees it."""
_SUBNETS = range(DEFAULT_SUBNET, 128)
_LOCK = Path("/var/lib")
"""Any directory that all labs of a machine share will do: it is locked, and nothing is left in it."""


class Partition(msgspec.Struct, frozen=True, kw_only=True):
    """Groups of hosts that do not reach each other."""

    groups: list[list[str]]
    one_way: bool = False
    """Only what the first group sends is lost; the others still reach it."""
    link_down: bool = False
    """The cables of the first group are pulled out: its hosts see that they have no carrier, and reach nothing."""
    bmc: bool = False
    """The first group does not reach the BMCs either."""


def choose_subnet(*, taken: Set[int] | None = None) -> int:
    """The second number of a network 10.X.0.0/16 that this machine does not use yet. Raises DriverError."""
    used = _used_subnets() if taken is None else taken
    for subnet in _SUBNETS:
        if subnet not in used:
            return subnet
    raise DriverError(
        "no network from 10.77.0.0/16 to 10.127.0.0/16 is free", code="lab.no_subnet", hint="take down another lab"
    )


@contextlib.contextmanager
def choosing() -> Iterator[None]:
    """Held between choosing a network and making it, so that two labs do not choose the same."""
    handle = os.open(_LOCK, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def make_bridge(plan: LabPlan) -> None:
    """Make the bridge with the machine's own address and the BMCs' on it; leave alone what is there."""
    if not _exists(plan.bridge):
        run("ip", "link", "add", plan.bridge, "type", "bridge", "stp_state", "0", "forward_delay", "0")
    # A MAC of its own: a bridge else takes that of one of its ports, another with each host that boots, and the BMCs at
    # its addresses are not found until their neighbours' memory has run out, some 9 s later.
    run("ip", "link", "set", plan.bridge, "address", f"02:70:76:63:{plan.subnet:02x}:fe")
    addresses = [f"{plan.bridge_address}/16", *(f"{host.bmc_address}/32" for host in plan.hosts)]
    lines = [f"addr replace {address} dev {plan.bridge}" for address in addresses]
    run("ip", "-batch", "-", stdin="\n".join([*lines, f"link set {plan.bridge} up", ""]))


def plug_in(plan: LabPlan, host: HostPlan, *, link_down: bool = False) -> None:
    """Give the host a new network namespace with a cable to the bridge; what it had before is gone."""
    unplug(host)
    run("ip", "netns", "add", host.netns)
    cable = [
        f"link add {host.port} type veth peer name {INTERFACE} address {host.mac} netns {host.netns}",
        f"link set {host.port} master {plan.bridge} {'down' if link_down else 'up'}",
    ]
    run("ip", "-batch", "-", stdin="\n".join([*cable, ""]))
    inside = ["link set lo up", f"addr add {host.address}/16 dev {INTERFACE}", f"link set {INTERFACE} up", ""]
    run("ip", "-n", host.netns, "-batch", "-", stdin="\n".join(inside))


def silence(host: HostPlan) -> None:
    """Pull out the host's cable: nothing that its dying sockets say gets out, as in a power cut."""
    if _exists(host.port):
        run("ip", "link", "set", host.port, "down")


def unplug(host: HostPlan) -> None:
    """Take the host's cable and namespace away, if they are there."""
    _remove_link(host.port)
    _remove_netns(host.netns)


def part(plan: LabPlan, partition: Partition) -> None:
    """Cut the links between the groups, instead of what was cut before."""
    run("nft", "-f", "-", stdin=rules_of(plan, partition))
    down = set(partition.groups[0]) if partition.link_down else set()
    for host in plan.hosts:
        if _exists(host.port):
            run("ip", "link", "set", host.port, "down" if host.name in down else "up")


def heal(plan: LabPlan) -> None:
    """Let everybody reach everybody again."""
    run("nft", "-f", "-", stdin=_no_rules(plan.name))
    for host in plan.hosts:
        if _exists(host.port):
            run("ip", "link", "set", host.port, "up")


def rules_of(plan: LabPlan, partition: Partition) -> str:
    """The partition as an nftables script that replaces, in one step, what there was. Pure."""
    ports = [[plan.host(name).port for name in group] for group in partition.groups]
    ways = [
        (a, b) for a in range(len(ports)) for b in range(len(ports)) if a != b and (a == 0 or not partition.one_way)
    ]
    table = _table(plan.name)
    lines = [_no_rules(plan.name).rstrip(), f"add table {table}"]
    lines += [f"add chain {table} forward {{ type filter hook forward priority 0; }}"]
    lines += [f"add rule {table} forward iifname {_set(ports[a])} oifname {_set(ports[b])} drop" for a, b in ways]
    if partition.bmc:
        lines += [f"add chain {table} input {{ type filter hook input priority 0; }}"]
        lines += [f"add rule {table} input iifname {_set(ports[0])} ip daddr {plan.bmc_network} drop"]
    return "\n".join([*lines, ""])


def remove_all(name: str) -> None:
    """Take away every namespace, cable, rule and bridge that has the name of this lab, whoever left it."""
    run("nft", "-f", "-", stdin=_no_rules(name), check=False)
    for link in _links():
        if link.startswith(prefix_of(name)):
            _remove_link(link)
    for netns in netns_of(name):
        _remove_netns(netns.name)
    _remove_link(bridge_of(name))


def netns_of(name: str) -> list[Path]:
    """The network namespaces of the lab of this name, as files."""
    return sorted(NETNS_DIR.glob(f"{prefix_of(name)}*")) if NETNS_DIR.is_dir() else []


def leftovers(name: str) -> list[str]:
    """What of this lab's network is there."""
    links = [link for link in _links() if link.startswith(prefix_of(name)) or link == bridge_of(name)]
    return [*links, *(netns.name for netns in netns_of(name))]


def _table(name: str) -> str:
    return f"bridge {name}lab"


def _no_rules(name: str) -> str:
    """Adding it first makes deleting it possible whether it was there or not."""
    return f"add table {_table(name)}\ndelete table {_table(name)}\n"


def _set(ports: list[str]) -> str:
    return "{ " + ", ".join(f'"{port}"' for port in ports) + " }"


def _links() -> list[str]:
    return [path.name for path in Path("/sys/class/net").iterdir()]


def _exists(link: str) -> bool:
    return Path("/sys/class/net", link).exists()


def _remove_link(link: str) -> None:
    if _exists(link):
        run("ip", "link", "del", link, check=False)


def _remove_netns(netns: str) -> None:
    if (NETNS_DIR / netns).exists():
        run("ip", "netns", "del", netns, check=False)


def _used_subnets() -> set[int]:
    found = set()
    for interface in json.loads(run("ip", "-json", "-4", "addr")):
        for address in interface.get("addr_info", []):
            first, second, *_ = str(address["local"]).split(".")
            if first == "10":
                found.add(int(second))
    return found
