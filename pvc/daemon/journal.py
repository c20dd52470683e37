"""The daemon's own log on stderr: one line an event, in words or as JSON; what keeps being so is told once a minute.

Nodes wait for what is away (a log, a hypervisor, a disk) by trying again each second; the file must not fill with that.
What comes from outside may stand in a line and never breaks out of it, and no secret gets into one.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from pvc.about import RECORD, REQUEST

REPEAT_S = 60.0
"""How long the same warning is not written again."""

MAX_REMEMBERED = 1_000
"""Different warnings remembered; the oldest is forgotten first, and would be written again."""

MAX_CHARS = 8_000
"""Of a message or a value; a traceback may be four times as long."""

_SECRET = re.compile(
    r"(pvc_[0-9a-z]{8,32}_)[\x21-\x7e]{16,128}|(whsec_|whsk_)[A-Za-z0-9+/=_-]{16,}|((?i:bearer|basic) )[\x21-\x7e]{8,}"
)
"""Tokens, webhooks' secrets, headers with credentials: nobody writes them here, and if somebody does, they are gone."""

_FIELD = re.compile(r"(\w+)=%(?:[.\d]*)([sdrf])|%(?:[.\d]*)[sdrf]|%%")
"""The places of a message's template; those with a name are fields."""

_SYSLOG = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}


def set_up_journal(
    *, debug: bool = False, level: str = "info", form: Literal["text", "json"] = "text", journald: bool | None = None
) -> None:
    """Log to stderr. `journald`: it is read by systemd's journal, which has the time and wants the priority; None: find
    out. May be called again when the configuration is known."""
    if journald is None:
        journald = _is_read_by_journald()
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(QuietRepeats())
    handler.setFormatter(JsonLines() if form == "json" else TextLines(journald=journald))
    root = logging.getLogger()
    for old in [one for one in root.handlers if isinstance(one.formatter, TextLines | JsonLines)]:
        root.removeHandler(old)
    # Does nothing where somebody else has set up the process's log.
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.getLevelNamesMapping()[level.upper()], handlers=[handler]
    )
    logging.getLogger("kazoo").setLevel(logging.ERROR)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def _is_read_by_journald() -> bool:
    """Whether stderr is what systemd has named in the environment; a file that it was led to since is not."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """The values that the message's template has names for: from the arguments, so that no value can pose as another
    field; and what the work under way is about."""
    fields: dict[str, Any] = {}
    places = [match for match in _FIELD.finditer(str(record.msg)) if match[0] != "%%"]
    if isinstance(record.args, tuple) and len(places) == len(record.args):
        for place, value in zip(places, record.args, strict=True):
            if place[1]:
                fields[place[1]] = value if isinstance(value, int | float) else _plain(str(value))
    for name, about in (("request", REQUEST.get()), ("record", RECORD.get())):
        if about:
            fields.setdefault(name, about)
    return fields


class TextLines(logging.Formatter):
    """For people: `TIME LEVEL message`, and for the journal `<PRIORITY>message`. A traceback follows, each line of it
    set in, so that none can be taken for a line of its own."""

    def __init__(self, *, journald: bool = False) -> None:
        super().__init__()
        self._journald = journald

    def format(self, record: logging.LogRecord) -> str:
        """One line, or with a traceback several."""
        message = _plain(record.getMessage())
        told = fields_of(record)
        named = {match[1] for match in _FIELD.finditer(str(record.msg)) if match[1]}
        for name in ("request", "record"):
            if name in told and name not in named:
                message += f" {name}={told[name]}"
        if self._journald:
            head = f"<{_SYSLOG.get(record.levelno, 6)}>"
            start, follow = head, f"{head}    | "
        else:
            start, follow = f"{_iso(record.created)} {record.levelname} ", "    | "
        lines = _traceback(self, record)
        return "\n".join([start + message, *[follow + line for line in lines]])


class JsonLines(logging.Formatter):
    """For programs: one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        document: dict[str, Any] = {
            "time": _iso(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _plain(record.getMessage()),
        }
        if fields := fields_of(record):
            document["fields"] = fields
        if lines := _traceback(self, record):
            document["traceback"] = lines
        # ASCII alone: what a terminal or a viewer makes of other characters is not left to whoever chose them.
        return json.dumps(document, ensure_ascii=True, default=str)


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
            more = " (and %d times since last told)"
            if isinstance(record.args, tuple) and record.args:
                record.msg, record.args = f"{record.msg}{more}", (*record.args, held_back)  # the fields stay
            else:
                record.msg, record.args = message + more % held_back, None
        return True


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    if not record.exc_info or record.exc_info[0] is None:
        return []
    text = formatter.formatException(record.exc_info)
    return [_plain(line) for line in text[-4 * MAX_CHARS :].split("\n")]


def _plain(text: str) -> str:
    """Without secrets, and without what could end the line, move the cursor or turn the direction of the text."""
    text = _SECRET.sub(lambda found: f"{found[1] or found[2] or found[3]}...", text)
    if len(text) > MAX_CHARS:
        text = f"{text[:MAX_CHARS]}... ({len(text)} characters)"
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _harmless(char) else char.encode("unicode_escape").decode() for char in text)


def _harmless(char: str) -> bool:
    """Letters of all scripts are; control and format characters, surrogates and separators of lines are not."""
    return char == " " or (char.isprintable() and unicodedata.category(char)[0] != "C")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
