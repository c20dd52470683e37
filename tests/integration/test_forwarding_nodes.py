"""Whole nodes on a real ZooKeeper: their VMs start all at once, and their reports go by way of the primary."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from pvc.commands.vm_define import DefineVm
from pvc.commands.vm_power import StartVm
from pvc.events.record import unseal
from pvc.log.inbox import Forwarded
from pvc.log.zookeeper import ZookeeperLog
from pvc.projections.state import ClusterState
from pvc.projections.vm_machine import VmState
from pvc.runtime.writers import CROWD
from tests.bench.crowd import crowd
from tests.integration.zookeeper_server import ZookeeperServer, cluster, zookeeper

__all__ = ["cluster", "zookeeper"]
pytestmark = pytest.mark.zookeeper

NODES = CROWD + 1
VMS = 4
"""On each node."""


async def test_what_many_nodes_report_goes_by_way_of_the_primary_also_when_that_dies(
    zookeeper: ZookeeperServer, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with crowd(zookeeper.hosts, cluster, NODES, memory_mib=65_536) as made:
        laid_in: list[Forwarded] = []
        for member in made.members:
            monkeypatch.setattr(member.inbox, "put", _noting(member.inbox.put, laid_in))
        names = [f"{member.name}-{number}" for member in made.members for number in range(VMS)]
        for name in names:
            await made.ask("vm.define", DefineVm(name=name, memory_mib=64, node=name.partition("-")[0]))
        for name in names[: len(names) // 2]:
            await made.ask("vm.start", StartVm(vm=name))
        await made.until(lambda: _running(made.first.world.state) == len(names) // 2)
        primary = made.first.world.state.cluster
        assert primary is not None
        (doomed,) = [member for member in made.members if member.name == primary.primary]
        made.members.remove(doomed)
        await doomed.kill()
        for name in names[len(names) // 2 :]:
            await made.ask("vm.start", StartVm(vm=name))
        await made.until(lambda: _running(made.first.world.state) == len(names))
        assert {report.node for report in laid_in} >= {member.name for member in made.members[1:3]}
        log = await ZookeeperLog.open(zookeeper.hosts, cluster)
        records = [unseal(data).record for data in await log.read(1, 500)]
        await log.close()
        ids = [record.command.id for record in records]
        assert len(ids) == len(set(ids))
        recorded = {record.command.id: record.origin for record in records}
        arrived = [report for report in laid_in if report.id in recorded]
        assert len(arrived) >= NODES
        assert all(recorded[report.id] == report.node for report in arrived)


def _running(state: ClusterState) -> int:
    return sum(vm.state is VmState.RUNNING for vm in state.vms.values())


def _noting(put: Callable[[Sequence[Forwarded]], object], laid_in: list[Forwarded]) -> Callable[..., object]:
    async def noting(reports: Sequence[Forwarded]) -> None:
        laid_in.extend(reports)
        await put(reports)  # type: ignore[misc]

    return noting
