"""Asks a running Java process of one's own through the socket that `jcmd` uses too, so that no JDK has to be there."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from pathlib import Path

ATTACH_S = 20.0
"""Until the process opens its socket; it does so at its next safepoint."""

ANSWER_S = 60.0

COLLECTIONS = 4
"""Only each fourth (`MarkSweepAlwaysCompactCount`) leaves no dead space between the objects; it counts as used."""


def live_heap(pid: int) -> int:
    """Bytes of the heap that are in use right after a full collection."""
    found = []
    for _ in range(COLLECTIONS):
        ask(pid, "GC.run")
        generations = [line for line in ask(pid, "GC.heap_info").splitlines() if "generation" in line]
        assert generations, "not the serial collector's report"
        found.append(sum(int(used) * 1024 for line in generations for used in re.findall(r"used (\d+)K", line)))
    return min(found)


def ask(pid: int, command: str) -> str:
    """What a diagnostic command (`jcmd PID help` lists them) answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_S)
        connection.connect(str(_attached(pid)))
        # Version of the protocol, the request, and its three arguments, each ended by a zero.
        connection.sendall(b"".join(part.encode() + b"\0" for part in ("1", "jcmd", command, "", "")))
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
    status, _, text = answer.decode().partition("\n")
    assert status == "0", f"{command}: {answer!r}"
    return text


def _attached(pid: int) -> Path:
    """The process's socket; it opens one when it finds this file and is sent SIGQUIT."""
    place, wish = Path(f"/tmp/.java_pid{pid}"), Path(f"/proc/{pid}/cwd/.attach_pid{pid}")
    if place.exists():
        return place
    wish.touch()
    try:
        os.kill(pid, signal.SIGQUIT)
        until = time.monotonic() + ATTACH_S
        while not place.exists():
            assert time.monotonic() < until, f"Java process {pid} opens no socket"
            time.sleep(0.05)
    finally:
        wish.unlink(missing_ok=True)
    return place
