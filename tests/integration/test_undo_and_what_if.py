"""`pvc undo` and `pvc whatif` as typed, on a real daemon: shown first, asked, done, and told in the history."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.integration.cli_process import Cli
from tests.integration.daemon_process import DaemonProcess


@pytest.fixture(scope="module")
def pvc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    directory = tmp_path_factory.mktemp("undo")
    daemon = DaemonProcess(directory)
    daemon.start()
    made = Cli(directory, {"PVC_SOCKET": str(daemon.socket)})
    assert made("cluster", "init", "main").code == 0
    assert made("vm", "define", "web01", "--memory", "512").code == 0
    yield made
    daemon.stop()


def position(pvc: Cli) -> int:
    found: int = json.loads(pvc("cluster", "status", "-o", "json").out)["position"]
    return found


def test_an_undo_shows_its_command_and_asks(pvc: Cli) -> None:
    pvc("vm", "priority", "web01", "90")
    at = position(pvc)
    shown = pvc("undo", str(at), "--dry-run")
    assert shown.code == 0 and "To undo it: pvc vm priority web01 50" in shown.err, shown
    assert f"Position {at}, " in shown.err and "priority 90" in shown.err
    unasked = pvc("undo", str(at))
    assert unasked.code == 2 and "--yes" in unasked.err
    no = pvc.on_terminal("undo", str(at), typing=[("Go ahead?", "n\n")])
    assert no.code == 1 and position(pvc) == at
    yes = pvc.on_terminal("undo", str(at), typing=[("Go ahead?", "y\n")])
    assert yes.code == 0 and "web01: priority 50" in yes.out
    assert position(pvc) == at + 1


def test_an_undo_can_be_undone_and_the_history_shows_it(pvc: Cli) -> None:
    pvc("vm", "tag", "add", "web01", "shop")
    at = position(pvc)
    assert pvc("undo", str(at), "--yes").out == "web01: tag shop removed\n"
    assert pvc("undo", str(at + 1), "--yes").out == "web01: tag shop added\n"
    records = json.loads(pvc("history", "vm", "web01", "-o", "json").out)
    by_position = {record["position"]: record for record in records}
    assert by_position[at + 1]["cause"] == by_position[at]["id"]
    reply = json.loads(pvc("undo", str(at + 2), "--yes", "-o", "json").out)
    assert (reply["name"], reply["undone"]["position"]) == ("vm.remove_tag", at + 2)


def test_an_undo_is_refused_with_its_reason(pvc: Cli) -> None:
    pvc("vm", "priority", "web01", "10")
    first = position(pvc)
    pvc("vm", "priority", "web01", "20")
    refused = pvc("undo", str(first), "--yes", "-v")
    assert refused.code == 1 and "undo.changed_since" in refused.err
    assert f"position {first + 1}, by root (vm.set_priority)" in refused.err
    assert pvc("undo", "9999").code == 3
    assert "cannot be undone" in pvc("undo", "1", "--yes").err


def test_a_removed_vm_comes_back(pvc: Cli) -> None:
    pvc("vm", "define", "gone01", "--memory", "256", "--tag", "a", "--autostart")
    pvc("vm", "remove", "gone01", "--yes")
    at = position(pvc)
    shown = pvc("undo", str(at), "--dry-run").err
    assert "pvc vm define gone01 --memory 256 " in shown and "--autostart" in shown and "--tag a" in shown, shown
    done = pvc("undo", str(at), "--yes")
    assert done.code == 0 and "new id" in done.err
    assert json.loads(pvc("vm", "info", "gone01", "-o", "json").out)["autostart"] is True


def test_a_what_if_shows_where_things_would_go_and_changes_nothing(pvc: Cli) -> None:
    at = position(pvc)
    ran = pvc("whatif", "vm", "start", "web01", "--then", "vm", "shutdown", "web01", "--timeout", "5")
    assert ran.code == 0, ran
    assert "web01: start requested on hv1" in ran.out and "shutdown requested, within 5 s" in ran.out
    started = pvc("whatif", "vm", "start", "web01")
    assert re.search(r"^web01 +hv1, stopped +hv1, running", started.out, re.MULTILINE), started.out
    assert re.search(r"^hv1 +ready +ready +0 MiB → 512 MiB of ", started.out, re.MULTILINE), started.out
    assert f"at position {at}; nothing is changed" in started.err
    assert position(pvc) == at
    data = json.loads(pvc("whatif", "vm", "start", "web01", "-o", "json").out)
    assert [one["after"] for one in data["placements"]] == ["running"]


def test_a_what_if_is_refused_as_the_real_thing_would_be(pvc: Cli) -> None:
    ran = pvc("whatif", "vm", "modify", "web01", "--memory", "16T")
    assert ran.code == 1 and "Refused: 16777216 MiB of memory is more than node hv1 has" in ran.out
    lost = pvc("whatif", "node-loss", "hv1")
    assert lost.code == 0 and "no majority" in lost.err
    assert pvc("whatif", "node-loss", "hv9").code == 1
    for words in (("vm", "list"), ("node-loss",), ("vm", "start", "web01", "--then"), ("vm", "start", "--fly")):
        wrong = pvc("whatif", *words)
        assert wrong.code == 2 and "Hint:" in wrong.err, wrong
