"""What a person sees: tables, lists that are watched, questions and progress, on terminals wide and narrow."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.integration.cli_cluster import Cluster, cli, cluster
from tests.integration.cli_process import PVC, Cli
from tests.integration.fake_gateway import FakeGateway, Say
from tests.integration.terminal_screen import Terminal
from tests.support.waiting import wait_until

__all__ = ["cli", "cluster"]

WORDY = "ein Text, der viel zu lang ist für einen schmalen Schirm, 日本語の説明 und 😀 noch mehr"


@pytest.fixture(scope="module", autouse=True)
def vms(cluster: Cluster) -> None:
    cluster.cli("vm", "define", "narrow", "--memory", "64", "--tag", "shop", "--description", "日本語の説明 😀 ok")
    cluster.cli("vm", "define", "wordy", "--memory", "64", "--tag", "shop", "--description", WORDY)


@pytest.mark.parametrize("columns", [120, 80, 60, 40])
def test_a_table_never_runs_over_the_edge_and_keeps_what_names_a_row(cli: Cli, columns: int) -> None:
    with Terminal(cli.env, "vm", "list", "--name", "*r*", columns=columns) as terminal:
        assert terminal.end() == 0
    head, *rows = terminal.shown
    assert head.split()[:2] == ["VM", "STATE"]
    assert [row.split()[:2] for row in rows[:2]] == [["narrow", "stopped"], ["wordy", "stopped"]]
    assert len(rows) <= 4, "no row went on in the next line"
    assert any("…" in row or row.startswith("No room for") for row in rows)


def test_columns_stand_below_each_other_whatever_is_written_in_them(cli: Cli) -> None:
    with Terminal(cli.env, "vm", "list", "--name", "*r*", "-o", "wide", columns=200) as terminal:
        assert terminal.end() == 0
    at = terminal.shown[0].index("DESCRIPTION")
    screen = terminal.screen
    assert [screen.buffer[line][at].data for line in (1, 2)] == ["日", "e"]
    assert all(screen.buffer[line][at - 1].data == " " for line in (1, 2))
    # Two columns for each wide sign, as the terminal has it.
    assert screen.buffer[1][at + 12].data == " " and screen.buffer[1][at + 13].data == "😀"
    assert screen.buffer[1][at + 16].data == "o"


def test_what_there_is_no_room_for_is_told_and_shown_on_request(cli: Cli) -> None:
    with Terminal(cli.env, "node", "list", columns=40) as terminal:
        assert terminal.end() == 0
    assert any(line.startswith("No room for") for line in terminal.shown)
    assert "ALLOCATED" in cli("node", "list").out, "a pipe has room for all"
    with Terminal(cli.env, "node", "list", "-o", "wide", columns=40) as terminal:
        assert terminal.end() == 0
    assert "ALLOCATED" in "".join(terminal.shown) and "No room" not in "".join(terminal.shown)


def test_a_watched_list_is_drawn_anew_when_something_happens(cli: Cli) -> None:
    cli("vm", "define", "seen", "--memory", "64")
    with Terminal(cli.env, "vm", "list", "--watch=3600", "--name", "seen") as terminal:
        shown = terminal.wait_for("seen", "stopped")
        assert re.match(r"pvc vm list  \d\d:\d\d:\d\d  q or Ctrl-C ends it", shown[0])
        assert not terminal.echoes
        cli("vm", "start", "seen", "--wait")
        shown = terminal.wait_for("running")
        assert [line.split()[:1] for line in shown] == [["pvc"], [], ["VM"], ["seen"]], "drawn over, not below"
        terminal.type("q")
        assert terminal.end() == 0
        assert terminal.echoes
    assert "\x1b[2J" not in terminal.raw, "clearing the screen first would flicker"
    assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l"), "the cursor is back"
    assert terminal.raw.rpartition("\x1b[?1049l")[2].splitlines()[1].startswith("seen"), "the last answer stays"


def test_a_watched_list_follows_the_size_of_the_window(cli: Cli) -> None:
    with Terminal(cli.env, "vm", "list", "--watch", columns=80, lines=24) as terminal:
        terminal.wait_for("DESCRIPTION", "wordy")
        terminal.resize(44, 10)
        shown = terminal.wait_for("No room for")
        assert "DESCRIPTION" not in shown[2]
        terminal.resize(100, 5)
        terminal.wait_for("more lines than this screen has")
        terminal.resize(100, 30)
        terminal.wait_for("DESCRIPTION", "wordy")
        terminal.type("\x03")
        assert terminal.end() == 130


def test_a_watched_list_fills_the_last_column_too(cli: Cli) -> None:
    with Terminal(cli.env, "vm", "list", "--watch", "--name", "wordy", columns=80) as terminal:
        row = terminal.wait_for("wordy", "…")[3]
        terminal.type("q")
        terminal.end()
    with Terminal(cli.env, "vm", "list", "--name", "wordy", columns=80) as once:
        once.end()
    assert row == once.shown[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_watched_list_gives_the_terminal_back_when_it_is_ended(cli: Cli, number: int, code: int) -> None:
    with Terminal(cli.env, "vm", "list", "-w") as terminal:
        terminal.wait_for("VM")
        terminal.send(number)
        assert terminal.end() == code
        assert terminal.echoes
    assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l")


def test_a_watched_list_in_a_pipe_appends_what_is_new_and_nothing_else(cli: Cli, tmp_path: Path) -> None:
    cli("vm", "define", "piped", "--memory", "64")
    out = tmp_path / "out"
    with out.open("wb") as file:
        process = subprocess.Popen(
            [*PVC, "vm", "list", "--name", "piped", "--watch", "-o", "json"], env=cli.env, stdout=file
        )
    wait_until(lambda: out.read_text().count("\n") == 1, "the first answer")
    cli("vm", "define", "another", "--memory", "64")
    cli("vm", "start", "piped", "--wait")
    wait_until(lambda: '"running"' in out.read_text(), "the answer after the start")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert answers[0][0]["state"] == "stopped" and answers[-1][0]["state"] == "running"
    assert all(one != other for one, other in itertools.pairwise(answers))
    assert "\x1b" not in out.read_text()


def test_a_watched_list_says_when_nobody_answers_and_goes_on_afterwards(tmp_path: Path) -> None:
    own = Cluster(tmp_path)
    own.cli("vm", "define", "kept", "--memory", "64")
    with Terminal(own.cli.env, "vm", "list", "--watch") as terminal:
        terminal.wait_for("kept")
        own.daemon.stop()
        terminal.wait_for("kept", "Error: the gateway at")
        own.daemon.start()
        own.cli("vm", "define", "later", "--memory", "64")
        shown = terminal.wait_for("later")
        assert not any("Error" in line for line in shown)
        terminal.type("q")
        assert terminal.end() == 0
    own.daemon.stop()


def test_a_watched_list_whose_first_question_fails_is_an_error_like_any_other(cli: Cli, tmp_path: Path) -> None:
    ran = cli.with_env(PVC_SOCKET=str(tmp_path / "none.sock"))("vm", "list", "--watch")
    assert ran.code == 5 and "cannot be reached" in ran.err
    past = cli("vm", "list", "--watch", "--at", "1")
    assert past.code == 2 and "the past does not change" in past.err
    assert cli("vm", "list", "--watch=0").code == 2
    assert cli("vm", "list", "--watch=often").code == 2


def test_a_question_is_whole_on_a_narrow_terminal(cli: Cli) -> None:
    cli("vm", "define", "asked", "--memory", "64")
    cli("vm", "start", "asked", "--wait")
    with Terminal(cli.env, "vm", "stop", "asked", columns=32) as terminal:
        shown = terminal.wait_for("[y/N]")
        assert " ".join("".join(line.ljust(32) for line in shown).split()).startswith(
            "Force asked off? Whatever the guest has not written to its disks is lost. Go ahead? [y/N]:"
        )
        terminal.type("n\n")
        assert terminal.end() == 1


def test_progress_is_one_line_however_narrow_the_window_becomes(cli: Cli) -> None:
    cli("vm", "define", "slow", "--memory", "64")
    cli("vm", "start", "slow", "--wait")
    with Terminal(cli.env, "vm", "shutdown", "slow", "--wait", columns=24) as terminal:
        assert terminal.end() == 0
    frames = re.findall(r"\r\x1b\[K(?:\x1b\[36m)?([⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏][^\x1b\r]*)", terminal.raw)
    assert frames and all(len(frame) < 24 for frame in frames)


def test_colours_are_for_terminals_and_for_who_asks_for_them(cli: Cli) -> None:
    assert "\x1b" not in cli("vm", "list").out
    assert "\x1b[1mVM" in cli.with_env(CLICOLOR_FORCE="1")("vm", "list").out
    assert "\x1b" not in cli.with_env(CLICOLOR_FORCE="1", NO_COLOR="1")("vm", "list").out
    for variables, painted in (({}, True), ({"NO_COLOR": "1"}, False), ({"CLICOLOR": "0"}, False)):
        with Terminal(cli.with_env(**variables).env, "vm", "list") as terminal:
            terminal.end()
        assert ("\x1b[1m" in terminal.raw) is painted, variables


def test_a_terminal_without_unicode_gets_marks_instead_of_an_accident(cli: Cli) -> None:
    ran = cli.with_env(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii")(
        "vm", "list", "--name", "narrow"
    )
    assert ran.code == 0 and "?" in ran.out


def test_data_holds_no_command_to_the_terminal_and_stays_what_it_is(tmp_path: Path) -> None:
    evil = "a\x9b31m\x7f\u202eb\u200b\ud800c"
    page = {"position": 1, "items": [{"id": "f", "since_us": 1, "acknowledged_by": "x", "message": evil, "hint": ""}]}
    with FakeGateway(tmp_path, lambda asked: Say(page)) as gateway:
        fake = Cli(tmp_path, {"PVC_SOCKET": str(gateway.socket)})
        for output in ("json", "yaml", "table"):
            told = fake("fault", "list", "-o", output)
            assert told.code == 0, told
            assert not re.search("[\x7f-\x9f\u202e\u200b]", told.out), output
        assert json.loads(fake("fault", "list", "-o", "json").out)[0]["message"] == evil


def test_stopped_by_the_shell_it_gives_the_screen_back_and_takes_it_again(cli: Cli) -> None:
    shell = Terminal({**cli.env, "PS1": "> "}, "--norc", "--noprofile", "-i", program=("/bin/bash",))
    with shell as terminal:
        terminal.wait_for(">")
        terminal.type(f"{' '.join(PVC)} vm list -w\n")
        terminal.wait_for("ends it")
        terminal.type("\x1a")
        terminal.wait_for("Stopped")
        assert terminal.raw.rindex("\x1b[?1049l") > terminal.raw.rindex("\x1b[?1049h")
        terminal.screen.reset()
        terminal.type("fg\n")
        terminal.wait_for("ends it", "narrow")
        terminal.screen.reset()
        terminal.type("q")
        terminal.wait_for(">")
        terminal.type("exit\n")
        assert terminal.end() == 0
