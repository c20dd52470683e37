"""What a lab is made of: its hosts, their names and addresses. Pure; it is stored as `lab.json` in the lab's directory.

Everything that the lab makes in the kernel carries a name derived from the lab's, so that several labs do not meet,
and so that `down` finds what a crash has left behind.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from pvc.errors import InvalidInput
from pvc.events.types import END

DEFAULT_NAME = "pvc"
DEFAULT_SUBNET = 77
MAX_NODES = 16
COORDINATORS = (1, 3, 5)
ALL = "all"
"""Instead of the names of hosts."""
BMC_USER = "pvc"
BMC_PORT = 623
ZOOKEEPER_PORT = 2181
CLUSTER = "lab"
"""The cluster's name, in ZooKeeper and for `pvc cluster init`."""

LabName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9]{0,5}" + END)]
"""Short, because an interface's name has 15 characters at most."""


class HostPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One host."""

    name: str
    number: int
    coordinator: bool
    self_fencing: bool
    """It has a watchdog and no BMC."""
    netns: str
    """Its network namespace."""
    port: str
    """Its network cable's other end: the port of the bridge."""
    address: str
    bmc_address: str
    mac: str
    """The same after each boot, as the neighbours remember it."""


class LabPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The lab."""

    nodes: Annotated[int, Meta(ge=1, le=MAX_NODES)]
    coordinators: Annotated[int, Meta(ge=1)]
    name: LabName = DEFAULT_NAME
    subnet: Annotated[int, Meta(ge=1, le=254)] = DEFAULT_SUBNET
    """The addresses are 10.SUBNET.0.0/16."""
    self_fencing: tuple[str, ...] = ()
    """The hosts that have a watchdog and no BMC."""

    @property
    def prefix(self) -> str:
        """What the names of all its namespaces and ports begin with."""
        return prefix_of(self.name)

    @property
    def bridge(self) -> str:
        """The bridge that all hosts are plugged into."""
        return bridge_of(self.name)

    @property
    def bridge_address(self) -> str:
        """The address at which the lab's own machine is in that network."""
        return f"10.{self.subnet}.0.254"

    @property
    def bmc_network(self) -> str:
        """Where the BMCs are."""
        return f"10.{self.subnet}.1.0/24"

    @property
    def hosts(self) -> list[HostPlan]:
        """All hosts, the coordinators first."""
        return [self._host(number) for number in range(1, self.nodes + 1)]

    @property
    def zookeeper_hosts(self) -> str:
        """The ensemble, as clients want it."""
        return ",".join(f"{host.address}:{ZOOKEEPER_PORT}" for host in self.hosts if host.coordinator)

    @property
    def sentence(self) -> str:
        """For a person."""
        fencing = f", self-fencing {', '.join(self.self_fencing)}" if self.self_fencing else ""
        return f"{self.name}, {self.nodes} nodes, {self.coordinators} coordinators{fencing}"

    def host(self, name: str) -> HostPlan:
        """The named host. Raises InvalidInput naming those that there are."""
        for host in self.hosts:
            if host.name == name:
                return host
        names = ", ".join(host.name for host in self.hosts)
        raise InvalidInput(f"the lab has no host {name!r}", code="lab.no_host", hint=f"it has {names}", field="host")

    def _host(self, number: int) -> HostPlan:
        return HostPlan(
            name=f"hv{number}",
            number=number,
            coordinator=number <= self.coordinators,
            self_fencing=f"hv{number}" in self.self_fencing,
            netns=f"{self.prefix}hv{number}",
            port=f"{self.prefix}hv{number}",
            address=f"10.{self.subnet}.0.{number}",
            bmc_address=f"10.{self.subnet}.1.{number}",
            mac=f"02:70:76:63:{self.subnet:02x}:{number:02x}",
        )


def make_plan(
    *,
    nodes: int,
    coordinators: int,
    name: str = DEFAULT_NAME,
    subnet: int = DEFAULT_SUBNET,
    self_fencing: Iterable[str] = (),
) -> LabPlan:
    """A plan that can be carried out; `self_fencing` names hosts, or `all`. Raises InvalidInput."""
    if not 1 <= nodes <= MAX_NODES:
        raise InvalidInput(f"a lab has 1 to {MAX_NODES} nodes, not {nodes}", code="lab.bad_plan", field="nodes")
    if coordinators not in COORDINATORS or coordinators > nodes:
        raise InvalidInput(
            f"{coordinators} coordinators of {nodes} nodes are not possible",
            code="lab.bad_plan",
            hint="1, 3 or 5 of the nodes are coordinators",
            field="coordinators",
        )
    try:
        plan = msgspec.convert({"nodes": nodes, "coordinators": coordinators, "name": name, "subnet": subnet}, LabPlan)
    except msgspec.ValidationError as error:
        raise InvalidInput(
            f"{name!r} is no name for a lab: {error}",
            code="lab.bad_plan",
            hint="a lower-case letter, then at most five more or digits",
            field="name",
        ) from error
    asked = set(self_fencing)
    chosen = [host.name for host in plan.hosts if ALL in asked or host.name in asked]
    for unknown in sorted(asked - {ALL, *chosen}):
        plan.host(unknown)
    return msgspec.structs.replace(plan, self_fencing=tuple(chosen))


def prefix_of(name: str) -> str:
    """What the names of a lab's namespaces and ports begin with."""
    return f"{name}lab-"


def bridge_of(name: str) -> str:
    """The name of a lab's bridge."""
    return f"{name}lab0"


def parse_groups(plan: LabPlan, words: list[str], *, bridge: bool = False) -> list[list[str]]:
    """Groups of hosts from words like `hv1,hv2`; the hosts that none of them names are one more group together.

    With `bridge` they are in no group: they reach all the others, who do not reach each other.
    Raises InvalidInput for an unknown or repeated host, and when there are fewer than two groups.
    """
    groups = [[plan.host(name).name for name in word.split(",") if name] for word in words]
    groups = [group for group in groups if group]
    named = [name for group in groups for name in group]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise InvalidInput(f"{', '.join(twice)} cannot be on both sides", code="lab.bad_partition", field="groups")
    rest = [host.name for host in plan.hosts if host.name not in named]
    groups = [*groups, rest] if rest and not bridge else groups
    if len(groups) < 2 and bridge:
        raise InvalidInput(
            "one group alone has nobody to be parted from",
            code="lab.bad_partition",
            hint="give two: hv1 hv3",
            field="groups",
        )
    if len(groups) < 2:
        raise InvalidInput(
            "these are all hosts, so there is nothing to part them from",
            code="lab.bad_partition",
            hint="give groups: hv1 hv2,hv3",
            field="groups",
        )
    return groups
