"""`pvc vm log` and `pvc vm console`: what a guest says on its serial console, and talking back."""

from __future__ import annotations

import codecs
import re
import sys

import click

from pvc.cli.base import PvcCommand, usage_error
from pvc.cli.session import Session
from pvc.cli.vm import ABOUT_VM, vm_argument

MAX_LINES = 100_000
"""The gateway keeps less than that."""

_ESCAPES = re.compile(
    r"(\x1b\[[0-9;]{0,64}m)"  # colours: kept
    r"|\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[PX^_][^\x1b]*\x1b\\|\x1b[ -/]*[0-~]"
    # An escape alone as well: it could make a sequence with what follows once something between them is taken out. And
    # what terminals take for one character of it (C1), and what turns the direction of writing around.
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]{0,256}\x1b?|[ -/]*)$")
MAX_UNFINISHED = 512
"""What is longer is no beginning of a sequence; it must not be held back for ever."""


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
    text, taken = codecs.utf_8_decode(data, "replace", False)  # half a character at the end is left for later
    unfinished = _UNFINISHED.search(text)
    if unfinished and len(unfinished[0]) <= MAX_UNFINISHED:
        text, rest = text[: unfinished.start()], unfinished[0].encode() + data[taken:]
    else:
        rest = data[taken:]
    return _ESCAPES.sub(lambda match: match[1] or "", text).encode(), rest


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
