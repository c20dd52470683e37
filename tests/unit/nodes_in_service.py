"""Three nodes with VMs, and flushes that are carried out to their end."""

from __future__ import annotations

from typing import Any

from pvc.commands.facts import Ending
from pvc.projections.state import FlushState
from pvc.projections.vm_machine import VmState
from tests.support.core import TinyCluster, a_cluster, bring


def with_vms(*names: str, node: str = "hv1", **fields: Any) -> TinyCluster:
    """Three nodes; the VMs run on one of them."""
    cluster = a_cluster("hv1", "hv2", "hv3")
    for name in names:
        define(cluster, name, node=node, **fields)
    return cluster


def define(cluster: TinyCluster, name: str, state: str = "running", **fields: Any) -> None:
    cluster.do("vm.define", **{"name": name, "memory_mib": 512, "node": "hv1"} | fields)
    bring(cluster, name, state)


def arrive(cluster: TinyCluster, name: str) -> None:
    """The rest of a live migration."""
    cluster.says_prepared(name)
    cluster.says_ended(Ending.MIGRATED, name)
    cluster.says_arrived(name)


def flush(cluster: TinyCluster, node: str = "hv1") -> None:
    """Flush to the end; every migration succeeds."""
    cluster.do("node.flush", node=node)
    run_steps(cluster, node)


def run_steps(cluster: TinyCluster, node: str) -> None:
    while cluster.state.nodes[node].flush in (FlushState.FLUSHING, FlushState.RETURNING):
        cluster.flush_step(node)
        for vm in list(cluster.state.vms.values()):
            if vm.state is VmState.MIGRATING:
                arrive(cluster, vm.name)
