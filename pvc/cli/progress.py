"""The progress of something one waits for, on stderr: one moving line on a terminal, plain lines elsewhere.

A thread draws the line, since the waiting itself blocks; it only ever writes between `__enter__` and `__exit__`.
"""

from __future__ import annotations

import threading
import time
from typing import Self, TextIO

from pvc.cli.session import look_of
from pvc.cli.text import clean, fit, paint, width_of
from pvc.cli.times import took

FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
FRAME_S = 0.1
SHOW_AFTER_S = 0.2
"""What is over sooner needs no progress."""


ROOM_FOR_REST = 16
"""The turning mark, the gaps and the time."""

MIN_STEP = 20


class ProgressLine:
    """Shows the latest step and the time since the beginning. Use as a context manager."""

    def __init__(self, stream: TextIO, *, plain: bool = True) -> None:
        """`plain`: whether steps are written as lines where the stream is no terminal."""
        self._stream = stream
        self._plain = plain
        self._moving = stream.isatty()
        self._look = look_of(stream)
        self._step = ""
        self._detail = ""
        self._began = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True)

    @property
    def moving(self) -> bool:
        """Whether somebody looks at it as it moves."""
        return self._moving

    @property
    def plain(self) -> bool:
        """Whether what goes on is told in lines: to a file, a pipe or a journal."""
        return self._plain and not self._moving

    def __enter__(self) -> Self:
        if self._moving:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._moving:
            self._thread.join()

    def step(self, text: str) -> None:
        """What is going on now."""
        self._step, self._detail = clean(text), ""
        self.line(self._step)

    def line(self, text: str) -> None:
        """Tell this in a line of its own, where that is how things are told."""
        if self.plain:
            self._stream.write(f"{clean(text)}\n")
            self._stream.flush()

    def detail(self, text: str) -> None:
        """How far that has come; only on a terminal."""
        self._detail = clean(text)

    def _draw(self) -> None:
        drawn = False
        pause = SHOW_AFTER_S
        turn = 0
        while not self._done.wait(pause):
            pause = FRAME_S
            since = took(round((time.monotonic() - self._began) * 1e6))
            self._look = look_of(self._stream)  # anew each time: the window may have become narrower
            width = max(self._look.width - 1, 8)
            text = fit(f"{FRAMES[turn % len(FRAMES)]} {self._told(width)}  {since}", width)
            self._stream.write(f"\r\x1b[K{paint(text, 'cyan', self._look)}")
            self._stream.flush()
            drawn = True
            turn += 1
        if drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _told(self, width: int) -> str:
        """The step and its detail; where both are too much for the screen, the step is cut."""
        if not self._detail:
            return self._step
        room = width - width_of(self._detail) - ROOM_FOR_REST
        return f"{fit(self._step, max(room, MIN_STEP))}  {self._detail}"
