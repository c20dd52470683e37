"""Runs `pvc` as a process, as a person or a script would: through pipes, or on a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PVC = (sys.executable, "-m", "pvc.cli.main")
TIMEOUT_S = 30.0


class Ran(NamedTuple):
    """What a process said and ended with."""

    code: int
    out: str
    err: str


class Cli:
    """`pvc` with an environment of its own: no connection is known but those given."""

    def __init__(self, home: Path, env: Mapping[str, str]) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PVC_")}
        self.env = {**kept, "PVC_CONFIG_DIR": str(home / "config"), "TZ": "UTC", "LC_ALL": "C.UTF-8", **env}

    def with_env(self, **more: str) -> Cli:
        """The same with more in the environment; an empty value takes a variable away."""
        made = Cli(Path("/nowhere"), {})
        made.env = {key: value for key, value in {**self.env, **more}.items() if value}
        return made

    def __call__(self, *arguments: str, text: str = "") -> Ran:
        """Run it through pipes, with `text` on standard input."""
        done = subprocess.run(
            [*PVC, *arguments], env=self.env, input=text, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    def on_terminal(self, *arguments: str, typing: Sequence[tuple[str, str]] = (), width: int = 100) -> Ran:
        """Run it on a terminal, and type each text when the words before it have appeared. `out` is the screen."""
        return self._on_terminal([*PVC, *arguments], typing, width)

    def shell_on_terminal(self, script: str, *, typing: Sequence[tuple[str, str]] = ()) -> Ran:
        """Run a shell script on a terminal; `{}` in it is Python."""
        return self._on_terminal(["/bin/sh", "-c", script.format(sys.executable)], typing, 100)

    def _on_terminal(self, words: list[str], typing: Sequence[tuple[str, str]], width: int) -> Ran:
        child, terminal = pty.fork()
        if child == 0:
            os.environ.clear()
            os.environ.update({**self.env, "TERM": "xterm"})
            os.execv(words[0], words)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        screen, code = _converse(child, terminal, list(typing))
        os.close(terminal)
        assert "Traceback" not in screen, screen
        return Ran(code, screen, "")


def _converse(child: int, terminal: int, typing: list[tuple[str, str]]) -> tuple[str, int]:
    screen, seen = "", 0
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        if typing and (at := screen.find(typing[0][0], seen)) >= 0:
            seen = at + len(typing[0][0])
            os.write(terminal, typing.pop(0)[1].encode())
        ready, _, _ = select.select([terminal], [], [], 0.1)
        try:
            data = os.read(terminal, 65536) if ready else None
        except OSError:
            break  # the process has closed its terminal
        if data == b"":
            break
        screen += (data or b"").decode(errors="replace")
    else:
        os.kill(child, 9)
        raise AssertionError(f"it did not end; the screen shows:\n{screen}")
    _, status = os.waitpid(child, 0)
    assert not typing, f"never asked for: {typing}; the screen shows:\n{screen}"
    return screen, os.waitstatus_to_exitcode(status)
