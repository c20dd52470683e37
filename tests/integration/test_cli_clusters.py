"""Several clusters at once: all are asked side by side, and one that is down never hides the others."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cli_cluster import Cluster
from tests.integration.cli_process import Cli
from tests.integration.terminal_screen import Terminal


class Two:
    """Two clusters, and somebody who has a connection to each."""

    def __init__(self, directory: Path) -> None:
        self.east, self.west = Cluster(directory / "east"), Cluster(directory / "west")
        self.admin = Cli(directory, {"PVC_SOCKET": str(directory / "none.sock")})
        for name, cluster in (("east", self.east), ("west", self.west)):
            assert self.admin("connection", "add", name, cluster.url, text=f"{cluster.token}\n").code == 0
            cluster.cli("vm", "define", f"{name}-web", "--memory", "64", "--tag", name)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    made = Two(tmp_path_factory.mktemp("two"))
    yield made
    made.east.daemon.stop()
    made.west.daemon.stop()


@pytest.fixture
def west_down(two: Two) -> Iterator[None]:
    two.west.daemon.stop()
    yield
    two.west.daemon.start()


def test_a_list_of_all_clusters_is_one_table_with_their_names(two: Two) -> None:
    ran = two.admin("vm", "list", "--connection", "all")
    assert ran.code == 0, ran.err
    head, *rows = ran.out.splitlines()
    assert head.split()[:3] == ["CLUSTER", "VM", "STATE"]
    assert [row.split()[:2] for row in rows] == [["east", "east-web"], ["west", "west-web"]]
    assert two.admin.with_env(PVC_CONNECTION="all")("vm", "list").out == ran.out
    assert two.admin("-c", "all", "vm", "list").out == ran.out
    items = json.loads(two.admin("-c", "all", "vm", "list", "-o", "json").out)
    assert [(item["cluster"], item["name"]) for item in items] == [("east", "east-web"), ("west", "west-web")]


def test_every_list_can_be_asked_of_all_clusters(two: Two) -> None:
    for words in ("node list", "fault list", "access list", "access token list", "vm tag list", "event list"):
        ran = two.admin("-c", "all", *words.split())
        assert ran.code == 0, (words, ran)
        assert words == "fault list" or ran.out.startswith("CLUSTER"), (words, ran.out)
    lines = two.admin("-c", "all", "event", "list", "-o", "json").out.splitlines()
    assert {json.loads(line)["cluster"] for line in lines} == {"east", "west"}


def test_the_state_of_all_clusters_is_one_line_each(two: Two) -> None:
    ran = two.admin("-c", "all", "cluster", "status")
    assert [line.split()[:4] for line in ran.out.splitlines()[1:]] == [
        ["east", "lab", "ok", "1/1"],
        ["west", "lab", "ok", "1/1"],
    ]


@pytest.mark.usefixtures("west_down")
def test_a_cluster_that_is_down_is_told_and_does_not_hide_the_others(two: Two) -> None:
    ran = two.admin("-c", "all", "vm", "list")
    assert ran.code == 5
    assert [line.split()[0] for line in ran.out.splitlines()] == ["CLUSTER", "east"]
    assert ran.err.startswith(f"Error: west: the gateway at {two.west.url} cannot be reached")
    data = two.admin("-c", "all", "vm", "list", "-o", "json")
    assert data.code == 5 and [item["cluster"] for item in json.loads(data.out)] == ["east"]
    assert json.loads(data.err)["error"]["message"].startswith("west: ")


def test_a_thing_that_one_cluster_has_is_found_without_complaint(two: Two) -> None:
    found = two.admin("-c", "all", "vm", "info", "west-web")
    assert found.code == 0 and found.err == ""
    assert found.out.startswith("west:\nVM ")
    nowhere = two.admin("-c", "all", "vm", "info", "north-web")
    assert nowhere.code == 3 and nowhere.err.count("Error:") == 2


def test_a_command_is_for_one_cluster_alone(two: Two) -> None:
    ran = two.admin("-c", "all", "vm", "start", "east-web")
    assert ran.code == 2
    assert "this is done at one cluster, not at all of them" in ran.err
    assert "stopped" in two.east.cli("vm", "info", "east-web").out
    assert two.admin("connection", "add", "all", two.east.url, text="x").code == 2


def test_the_token_of_one_cluster_is_not_shown_to_the_others(two: Two, tmp_path: Path) -> None:
    for variables in ({"PVC_TOKEN": two.east.token}, {"PVC_TOKEN_FILE": str(tmp_path / "token")}):
        ran = two.admin.with_env(**variables)("-c", "all", "vm", "list")
        assert ran.code == 2 and ran.out == ""
        assert "would be shown to all of them" in ran.err


def test_the_cluster_of_this_machine_is_not_shown_twice(two: Two) -> None:
    here = two.admin.with_env(PVC_SOCKET=str(two.east.daemon.socket))
    assert [line.split()[0] for line in here("-c", "all", "vm", "list").out.splitlines()] == ["CLUSTER", "east", "west"]
    here("connection", "remove", "east")
    try:
        rows = here("-c", "all", "vm", "list").out.splitlines()
        assert [line.split()[0] for line in rows] == ["CLUSTER", "local", "west"]
    finally:
        here("connection", "add", "east", two.east.url, text=f"{two.east.token}\n")


def test_a_cluster_that_hangs_holds_nobody_back(two: Two) -> None:
    with Terminal(two.admin.env, "-c", "all", "vm", "list", "--watch") as terminal:
        terminal.wait_for("east-web", "west-web")
        two.west.daemon.signal(signal.SIGSTOP)
        try:
            two.east.cli("vm", "define", "newer", "--memory", "64")
            shown = terminal.wait_for("newer", "Error: west: it has not answered yet")
            assert any("west-web" in line for line in shown), "what was last known of it stays"
        finally:
            two.west.daemon.signal(signal.SIGCONT)
        two.west.cli("vm", "define", "awake", "--memory", "64")
        shown = terminal.wait_for("awake")
        assert not any("Error" in line for line in shown)
        terminal.type("q")
        assert terminal.end() == 0


def test_a_cluster_that_hangs_is_not_waited_for_long(two: Two) -> None:
    two.west.daemon.signal(signal.SIGSTOP)
    try:
        ran = two.admin("-c", "all", "vm", "list")
    finally:
        two.west.daemon.signal(signal.SIGCONT)
    assert ran.code == 5
    assert "east-web" in ran.out and "Error: west: it has not answered yet" in ran.err


def test_who_is_refused_by_one_cluster_sees_the_others(two: Two, tmp_path: Path) -> None:
    made = two.west.cli("access", "token", "create", "admin").out.splitlines()[-1]
    admin = Cli(tmp_path, {"PVC_SOCKET": str(tmp_path / "none.sock")})
    admin("connection", "add", "east", two.east.url, text=f"{two.east.token}\n")
    assert admin("connection", "add", "west", two.west.url, text=f"{made}\n").code == 0
    two.west.cli("access", "token", "revoke", made.split("_")[1], "--yes")
    ran = admin("-c", "all", "vm", "list")
    assert ran.code == 4
    assert "east-web" in ran.out and "Error: west: " in ran.err
