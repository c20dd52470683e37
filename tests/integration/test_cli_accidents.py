"""`pvc` as a process when things go wrong: each kind of trouble has its message, its remedy and its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli_process import PVC, Cli
from tests.integration.fake_gateway import (
    Answer,
    Asked,
    FakeGateway,
    Hang,
    Said,
    Say,
    events,
    operation,
    problem,
    reply,
)
from tests.support.waiting import wait_until

OUTCOMES = {"vm.started": True, "vm.start_failed": False}
RUNS = operation("succeeded", text="running on hv1")
NOTHING = events()


def accepts(look: Say, told: Say = NOTHING) -> Answer:
    def answer(asked: Asked) -> Say:
        if asked.method != "GET":
            return reply(asked.path.rpartition("/")[2], outcomes=OUTCOMES)
        return look if asked.path == "/operations/r10" else told

    return answer


def cli_on(gateway: FakeGateway, tmp_path: Path) -> Cli:
    return Cli(tmp_path, {"PVC_SOCKET": str(gateway.socket)})


def test_a_good_outcome_ends_with_0(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, accepts(RUNS, events(("vm.started", "running on hv1")))) as gateway:
        ran = cli_on(gateway, tmp_path)("vm", "start", "web01", "--wait")
    assert ran.code == 0
    assert ran.out.startswith("web01: running on hv1 (+")
    assert ran.err == "web01: start requested on hv1\n"


def test_a_change_with_a_restart_waits_for_it_and_one_without_is_done_at_once(tmp_path: Path) -> None:
    changed = {"type": "vm.modified", "subject": "vm/id1", "summary": "definition changed: spec", "data": {}}
    restart = {"type": "vm.restart_requested", "subject": "vm/id1", "summary": "restart requested", "data": {}}

    def answer(asked: Asked) -> Say:
        if asked.method == "PATCH" and asked.body.get("restart"):
            return reply("vm.modify", outcomes=OUTCOMES, events=[changed, restart])
        if asked.method == "PATCH":
            return reply("vm.modify", events=[changed])
        return RUNS if asked.path == "/operations/r10" else events(("vm.started", "running on hv1"))

    with FakeGateway(tmp_path, answer) as gateway:
        cli = cli_on(gateway, tmp_path)
        waited = cli("vm", "modify", "web01", "--memory", "4096", "--restart", "--wait")
        at_once = cli("vm", "modify", "web01", "--memory", "4096", "--wait")
    assert (waited.code, at_once.code) == (0, 0)
    assert waited.err == "web01: definition changed: spec\nweb01: restart requested\n"
    assert waited.out.startswith("web01: running on hv1 (+")
    assert (at_once.out, at_once.err) == ("web01: definition changed: spec\n", "")


def test_a_bad_outcome_ends_with_6_and_its_reason(tmp_path: Path) -> None:
    text = "start failed on hv1: no such disk"
    failed = operation("failed", text=text, code="vm.start_failed")
    with FakeGateway(tmp_path, accepts(failed, events(("vm.start_failed", text)))) as gateway:
        ran = cli_on(gateway, tmp_path)("vm", "start", "web01", "--wait")
    assert ran.code == 6
    assert ran.out == ""
    assert "Error: web01: start failed on hv1: no such disk\n" in ran.err
    assert "Hint: `pvc history vm web01` shows how it came about\n" in ran.err


def test_an_outcome_that_does_not_come_ends_with_7(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, accepts(operation("pending", position=10))) as gateway:
        ran = cli_on(gateway, tmp_path)("vm", "start", "web01", "--wait", "--wait-timeout", "1")
    assert ran.code == 7
    assert "did not come within 1 s" in ran.err
    assert "`pvc operation info r10` shows how far it has come" in ran.err


def test_who_wants_json_has_the_reply_also_where_the_outcome_does_not_come(tmp_path: Path) -> None:
    """A webhook's secret is in it and nowhere else."""
    added = reply("webhook.add", outcomes={"webhook.verified": True})
    added.body["secret"] = "whsec_x"
    looks = accepts(operation("pending"))
    with FakeGateway(tmp_path, lambda asked: looks(asked) if asked.method == "GET" else added) as gateway:
        words = ["webhook", "add", "billing", "https://billing.example.com", "--wait", "--wait-timeout", "1"]
        ran = cli_on(gateway, tmp_path)(*words, "-o", "json")
    assert (ran.code, json.loads(ran.err)["error"]["code"]) == (7, "client.wait_timed_out")
    told = json.loads(ran.out)
    assert (told["secret"], told["outcome"]) == ("whsec_x", {"success": None, "record": None})


