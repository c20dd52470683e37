"""The daemon's own log: everything once, a lasting trouble once a minute."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvc.about import RECORD, REQUEST, about
from pvc.daemon.journal import MAX_CHARS, MAX_REMEMBERED, JsonLines, QuietRepeats, TextLines


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


def text(message: str, *arguments: object, level: int = logging.INFO, journald: bool = False, **more: Any) -> str:
    return TextLines(journald=journald).format(made(message, *arguments, level=level, **more))


def document(message: str, *arguments: object, **more: Any) -> dict[str, Any]:
    line = JsonLines().format(made(message, *arguments, **more))
    assert line.isascii() and "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


def made(message: str, *arguments: object, level: int = logging.INFO, exc_info: Any = None) -> logging.LogRecord:
    return logging.LogRecord("pvc.test", level, "", 0, message, arguments, exc_info)


def test_a_line_for_people_has_time_level_and_message() -> None:
    line = text("node: ready name=%s position=%d", "hv1", 7)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO node: ready name=hv1 position=7", line)


def test_the_journal_is_told_the_priority_and_not_the_time() -> None:
    assert text("log: away", level=logging.WARNING, journald=True) == "<4>log: away"


def test_a_program_finds_the_values_under_their_names() -> None:
    found = document("fold: stopped position=%d code=%s ms=%.1f", 12, "log.gap", 1.25)
    assert found["fields"] == {"position": 12, "code": "log.gap", "ms": 1.25}
    assert (found["level"], found["logger"]) == ("info", "pvc.test")
    assert found["message"] == "fold: stopped position=12 code=log.gap ms=1.2"
    assert "fields" not in document("nothing %s in 100%% of it", "named")


@given(st.text(max_size=200))
def test_what_comes_from_outside_never_breaks_out_of_its_line(hostile: str) -> None:
    for line in (text("login address=%s", hostile), text(hostile.replace("%", ""))):
        assert len(line.splitlines()) == 1 and line.isprintable()
    found = document("login address=%s position=%d", hostile, 1)
    assert found["fields"].keys() == {"address", "position"} and found["fields"]["position"] == 1


def test_a_value_cannot_pose_as_another_field() -> None:
    assert document("refused code=%s", "x position=99 level=error")["fields"] == {"code": "x position=99 level=error"}


@pytest.mark.parametrize("end", ["\n", "\r", "\x85", "\u2028", "\u202e", "\x1b[2J", "\x00", "\ud800"])
def test_what_ends_a_line_or_moves_the_cursor_is_shown_and_not_done(end: str) -> None:
    line = text("name=%s", f"web01{end}ERROR all is lost")
    assert end not in line and "\\" in line
    assert text("name=%s", "Müller-東京").endswith("name=Müller-東京"), "letters are letters"


@pytest.mark.parametrize(
    "secret",
    [
        "pvc_3f2a91c0d4e5_" + "a1" * 32,
        "whsec_" + "QUJD" * 8,
        "Authorization: Bearer abcdefgh.ijklmnop",
        "authorization: basic YWxhZGRpbjpvcGVu",
    ],
)
def test_a_secret_that_somebody_writes_is_not_written(secret: str) -> None:
    for line in (text("got %s", secret), text("got %r", {"h": secret}), json.dumps(document("got x=%s", secret))):
        assert secret[-12:] not in line and "..." in line


def test_a_traceback_cannot_look_like_lines_of_the_log() -> None:
    try:
        raise ValueError("x\n2026-01-01T00:00:00.000Z INFO command=vm.remove principal=anna result=ok")
    except ValueError:
        info = sys.exc_info()
    first, *rest = text("defect", exc_info=info).split("\n")
    assert first.endswith("INFO defect") and len(rest) > 3
    assert all(line.startswith("    | ") for line in rest)
    assert "ValueError: x" in document("defect", exc_info=info)["traceback"]


def test_a_line_says_which_request_and_record_it_is_about() -> None:
    with about(REQUEST, "r1"), about(RECORD, "01HRECORD"):
        assert text("hypervisor: slow").endswith("hypervisor: slow request=r1 record=01HRECORD")
        assert document("hypervisor: slow")["fields"] == {"request": "r1", "record": "01HRECORD"}
        assert text("done record=%s", "other").endswith("done record=other request=r1")
    assert text("hypervisor: slow").endswith("hypervisor: slow")


def test_a_repeated_line_keeps_its_fields() -> None:
    journal = Journal()
    record = made("log: away error=%s", "x", level=logging.WARNING)
    assert journal.filter.filter(record) and not journal.filter.filter(made("log: away error=%s", "x", level=30))
    journal.now = 61.0
    again = made("log: away error=%s", "x", level=logging.WARNING)
    assert journal.filter.filter(again)
    found = json.loads(JsonLines().format(again))
    assert found["fields"] == {"error": "x"} and found["message"].endswith("(and 1 times since last told)")


def test_a_repeated_line_without_places_is_left_as_it_is() -> None:
    journal = Journal()
    for second, (message, arguments) in ((0, ("100% lost", ())), (0, ("x=%s", ({"a": 1},)))):
        for again in (0, 1, 61):
            journal.now = float(second + again)
            journal.write(logging.WARNING, message, *arguments)
    more = "(and 1 times since last told)"
    assert journal.lines == ["100% lost", f"100% lost {more}", "x={'a': 1}", f"x={{'a': 1}} {more}"]


def test_a_message_has_a_bound() -> None:
    assert len(text("x=%s", "a" * 100_000)) < MAX_CHARS + 100


def test_the_daemon_finds_out_who_reads_it_and_takes_the_form_that_is_configured(tmp_path: Path) -> None:
    def written(form: str, journal: bool) -> str:
        code = (
            "import logging, pvc.daemon.journal as j\n"
            f"j.set_up_journal(); j.set_up_journal(form={form!r}, level='warning')\n"
            "logging.info('no'); logging.warning('log: away error=%s', 'x')"
        )
        with (tmp_path / "out").open("w+") as out:
            found = os.fstat(out.fileno())
            stream = f"{found.st_dev}:{found.st_ino}" if journal else "8:1"
            environment = {**os.environ, "JOURNAL_STREAM": stream}
            subprocess.run([sys.executable, "-c", code], stderr=out, check=True, env=environment)
            out.seek(0)
            return out.read()

    assert written("text", True) == "<4>log: away error=x\n"
    assert written("text", False).endswith("Z WARNING log: away error=x\n")
    assert json.loads(written("json", True))["fields"] == {"error": "x"}
