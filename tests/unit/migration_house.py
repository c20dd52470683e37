"""Two simulated machines whose nodes look again and again, and a VM that goes from one to the other."""

from __future__ import annotations

import asyncio
from typing import Any

from pvc.drivers.hypervisor import DomainState
from pvc.drivers.simulated import SimulatedHypervisor
from pvc.drivers.simulated_guest import Behaviour
from pvc.drivers.simulated_network import SimulatedNetwork
from pvc.events.registry import decode_event
from pvc.events.vm import VmSpec
from pvc.handlers.transfers import Transfers
from pvc.handlers.vm_reconciler import VmReconciler
from pvc.projections.state import Vm
from pvc.projections.vm_machine import AT_REST, VmState
from pvc.sim.loop import VirtualClock
from tests.support.core import TinyCluster, a_cluster

NODES = ("hv1", "hv2")
SETTLE_S = 400.0
PACE_S = 0.25
"""Between two looks of each node; events would wake them at once."""


class Killed(BaseException):
    """The daemon is no more."""


class Daemon:
    """What one node's daemon is made of; another one after each life."""

    def __init__(self, house: House, node: str) -> None:
        self.transfers = Transfers(house.machines[node], lambda vm: None)

        async def obstacle(spec: VmSpec) -> str:
            return house.obstacles.get(node, "")

        async def hear(report: Any, cause: str) -> None:
            house.cluster.report(report)

        self.reconciler = VmReconciler(
            node,
            lambda: house.cluster.state,
            house.machines[node],
            hear,
            VirtualClock(),
            transfers=self.transfers,
            obstacle=obstacle,
            may_start=lambda: node not in house.unsure,
        )


class House:
    """Two nodes that look again and again, and the VM web01, which runs on hv1."""

    def __init__(self, **fields: Any) -> None:
        self.network = SimulatedNetwork()
        self.cluster: TinyCluster = a_cluster(*NODES)
        self.machines = {
            node: SimulatedHypervisor(network=self.network, address=f"10.0.0.{number}")
            for number, node in enumerate(NODES, 1)
        }
        for node, machine in self.machines.items():
            self.cluster.says_ready(node, address=machine.address)
            machine.default_behaviour = Behaviour(heartbeat=False)
        self.obstacles: dict[str, str] = {}
        self.unsure: set[str] = set()
        self.silent: set[str] = set()
        self.daemons = {node: Daemon(self, node) for node in NODES}
        self.cluster.do("vm.define", **{"name": "web01", "memory_mib": 512, "node": "hv1"} | fields)
        self.vm_id = self.cluster.vm().id

    @property
    def vm(self) -> Vm:
        return self.cluster.vm()

    async def look(self, node: str) -> None:
        """One look of one node; a killed daemon is there again at the next."""
        if node in self.silent:
            return
        try:
            await self.daemons[node].reconciler.reconcile(self.vm_id)
        except Killed:
            await self.daemons[node].transfers.close()
            self.daemons[node] = Daemon(self, node)

    async def run(self, seconds: float) -> None:
        """So long."""
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            for node in NODES:
                await self.look(node)
            self.check_that_only_one_runs()
            await asyncio.sleep(PACE_S)

    async def settle(self) -> None:
        """Until the VM plainly runs, or is off."""
        end = asyncio.get_running_loop().time() + SETTLE_S
        while True:
            await self.run(2 * PACE_S)
            if self.vm.state is VmState.RUNNING or self.vm.state in AT_REST:
                break
            assert asyncio.get_running_loop().time() < end, f"it does not settle: {self.vm.state}"
        await self.run(4 * PACE_S)
        for node in NODES:
            domain = self.machines[node].snapshot().get(self.vm_id)
            here = node == self.vm.node and self.vm.state is VmState.RUNNING
            assert (domain.state if domain else None) == (DomainState.RUNNING if here else None), node

    def check_that_only_one_runs(self) -> None:
        running = [
            node
            for node in NODES
            for domain in self.machines[node].snapshot().values()
            if domain.state is DomainState.RUNNING
        ]
        assert len(running) <= 1, "the guest runs twice"

    async def start(self) -> None:
        self.cluster.do("vm.start", vm="web01")
        await self.settle()
        assert self.vm.state is VmState.RUNNING

    def behave(self, **how: Any) -> None:
        for machine in self.machines.values():
            machine.default_behaviour = Behaviour(heartbeat=False, **how)

    def told(self) -> list[str]:
        return [decode_event(raw).TYPE for entry in self.cluster.entries for raw in entry.record.events]


def now_s() -> float:
    return asyncio.get_running_loop().time()
