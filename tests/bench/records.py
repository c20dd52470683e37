"""Logs to measure with: real events of a cluster whose VMs live, chained as an appender would seal them."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from typing import Any

from pvc.events import cluster, node, vm
from pvc.events.record import EMPTY, Actor, CommandRef, Entry, Head, Record, seal
from pvc.events.registry import Event, encode_event
from pvc.events.types import ShutdownTimeoutAction

NODE = "hv1"
FOREIGN = "made for a measurement"
"""The hypervisor that the node had when its log was made, until a real daemon announces another."""
ADMIN = Actor(principal="admin", method="token", address="192.0.2.10", source="cli/0.1.0")
FACT = Actor(principal=f"node/{NODE}", method="node")
_START_US = 1_780_000_000_000_000


class Chain:
    """A growing chain of records."""

    def __init__(self, head: Head = EMPTY) -> None:
        self.head = head

    def add(self, name: str, *events: Event, actor: Actor = ADMIN, cause: str = "") -> Entry:
        """The next record."""
        number = self.head.position + 1
        entry = seal(
            Record(
                position=number,
                prev=self.head.hash,
                id=f"01J9Z{number:021d}",
                time_us=_START_US + number * 1_000,
                actor=actor,
                origin=NODE,
                command=CommandRef(id=f"01J8Z{number:021d}", name=name),
                cause=cause,
                events=tuple(encode_event(event) for event in events),
            )
        )
        self.head = entry.head
        return entry


def vm_id(number: int) -> str:
    """The id of the VM with this number."""
    return str(uuid.UUID(int=0x4000_8000_0000_0000_0000 + number))


def vm_name(number: int) -> str:
    """The name of the VM with this number."""
    return f"vm{number:06d}"


def a_cluster(chain: Chain, vms: int, *, coordinator: bool = False) -> Iterator[Entry]:
    """A cluster of one node is made and gets so many VMs, all at rest."""
    yield chain.add("cluster.init", cluster.ClusterInitialised(cluster=str(uuid.UUID(int=1)), name="bench"))
    ready = node.NodeReady(
        node=NODE, memory_mib=1_048_576, vcpus=256, accelerator="tcg", hypervisor=FOREIGN, version="0.1.0"
    )
    joined = node.NodeJoined(node=NODE, coordinator=coordinator)
    yield chain.add("node.report_ready", joined, ready, actor=FACT)
    for number in range(vms):
        spec = vm.VmSpec(
            memory_mib=2048, vcpus=2, disks=(vm.Disk(path=f"/var/lib/libvirt/images/{vm_name(number)}.raw"),)
        )
        defined = vm.VmDefined(vm=vm_id(number), name=vm_name(number), spec=spec, node=NODE, tags=("bench",))
        yield chain.add("vm.define", defined)


def daily_life(chain: Chain, vms: int, records: int) -> Iterator[Entry]:
    """So many records of VMs being started, tagged, shut down, one VM after the other, over and over."""
    return itertools.islice(_lives(chain, vms), records)


def _lives(chain: Chain, vms: int) -> Iterator[Entry]:
    for epoch in itertools.count(1):
        for number in range(vms):
            about: dict[str, Any] = {"vm": vm_id(number), "node": NODE, "epoch": epoch}
            wish = chain.add("vm.start", vm.VmStartRequested(**about))
            yield wish
            yield chain.add("vm.report_running", vm.VmStarted(**about), actor=FACT, cause=wish.record.id)
            yield chain.add("vm.add_tag", vm.VmTagAdded(vm=vm_id(number), tag=f"round-{epoch}"))
            shutdown = vm.VmShutdownRequested(vm=vm_id(number), timeout_s=90, on_timeout=ShutdownTimeoutAction.FORCE)
            wish = chain.add("vm.shutdown", shutdown)
            yield wish
            stopped = vm.VmStopped(**about, how="guest")
            yield chain.add("vm.report_ended", stopped, actor=FACT, cause=wish.record.id)
            yield chain.add("vm.remove_tag", vm.VmTagRemoved(vm=vm_id(number), tag=f"round-{epoch}"))
