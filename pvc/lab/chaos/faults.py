"""The faults, each a context: it begins, is in force while the context lasts, and is healed at its end."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from pvc.errors import PvcError
from pvc.lab import processes
from pvc.lab.chaos.migration_cut import migration_cut
from pvc.lab.chaos.schedule import LEADER, PRIMARY, Planned
from pvc.lab.chaos.site import FILLER, Site, cut_replies, mend_replies, set_clock
from pvc.lab.host import LabHost
from pvc.lab.status import zookeeper_mode

SERVES_S = 30.0
"""Until a ZooKeeper server that was started serves in an ensemble."""
OVER_S = 5.0
"""What was folded before the majority was lost is carried out by then: a guest's shutdown above all."""
FENCE_FAILS_S = 63.0
"""An agent that gets no answer is given up after a minute, the default of its setting."""
CLOCK_STEP_S = 300.0
_POLL_S = 0.2

Fault = Callable[[Site, Planned, random.Random], AbstractContextManager[None]]


@contextlib.contextmanager
def in_force(site: Site, planned: Planned, rng: random.Random) -> Iterator[str]:
    """The fault, with its roles filled in; gives what it is in words."""
    host = {PRIMARY: lambda: site.primary, LEADER: lambda: site.leader}.get(planned.host, lambda: planned.host)()
    filled = Planned(kind=planned.kind, variant=planned.variant, host=host, lasts_s=planned.lasts_s)
    words = " ".join(word for word in (planned.kind, planned.variant, host) if word)
    site.journal.note("fault", f"{words} for {planned.lasts_s:g} s", aloud=True)
    with FAULTS[planned.kind](site, filled, rng):
        yield words
    site.journal.note("fault", f"{words} is healed")


def _host(site: Site, planned: Planned) -> LabHost:
    return site.lab.host(planned.host)


def _kills(daemon: str) -> Fault:
    @contextlib.contextmanager
    def kill(site: Site, planned: Planned, rng: random.Random) -> Iterator[None]:
        with contextlib.suppress(PvcError):  # it may be off by another fault
            _host(site, planned).kill_daemon(daemon)
        yield

    return kill


@contextlib.contextmanager
def _kill_qemu(site: Site, planned: Planned, rng: random.Random) -> Iterator[None]:
    runs = site.sampler.present()
    if runs:
        run = rng.choice(runs)
        site.journal.note("fault", f"{run.vm} is killed on {run.place}")
        processes.send(run.pid, signal.SIGKILL)
    yield


@contextlib.contextmanager
def _power_cut(site: Site, planned: Planned, rng: random.Random) -> Iterator[None]:
    _host(site, planned).cut_power()
    yield
    _host(site, planned).boot()


@contextlib.contextmanager
def _freeze_host(site: Site, planned: Planned, rng: random.Random) -> Iterator[None]:
    host = _host(site, planned)
    with contextlib.suppress(PvcError):
        host.freeze()
    yield
    with contextlib.suppress(PvcError):
        host.thaw()


@contextlib.contextmanager
def _freeze_pvcd(site: Site, planned: Planned, rng: random.Random) -> Iterator[None]:
    pid = site.daemon_pid(_host(site, planned), "pvcd")
    if pid:
        processes.send(pid, signal.SIGSTOP)
    yield
    # By now the number may be another's, if the host was fenced; going on harms nobody.
    if pid:
        processes.send(pid, signal.SIGCONT)


@contextlib.contextmanager
def _partition(site: Site, planned: Planned, rng: random.Random) -> Iterator[None]:
    bmc, link_down = planned.variant == "with-bmc", planned.variant == "link-down"
    site.lab.partition([planned.host], bmc=bmc, link_down=link_down)
    yield
    site.lab.heal()


@contextlib.contextmanager
def _one_way(site: Site, planned: Planned, rng: random.Random) -> Iterator[None]:
    others = ",".join(host.name for host in site.lab.hosts if host.name != planned.host)
    site.lab.partition([planned.host] if planned.variant == "from" else [others, planned.host], one_way=True)
    yield
    site.lab.heal()


@contextlib.contextmanager
def _bridge(site: Site, planned: Planned, rng: random.Random) -> Iterator[None]:
    """Two hosts do not reach each other, and all others reach both."""
    one, other = rng.sample([host.name for host in site.lab.hosts], 2)
    site.journal.note("fault", f"{one} and {other} do not reach each other")
    site.lab.partition([one, other], bridge=True)
    yield
    site.lab.heal()


@contextlib.contextmanager
def _all_apart(site: Site, planned: Planned, rng: random.Random) -> Iterator[None]:
    site.lab.partition([host.name for host in site.lab.hosts])
    yield
    site.lab.heal()


def _drops(rule: str) -> Fault:
    @contextlib.contextmanager
    def drop(site: Site, planned: Planned, rng: random.Random) -> Iterator[None]:
        with contextlib.suppress(PvcError):
            cut_replies(_host(site, planned), rule)
        yield
        mend_replies(_host(site, planned))

    return drop


