"""One run: a lab of its own, clients that work, a nemesis that breaks and heals, and at the end all the checks."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from pvc.errors import PvcError
from pvc.lab.chaos import checks, figures
from pvc.lab.chaos.faults import in_force
from pvc.lab.chaos.journal import Journal, Note
from pvc.lab.chaos.logbook import Logbook, read_all
from pvc.lab.chaos.sampler import Sampler
from pvc.lab.chaos.schedule import Planned, draw
from pvc.lab.chaos.site import Site, mend, prepare
from pvc.lab.chaos.windows import doubles
from pvc.lab.chaos.workload import Workload
from pvc.lab.guest import build_guest
from pvc.lab.lab import Lab, create_new_lab, destroy
from pvc.lab.plan import LabPlan
from pvc.lab.status import zookeeper_mode
from pvc.projections.state import NodeState
from pvc.projections.vm_machine import VmState

WELL_SOON_S = 60.0
"""After the healing of a fault all nodes are ready within this time, or it is worth a look."""
WELL_S = 150.0
"""And within this time surely: an agent may take a minute to fail, is tried again 15 s later, and a boot takes 10 s."""
SETTLED_S = 60.0
"""After everything is healed and nobody asks for more, what should run runs within this time."""
HUNG_S = 25.0
"""A guest that neither beats nor writes anything for so long hangs. Emulated CPUs do not survive every migration in the
middle of a boot."""
SLOW_S = 120.0
"""Guests that still boot get so much longer: on a busy machine an emulated boot takes a minute."""
UNDER_WAY_S = 60.0
"""The first VMs run within this time after they were asked for."""
HEARD_S = 3.0
"""What we know of the nodes is no older than this, or we may be cut off ourselves."""
KEEP = ("journal", "log", "bmc", "pvc-lib/console", "pvc-lib/zookeeper")
"""What is kept of a host when something was wrong, but for ZooKeeper's data: it is large, and the timeline tells it."""
_POLL_S = 0.3
_CLIENTS = 3


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What to run."""

    directory: Path
    plan: LabPlan
    """The lab to be made."""
    seed: int
    minutes: float
    out: Path
    """Where timeline and logs go when something is wrong."""
    vms: int = 6
    only: tuple[str, ...] = ()
    """Kinds of faults; empty: all."""
    overlaps: bool = True
    keep: bool = False
    """Keep timeline and logs in any case."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How it went."""

    violations: list[str]
    remarks: list[str]
    lines: list[str]
    """The report."""
    faults: int
    acknowledged: int
    recovered: int
    kept: Path | None = None


def run(settings: Settings, tell: Callable[[str], None] = lambda line: None) -> Result:
    """Run it, clear away the lab, and tell. Raises PvcError when there can be no lab, or is one already."""
    journal = Journal(tell)
    lab = create_new_lab(settings.directory, settings.plan)
    tell(f"seed {settings.seed} begins at {time.strftime('%H:%M:%S')}")
    chaos: Chaos | None = None
    try:
        prepare(lab)
        lab.up()
        chaos = Chaos(settings, lab, journal)
        chaos.run()
    finally:
        # Also when it was interrupted, and before the lab goes with all its logs.
        if chaos is not None:
            chaos.close()
        kept = _keep(settings, lab, journal, chaos) if journal.violations or settings.keep else None
        destroy(settings.directory, settings.plan.name)
    left = destroy(settings.directory, settings.plan.name)
    if left:
        journal.violation(f"`down` has left something behind: {left}")
    return chaos.result(kept)