def test_what_ends_otherwise_than_was_foreseen_has_failed_and_is_told_as_its_operation_says(tmp_path: Path) -> None:
    text = "stopped as asked"
    overtaken = operation("failed", text=text, code="operation.overtaken")
    with FakeGateway(tmp_path, accepts(overtaken, events(("vm.stopped", text)))) as gateway:
        ran = cli_on(gateway, tmp_path)("vm", "start", "web01", "--wait", "-v")
    assert ran.code == 6
    assert "Error: web01: stopped as asked\n" in ran.err and "Code: operation.overtaken\n" in ran.err


def test_an_event_that_looks_like_the_end_is_none_while_the_operation_goes_on(tmp_path: Path) -> None:
    told = events(("vm.started", "running on hv1, of the run before"))
    with FakeGateway(tmp_path, accepts(operation("running"), told)) as gateway:
        ran = cli_on(gateway, tmp_path)("vm", "start", "web01", "--wait", "--wait-timeout", "1")
    assert ran.code == 7


def test_what_has_begun_no_operation_is_done_and_not_waited_for(tmp_path: Path) -> None:
    done = reply("vm.start", outcomes=OUTCOMES)
    done.body["operation"] = None
    with FakeGateway(tmp_path, lambda _: done) as gateway:
        ran = cli_on(gateway, tmp_path)("vm", "start", "web01", "--wait")
    assert (ran.code, ran.out) == (0, "web01: start requested on hv1\n")
    assert len(gateway.asked) == 1


def test_ctrl_c_ends_the_waiting_quietly_and_gives_nothing_up(tmp_path: Path) -> None:
    def answer(asked: Asked) -> Said:
        return Hang() if "wait" in asked.query else accepts(operation("pending", position=10))(asked)

    with FakeGateway(tmp_path, answer) as gateway:
        cli = cli_on(gateway, tmp_path)
        process = subprocess.Popen(
            [*PVC, "vm", "start", "web01", "--wait"], env=cli.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        wait_until(lambda: any("wait" in asked.query for asked in gateway.asked), "pvc waits for the operation")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert (out, err) == (b"", b"web01: start requested on hv1\n")
    assert [asked.method for asked in gateway.asked] == ["POST", "GET", "GET"]


def test_a_reply_that_is_longer_than_any_of_a_gateway_is_not_read_to_its_end(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, lambda _: Say(b" " * (65 << 20))) as gateway:
        ran = cli_on(gateway, tmp_path)("vm", "list")
    assert ran.code == 1 and ran.out == ""
    assert f"Error: the reply of unix://{gateway.socket} has more than 64 MiB\n" in ran.err
    assert "Hint: see whether it is your gateway that answers there" in ran.err
    assert len(gateway.asked) == 1, "it is not asked for as much again"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, 2),
        (401, 4),
        (403, 4),
        (404, 3),
        (409, 1),
        (413, 2),
        (422, 2),
        (429, 5),
        (500, 1),
        (502, 1),
        (503, 5),
        (504, 5),
    ],
)
def test_every_status_has_its_exit_code(tmp_path: Path, status: int, code: int) -> None:
    with FakeGateway(tmp_path, lambda asked: problem(status, "it is so", code="a.b", hint="do that")) as gateway:
        ran = cli_on(gateway, tmp_path)("vm", "info", "web01", "-v")
    assert ran.code == code
    assert ran.err == "Error: it is so\nHint: do that\nCode: a.b\n"


def test_an_error_is_json_where_json_was_asked_for(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, lambda asked: problem(409, "it is so", code="a.b", hint="do that")) as gateway:
        ran = cli_on(gateway, tmp_path)("vm", "info", "web01", "-o", "json")
    assert json.loads(ran.err) == {"error": {"code": "a.b", "message": "it is so", "hint": "do that", "status": 409}}
    assert ran.out == ""


def test_a_gateway_that_is_not_there_ends_with_5(tmp_path: Path) -> None:
    ran = Cli(tmp_path, {"PVC_SOCKET": str(tmp_path / "none.sock")})("vm", "list")
    assert ran.code == 5
    assert ran.err.startswith(f"Error: the gateway at unix://{tmp_path}/none.sock cannot be reached (No such file")
    assert "Hint: on this node, pvcd must run" in ran.err


