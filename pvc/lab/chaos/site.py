"""The lab as the chaos needs it: each host has a small disk of its own, and a pvcd whose clock can be set.

Both are made before the lab's first boot; `mend` ends everything that any fault may have left, whatever happened.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from pvc.errors import PvcError
from pvc.files import replace_file
from pvc.lab import network, processes
from pvc.lab.chaos.journal import Journal
from pvc.lab.chaos.logbook import Logbook
from pvc.lab.chaos.sampler import Sampler
from pvc.lab.chaos.workload import Workload
from pvc.lab.host import LabHost
from pvc.lab.host_files import Unit
from pvc.lab.lab import Lab
from pvc.lab.shell import run
from pvc.lab.status import zookeeper_mode

DISK_MIB = 400
"""Room for ZooKeeper's files (64 MiB each, made at once), consoles and the history."""
FILLER = "chaos-filler"
SKEW_FILE = "/etc/pvc/skew"
_SKEWED = """\
import runpy, sys, time
real_ns, real = time.time_ns, time.time
def skew():
    try:
        return float(open({file!r}).read())
    except (OSError, ValueError):
        return 0.0
time.time_ns = lambda: real_ns() + int(skew() * 1e9)
time.time = lambda: real() + skew()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Not by libfaketime: with it, Python's time.sleep fails unless the monotonic clock steps too."""


class Site:
    """The lab, and all that watches it."""

    def __init__(self, lab: Lab, journal: Journal, sampler: Sampler, logbook: Logbook, workload: Workload) -> None:
        self.lab = lab
        self.journal = journal
        self.sampler = sampler
        self.logbook = logbook
        self.workload = workload

    @property
    def primary(self) -> str:
        """Who is primary by the log; the first host where nobody is yet."""
        cluster = self.logbook.state.cluster
        return (cluster.primary if cluster is not None else "") or self.lab.hosts[0].name

    @property
    def leader(self) -> str:
        """The host of ZooKeeper's leader; the first where none is."""
        modes = {host.name: zookeeper_mode(host) for host in self.lab.hosts if host.plan.coordinator}
        return next((name for name, mode in modes.items() if mode == "leader"), self.lab.hosts[0].name)

    def daemon_pid(self, host: LabHost, name: str) -> int:
        """The daemon's process as this machine counts; 0 when it is not there."""
        with contextlib.suppress(PvcError):
            inside = host.unit(name).pid
            init = host.init
            for pid in processes.members(init) if init and inside else ():
                if processes.inside_pid(pid) == inside:
                    return pid
        return 0


def prepare(lab: Lab) -> None:
    """Give each host its small disk and its own clock, before it boots for the first time."""
    for host in lab.hosts:
        _prepare_host(host)


def _prepare_host(host: LabHost) -> None:
    disk = host.home / "pvc-lib"
    if not disk.is_mount():
        aside = host.home / "pvc-lib.new"
        disk.rename(aside)
        disk.mkdir()
        run("mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=755", "pvc-chaos", str(disk))
        shutil.copytree(aside, disk, dirs_exist_ok=True)
        shutil.rmtree(aside)
    path = host.home / "units.json"
    units = msgspec.json.decode(path.read_bytes(), type=list[Unit])
    code = _SKEWED.format(file=SKEW_FILE)
    replace_file(path, msgspec.json.encode([_with_clock(unit, code) for unit in units]))


def set_clock(host: LabHost, seconds: float) -> None:
    """Have the host's pvcd believe that it is so much later."""
    replace_file(host.home / "pvc-etc" / Path(SKEW_FILE).name, f"{seconds}\n".encode())


def cut_replies(host: LabHost, rule: str) -> None:
    """Drop what the host receives by this rule, also from itself."""
    table = "table inet chaos"
    chain = f"{table} {{ chain input {{ type filter hook input priority 0; {rule} drop; }} }}"
    run("ip", "netns", "exec", host.plan.netns, "nft", "-f", "-", stdin=f"add {table}\ndelete {table}\n{chain}\n")


def mend_replies(host: LabHost) -> None:
    """Let the host receive all again; a host that was switched off has forgotten already."""
    if (network.NETNS_DIR / host.plan.netns).exists():
        run("ip", "netns", "exec", host.plan.netns, "nft", "flush", "ruleset", check=False)


def mend(lab: Lab, journal: Journal) -> None:
    """End every fault."""
    for host in lab.hosts:
        set_clock(host, 0)
        (host.home / "pvc-lib" / FILLER).unlink(missing_ok=True)
    _insist(journal, "heal the network", lab.heal)
    for host in lab.hosts_with_bmc:
        _insist(journal, f"start the BMC of {host.name}", lab.bmc(host).start)
    for host in lab.hosts:
        _insist(journal, f"mend {host.name}", lambda host=host: _mend_host(host))  # type: ignore[misc]


def _mend_host(host: LabHost) -> None:
    mend_replies(host)
    init = host.init
    if init is not None:
        processes.thaw(init)
    host.boot()
    for unit in host.units():
        if not unit.wanted:
            host.start_daemon(unit.name)


def _insist(journal: Journal, what: str, do: Callable[[], object]) -> None:
    """A host may be fenced while it is mended; then it is mended again."""
    for _ in range(5):
        try:
            do()
            return
        except (PvcError, OSError) as error:
            journal.note("fault", f"cannot {what} yet: {error}")
            time.sleep(1)
    journal.violation(f"could not {what}")


def _with_clock(unit: Unit, code: str) -> Unit:
    if unit.name != "pvcd" or "-c" in unit.argv:
        return unit
    return msgspec.structs.replace(unit, argv=[sys.executable, "-P", "-c", code, *unit.argv])