class Chaos:
    """The parts of a run on a lab that is up."""

    def __init__(self, settings: Settings, lab: Lab, journal: Journal) -> None:
        self._settings = settings
        self._lab = lab
        self._journal = journal
        self._rng = random.Random(settings.seed)  # noqa: S311 - to be repeated
        guest = build_guest(lab.directory / "shared/guest")
        self.sampler = Sampler(lab, journal)
        self.logbook = Logbook(lab, journal)
        self.workload = Workload(lab, journal, guest, seed=settings.seed, clients=_CLIENTS, vms=settings.vms)
        self._site = Site(lab, journal, self.sampler, self.logbook, self.workload)
        self.broken: list[figures.Broken] = []

    def run(self) -> None:
        """Work and break until the time is over, heal all, check all."""
        self.sampler.start()
        self.logbook.start()
        self.workload.prepare(self._rng)
        if not self._until(self._all_beat, UNDER_WAY_S, longer=self._booting):
            self._journal.violation(f"not all VMs ran within {UNDER_WAY_S:.0f} s, before anything was broken")
        self.workload.start()
        end = time.monotonic() + self._settings.minutes * 60
        while time.monotonic() < end:
            names = [host.name for host in self._lab.hosts]
            for planned in draw(self._rng, names, only=self._settings.only, overlaps=self._settings.overlaps):
                if time.monotonic() < end:
                    self._break(planned)
        self._journal.note("fault", "all is healed", aloud=True)
        mend(self._lab, self._journal)
        self.workload.stop()
        for host in self._lab.hosts:
            self.workload.do(self._rng, "node.ready", {"node": host.name})
        self._settle()
        self._check()

    def close(self) -> None:
        """Watch and work no more, wherever it was interrupted."""
        self.workload.stop()
        self.sampler.stop()
        self.logbook.stop()

    def result(self, kept: Path | None) -> Result:
        """The figures and what is wrong."""
        told, asked = self.logbook.told, self.workload.asked
        minutes = (time.time() - self._journal.began_s) / 60
        lines = figures.render(told=told, broken=self.broken, runs=self.sampler.runs, asked=asked, minutes=minutes)
        reads = f"{self.workload.reads} reads after writes, {self.workload.reads_unanswered} unanswered"
        return Result(
            violations=self._journal.violations,
            remarks=self._journal.remarks,
            lines=[*lines, f"{reads}; longest pause of the sampler {self.sampler.longest_pause_s:.1f} s"],
            faults=len(self.broken),
            acknowledged=sum(one.verdict == "acknowledged" for one in asked),
            recovered=sum(one.vms for one in figures.failovers(told, self.broken, self.sampler.runs)),
            kept=kept,
        )

    def _break(self, planned: Planned) -> None:
        fault = figures.Broken(kind=planned.kind, what="", began_s=time.time())
        self.broken.append(fault)
        with in_force(self._site, planned, self._rng) as fault.what:
            if planned.second is not None:
                time.sleep(planned.lasts_s / 2)
                second = figures.Broken(kind=planned.second.kind, what="", began_s=time.time())
                self.broken.append(second)
                with in_force(self._site, planned.second, self._rng) as second.what:
                    time.sleep(max(planned.lasts_s / 2, planned.second.lasts_s))
                second.healed_s = time.time()
            else:
                time.sleep(planned.lasts_s)
        fault.healed_s = time.time()
        if self._until(self._well, WELL_S):
            fault.well_s = time.time()
            self._journal.note("fault", f"all nodes are ready after {fault.what}")
            if fault.well_s - fault.healed_s > WELL_SOON_S:
                self._journal.remark(
                    f"all nodes were ready only {fault.well_s - fault.healed_s:.0f} s after {fault.what}"
                )
        else:
            states = {node.name: node.state.value for node in list(self.logbook.state.nodes.values())}
            self._journal.violation(f"not well within {WELL_S:.0f} s after {fault.what} was healed: {states}")
            mend(self._lab, self._journal)
        time.sleep(planned.calm_s)

    def _well(self) -> bool:
        """All servers of ZooKeeper serve, all nodes are there, and the log has them as ready."""
        nodes = list(self.logbook.state.nodes.values())
        ready = len(nodes) == len(self._lab.hosts) and all(node.state is NodeState.READY for node in nodes)
        there = len(self.logbook.latest) == len(nodes) and time.time() - self.logbook.heard_s < HEARD_S
        return ready and there and all(zookeeper_mode(host) for host in self._lab.hosts if host.plan.coordinator)

    def _settle(self) -> None:
        left: list[str] = ["nothing was looked at yet"]

        def settled() -> bool:
            left[:] = checks.check_settled(self.logbook.state, self.sampler.present(), self.sampler.beating())
            behind = [name for name, said in self.logbook.latest.items() if said.position != self.logbook.position]
            left.extend(f"{name} is not at position {self.logbook.position}" for name in behind)
            return not left

        began = time.monotonic()
        if not self._until(settled, HUNG_S):
            self._reset_hung()
        if self._until(settled, SETTLED_S - HUNG_S, longer=self._booting):
            self._journal.note("check", f"settled after {time.monotonic() - began:.1f} s", aloud=True)
        for what in left:
            self._journal.violation(f"{SETTLED_S:.0f} s after all was healed {what}")
        for vm in self.logbook.state.vms.values():
            if vm.error:
                self._journal.remark(f"VM {vm.name} is {vm.state.value}: {vm.error}")
        for fault in self.logbook.state.faults.values():
            self._journal.remark(f"fault {fault.id}: {fault.message}")

    def _reset_hung(self) -> None:
        """Guests that their hypervisor says run, but that do nothing, are not PVC's to mend; a person resets them."""
        beating = {run.pid for run in self.sampler.beating()}
        for run in self.sampler.present():
            vm = self.logbook.state.vms.get(run.vm)
            if (
                run.pid in beating
                or not self.sampler.silent(run, time.time() - HUNG_S)
                or vm is None
                or vm.state is not VmState.RUNNING
                or vm.node != run.host
            ):
                continue
            with contextlib.suppress(PvcError):
                if self._lab.host(run.host).exec("virsh", "domstate", run.vm).stdout.strip() == "running":
                    self._journal.remark(f"the guest of VM {vm.name} on {run.place} hangs; it is reset")
                    self.workload.do(self._rng, "vm.reset", {"vm": vm.name})

    def _check(self) -> None:
        stored = asyncio.run(read_all(self._lab))
        self._until(lambda: self.logbook.position >= len(stored), SETTLED_S)
        self.sampler.stop()
        self.logbook.stop()
        told, runs = self.logbook.told, self.sampler.runs
        wrong, odd = checks.check_commands(self.workload.asked, told)
        found: Sequence[str] = [
            *checks.check_log(stored, told),
            *wrong,
            *checks.check_hashes(self.logbook.hashes, self.logbook.said),
            *checks.check_fencing(told, runs),
            *doubles(runs),
        ]
        for what in found:
            self._journal.violation(what)
        for what in odd:
            self._journal.remark(what)

    def _all_beat(self) -> bool:
        return len(self.sampler.beating()) >= self._settings.vms

    def _booting(self) -> bool:
        beating = {run.pid for run in self.sampler.beating()}
        since_s = time.time() - HUNG_S
        return any(run.pid not in beating and not self.sampler.silent(run, since_s) for run in self.sampler.present())

    def _until(self, done: Callable[[], bool], timeout_s: float, *, longer: Callable[[], bool] = lambda: False) -> bool:
        deadline = time.monotonic() + timeout_s
        while not done():
            now = time.monotonic()
            if now > deadline and not (now < deadline + SLOW_S and longer()):
                return False
            time.sleep(_POLL_S)
        return True


