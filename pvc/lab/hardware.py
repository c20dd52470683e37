"""The watchdog of a host that fences itself: outside of the host, as hardware is, and on only while the host has power.

Who switches the host off or on ends this one and starts another, so it never bites a boot that it was not armed in.
When it bites it presses the host's reset button; `pvc.lab.watchdog` is what the host's pvcd speaks to.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pvc.lab import processes
from pvc.lab.host_files import WATCHDOG
from pvc.lab.shell import clean_environment, start_to_stay

WATCHDOG_MODULE = "pvc.lab.watchdog"


class HostWatchdog:
    """The watchdog of a host of the lab in `directory`, whoever started it."""

    def __init__(self, directory: Path, host: str) -> None:
        self.log = directory / host / "journal/watchdog.log"
        self._fifo = directory / host / WATCHDOG.removeprefix("/")
        self._reset = [sys.executable, "-P", "-m", "pvc.lab.power", str(directory), host, "reset"]

    @property
    def running(self) -> bool:
        """Whether it has power."""
        return bool(self._pids())

    def start(self) -> None:
        """Give it power: not armed, until the host opens it. Nothing if it has."""
        if self.running:
            return
        command = [sys.executable, "-P", "-m", WATCHDOG_MODULE, "--fifo", str(self._fifo), "--", *self._reset]
        start_to_stay(command, self.log, env=clean_environment())

    def end(self) -> None:
        """Take its power away, also while it is about to bite; if that is what called us, we go on."""
        processes.kill_all(self._pids)

    def _pids(self) -> list[int]:
        """It, and what it has called and waits for, which is of its process group; but never ourselves."""
        leaders = [pid for pid, argv in processes.commands() if WATCHDOG_MODULE in argv and str(self._fifo) in argv]
        return [pid for pid in processes.all_pids() if _group_of(pid) in leaders and pid != os.getpid()]


def _group_of(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0