@contextlib.contextmanager
def _zookeeper_rolling(site: Site, planned: Planned, rng: random.Random) -> Iterator[None]:
    for host in site.lab.hosts:
        if host.plan.coordinator and host.power == "on":
            with contextlib.suppress(PvcError):
                host.stop_daemon("zookeeper")
                host.start_daemon("zookeeper")
            _wait(lambda host=host: zookeeper_mode(host) in ("leader", "follower", "standalone"), SERVES_S)  # type: ignore[misc]
    yield


@contextlib.contextmanager
def _zookeeper_majority(site: Site, planned: Planned, rng: random.Random) -> Iterator[None]:
    servers = [host for host in site.lab.hosts if host.plan.coordinator]
    down = rng.sample(servers, len(servers) // 2 + 1)
    for host in down:
        with contextlib.suppress(PvcError):
            host.stop_daemon("zookeeper")
    time.sleep(OVER_S)
    # Hosts that fence themselves end their VMs, as they must.
    ending = {host.name for host in site.lab.hosts if host.plan.self_fencing}
    before = {(run.vm, run.place) for run in site.sampler.beating() if run.host not in ending}
    position = site.logbook.position
    yield
    gone = before - {(run.vm, run.place) for run in site.sampler.beating()}
    if gone:
        site.journal.violation(f"VMs stopped while ZooKeeper had no majority: {sorted(gone)}")
    if site.logbook.position != position:
        site.journal.violation("the log grew while ZooKeeper had no majority")
    for host in down:
        with contextlib.suppress(PvcError):
            host.start_daemon("zookeeper")


@contextlib.contextmanager
def _disk_full(site: Site, planned: Planned, rng: random.Random) -> Iterator[None]:
    filler = _host(site, planned).home / "pvc-lib" / FILLER
    with contextlib.suppress(OSError), filler.open("wb") as file:
        # Once more than what was free, for who writes meanwhile.
        for _ in range(3):
            for _ in range(shutil.disk_usage(filler.parent).free // 4096 + 1):
                file.write(bytes(4096))
            file.flush()
    yield
    filler.unlink(missing_ok=True)


@contextlib.contextmanager
def _clock_step(site: Site, planned: Planned, rng: random.Random) -> Iterator[None]:
    host = _host(site, planned)
    set_clock(host, CLOCK_STEP_S if planned.variant == "ahead" else -CLOCK_STEP_S)
    yield
    set_clock(host, 0)


@contextlib.contextmanager
def _bmc_down(site: Site, planned: Planned, rng: random.Random) -> Iterator[None]:
    """Nothing may be recovered from a host whose end nobody can prove; with the proof all of it is."""
    host = _host(site, planned)
    if host.plan.self_fencing:
        site.journal.note("fault", f"{host.name} has no BMC that could be down")
        yield
        return
    site.lab.bmc(host).stop()
    host.cut_power()
    position = site.logbook.position
    yield
    told = site.logbook.told[position:]
    lost = [one for one in told for event in one.events if event.TYPE == "node.lost" and _about(event, host.name)]
    failed = [one for one in told for event in one.events if event.TYPE == "node.fence_failed"]
    early = [one.sentence for one in told for event in one.events if getattr(event, "source", "") == host.name]
    early = [sentence for sentence in early if "vm.recovered" in sentence]
    if early:
        site.journal.violation(f"recovered from {host.name} while its BMC was down: {early}")
    if lost and not failed and time.time() - lost[0].arrived_s > FENCE_FAILS_S:
        site.journal.violation(f"nobody was told that {host.name} cannot be fenced")
    if planned.variant == "until-confirmed" and lost:
        site.workload.do(rng, "node.confirm_fenced", {"node": host.name})
    site.lab.bmc(host).start()
    # Its power is for the cluster to switch on again, as it was the cluster that fenced it.
    if not lost:
        host.boot()
    else:
        _wait(lambda: host.power == "on", SERVES_S)
        if host.power != "on":
            site.journal.remark(f"{host.name} was fenced, but not switched on again")
            host.boot()


def _about(event: object, node: str) -> bool:
    return getattr(event, "node", "") == node


def _wait(done: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not done() and time.monotonic() < deadline:
        time.sleep(_POLL_S)


FAULTS: dict[str, Fault] = {
    "kill-pvcd": _kills("pvcd"),
    "kill-libvirtd": _kills("libvirtd"),
    "kill-qemu": _kill_qemu,
    "kill-zookeeper": _kills("zookeeper"),
    "kill-zookeeper-leader": _kills("zookeeper"),
    "power-cut": _power_cut,
    "power-cut-primary": _power_cut,
    "freeze-host": _freeze_host,
    "freeze-pvcd": _freeze_pvcd,
    "partition": _partition,
    "partition-primary": _partition,
    "one-way": _one_way,
    "bridge": _bridge,
    "all-apart": _all_apart,
    "lost-replies": _drops("tcp sport 2181"),
    "packet-loss": _drops("numgen random mod 10 < 3"),
    "zookeeper-rolling": _zookeeper_rolling,
    "zookeeper-majority": _zookeeper_majority,
    "disk-full": _disk_full,
    "clock-step": _clock_step,
    "bmc-down": _bmc_down,
    "migration-cut": migration_cut,
}
