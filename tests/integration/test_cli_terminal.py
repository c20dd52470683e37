"""`pvc` as a process: at a terminal, with its questions, progress and consoles, and from afar."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.integration.cli_cluster import Cluster, cli, cluster
from tests.integration.cli_process import Cli

__all__ = ["cli", "cluster"]


def test_a_question_is_asked_before_damage_and_no_means_no(cli: Cli) -> None:
    cli("vm", "define", "asked", "--memory", "64")
    cli("vm", "start", "asked", "--wait")
    no = cli.on_terminal("vm", "stop", "asked", typing=[("[y/N]", "n\n")])
    assert no.code == 1
    assert "Whatever the guest has not written to its disks is lost" in no.out
    assert "running" in cli("vm", "info", "asked").out
    yes = cli.on_terminal("vm", "stop", "asked", "--wait", typing=[("[y/N]", "y\n")])
    assert yes.code == 0
    assert "asked: forced off" in yes.out


def test_progress_moves_on_a_terminal_and_leaves_nothing_behind(cli: Cli) -> None:
    cli("vm", "define", "moving", "--memory", "64")
    cli("vm", "start", "moving", "--wait")
    screen = cli.on_terminal("vm", "shutdown", "moving", "--wait").out
    assert "⠋" in screen
    assert "shutdown requested" in screen
    assert screen.rpartition("\r\x1b[K")[2].startswith("moving: the guest powered off")


def test_a_console_is_interactive_and_ctrl_bracket_leaves_it(cli: Cli) -> None:
    cli("vm", "define", "talk", "--memory", "64")
    cli("vm", "start", "talk", "--wait")
    left = cli.on_terminal(
        "vm", "console", "talk", typing=[("talk heartbeat", "hello guest\r"), ("hello guest", "\x1d")]
    )
    assert left.code == 0
    assert "Press Ctrl-] to leave" in left.out
    assert "The console is closed." in left.out
    ended = cli.on_terminal("vm", "console", "talk", typing=[("Press Ctrl-]", "poweroff\r")])
    assert ended.code == 0
    assert "talk powers off" in ended.out
    assert "The guest's console has ended: it is off" in ended.out
    gone = cli.on_terminal("vm", "console", "talk")
    assert gone.code != 0
    assert "not running" in gone.out


def test_a_console_that_ends_in_any_way_gives_the_terminal_back(cli: Cli, cluster: Cluster) -> None:
    cli("vm", "define", "raw", "--memory", "64")
    cli("vm", "start", "raw", "--wait")
    shell = "stty -a | grep -o -- '-\\?icanon'; {} -m pvc.cli.main vm console raw; stty -a | grep -o -- '-\\?icanon'"
    screen = cli.shell_on_terminal(shell, typing=[("raw heartbeat", "\x1d")]).out
    assert re.findall(r"-?icanon", screen) == ["icanon", "icanon"]


def test_the_log_shows_the_last_lines_and_follows(cli: Cli) -> None:
    cli("vm", "define", "chatty", "--memory", "64")
    cli("vm", "start", "chatty", "--wait")
    screen = cli.on_terminal("vm", "log", "chatty", "--follow", typing=[("chatty heartbeat 2", "\x03")])
    assert screen.code == 130
    assert cli("vm", "log", "chatty", "--lines", "1").out.count("\n") == 1


def test_from_afar_a_token_is_needed_and_a_connection_keeps_it(cluster: Cluster, tmp_path: Path) -> None:
    remote = cluster.remote(tmp_path)
    assert remote("vm", "list").code == 5
    without = remote.with_env(PVC_URL=cluster.url)("vm", "list")
    assert without.code == 4
    assert "no token" in without.err
    wrong = remote("connection", "add", "lab", cluster.url, text="pvc_0123456789ab_00\n")
    assert wrong.code == 4
    assert remote("connection", "list", "-o", "json").out == "[]\n"
    added = remote("connection", "add", "lab", cluster.url, text=f"{cluster.token}\n")
    assert added.code == 0, added.err
    assert "There you are admin (admin)." in added.out
    assert cluster.token not in added.out + added.err
    assert remote("vm", "list").code == 0
    listed = remote("connection", "list").out
    assert cluster.token not in listed
    assert f"lab         {cluster.url}" in listed
    assert remote("vm", "define", "afar", "--memory", "64").code == 0
    assert re.search(r"admin +127\.0\.0\.1, cli/0\.1\.0 +defined as afar", remote("history", "vm", "afar").out)
    assert remote("connection", "remove", "lab").code == 0
    assert remote("vm", "list").code == 5


def test_a_token_is_asked_for_without_showing_it(cluster: Cluster, tmp_path: Path) -> None:
    remote = cluster.remote(tmp_path)
    screen = remote.on_terminal("connection", "add", "lab", cluster.url, typing=[("Token:", f"{cluster.token}\n")])
    assert screen.code == 0
    assert cluster.token not in screen.out
    token_file = tmp_path / "token"
    token_file.write_text(cluster.token)
    token_file.chmod(0o644)
    exposed = remote("connection", "add", "two", cluster.url, "--token-file", str(token_file))
    assert exposed.code == 2 and f"chmod 600 {token_file}" in exposed.err
    token_file.chmod(0o600)
    assert remote("connection", "add", "two", cluster.url, "--token-file", str(token_file), "--use").code == 0
    chosen = json.loads(remote("connection", "list", "-o", "json").out)
    assert [entry["name"] for entry in chosen if entry["in_use"]] == ["two"]
    assert remote("vm", "list", "-c", "lab").code == 0
    assert remote("-c", "lab", "vm", "list").code == 0


def test_a_login_where_there_is_no_issuer_is_refused_in_the_words_of_the_gateway(
    cluster: Cluster, tmp_path: Path
) -> None:
    remote = cluster.remote(tmp_path)
    assert remote("connection", "add", "lab", cluster.url, "--login").code == 0
    ran = remote("login", "-v")
    assert ran.code == 3 and "Code: oidc.not_configured" in ran.err and "pvc access token create" in ran.err, ran


def test_tables_fit_the_terminal_and_are_complete_in_a_pipe(cli: Cli) -> None:
    text = "a description that is far too long for a narrow terminal, but whole in a pipe"
    cli("vm", "define", "wordy", "--memory", "64", "--description", text)
    lines = cli.on_terminal("vm", "list", "--name", "wordy", width=70).out.splitlines()
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert max(len(line) for line in plain) <= 70
    assert "…" in plain[1]
    assert text in cli("vm", "list", "--name", "wordy").out
