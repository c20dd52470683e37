"""A process that was told to stop has not stopped yet: its threads go on until each has seen the signal."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

__all__ = ["freeze"]


def freeze(pid: int) -> None:
    """Stop a process, and return when all its threads stand still."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 10
    while not all(_stands_still(task) for task in Path(f"/proc/{pid}/task").iterdir()):
        assert time.monotonic() < deadline, f"process {pid} does not stop"
        time.sleep(0.001)


def _stands_still(task: Path) -> bool:
    try:
        stat = (task / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True  # it has ended
    return stat.rpartition(") ")[2][0] in "TtZX"
