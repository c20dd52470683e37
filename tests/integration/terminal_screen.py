"""`pvc` on a terminal whose screen can be looked at: an emulator reads what it writes, as a person's terminal would."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping, Sequence

import pyte

from tests.integration.cli_process import PVC

TIMEOUT_S = 30.0


class Terminal:
    """A program on a terminal of its own. Use as a context manager: what still runs at its end is killed."""

    def __init__(
        self,
        env: Mapping[str, str],
        *arguments: str,
        program: Sequence[str] = PVC,
        columns: int = 80,
        lines: int = 24,
    ) -> None:
        self.screen = pyte.Screen(columns, lines)
        self.raw = ""
        self._stream = pyte.ByteStream(self.screen)
        words = [*program, *arguments]
        self._child, self._terminal = pty.fork()
        if self._child == 0:
            os.environ.clear()
            os.environ.update({**env, "TERM": "xterm-256color"})
            # Before it starts, so that it never sees another size.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            os.execv(words[0], words)
        self._code: int | None = None

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._code is None:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
        os.close(self._terminal)

    @property
    def shown(self) -> list[str]:
        """The lines of the screen, without the empty ones at its end."""
        lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def echoes(self) -> bool:
        """Whether what is typed appears."""
        return bool(termios.tcgetattr(self._terminal)[3] & termios.ECHO)

    def wait_for(self, *texts: str) -> list[str]:
        """Return the screen as soon as all of this is on it."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            shown = self.shown
            if all(any(text in line for line in shown) for text in texts):
                return shown
            assert self._read(), f"it ended before {texts} was there:\n" + "\n".join(self.shown)
        raise AssertionError(f"{texts} did not appear:\n" + "\n".join(self.shown))

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._terminal, text.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Another size of the window."""
        self.screen.resize(lines, columns)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def send(self, number: int) -> None:
        """A signal to the program."""
        os.kill(self._child, number)

    def end(self) -> int:
        """Wait for its end; returns the exit code."""
        deadline = time.monotonic() + TIMEOUT_S
        while self._read():
            assert time.monotonic() < deadline, "it did not end:\n" + "\n".join(self.shown)
        _, status = os.waitpid(self._child, 0)
        self._code = os.waitstatus_to_exitcode(status)
        assert "Traceback" not in self.raw, self.raw
        return self._code

    def _read(self) -> bool:
        ready, _, _ = select.select([self._terminal], [], [], 0.1)
        try:
            data = os.read(self._terminal, 65536) if ready else None
        except OSError:
            return False  # the program has closed its terminal
        if data == b"":
            return False
        if data:
            self._stream.feed(data)
            self.raw += data.decode(errors="replace")
        return True
