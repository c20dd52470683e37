"""The past on a real daemon and through `pvc`: every read takes --at and says so, also after a restart."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.integration.cli_process import Cli
from tests.integration.daemon_process import DaemonProcess


class Lived:
    """A cluster in which web01 was defined, started, renamed and removed; and what was shown at each step."""

    def __init__(self, directory: Path) -> None:
        self.daemon = DaemonProcess(directory)
        self.daemon.start()
        self.pvc = Cli(directory, {"PVC_SOCKET": str(self.daemon.socket)})
        assert self.pvc("cluster", "init", "main").code == 0
        self.shown: dict[int, str] = {}
        for words in (
            ("vm", "define", "web01", "--memory", "512"),
            ("vm", "start", "web01", "--wait"),
            ("vm", "tag", "add", "web01", "shop"),
            ("vm", "shutdown", "web01", "--wait"),
            ("vm", "rename", "web01", "old01"),
            ("vm", "remove", "old01", "--yes"),
        ):
            ran = self.pvc(*words)
            assert ran.code == 0, ran
            rows = self.pvc("vm", "list", "-o", "json").out
            self.shown[json.loads(self.pvc("cluster", "status", "-o", "json").out)["position"]] = rows
        self.positions = list(self.shown)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    made = Lived(tmp_path_factory.mktemp("past"))
    yield made
    made.daemon.stop()


def test_each_earlier_list_is_shown_again_as_it_was(lived: Lived) -> None:
    for position, rows in lived.shown.items():
        assert lived.pvc("vm", "list", "--at", str(position), "-o", "json").out == rows


def test_the_screen_says_that_it_is_the_past(lived: Lived) -> None:
    defined, started = lived.positions[:2]
    ran = lived.pvc("vm", "info", "web01", "--at", str(started))
    assert ran.code == 0 and f"As it was at position {started}, " in ran.err and "running" in ran.out
    assert "Session" not in lived.pvc("node", "info", "hv1", "--at", str(defined)).out
    listed = lived.pvc("node", "list", "--at", str(defined))
    assert "CPU" not in listed.out and "As it was" in listed.err
    status = lived.pvc("cluster", "status", "--at", str(defined))
    assert "as far as the log tells" in status.out and f"Log position   {defined}" in status.out
    assert "Nothing was wrong." in lived.pvc("fault", "list", "--at", str(defined)).out
    assert "shop" in lived.pvc("vm", "tag", "list", "--at", str(lived.positions[2])).out
    assert "shop" not in lived.pvc("vm", "tag", "list", "--at", str(started)).out
    assert "As it was" not in lived.pvc("vm", "list").err


def test_a_history_ends_at_the_moment(lived: Lived) -> None:
    ran = lived.pvc("history", "vm", "web01", "--at", str(lived.positions[1]))
    assert "defined as web01" in ran.out and "renamed" not in ran.out
    assert "renamed" in lived.pvc("history", "vm", "web01").out


def test_a_time_names_a_moment_too(lived: Lived) -> None:
    records = json.loads(lived.pvc("history", "vm", "web01", "-o", "json").out)
    renamed = next(record for record in records if record["events"][0]["type"] == "vm.renamed")
    for time_us, name in ((renamed["time_us"] - 1, "web01"), (renamed["time_us"], "old01")):
        time = datetime.fromtimestamp(time_us // 1_000_000, UTC) + timedelta(microseconds=time_us % 1_000_000)
        rows = json.loads(lived.pvc("vm", "list", "--at", time.isoformat(), "-o", "json").out)
        assert [row["name"] for row in rows] == [name]
    assert json.loads(lived.pvc("vm", "list", "--at", "0 seconds ago", "-o", "json").out) == []
    assert lived.pvc("vm", "list", "--at", "yesterday").code == 3


def test_what_is_no_moment_is_told(lived: Lived) -> None:
    ran = lived.pvc("vm", "list", "--at", "9999", "-v")
    assert ran.code == 3 and "at.not_yet" in ran.err and "there is no position 9999 yet" in ran.err
    ran = lived.pvc("vm", "info", "web01", "--at", "2", "-v")
    assert ran.code == 3 and "there was no VM 'web01' at position 2" in ran.err
    ran = lived.pvc("vm", "info", "old01", "--at", str(lived.positions[0]))
    assert ran.code == 3
    ran = lived.pvc("vm", "list", "--at", "soonish")
    assert ran.code == 2 and "soonish" in ran.err


def test_a_diff_tells_what_changed_and_by_whom(lived: Lived) -> None:
    defined, started, tagged = lived.positions[:3]
    ran = lived.pvc("diff", str(defined), str(tagged), "vm/web01")
    assert ran.code == 0 and ran.out.startswith("VM web01 changed\n")
    assert re.search(r"^  state +stopped → running$", ran.out, re.MULTILINE), ran.out
    assert re.search(r"^  tags.shop +null → false$", ran.out, re.MULTILINE), ran.out
    assert re.search(rf"^  \S+  root  tag shop added  \(position {tagged}\)$", ran.out, re.MULTILINE), ran.out
    assert f"From position {defined}, " in ran.err and f"to position {tagged}, " in ran.err
    assert "changed_us" not in ran.out
    assert "changed_us" in lived.pvc("diff", str(defined), str(started), "-v").out
    assert lived.pvc("diff", str(defined), str(defined)).out == "Nothing is different.\n"
    data = json.loads(lived.pvc("diff", str(defined), "-o", "json").out)
    assert [item["change"] for item in data["items"]] == ["removed"]


def test_the_past_is_there_after_a_restart(lived: Lived) -> None:
    lived.daemon.kill()
    lived.daemon.start()
    test_each_earlier_list_is_shown_again_as_it_was(lived)