def _keep(settings: Settings, lab: Lab, journal: Journal, chaos: Chaos | None) -> Path:
    """Copy what helps to find out, and write the timeline: records, faults, commands and VMs by time."""
    out = settings.out / f"seed-{settings.seed}-{time.strftime('%H%M%S')}"
    out.mkdir(parents=True, exist_ok=True)
    notes = list(journal.notes)
    if chaos is not None:
        notes += [Note(time_s=one.arrived_s, source="log", text=one.sentence) for one in chaos.logbook.told]
        names = {vm.id: vm.name for vm in chaos.logbook.state.vms.values()}
    else:
        names = {}
    lines = []
    for note in sorted(notes, key=lambda note: note.time_s):
        text = note.text
        for vm_id, name in names.items():
            text = text.replace(vm_id, name)
        clock = time.strftime("%H:%M:%S", time.localtime(note.time_s))
        lines.append(f"{clock}.{int(note.time_s * 1000) % 1000:03d} {note.source:<8}{text}")
    (out / "timeline.txt").write_text("\n".join([*lines, ""]))
    for host in lab.hosts:
        for part in KEEP:
            with contextlib.suppress(OSError, shutil.Error):
                shutil.copytree(
                    host.home / part,
                    out / host.name / Path(part).name,
                    ignore=shutil.ignore_patterns("version-2"),
                    dirs_exist_ok=True,
                )
    return out
