"""Plays a watchdog's hardware where the kernel has none.

`python -m pvc.lab.watchdog --fifo PATH [--timeout S] -- COMMAND...` reads from a FIFO what `LinuxWatchdog`
writes. From the first byte on, COMMAND (which powers the host off) is run as soon as nothing came for the time-out,
whether its writer hangs or has died. A `V` as the last byte disarms it.
Power gone is gone for the watchdog too: who switches the host off by other means ends this process and starts it again.
"""

from __future__ import annotations

import argparse
import os
import select
import subprocess
import sys
import time
from pathlib import Path

_MAGIC_CLOSE = b"V"
_COMMAND_TIMEOUT_S = 60.0
_READ_BYTES = 4096


def watch(fifo: Path, timeout_s: float, command: list[str]) -> int:
    """Serve for ever; each time it bites, run `command` once and wait to be armed anew."""
    if not fifo.exists():
        os.mkfifo(fifo, 0o600)
    # Held open for writing too: so a writer's end is no end of file, which select would report without pause.
    fd = os.open(fifo, os.O_RDWR | os.O_CLOEXEC)
    print("ready", flush=True)
    deadline: float | None = None
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if select.select([fd], [], [], left)[0]:
            said = os.read(fd, _READ_BYTES)
            for line in said.split(b"\n")[:-1]:
                digits = line.strip(b"\0" + _MAGIC_CLOSE)
                timeout_s = float(digits) if digits.isdigit() else timeout_s
            deadline = None if said.endswith(_MAGIC_CLOSE) else time.monotonic() + timeout_s
            if deadline is None:
                print("disarmed", flush=True)
        else:
            deadline = None
            print(f"not petted for {timeout_s:g} s: {' '.join(command)}", flush=True)
            try:
                # What the lab gave us: it switches the host off.
                code = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=_COMMAND_TIMEOUT_S).returncode  # noqa: S603
                print(f"exit code {code}", flush=True)
            except (OSError, subprocess.TimeoutExpired) as error:
                print(f"failed: {error}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m pvc.lab.watchdog", description="A host's watchdog.")
    parser.add_argument("--fifo", type=Path, required=True, help="made if it is not there")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds, until the writer sets its own")
    parser.add_argument("command", nargs="+", help="what powers the host off")
    options = parser.parse_args(arguments)
    return watch(options.fifo, options.timeout, options.command)


if __name__ == "__main__":
    sys.exit(main())
