"""The same lives of VMs with the `eventsourcing` library (a benchmark's dependency only), kept in its memory store."""

from __future__ import annotations

from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from tests.bench.measure import Side, cpu_stopwatch


class Vm(Aggregate):
    """A VM as that library's documentation would write it."""

    @event("Defined")
    def __init__(self, name: str, memory_mib: int, vcpus: int, node: str) -> None:
        self.name = name
        self.memory_mib = memory_mib
        self.vcpus = vcpus
        self.node = node
        self.state = "stopped"
        self.epoch = 0
        self.tags: dict[str, bool] = {}

    @event("StartRequested")
    def request_start(self, node: str, epoch: int) -> None:
        self.state = "starting"
        self.node = node
        self.epoch = epoch

    @event("Started")
    def note_started(self, node: str, epoch: int) -> None:
        self.state = "running"

    @event("TagAdded")
    def add_tag(self, tag: str, protected: bool) -> None:
        self.tags = {**self.tags, tag: protected}

    @event("ShutdownRequested")
    def request_shutdown(self, timeout_s: int, on_timeout: str) -> None:
        self.state = "shutting-down"

    @event("Stopped")
    def note_stopped(self, node: str, epoch: int, how: str) -> None:
        self.state = "stopped"

    @event("TagRemoved")
    def remove_tag(self, tag: str) -> None:
        self.tags = {name: held for name, held in self.tags.items() if name != tag}


def replay(vms: int, events: int, database: str = "") -> Side:
    """A round loads every VM from its stored events, in memory or in a SQLite file; the figure is events per second."""
    sqlite = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": database}
    app: Application[UUID] = Application(env=sqlite if database else {})
    ids, stored = [], 0
    for number in range(vms):
        vm = Vm(name=f"vm{number:06d}", memory_mib=2048, vcpus=2, node="hv1")
        for epoch in range(1, max(2, events // vms // 6 + 1)):
            _live(vm, epoch)
        ids.append(vm.id)
        stored += vm.version
        app.save(vm)

    async def round_() -> float:
        with cpu_stopwatch() as watch:
            for vm_id in ids:
                assert app.repository.get(vm_id).state == "stopped"
        return stored / watch.seconds

    return round_


def _live(vm: Vm, epoch: int) -> None:
    vm.request_start(node="hv1", epoch=epoch)
    vm.note_started(node="hv1", epoch=epoch)
    vm.add_tag(tag=f"round-{epoch}", protected=False)
    vm.request_shutdown(timeout_s=90, on_timeout="force")
    vm.note_stopped(node="hv1", epoch=epoch, how="guest")
    vm.remove_tag(tag=f"round-{epoch}")
