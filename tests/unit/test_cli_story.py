"""The history as a story: chronological, with causes, times and results. Golden texts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from pvc.cli.history import outcomes_of
from pvc.cli.story import render_story
from pvc.cli.text import Look, width_of
from pvc.client.api_types import RecordView

NOW_US = 1_784_880_000_000_000  # 2026-07-24 08:00:00 UTC
VM = "vm/e5515feb-c259-5367-b0cb-200c7b2f1645"


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def record(
    position: int,
    at_s: float,
    command: str,
    *events: tuple[str, str],
    cause: int = 0,
    who: str = "root",
    subject: str = VM,
    data: dict[str, Any] | None = None,
    failure: bool = False,
) -> RecordView:
    method = "node" if who.startswith("node/") else "token" if who != "root" else "socket"
    return {
        "position": position,
        "id": f"r{position}",
        "time": "",
        "time_us": NOW_US - 3600_000_000 + round(at_s * 1e6),
        "actor": {
            "principal": who,
            "method": method,
            "address": "10.0.0.5" if method == "token" else "",
            "source": "" if method == "node" else "cli/0.1.0",
        },
        "origin": "hv1",
        "command": {"id": f"c{position}", "name": command},
        "cause": f"r{cause}" if cause else "",
        "correlation": "",
        "level": 1,
        "events": [
            {"type": type_, "subject": subject, "summary": summary, "failure": failure, "data": data or {}}
            for type_, summary in events
        ],
    }


LIFE = [
    record(3, 0, "vm.define", ("vm.defined", "defined as web01: 128 MiB, 1 vCPU, on hv1")),
    record(4, 5, "vm.start", ("vm.start_requested", "start requested on hv1"), who="anna"),
    record(5, 7.3, "vm.report_started", ("vm.started", "running on hv1"), cause=4, who="node/hv1"),
    record(6, 60, "vm.start", ("command.rejected", "refused: ..."), data={"message": "web01 is already running"}),
    record(7, 90, "vm.shutdown", ("vm.shutdown_requested", "shutdown requested, within 90 s, then force")),
    record(8, 100, "vm.add_tag", ("vm.tag_added", "tag production added")),
    record(
        9, 180, "vm.report_timeout", ("vm.shutdown_timed_out", "the guest did not power off in time: force"),
        cause=7, who="node/hv1",
    ),
    record(10, 180.5, "vm.report_ended", ("vm.stopped", "forced off"), cause=9, who="node/hv1"),
]  # fmt: skip

GOLDEN = """\
WHEN      WHO       FROM                     WHAT                                           RESULT
07:00:00  root      local socket, cli/0.1.0  defined as web01: 128 MiB, 1 vCPU, on hv1      ok
07:00:05  anna      10.0.0.5, cli/0.1.0      start requested on hv1
07:00:07  node/hv1                           └─ running on hv1                              ok +2.3 s
07:01:00  root      local socket, cli/0.1.0  vm start: web01 is already running             refused
07:01:30  root      local socket, cli/0.1.0  shutdown requested, within 90 s, then force
07:03:00  node/hv1                           └─ the guest did not power off in time: force  +1 min 30 s
07:03:00  node/hv1                              └─ forced off                               ok +1 min 30 s
07:01:40  root      local socket, cli/0.1.0  tag production added                           ok
"""

NARROW = """\
WHEN      WHO       FROM                 WHAT                                  RESULT
07:00:05  anna      10.0.0.5, cli/0.1.0  start requested on hv1
07:00:05  node/hv1                       └─ start failed on hv1: the disk      failed +0.4 s
                                            /srv/web01.raw is not there
