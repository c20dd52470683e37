"""Joins this terminal to a console: raw keys out, the guest's bytes in, until Ctrl-] or the other end closes.

Two directions, two threads: the main one reads keys, since signals and the terminal belong to it; a helper writes what
the guest says. A pipe wakes the main one when the guest's side ends. The terminal is put back whatever happens.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import tty
from typing import Any

ESCAPE_KEY = b"\x1d"
"""Ctrl-], as in telnet and virsh: no shell or editor in a guest needs it."""

KEYS = 4096

JOIN_TIMEOUT_S = 2.0
"""The helper ends with the connection; a thread that does not is left behind rather than waited for."""


def connect_terminal(console: Any, greeting: str) -> str:
    """Run until the person leaves or the console ends; returns why it ended, or "" when the person left.

    The greeting is shown once the terminal is ready, so that nothing typed after it is lost.
    """
    stdin, stdout = sys.stdin.fileno(), sys.stdout.fileno()
    before = termios.tcgetattr(stdin)
    wake_reader, wake_writer = os.pipe()
    ending: list[str] = []
    listener = threading.Thread(target=_listen, args=(console, stdout, wake_writer, ending), daemon=True)
    tty.setraw(stdin, termios.TCSADRAIN)  # keeps what was typed ahead
    try:
        sys.stderr.write(f"{greeting}\r\n")
        sys.stderr.flush()
        listener.start()
        left = _speak(console, stdin, wake_reader)
    finally:
        # What is typed and not yet read goes: the guest may have made the terminal answer it, and a shell would obey.
        termios.tcsetattr(stdin, termios.TCSAFLUSH, before)
        console.close()
        if listener.is_alive():
            listener.join(JOIN_TIMEOUT_S)
    if left:
        return ""
    return ending[0] if ending else "The console has ended."


def _speak(console: Any, stdin: int, wake_reader: int) -> bool:
    """Send keys until Ctrl-] (True) or until the other side or the terminal is gone (False)."""
    from websockets.exceptions import ConnectionClosed

    while True:
        ready, _, _ = select.select([stdin, wake_reader], [], [])
        if wake_reader in ready:
            return False
        keys = os.read(stdin, KEYS)
        typed, escape, _ = keys.partition(ESCAPE_KEY)
        try:
            if typed:
                console.send(typed)
        except ConnectionClosed:
            return False
        if escape or not keys:
            return bool(escape)


def _listen(console: Any, stdout: int, wake_writer: int, ending: list[str]) -> None:
    from websockets.exceptions import ConnectionClosed

    try:
        for message in console:
            data = message if isinstance(message, bytes) else message.encode()
            while data:
                data = data[os.write(stdout, data) :]
        ending.append("The guest's console has ended: it is off, or somebody else has opened its console.")
    except ConnectionClosed as error:
        reason = error.rcvd.reason if error.rcvd else ""
        ending.append(f"The console was cut off: {reason}" if reason else "The connection to the gateway was lost.")
    except OSError as error:
        ending.append(f"The terminal is gone: {error.strerror}")
    finally:
        os.write(wake_writer, b"!")
