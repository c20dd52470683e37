"""What happened in a run, by time: faults, answers, beats; written by several threads, read when it is over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import msgspec


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the timeline."""

    time_s: float
    """Seconds since the Unix epoch, by this machine's clock."""
    source: str
    """Who tells: fault, command, vm, check."""
    text: str


class Journal:
    """Collects notes and what was found to be wrong."""

    def __init__(self, tell: Callable[[str], None] = lambda line: None) -> None:
        self.began_s = time.time()
        self.notes: list[Note] = []
        self.violations: list[str] = []
        self.remarks: list[str] = []
        """What is no violation, but worth a look."""
        self._tell = tell
        self._lock = threading.Lock()

    def note(self, source: str, text: str, *, aloud: bool = False) -> None:
        """Put down what just happened; aloud: tell the person who watches too."""
        now_s = time.time()
        with self._lock:
            self.notes.append(Note(time_s=now_s, source=source, text=text))
        if aloud:
            self._tell(f"{now_s - self.began_s:6.1f} s  {text}")

    def violation(self, text: str) -> None:
        """Something does not hold that must."""
        with self._lock:
            self.violations.append(text)
        self.note("check", f"VIOLATION: {text}", aloud=True)

    def remark(self, text: str) -> None:
        """Something that need not be wrong, but that somebody should look at."""
        with self._lock:
            self.remarks.append(text)
        self.note("check", text)
