"""Where presence lives in ZooKeeper: paths, the znodes' contents, and who may do what with them. No I/O.

/pvc/<cluster>/nodes/<name>       ephemeral: the node's place; JSON with its machine and its hello
/pvc/<cluster>/election/primary   ephemeral: the primary's name and machine
/pvc/<cluster>/telemetry/<name>   the node's last telemetry; outlives its session
"""

from __future__ import annotations

import msgspec

from pvc.zookeeper.place import ancestors, place_of
from pvc.zookeeper.types import CREATE, DELETE, READ, WRITE, Create


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of an ephemeral znode: whose it is."""

    name: str
    machine: str
    hello: bytes = b""


class Layout:
    """The paths of one cluster's presence."""

    def __init__(self, cluster: str) -> None:
        above = place_of(cluster)
        self._ancestors = ancestors(cluster)
        self.nodes = f"{above}/nodes"
        self.election = f"{above}/election"
        self.primary = f"{self.election}/primary"
        self.telemetry = f"{above}/telemetry"

    def node(self, name: str) -> str:
        """A node's place."""
        return f"{self.nodes}/{name}"

    def telemetry_of(self, name: str) -> str:
        """A node's telemetry."""
        return f"{self.telemetry}/{name}"

    def foundation(self) -> list[Create]:
        """All that must be there first, from the top."""
        parents = (self.nodes, self.election, self.telemetry)
        return [*self._ancestors, *(Create(path, b"", READ | CREATE | DELETE) for path in parents)]


def new_place(path: str, place: Place) -> Create:
    """Create the ephemeral znode."""
    return Create(path, msgspec.json.encode(place), READ | WRITE, ephemeral=True)


def decode_place(data: bytes) -> Place:
    """What a place's znode says. What cannot be read was not written by any machine of ours."""
    try:
        return msgspec.json.decode(data, type=Place)
    except msgspec.MsgspecError:
        return Place(name="?", machine="")
