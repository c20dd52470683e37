"""Indexes of where VMs are: each node's load and VMs, each tag's VMs. Derived from the VMs, kept as they change."""

from __future__ import annotations

import msgspec


class Load(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What VMs take of a node."""

    memory_mib: int = 0
    """Held by active VMs, or kept for those on their way."""
    vcpus: int = 0
    running: int = 0
    vms: int = 0
    """All VMs assigned to the node, active or not."""
    provisioned_mib: int = 0
    """The memory of all of those, were they all to run."""


NO_LOAD = Load()


class Placed:
    """The indexes of one state. Only `ClusterState` changes them."""

    __slots__ = ("_loads", "away_from", "counts", "incoming", "on_node", "tagged")

    def __init__(self) -> None:
        self._loads: dict[str, Load] = {}
        self.counts: dict[tuple[str, str], int] = {}
        """Node and state -> how many of the VMs assigned to the node are in that state."""
        self.on_node: dict[str, dict[str, None]] = {}
        """Node -> ids of the VMs assigned to it. Dicts as sets that keep an order, the same in every process."""
        self.tagged: dict[str, dict[str, None]] = {}
        """Tag -> ids of the VMs that have it."""

        self.away_from: dict[str, dict[str, None]] = {}
        """Home node -> ids of the VMs that are on another."""
        self.incoming: dict[str, dict[str, None]] = {}
        """Node -> ids of the VMs that are on their way to it."""

    def fork(self) -> Placed:
        """An independent copy."""
        twin = Placed()
        twin._loads = self._loads.copy()
        twin.counts = self.counts.copy()
        twin.on_node = {node: ids.copy() for node, ids in self.on_node.items()}
        twin.tagged = {tag: ids.copy() for tag, ids in self.tagged.items()}
        twin.away_from = {home: ids.copy() for home, ids in self.away_from.items()}
        twin.incoming = {node: ids.copy() for node, ids in self.incoming.items()}
        return twin

    def load_of(self, node: str) -> Load:
        """What the VMs of a node take."""
        return self._loads.get(node, NO_LOAD)

    def ids_on(self, node: str) -> tuple[str, ...]:
        """The ids of the VMs assigned to a node."""
        return tuple(self.on_node.get(node, ()))

    def shift(self, node: str, share: Load, sign: int) -> None:
        """Add what a VM takes (sign 1), or take it away (-1)."""
        load = self.load_of(node)
        self._loads[node] = Load(
            memory_mib=load.memory_mib + sign * share.memory_mib,
            vcpus=load.vcpus + sign * share.vcpus,
            running=load.running + sign * share.running,
            vms=load.vms + sign * share.vms,
            provisioned_mib=load.provisioned_mib + sign * share.provisioned_mib,
        )

    def count(self, node: str, state: str, sign: int) -> None:
        """One VM of the node more (sign 1) or less (-1) in this state."""
        number = self.counts.get((node, state), 0) + sign
        if number:
            self.counts[node, state] = number
        else:
            del self.counts[node, state]

    def expect(self, vm: str, node: str) -> None:
        """The VM is on its way to this node."""
        self.incoming.setdefault(node, {})[vm] = None

    def expect_no_more(self, vm: str, node: str) -> None:
        """It is no longer."""
        _discard(self.incoming, node, vm)

    def put_in(self, vm: str, node: str, home: str, tags: dict[str, bool]) -> None:
        """The VM is on this node, with these tags."""
        self.on_node.setdefault(node, {})[vm] = None
        if home != node:
            self.away_from.setdefault(home, {})[vm] = None
        for tag in tags:
            self.tagged.setdefault(tag, {})[vm] = None

    def take_out(self, vm: str, node: str, home: str, tags: dict[str, bool]) -> None:
        """It is no longer."""
        _discard(self.on_node, node, vm)
        if home != node:
            _discard(self.away_from, home, vm)
        for tag in tags:
            _discard(self.tagged, tag, vm)


def _discard(index: dict[str, dict[str, None]], key: str, vm: str) -> None:
    ids = index[key]
    del ids[vm]
    if not ids:
        del index[key]