def test_no_connection_at_all_ends_with_5_and_says_how_to_get_one(tmp_path: Path) -> None:
    ran = Cli(tmp_path, {"PVC_URL": "", "PVC_SOCKET": ""})("vm", "list")
    assert ran.code == 5
    assert "pvc connection add" in ran.err


def test_a_reader_that_has_seen_enough_is_no_failure(tmp_path: Path) -> None:
    row = {
        "name": "x" * 60, "id": "i", "state": "running", "node": "hv1", "home": "hv1", "away": "", "target": "",
        "memory_mib": 1, "vcpus": 1, "tags": [],
        "autostart": False, "restart_required": False, "description": "",
    }  # fmt: skip
    with FakeGateway(tmp_path, lambda asked: Say({"position": 1, "items": [row] * 5000, "next": None})) as gateway:
        cli = cli_on(gateway, tmp_path)
        process = subprocess.Popen([*PVC, "vm", "list"], env=cli.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"VM")
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(timeout=10) == 0


@pytest.mark.parametrize("vms", [1, 3000], ids=("a few lines", "more than a pipe holds"))
@pytest.mark.parametrize(("state", "code"), [("failed", 6), ("succeeded", 0)])
def test_what_has_failed_has_failed_also_where_nobody_reads_of_it(
    tmp_path: Path, vms: int, state: str, code: int
) -> None:
    members = [(f"web{number:06}", state, "it went so", 1.0) for number in range(vms)]
    look = operation(state, text="it went so", code="vm.start_failed" if code else "", vms=members)
    begun = reply("node.confirm_fenced", begins=True)
    with FakeGateway(tmp_path, lambda asked: look if asked.method == "GET" else begun) as gateway:
        words = ["node", "confirm-fenced", "hv2", "--yes", "--wait"]
        assert _unread(cli_on(gateway, tmp_path), "stdout", *words) == code


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_what_was_refused_was_refused_also_where_nobody_reads_of_it(tmp_path: Path, stream: str) -> None:
    with FakeGateway(tmp_path, lambda _: problem(404, "there is no VM web01")) as gateway:
        assert _unread(cli_on(gateway, tmp_path), stream, "vm", "info", "web01") == 3
        assert _unread(cli_on(gateway, tmp_path), stream, "vm", "infos") == 2


def _unread(cli: Cli, stream: str, *words: str) -> int:
    """The exit code where whoever was to read that stream has left before anything came."""
    ends, gone = os.pipe()
    os.close(ends)
    streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: gone}
    env = {**cli.env, "PYTHONUNBUFFERED": ""}  # so that a few lines go out at the very end
    try:
        return subprocess.run([*PVC, *words], env=env, timeout=30, check=False, **streams).returncode
    finally:
        os.close(gone)


