"""A screen that is drawn over itself without flicker, and the terminal given back as it was, whatever happens."""

from __future__ import annotations

import os
import re
import signal
import sys
import termios
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Self, TextIO

from pvc.cli.text import Look, clean, fit, paint, width_of

KEYS = 64

ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
"""Another screen, no cursor, and no line that runs on in the next."""
LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

TERMINATED = 128 + signal.SIGTERM


class Canvas:
    """The whole terminal, while the block lasts."""

    def __init__(self, stream: TextIO, *, on_resize: Callable[[], None]) -> None:
        self._stream = stream
        self._on_resize = on_resize
        self._before: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self.has_keys = sys.stdin.isatty()
        """Whether somebody may type."""

    def __enter__(self) -> Self:
        self._take()
        for number, handler in (
            (signal.SIGWINCH, self._resized),
            (signal.SIGTERM, self._terminated),
            (signal.SIGTSTP, self._stopped),
        ):
            self._handlers[number] = signal.signal(number, handler)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._give_back()

    def height(self) -> int:
        """Lines there are now."""
        try:
            return os.get_terminal_size(self._stream.fileno()).lines or 24
        except OSError:
            return 24

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except OSError:
            return 80

    def draw(self, lines: Sequence[str]) -> None:
        """These lines in place of what is there: written at once, each over the old one, and only then the rest is
        cleared."""
        # Not after a line that fills the screen: the cursor still stands on its last character, which would go.
        width = self._width()
        drawn = "\r\n".join(
            f"{line}\x1b[0m" + ("\x1b[K" if width_of(_COLOURS.sub("", line)) < width else "") for line in lines
        )
        rest = "\r\n\x1b[J" if len(lines) < self.height() else ""
        self._stream.write(f"\x1b[H{drawn}{rest}")
        self._stream.flush()

    def _take(self) -> None:
        if self.has_keys:
            stdin = sys.stdin.fileno()
            self._before = termios.tcgetattr(stdin)
            quiet = termios.tcgetattr(stdin)
            quiet[3] &= ~(termios.ECHO | termios.ICANON)  # Ctrl-C and Ctrl-Z stay what they are
            termios.tcsetattr(stdin, termios.TCSADRAIN, quiet)
        self._stream.write(ENTER)
        self._stream.flush()

    def _give_back(self) -> None:
        self._stream.write(LEAVE)
        self._stream.flush()
        if self._before is not None:
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._before)

    def _resized(self, _: int, __: FrameType | None) -> None:
        self._on_resize()

    def _terminated(self, _: int, __: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    def _stopped(self, number: int, _: FrameType | None) -> None:
        """Ctrl-Z: the shell gets its screen back; `fg` takes it again."""
        self._give_back()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, self._stopped)
        self._take()
        self._on_resize()


def compose(title: str, text: str, told: Sequence[tuple[str, str]], look: Look, height: int) -> list[str]:
    """The lines of one screen: what it is and when, the answer as far as there is room, and what is to be told."""
    clock = time.strftime("%H:%M:%S")
    head = fit(f"{title}  {clock}  q or Ctrl-C ends it", look.width) if look.width else f"{title}  {clock}"
    foot = [paint(fit(clean(line), look.width or len(line)), style, look) for line, style in told]
    foot = foot[: max(height - 4, 0)]
    body = text.rstrip("\n").split("\n")
    room = height - 2 - (len(foot) + 1 if foot else 0)
    if len(body) > room:
        more = len(body) - max(room - 1, 1)
        body = [*body[: max(room - 1, 1)], paint(f"... {more} more lines than this screen has", "dim", look)]
    return [paint(head, "dim", look), "", *body, *(["", *foot] if foot else [])][:height]
