"""The daemon's own log on stderr: one line an event, and what keeps being so is told once a minute.

Nodes wait for what is away (a log, a hypervisor, a disk) by trying again each second; the file must not fill with that.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Callable

REPEAT_S = 60.0
"""How long the same warning is not written again."""

MAX_REMEMBERED = 1_000
"""Different warnings remembered; the oldest is forgotten first, and would be written again."""


def set_up_journal(*, debug: bool) -> None:
    """Log to stderr, for systemd's journal."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(QuietRepeats())
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler])
    logging.getLogger("kazoo").setLevel(logging.ERROR)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


class OneLine(logging.Formatter):
    """A message is one line, whatever is in it: what another node, a device or a client has said must neither look like
    a line of its own nor talk to the reader's terminal. A traceback stays as it is."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line, with an escape in place of each character that is none to be seen."""
        text = super().formatMessage(record)
        return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


class QuietRepeats(logging.Filter):
    """Holds back a warning that was written less than REPEAT_S ago, word for word; the next one says how many."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._told: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()
        """Logger and message -> when it was written last, and how many were held back since."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write it."""
        if record.levelno < logging.WARNING:
            return True
        message, now = record.getMessage(), self._now()
        key = (record.name, message)
        told_at, held_back = self._told.pop(key, (-REPEAT_S, 0))
        if now - told_at < REPEAT_S:
            self._told[key] = (told_at, held_back + 1)
            return False
        self._told[key] = (now, 0)
        if len(self._told) > MAX_REMEMBERED:
            self._told.popitem(last=False)
        if held_back:
            record.msg, record.args = f"{message} (and {held_back} times since last told)", None
        return True