def test_ctrl_c_is_quiet_and_ends_with_130(tmp_path: Path) -> None:
    nothing = Say(b'{"position": 1, "bookmark": true}\n', content_type="application/x-ndjson")
    with FakeGateway(tmp_path, lambda asked: nothing) as gateway:
        cli = cli_on(gateway, tmp_path)
        process = subprocess.Popen(
            [*PVC, "event", "follow", "--after", "0"], env=cli.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        wait_until(lambda: gateway.asked, "pvc asks the gateway")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert (out, err) == (b"", b"")


def test_a_fault_of_our_own_shows_no_traceback_unless_asked_for(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, lambda asked: Say({"position": 1, "items": [{"unexpected": 1}]})) as gateway:
        cli = cli_on(gateway, tmp_path)
        ran = cli("vm", "list")
        assert ran.code == 1
        assert ran.err.startswith("Error: pvc itself has failed: KeyError")
        assert "PVC_DEBUG=1" in ran.err
        shown = subprocess.run(
            [*PVC, "vm", "list"], env={**cli.env, "PVC_DEBUG": "1"}, capture_output=True, text=True, check=False
        )
    assert "Traceback" in shown.stderr


def test_a_log_of_an_unfriendly_guest_is_harmless_on_a_terminal_and_verbatim_in_a_pipe(tmp_path: Path) -> None:
    said = b"\x1b]52;c;ZXZpbA==\x07\x1b[2Jhello\r\n"
    with FakeGateway(tmp_path, lambda asked: Say(said, 200, "text/plain")) as gateway:
        cli = cli_on(gateway, tmp_path)
        assert cli("vm", "log", "web01").out.encode() == said.replace(b"\r\n", b"\n")
        assert cli.on_terminal("vm", "log", "web01").out == "hello\r\n"


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["vm", "strat", "x"], "pvc vm has no command 'strat'", "did you mean start"),
        (["vm", "start"], "Missing argument 'VM'", "pvc vm start -h shows how it is used"),
        (["vm", "start", "a", "--nope"], "No such option", "pvc vm start -h"),
        (["vm", "define", "x", "--memory", "8"], "8 is less than the least allowed, 16", "pvc vm define -h"),
        (["vm", "define", "x", "--xml", "/nope"], "'/nope' cannot be read: No such file", "pvc vm define -h"),
        (["vm", "start", "a", "--wait", "--dry-run"], "--dry-run and --wait exclude each other", "nothing follows"),
        (["vm", "modify", "a", "--disk", "/x", "--no-disks"], "--no-disks excludes giving some", "leave one"),
        (["vm", "stop", "a"], "there is no terminal to ask at: Force a off?", "give --yes"),
        (["vm", "console", "a"], "a console needs a terminal", "pvc vm log a --follow"),
        (["history", "all", "--since", "blah"], "'blah' is no time", "pvc history all -h"),
        (["vm", "list", "--state", "up"], "'up' is not one of", "pvc vm list -h"),
        (["-c", "nope", "vm", "list"], "there is no connection 'nope'", "pvc connection list"),
        (["connection", "use", "nope"], "there is no connection 'nope'", "pvc connection list"),
        (["connection", "add", "x", "ftp://y"], "'ftp://y' is not the URL of a gateway", "https://HOST:7370"),
    ],
)  # fmt: skip
def test_wrong_use_ends_with_2_before_anything_is_sent(
    tmp_path: Path, words: list[str], message: str, hint: str
) -> None:
    with FakeGateway(tmp_path, lambda asked: problem(500, "must not be asked")) as gateway:
        ran = cli_on(gateway, tmp_path)(*words)
        assert gateway.asked == []
    assert ran.code == 2
    error, told = ran.err.splitlines()
    assert message in error
    assert hint in told


def test_without_color_means_without_color(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, lambda asked: problem(409, "it is so")) as gateway:
        cli = cli_on(gateway, tmp_path)
        assert "\x1b[31mError:\x1b[0m" in cli.on_terminal("vm", "info", "x").out
        assert "\x1b" not in cli.with_env(NO_COLOR="1").on_terminal("vm", "info", "x").out


def test_somebody_who_may_not_use_the_socket_is_told_so(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, accepts(RUNS)) as gateway:
        gateway.socket.chmod(0)
        somebody = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}
        for directory in [tmp_path, *tmp_path.parents]:
            if directory.is_relative_to("/tmp") and directory != Path("/tmp"):
                directory.chmod(0o755)
        cli = cli_on(gateway, tmp_path)
        ran = subprocess.run(
            [*PVC, "vm", "list"],
            env=cli.env,
            capture_output=True,
            text=True,
            **somebody,
            check=False,
        )
    assert ran.returncode == 4
    assert "you may not use the socket" in ran.stderr
    assert "become root" in ran.stderr


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["vm", "info", b"web\xff"], "'VM'"),
        (["vm", "start", b"web\xff"], "'VM'"),
        (["vm", "list", "--name", b"web\xff"], "'--name'"),
        (["vm", "define", "web01", "--tag", "a", "--tag", b"web\xff"], "'--tag'"),
        (["vm", "define", "web01", "--disk", b"path=web\xff"], "'--disk'"),
        (["whatif", "vm", "start", b"web\xff"], "'COMMAND...'"),
    ],
)
def test_an_argument_that_is_no_utf8_is_refused_by_name(tmp_path: Path, words: list[str | bytes], where: str) -> None:
    env = Cli(tmp_path, {"PVC_SOCKET": str(tmp_path / "none.sock")}).env
    ran = subprocess.run([*PVC, *words], env=env, capture_output=True, check=False)
    message, hint = ran.stderr.decode().splitlines()
    assert ran.returncode == 2
    assert message.startswith(f"Error: Invalid value for {where}: ") and "web\\xff' is no UTF-8 text" in message
    assert hint == "Hint: names and texts are UTF-8: see how your terminal or script encodes them"


def test_a_file_may_have_any_name(tmp_path: Path) -> None:
    words = [*PVC, "log", "verify-proof", os.fsencode(tmp_path) + b"/\xff", "--key", os.fsencode(tmp_path) + b"/none"]
    ran = subprocess.run(words, env=Cli(tmp_path, {}).env, capture_output=True, check=False)
    assert b"No such file" in ran.stderr and b"UTF-8" not in ran.stderr
