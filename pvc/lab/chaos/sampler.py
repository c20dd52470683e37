"""Looks ten times a second, from outside, which guests make progress on which host; PVC is not asked.

Seen are QEMU's processes by the hosts' PID namespaces, the time their virtual CPUs used, and what the guests wrote to
their consoles, each line with the token of that boot of the guest.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from pathlib import Path

from pvc.lab import processes
from pvc.lab.chaos.journal import Journal
from pvc.lab.chaos.windows import Run, Sign, add_beat, add_work
from pvc.lab.host import QEMU
from pvc.lab.lab import Lab

LOOK_S = 0.1
WORK_NS = 3_000_000
"""CPU time of a virtual CPU between two looks that means that the guest ran: one that stands still is woken now and
then, for microseconds."""
BEATING_S = 4.0
"""A guest whose last heartbeat is no older makes progress; they come twice a second on an idle machine."""
_BEAT = re.compile(rb" heartbeat (\d+) up \d+s boot ([0-9a-f]{8})\r?$")
_UUID = re.compile(rb"-uuid\0([0-9a-f-]{36})\0")


class Sampler:
    """Looks until stopped."""

    def __init__(self, lab: Lab, journal: Journal) -> None:
        self.runs: list[Run] = []
        self.longest_pause_s = 0.0
        """Between two looks; a busy machine makes us late."""
        self._lab = lab
        self._journal = journal
        self._here: dict[tuple[int, str], Run] = {}
        """Process and its start time -> its run, while it is there."""
        self._newest: dict[tuple[str, str], Run] = {}
        self._hosts: dict[str, tuple[str, tuple[int, str]]] = {}
        """PID namespace -> host, and its init with its start time: when that has gone, the number may come again."""
        self._strangers: set[tuple[int, str]] = set()
        self._cpus: dict[int, tuple[list[Path], int]] = {}
        self._logs: dict[tuple[str, str], tuple[int, bytes]] = {}
        self._said_s: dict[tuple[str, str], float] = {}
        """VM and host -> when its console last grew."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def present(self) -> list[Run]:
        """The guests' processes that are there now."""
        return list(self._here.values())

    def beating(self) -> list[Run]:
        """Those of them that made progress lately."""
        since = time.time() - BEATING_S
        return [run for run in self.present() if run.last_beat is not None and run.last_beat.until_s >= since]

    def silent(self, run: Run, since_s: float) -> bool:
        """Whether the guest has written nothing since: one that boots does, however slowly."""
        return self._said_s.get((run.vm, run.host), 0.0) < since_s

    def _run(self) -> None:
        before = time.time()
        while not self._stopping.wait(max(LOOK_S - (time.time() - before), 0.01)):
            now = time.time()
            self.longest_pause_s = max(self.longest_pause_s, now - before)
            try:
                self._look(before, now)
            except OSError as error:
                self._journal.note("vm", f"cannot look: {error}")
            before = now

    def _look(self, before: float, now: float) -> None:
        there = set()
        for pid in processes.all_pids():
            key = (pid, _start_time(pid))
            if key in self._strangers:
                continue
            if key not in self._here and not self._is_new_guest(key, now):
                continue
            there.add(key)
        for key in [key for key in self._here if key not in there]:
            run = self._here.pop(key)
            run.gone_s = now
            self._cpus.pop(run.pid, None)
            self._journal.note("vm", f"{run.vm} is gone from {run.place}")
        for run in self._here.values():
            if self._worked(run):
                add_work(run, Sign(after_s=before, until_s=now))
        for host in self._lab.hosts:
            for log in (host.home / "pvc-lib/console").glob("*.log"):
                self._read(host.name, log, before, now)

    def _is_new_guest(self, key: tuple[int, str], now: float) -> bool:
        pid, started = key
        if not started:
            return False
        if processes.program_of(pid) != QEMU:
            # A process becomes QEMU by exec only moments after it was forked, so only the old ones are set aside.
            if _age_s(started) > 1.0:
                self._strangers.add(key)
            return False
        found = _UUID.search(_cmdline(pid))
        host = self._host_of(pid)
        if found is None or not host:
            return False
        run = Run(vm=found[1].decode(), host=host, pid=pid, born_s=now)
        self.runs.append(run)
        self._here[key] = run
        self._newest[run.vm, host] = run
        self._journal.note("vm", f"{run.vm} has a process on {run.place}")
        return True

    def _host_of(self, pid: int) -> str:
        try:
            mark = os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115 - no path, but a name and an inode
        except OSError:
            return ""
        host, (init, booted) = self._hosts.get(mark, ("", (0, "")))
        if not host or _start_time(init) != booted:
            self._hosts = {}
            for name, init in processes.find_inits(self._lab.directory).items():
                with contextlib.suppress(OSError):
                    self._hosts[os.readlink(f"/proc/{init}/ns/pid")] = (name, (init, _start_time(init)))  # noqa: PTH115
            host, _ = self._hosts.get(mark, ("", (0, "")))
        return host

    def _worked(self, run: Run) -> bool:
        tasks, before = self._cpus.get(run.pid, ([], 0))
        if not tasks:
            tasks = [task for task in Path(f"/proc/{run.pid}/task").glob("*") if _is_vcpu(task)]
        used = 0
        for task in tasks:
            with contextlib.suppress(OSError, ValueError, IndexError):
                used += int((task / "schedstat").read_text().split()[0])
        self._cpus[run.pid] = (tasks, used)
        return bool(before) and used - before >= WORK_NS

    def _read(self, host: str, log: Path, before: float, now: float) -> None:
        vm = log.stem
        offset, rest = self._logs.get((host, vm), (0, b""))
        try:
            size = log.stat().st_size
            if size == offset:
                return
            with log.open("rb") as file:
                file.seek(offset if size > offset else 0)
                data = file.read()
                offset = file.tell()
        except OSError:
            return
        self._said_s[vm, host] = now
        *lines, rest = (rest + data).split(b"\n")
        self._logs[host, vm] = (offset, rest)
        run = self._newest.get((vm, host))
        for line in lines:
            found = _BEAT.search(line)
            if found is not None and run is not None:
                add_beat(run, Sign(after_s=before, until_s=now), found[2].decode(), int(found[1]))


def _start_time(pid: int) -> str:
    """In clock ticks since the machine's start, so that a number that is given out again is told apart."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _age_s(started: str) -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(started) / os.sysconf("SC_CLK_TCK")


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _is_vcpu(task: Path) -> bool:
    try:
        return (task / "comm").read_text().startswith("CPU ")
    except OSError:
        return False
