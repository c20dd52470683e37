"""The daemon's own log: everything once, a lasting trouble once a minute."""

from __future__ import annotations

import logging

from pvc.daemon.journal import MAX_REMEMBERED, QuietRepeats


class Journal:
    """A log whose clock is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.filter = QuietRepeats(lambda: self.now)
        self.lines: list[str] = []

    def write(self, level: int, message: str, *arguments: object, name: str = "pvc") -> None:
        record = logging.LogRecord(name, level, "", 0, message, arguments, None)
        if self.filter.filter(record):
            self.lines.append(record.getMessage())


def test_a_warning_that_comes_each_second_is_written_once_a_minute_with_its_number() -> None:
    journal = Journal()
    for second in range(121):
        journal.now = float(second)
        journal.write(logging.WARNING, "log: not available yet error=%s", "away")
    line = "log: not available yet error=away"
    told = f"{line} (and 59 times since last told)"
    assert journal.lines == [line, told, told]


def test_another_word_is_another_warning() -> None:
    journal = Journal()
    journal.write(logging.WARNING, "error=%s", "away")
    journal.write(logging.WARNING, "error=%s", "full")
    journal.write(logging.WARNING, "error=%s", "away", name="kazoo")
    assert len(journal.lines) == 3


def test_what_is_no_warning_is_always_written() -> None:
    journal = Journal()
    for _ in range(3):
        journal.write(logging.INFO, "command=vm.start result=ok")
    assert len(journal.lines) == 3


def test_the_memory_for_warnings_has_a_bound() -> None:
    journal = Journal()
    for number in range(MAX_REMEMBERED + 1):
        journal.write(logging.WARNING, "vm=%d", number)
    journal.write(logging.WARNING, "vm=%d", 0)
    assert len(journal.lines) == MAX_REMEMBERED + 2, "the first was forgotten, and so is written again"
