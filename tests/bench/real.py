"""A lab of three hosts of its own, with real QEMU guests, and a follower of its log that notes when what happened."""

from __future__ import annotations

import asyncio
import contextlib
import re
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from pvc.errors import PvcError
from pvc.events.record import Entry
from pvc.events.registry import Event
from pvc.lab.guest import GuestImage, build_guest
from pvc.lab.host import LabHost
from pvc.lab.lab import Lab, create_lab, destroy
from pvc.lab.plan import CLUSTER
from pvc.lab.shell import check_machine
from pvc.log.zookeeper import ZookeeperLog
from pvc.projections.state import NodeState, Vm
from pvc.projections.vm_machine import VmState
from pvc.runtime.world import World, catch_up, follow
from tests.bench.daemon import Api

NAME = "bench"
RAW = "raw"
"""The libvirt domain that PVC does not know, for comparison."""
CONSOLES = "/var/lib/pvc/console"
MEMORY_MIB = 128
WAIT_S = 120.0
"""Until something has happened; far more than it takes, so that only a defect ends it."""
ASK_AGAIN_S = 0.2
"""Between two tries of a command, while a gateway or the log is not there."""
QUIET_BEAT_S = 60.0
"""Between two heartbeats of a guest that is to be there and no more."""


class Real:
    """The lab as the measurements see it."""

    def __init__(self, lab: Lab, guest: GuestImage, world: World) -> None:
        self.lab = lab
        self.world = world
        self.told: list[tuple[float, Event]] = []
        """Every event since the start, with the wall clock's second at which its record was made."""
        self._guest = guest

    @property
    def names(self) -> list[str]:
        return [host.name for host in self.lab.hosts]

    def vm(self, name: str) -> Vm:
        state = self.world.state
        return state.vms[state.vm_names[name]]

    def note(self, entry: Entry, events: tuple[Event, ...]) -> None:
        self.told += [(entry.record.time_us / 1e6, event) for event in events]

    async def ask(self, path: str, fields: dict[str, Any] | None = None, *, host: LabHost | None = None) -> None:
        """A command to a gateway, to any that lives and again where it is not answered, until it is."""
        until = time.monotonic() + WAIT_S
        while True:
            for one in [host] if host is not None else self.lab.hosts:
                try:
                    return await asyncio.to_thread(_post, one, path, fields or {})
                except (OSError, AssertionError) as error:
                    why = error
            assert time.monotonic() < until, f"{path}: {why!r}"
            await asyncio.sleep(ASK_AGAIN_S)

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Return as soon as this is so by the log."""
        changed = asyncio.Event()
        try:
            with self.world.listening(lambda entry, events: changed.set()):
                async with asyncio.timeout(WAIT_S):
                    while not holds():
                        changed.clear()
                        await changed.wait()
        except TimeoutError:
            states = {vm.name: (vm.node, vm.state.value) for vm in self.world.state.vms.values()}
            nodes = {node.name: node.state.value for node in self.world.state.nodes.values()}
            last = [(f"{at:.1f}", event) for at, event in self.told[-8:]]
            raise AssertionError(f"not within {WAIT_S:.0f} s: {what}; {nodes} {states} {last}") from None

    async def define(self, name: str, node: str, *, beat_s: float = QUIET_BEAT_S) -> None:
        """A VM of the tiny guest."""
        fields = {
            "name": name,
            "node": node,
            "memory_mib": MEMORY_MIB,
            "vcpus": 1,
            "kernel": str(self._guest.kernel),
            "initrd": str(self._guest.initrd),
            "cmdline": f"console=ttyS0 oops=panic panic=-1 pvc.name={name} pvc.beat={beat_s:g}",
        }
        await self.ask("/vms", fields)
        await self.until(lambda: name in self.world.state.vm_names, f"{name} is defined")

    async def start(self, name: str) -> None:
        """Start it and wait until it runs."""
        await self.ask(f"/vms/{name}/start")
        await self.until(lambda: self.vm(name).state is VmState.RUNNING, f"{name} runs")

    async def until_ready(self) -> None:
        """All nodes are."""
        await self.until(
            lambda: all(node.state is NodeState.READY for node in self.world.state.nodes.values()),
            "all nodes are ready",
        )

    def console(self, node: str, name: str) -> Path:
        """The file of what a guest has written on a host: the VM's of this name, or the one that PVC does not know."""
        domain = self.vm(name).id if name != RAW else RAW
        return self.lab.host(node).home / "pvc-lib/console" / f"{domain}.log"


def bare(xml: str) -> str:
    """The same domain under another name, and without what would make it one of PVC's: such a stray is cleared away."""
    xml = re.sub(r"<name>.*?</name>", f"<name>{RAW}</name>", xml, count=1)
    xml = re.sub(r"<uuid>.*?</uuid>", f"<uuid>{uuid.uuid4()}</uuid>", xml, count=1)
    xml = re.sub(r"<metadata.*?</metadata>", "", xml, count=1, flags=re.DOTALL)
    return re.sub(r"<log file='[^']*/[^/']*'", f"<log file='{CONSOLES}/{RAW}.log'", xml)


def missing() -> str:
    """Why there can be no lab here; empty if there can."""
    try:
        check_machine()
    except PvcError as error:
        return error.message
    return ""


@contextlib.asynccontextmanager
async def real_lab() -> AsyncIterator[Real]:
    """Three hosts, up and ready; gone afterwards."""
    # Not the benchmark's own directory: its path may be too long for a socket.
    home = Path(tempfile.mkdtemp(prefix="pvc-bench-lab-", dir="/tmp"))
    try:
        lab = await asyncio.to_thread(lambda: create_lab(home, nodes=3, coordinators=3, name=NAME))
        await asyncio.to_thread(lab.up)
        guest = await asyncio.to_thread(lambda: build_guest(home / "shared"))
        log = await ZookeeperLog.open(lab.plan.zookeeper_hosts, CLUSTER)
        try:
            world = World()
            real = Real(lab, guest, world)
            with world.listening(real.note):
                await catch_up(world, log)
                following = asyncio.create_task(follow(world, log))
                try:
                    yield real
                finally:
                    following.cancel()
                    await asyncio.gather(following, return_exceptions=True)
        finally:
            await log.close()
    finally:
        await asyncio.to_thread(lambda: destroy(home, NAME))


def _post(host: LabHost, path: str, fields: dict[str, Any]) -> None:
    api = Api(host.socket)
    try:
        api.post(path, fields)
    finally:
        api.close()
