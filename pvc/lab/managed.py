"""A coordinator's ZooKeeper server as the lab handles it from outside.

pvcd starts it and keeps it running, so to stop it is to hold it as an admin would: see `ServerConfig.hold`. Its process
is found by its command line, so that no pid file has to be trusted, which a full disk leaves empty.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from pathlib import Path

from pvc.lab import processes
from pvc.lab.host_files import DATA_DIR
from pvc.lab.init import UnitStatus

NAME = "zookeeper"
"""As a daemon among a host's others."""
_ARGUMENT = f"@{DATA_DIR}/zookeeper/java.options"
"""The last word of its command line, and of the shell's that becomes it."""


class ManagedZookeeper:
    """The server of the host whose data directory is `data_dir`, as seen from outside; `init` is that host's."""

    def __init__(self, data_dir: Path) -> None:
        home = data_dir / "zookeeper"
        self.log = home / "zookeeper.0.log"
        """What it says; older logs have higher numbers."""
        self._hold = home / "hold"
        self._pid_file = home / "zookeeper.pid"

    @property
    def held(self) -> bool:
        """Whether pvcd leaves it down."""
        return self._hold.exists()

    def hold(self) -> None:
        """From now on pvcd does not start it."""
        self._hold.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        self._hold.touch()

    def release(self) -> None:
        """pvcd starts it again."""
        self._hold.unlink(missing_ok=True)

    def status(self, init: int) -> UnitStatus:
        """How it fares, like any daemon of the host."""
        pid = self._pid(init)
        return UnitStatus(
            name=NAME,
            wanted=not self.held,
            pid=processes.inside_pid(pid) if pid else 0,
            running_s=round(processes.age_s(pid), 1) if pid else 0.0,
            starts=0,
            last_exit=None,
        )

    def kill(self, init: int) -> None:
        """The hard way."""
        if pid := self._pid(init):
            processes.send(pid, signal.SIGKILL)

    def terminate(self, init: int) -> bool:
        """Ask it to end; whether it has, and is not just being started."""
        if pid := self._pid(init):
            processes.send(pid, signal.SIGTERM)
        return not pid and not self._is_locked()

    def _pid(self, init: int) -> int:
        """As this machine counts; 0 when there is none."""
        return next((pid for pid in processes.members(init) if processes.argv_of(pid)[-1:] == [_ARGUMENT]), 0)

    def _is_locked(self) -> bool:
        """Whether a process has it as its own, be it before it has become Java."""
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(self._pid_file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(handle)
        return False
