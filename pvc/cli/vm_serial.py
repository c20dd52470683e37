"""`pvc vm log` and `pvc vm console`: what a guest says on its serial console, and talking back."""

from __future__ import annotations

import re
import sys

import click

from pvc.cli.base import PvcCommand, usage_error
from pvc.cli.session import Session
from pvc.cli.vm import ABOUT_VM, vm_argument

MAX_LINES = 100_000
"""The gateway keeps less than that."""

_ESCAPES = re.compile(
    rb"\x1b\[[0-9;]*m"  # colours: kept
    rb"|\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[PX^_][^\x1b]*\x1b\\|\x1b[ -/]*[0-~]"
    rb"|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]"
)
_UNFINISHED = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]{0,256}\x1b?|[ -/]*)$")


def show_log(session: Session, vm: str, lines: int, follow: bool) -> None:
    """The end of the log, and what comes."""
    out = sys.stdout.buffer
    harmless = sys.stdout.isatty()
    held = b""
    for piece in session.client.vm_log(vm, lines=lines, follow=follow):
        if harmless:
            piece, held = printable(held + piece)
        out.write(piece)
        out.flush()


def printable(data: bytes) -> tuple[bytes, bytes]:
    """A guest's output without what would move the cursor or talk to the terminal, and an unfinished rest.

    Text, line ends, tabs and colours stay: reading a log must not clear the screen or fill the clipboard.
    """
    unfinished = _UNFINISHED.search(data)
    rest = unfinished[0] if unfinished else b""
    whole = data[: len(data) - len(rest)]
    return _ESCAPES.sub(
        lambda match: match[0] if match[0].startswith(b"\x1b[") and match[0][-1:] == b"m" else b"", whole
    ), rest


def open_console(session: Session, vm: str) -> None:
    """A terminal on the guest's serial console."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise usage_error("a console needs a terminal", f"to only read what {vm} says: pvc vm log {vm} --follow")
    from pvc.cli.terminal import connect_terminal

    console = session.client.console(vm)
    greeting = f"This is the serial console of {vm}. Press Ctrl-] to leave it; Return may wake it."
    ended = connect_terminal(console, greeting)
    session.note(f"\n{ended}" if ended else "\nThe console is closed.")


log = PvcCommand(
    "log",
    show_log,
    params=[
        vm_argument(),
        click.Option(
            ["-n", "--lines"],
            type=click.IntRange(0, MAX_LINES),
            default=100,
            show_default=True,
            metavar="NUMBER",
            help="How many of the last lines.",
        ),
        click.Option(["-f", "--follow"], is_flag=True, help="Go on with what comes; Ctrl-C ends it."),
    ],
    about=ABOUT_VM,
    data=False,
    help="Show what a VM's guest wrote to its serial console.",
    example="pvc vm log web01 --follow",
)

console = PvcCommand(
    "console",
    open_console,
    params=[vm_argument()],
    about=ABOUT_VM,
    data=False,
    help="Talk to a VM's guest over its serial console. Ctrl-] leaves it; the guest goes on.",
    example="pvc vm console web01",
)