"""


def test_a_life_reads_like_a_story() -> None:
    assert render_story(LIFE, outcomes=outcomes_of, look=Look(), now_us=NOW_US) == GOLDEN


def test_the_order_of_the_pages_does_not_matter() -> None:
    assert render_story(LIFE[::-1], outcomes=outcomes_of, look=Look(), now_us=NOW_US) == GOLDEN


def test_a_narrow_screen_wraps_what_happened_and_loses_nothing() -> None:
    failed = record(
        5, 5.4, "vm.report_start_failed",
        ("vm.start_failed", "start failed on hv1: the disk /srv/web01.raw is not there"),
        cause=4, who="node/hv1", failure=True,
    )  # fmt: skip
    text = render_story([LIFE[1], failed], outcomes=outcomes_of, look=Look(width=92), now_us=NOW_US)
    assert text == NARROW
    assert max(len(line) for line in text.splitlines()) <= 92


def test_what_failed_is_red_and_what_went_well_green_on_a_screen_only() -> None:
    failed = record(5, 9, "vm.report_crashed", ("vm.crashed", "the VM crashed"), who="node/hv1", failure=True)
    painted = render_story([LIFE[2], LIFE[1], failed], outcomes=outcomes_of, look=Look(200, True), now_us=NOW_US)
    assert "\x1b[32mok +2.3 s\x1b[0m" in painted
    assert "\x1b[31mfailed\x1b[0m" in painted
    assert "\x1b" not in render_story([failed], outcomes=outcomes_of, look=Look(200), now_us=NOW_US)


def test_what_a_node_noticed_by_itself_is_no_success_of_anybody() -> None:
    noticed = record(5, 9, "vm.report_ended", ("vm.stopped", "the guest powered itself off, unasked"), who="node/hv1")
    text = render_story([noticed], outcomes=outcomes_of, look=Look(), now_us=NOW_US)
    assert text.splitlines()[1] == "07:00:09  node/hv1        the guest powered itself off, unasked"


def test_the_story_of_everything_names_what_each_line_is_about() -> None:
    text = render_story(LIFE[:3], outcomes=outcomes_of, look=Look(), now_us=NOW_US, names={VM: "web01"})
    assert "defined as web01: 128 MiB" in text
    assert "web01: defined" not in text
    assert "└─ web01: running on hv1" in text


def test_a_record_whose_cause_is_on_an_older_page_stands_by_itself() -> None:
    text = render_story([LIFE[2]], outcomes=outcomes_of, look=Look(), now_us=NOW_US)
    assert text.splitlines()[1] == "07:00:07  node/hv1        running on hv1"


def test_several_events_of_one_record_stand_under_each_other() -> None:
    made = record(1, 0, "cluster.init", ("a", "cluster main initialised"), ("b", "admin token made"), subject="cluster")
    lines = render_story([made], outcomes=outcomes_of, look=Look(), now_us=NOW_US).splitlines()
    assert lines[1].startswith("07:00:00  root  local socket, cli/0.1.0  cluster main initialised")
    assert lines[2].strip() == "admin token made"


def test_no_records_make_no_story() -> None:
    assert render_story([], outcomes=outcomes_of, look=Look(), now_us=NOW_US) == ""


def test_a_story_cannot_command_the_terminal() -> None:
    evil = record(3, 0, "vm.modify", ("vm.modified", "\x1b]0;owned\x07description"), who="eve\x1b[2J")
    assert "\x1b" not in render_story([evil], outcomes=outcomes_of, look=Look(), now_us=NOW_US)


@pytest.mark.parametrize("width", [100, 80, 70, 60])
def test_a_story_on_a_narrow_screen_gives_up_from_where_it_was_asked_first(width: int) -> None:
    lines = render_story(LIFE, outcomes=outcomes_of, look=Look(width=width), now_us=NOW_US).splitlines()
    assert max(map(width_of, lines)) <= width
    assert lines[0].startswith("WHEN") and lines[0].endswith("RESULT")
    assert ("FROM" in lines[0]) is (width >= 80)


def test_a_change_without_a_restart_is_ok_at_once_and_one_with_it_when_the_vm_runs() -> None:
    changed = ("vm.modified", "definition changed: spec")
    records = [
        record(1, 0, "vm.modify", changed),
        record(2, 10, "vm.modify", changed, ("vm.restart_requested", "restart requested, shutdown within 90 s")),
        record(3, 15, "vm.report_running", ("vm.started", "running on hv1"), cause=2, who="node/hv1"),
    ]
    lines = render_story(records, outcomes=outcomes_of, look=Look(), now_us=NOW_US).splitlines()[1:]
    assert [line.rpartition("  ")[2] for line in lines if "ok" in line] == ["ok", "ok +5.0 s"]
    assert lines[0].endswith("ok") and "running on hv1" in lines[-1]
