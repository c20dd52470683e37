"""Which records may leave ZooKeeper, and what keeps the others there. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pvc.presence.hello import Hello
from pvc.projections.state import ClusterState


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """Up to which position records may leave, and who or what keeps those behind it."""

    position: int
    waits_for: str = ""


def removal(
    state: ClusterState, hellos: Mapping[str, Hello | None], own_name: str, own_archived: int, *, shared: bool
) -> Removal:
    """Every node that is there has folded them; every coordinator that is there has them in its archive, and these are
    a majority of the coordinators; and a node that comes back without a copy of its own can have one.

    `hellos`: node that is there -> what it says, None where that cannot be read. `shared`: whether there is an archive
    that all nodes share.
    """
    coordinators = {node.name for node in state.nodes.values() if node.coordinator}
    there = [name for name in sorted(coordinators) if hellos.get(name) is not None]
    if len(there) * 2 <= len(coordinators):
        return Removal(position=0, waits_for=f"a majority of the coordinators: {_names(coordinators - set(there))}")
    positions: dict[int, str] = {}
    for name, hello in sorted(hellos.items()):
        if hello is None:
            return Removal(position=0, waits_for=f"{name}, which does not say how far it is: it is of another version")
        if name in coordinators and not hello.gateway and not shared and len(state.nodes) > 1:
            why = f"{name}, whose archive the others cannot reach: let its gateway listen with TLS (gateway.listen)"
            return Removal(position=0, waits_for=why)
        positions.setdefault(hello.position, f"{name}, which has folded the log up to there only")
        if name in coordinators:
            archived = own_archived if name == own_name else hello.archived
            positions.setdefault(archived, f"{name}, which has archived the log up to there only")
    slowest = min(positions)
    return Removal(position=slowest, waits_for=f"{positions[slowest]} ({slowest})")


def _names(names: set[str]) -> str:
    return ", ".join(sorted(names))
