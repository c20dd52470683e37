"""Cuts a live migration in the middle: whoever takes part is killed, or cut off, while the guest is on its way."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Iterator

from pvc.errors import PvcError
from pvc.events.vm_moves import VmMigrationPrepared, VmMigrationRequested
from pvc.lab import processes
from pvc.lab.chaos.schedule import Planned
from pvc.lab.chaos.site import Site
from pvc.lab.host import LabHost
from pvc.projections.vm_machine import VmState

PREPARED_S = 10.0
"""Until a migration that was asked for is under way, or will not be."""
MIGRATION_S = 2.0
"""What one takes here; it is cut somewhere in it."""
_POLL_S = 0.05


@contextlib.contextmanager
def migration_cut(site: Site, planned: Planned, rng: random.Random) -> Iterator[None]:
    """Begin a migration and kill its source, its target or the primary in the middle of it, or cut the network between
    source and target, or take ZooKeeper's majority away."""
    cut: list[str] = []
    down: list[LabHost] = []
    began = _begin(site, rng)
    if began is not None:
        vm, source, target = began
        time.sleep(rng.uniform(0, MIGRATION_S))
        what, _, where = planned.variant.partition("-")
        victim = {"source": source, "target": target}.get(where, site.primary)
        where = f" at {victim}" if what not in ("network", "zookeeper") else ""
        site.journal.note("fault", f"the migration of {vm} from {source} to {target} is cut: {what}{where}")
        with contextlib.suppress(PvcError):
            if what == "qemu":
                for run in site.sampler.present():
                    if run.vm == vm and run.host == victim:
                        processes.send(run.pid, signal.SIGKILL)
            elif what == "pvcd":
                site.lab.host(victim).kill_daemon("pvcd")
            elif what == "network":
                site.lab.partition([source, target], bridge=True)
            elif what == "zookeeper":
                servers = [host for host in site.lab.hosts if host.plan.coordinator]
                down += rng.sample(servers, len(servers) // 2 + 1)
                for host in down:
                    host.stop_daemon("zookeeper")
            else:
                site.lab.host(victim).cut_power()
                cut.append(victim)
    else:
        site.journal.note("fault", "no migration came about that could be cut")
    yield
    if planned.variant == "network":
        site.lab.heal()
    for host in down:
        with contextlib.suppress(PvcError):
            host.start_daemon("zookeeper")
    for name in cut:
        site.lab.host(name).boot()


def _begin(site: Site, rng: random.Random) -> tuple[str, str, str] | None:
    """Ask for migrations until one is prepared; gives the VM's id, source and target."""
    running = [vm.name for vm in list(site.logbook.state.vms.values()) if vm.state is VmState.RUNNING]
    rng.shuffle(running)
    for name in running[:3]:
        position = site.logbook.position
        asked = site.workload.do(rng, "vm.migrate", {"vm": name})
        if asked.verdict != "acknowledged":
            continue
        deadline = time.monotonic() + PREPARED_S
        while time.monotonic() < deadline:
            events = [event for told in site.logbook.told[position:] for event in told.events]
            prepared = {event.migration for event in events if isinstance(event, VmMigrationPrepared)}
            for event in events:
                if isinstance(event, VmMigrationRequested) and event.migration in prepared:
                    return event.vm, event.source, event.target
            time.sleep(_POLL_S)
    return None
