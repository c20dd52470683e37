"""web01 among three nodes, and the way of a migration."""

from __future__ import annotations

from typing import Any

from pvc.commands.facts import Ending
from pvc.errors import Rejected
from tests.support.answers import refused
from tests.support.core import TinyCluster, a_cluster, bring

MOVES = ("vm.migrate", "vm.move")


def a_cluster_of_three(state: str = "running", **fields: Any) -> TinyCluster:
    """web01 on hv1, in `state`; hv2 and hv3 are there for it."""
    cluster = a_cluster("hv1", "hv2", "hv3")
    cluster.do("vm.define", **{"name": "web01", "memory_mib": 1024, "node": "hv1"} | fields)
    bring(cluster, "web01", state)
    return cluster


def move_refused(cluster: TinyCluster, name: str, /, **fields: Any) -> Rejected:
    """As `refused`, of what is asked for web01."""
    return refused(cluster, name, vm="web01", **fields)


def go(cluster: TinyCluster, command: str = "vm.migrate", /, **fields: Any) -> TinyCluster:
    """The whole way of a live migration."""
    cluster.do(command, vm="web01", **fields)
    cluster.says_prepared()
    cluster.says_ended(Ending.MIGRATED)
    cluster.says_arrived()
    return cluster
