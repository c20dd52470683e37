"""Finds, stops and kills the processes of a host from outside, by its namespaces: no pid file has to be trusted.

Each host has a PID namespace, so when its init dies the kernel kills every process of it, and the init is gone only
when all the others are: a power cut is surely complete.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pvc.errors import DriverError

INIT_MODULE = "pvc.lab.init"
_END_TIMEOUT_S = 20.0
"""Killing takes milliseconds; a guest's memory takes longer to give back on a machine that swaps."""
_POLL_S = 0.01


def find_inits(directory: Path) -> dict[str, int]:
    """Name of the host -> process id of its init, for all hosts of the lab in `directory` that are on."""
    found = {}
    for pid, argv in commands():
        if INIT_MODULE in argv and argv[-2:-1] == [str(directory)] and _is_first_of_namespace(pid):
            found[argv[-1]] = pid
    return found


def members(init: int) -> list[int]:
    """All processes in the PID namespace of this init, itself first."""
    mark = _link(init, "pid")
    return [init, *(pid for pid in all_pids() if pid != init and mark and _link(pid, "pid") == mark)]


def strangers(netns_inodes: Iterable[int]) -> list[int]:
    """Processes in one of these network namespaces, of whatever PID namespace they are."""
    marks = {f"net:[{inode}]" for inode in netns_inodes}
    return [pid for pid in all_pids() if _link(pid, "net") in marks]


def freeze(init: int) -> None:
    """Stop every process of the host where it stands; the kernel still answers pings for it."""

    def go_on() -> bool:
        # Whoever was being forked meanwhile is found by the next look.
        moving = [pid for pid in members(init) if state_of(pid) not in "TtZX"]
        for pid in moving:
            send(pid, signal.SIGSTOP)
        return not moving

    _until(go_on, "the host's processes do not stop")


def thaw(init: int) -> None:
    """Let every process of the host go on."""

    def go_on() -> bool:
        still = [pid for pid in members(init) if state_of(pid) == "T"]
        for pid in still:
            send(pid, signal.SIGCONT)
        return not still

    _until(go_on, "the host's processes do not go on")


def is_frozen(init: int) -> bool:
    """Whether the host is frozen."""
    return state_of(init) == "T"


def kill_all(find: Callable[[], Iterable[int]]) -> None:
    """Kill whatever `find` finds, until it finds nothing. Raises DriverError when something does not die."""

    def go_on() -> bool:
        pids = [pid for pid in find() if state_of(pid) not in "ZX"]
        for pid in pids:
            send(pid, signal.SIGKILL)
        return not pids

    _until(go_on, "processes do not end")


def state_of(pid: int) -> str:
    """The letter that /proc/PID/stat has (R, S, D, T, Z); X for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "X"


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def commands() -> Iterator[tuple[int, list[str]]]:
    """Every process that this machine shows us, with its command line."""
    for pid in all_pids():
        if argv := argv_of(pid):
            yield pid, argv


def argv_of(pid: int) -> list[str]:
    """The command line of a process; empty for one that is gone, and for the kernel's own."""
    try:
        return [os.fsdecode(word) for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]]
    except OSError:
        return []


def program_of(pid: int) -> str:
    """The name of the program that a process runs, or empty."""
    return Path(*argv_of(pid)[:1]).name


def age_s(pid: int) -> float:
    """For how long the process has been there; 0 when it is gone."""
    try:
        began = int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19])
    except (OSError, IndexError):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began / os.sysconf("SC_CLK_TCK")


def all_pids() -> list[int]:
    """Every process that this machine shows us."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]  # noqa: PTH208 - names are all we want


def inside_pid(pid: int) -> int:
    """The number that a process has in its own PID namespace; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    line = next((line for line in status.splitlines() if line.startswith("NSpid:")), "NSpid: 0")
    return int(line.split()[-1])


def _is_first_of_namespace(pid: int) -> bool:
    """Tells an init from the `unshare` that waits for it in the namespace above."""
    return inside_pid(pid) == 1 and pid != 1 and state_of(pid) not in "ZX"


def _link(pid: int, kind: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")  # noqa: PTH115 - no path, but a name and an inode
    except OSError:
        return ""


def _until(done: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _END_TIMEOUT_S
    while not done():
        if time.monotonic() > deadline:
            raise DriverError(otherwise, code="lab.stop_timeout")
        time.sleep(_POLL_S)
