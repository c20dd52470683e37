"""`pvc` at the size of a cluster, as a process: waiting for migrations and flushes, faults, several gateways."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pvc.cli import watch
from pvc.cli.progress import ProgressLine
from pvc.cli.watch import watching
from pvc.client.connections import Connection
from tests.integration.cli_process import Cli
from tests.integration.fake_gateway import Answer, Asked, FakeGateway, Say, problem, reply

OUTCOMES = {"node.flushed": True, "node.flush_incomplete": False}


def event(kind: str, subject: str, summary: str, **data: Any) -> dict[str, Any]:
    return {"type": kind, "subject": subject, "summary": summary, "data": data}


def record(position: int, *events: dict[str, Any]) -> dict[str, Any]:
    return {
        "position": position,
        "id": f"r{position}",
        "time": "",
        "time_us": position * 1_000_000,
        "actor": {"principal": "node/hv1", "method": "node"},
        "origin": "hv1",
        "command": {"id": "c", "name": "x"},
        "events": list(events),
    }


CHAIN = [
    record(10, event("node.flush_requested", "node/hv2", "flush requested")),
    record(
        11,
        event("vm.migration_requested", "vm/id1", "live migration requested", source="hv2", target="hv1"),
        event("vm.migration_requested", "vm/id2", "live migration requested", source="hv2", target="hv1"),
    ),
    record(12, event("vm.migrated", "vm/id1", "has left hv2 for hv1")),
    record(13, event("vm.arrived", "vm/id1", "runs on, on hv1")),
    record(14, {**event("vm.migration_failed", "vm/id2", "not migrated: no room"), "failure": True}),
    record(15, event("node.flush_incomplete", "node/hv2", "flushed, but for db01: no room")),
]


def of_a_flush(asked: Asked) -> Say:
    if asked.method == "POST":
        return reply("node.flush", outcomes=OUTCOMES, events=CHAIN[0]["events"])
    if asked.path == "/history":
        assert asked.query["correlation"] == "r10"
        return Say({"position": 15, "records": CHAIN[::-1], "next_before": None})
    if asked.path.startswith("/vms/"):
        return Say({"name": {"id1": "web01", "id2": "db01"}[asked.path.removeprefix("/vms/")]})
    if asked.path.startswith("/nodes/"):
        return Say({"vms_running": 2})
    return Say({"position": 15, "records": CHAIN[-1:], "next_after": 15})


def cli_on(gateway: FakeGateway, tmp_path: Path) -> Cli:
    return Cli(tmp_path, {"PVC_SOCKET": str(gateway.socket)})


def test_a_flush_that_was_waited_for_tells_what_became_of_each_vm(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, of_a_flush) as gateway:
        ran = cli_on(gateway, tmp_path)("node", "flush", "hv2", "--wait")
        data = cli_on(gateway, tmp_path)("node", "flush", "hv2", "--wait", "-o", "json")
    assert ran.code == data.code == 6
    assert ran.out.splitlines()[1:] == [
        "web01  runs on, on hv1        2.0 s",
        "db01   not migrated: no room  3.0 s",
    ]
    assert "Error: hv2: flushed, but for db01: no room" in ran.err
    assert "pvc history node hv2" in ran.err
    assert [(vm["vm"], vm["success"]) for vm in json.loads(data.out)["vms"]] == [("web01", True), ("db01", False)]


LATE = [
    CHAIN[0],
    record(11, *CHAIN[1]["events"]),
    record(12, event("vm.migrated", "vm/id1", "has left hv2 for hv1")),
    record(13, event("vm.arrived", "vm/id1", "runs on, on hv1")),
    record(14, event("vm.migrated", "vm/id2", "has left hv2 for hv1")),
    record(15, event("node.flushed", "node/hv2", "flushed: no VM runs on it")),
    record(17, event("vm.arrived", "vm/id2", "runs on, on hv1")),
]
"""As it really comes: a node is flushed once the last VM has left it, and that VM arrives afterwards."""


def of_a_flush_whose_last_vm_arrives(late: list[dict[str, Any]]) -> Answer:
    def answer(asked: Asked) -> Say:
        if asked.path == "/history":
            return Say({"position": 15, "records": LATE[5::-1], "next_before": None})
        if asked.path == "/events" and "correlation" in asked.query:
            assert asked.query["after"] == "15"
            return Say({"position": 17, "records": late, "next_after": 17 if late else 15})
        if asked.path == "/events":
            return Say({"position": 15, "records": [LATE[5]], "next_after": 15})
        return of_a_flush(asked)

    return answer


def test_a_flush_waits_for_the_vms_that_have_left_and_not_arrived(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, of_a_flush_whose_last_vm_arrives(LATE[6:])) as gateway:
        ran = cli_on(gateway, tmp_path)("node", "flush", "hv2", "--wait")
    assert ran.code == 0
    assert ran.out.splitlines()[1:3] == [
        "web01  runs on, on hv1  2.0 s",
        "db01   runs on, on hv1  6.0 s",
    ]


def test_a_migration_moves_a_bar_on_a_terminal(tmp_path: Path) -> None:
    looked = [0]

    def answer(asked: Asked) -> Say:
        if asked.method == "POST":
            return reply("vm.migrate", outcomes={"vm.arrived": True})
        if asked.path == "/vms/web01":
            looked[0] += 1
            done = {"per_cent": 35.0, "total_bytes": 2 << 30, "remaining_bytes": 1 << 30, "seconds": 1.0}
            return Say({"migration": {"live": True, "progress": done}})
        if looked[0] < 2:
            return Say({"position": 10, "records": [], "next_after": 10})
        return Say({"position": 11, "records": [record(11, event("vm.arrived", "vm/id1", "runs on, on hv2"))]})

    with FakeGateway(tmp_path, answer) as gateway:
        ran = cli_on(gateway, tmp_path).on_terminal("vm", "migrate", "web01", "hv2", "--wait")
    assert ran.code == 0
    assert "[#######-------------] 35 %, 1 GiB of 2 GiB" in ran.out
    assert "web01: runs on, on hv2" in ran.out


def progress_of(done_bytes: int, total_bytes: int) -> dict[str, Any]:
    left = total_bytes - done_bytes
    return {
        "per_cent": 100 * done_bytes / total_bytes,
        "total_bytes": total_bytes,
        "remaining_bytes": left,
        "seconds": 1,
    }


def lines_while(tmp_path: Path, command: str, about: str, answer: Answer, *, plain: bool = True) -> str:
    """What is written to a log while a command is waited for, in a few hundredths of a second."""
    written = io.StringIO()
    with FakeGateway(tmp_path, answer) as gateway:
        client = SimpleNamespace(connection=Connection(name="x", url=f"unix://{gateway.socket}"))
        session: Any = SimpleNamespace(client=client)
        with ProgressLine(written, plain=plain) as progress, watching(session, command, about, progress):
            until = time.monotonic() + 5
            while not written.getvalue() and plain and time.monotonic() < until:
                time.sleep(0.01)
        asked = len(gateway.asked)
    assert plain or asked == 0
    return written.getvalue().partition("\n")[0]


def test_off_a_terminal_how_far_a_migration_has_come_is_told_in_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert watch.LINE_S == 10
    monkeypatch.setattr(watch, "LINE_S", 0.05)
    moving = {"live": True, "progress": progress_of(1 << 30, 4 << 30)}
    said: Answer = lambda asked: Say({"migration": moving})  # noqa: E731
    assert lines_while(tmp_path, "vm.migrate", "web01", said) == "web01: 25 %, 1 GiB of 4 GiB"
    assert lines_while(tmp_path, "vm.migrate", "web01", said, plain=False) == "", "a program reads the answer"


def test_while_a_node_is_flushed_the_bytes_of_what_moves_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LINE_S", 0.05)

    def answer(asked: Asked) -> Say:
        if asked.path == "/nodes/hv2":
            return Say({"vms_running": 3, "vms_away": 2})
        if asked.path == "/vms":
            rows = [{"name": name, "target": target} for name, target in (("web01", "hv1"), ("db01", "hv2"))]
            return Say({"position": 1, "items": rows[:1] if asked.query.get("node") else rows, "next": None})
        return Say({"migration": {"live": True, "progress": progress_of(512 << 20, 1 << 30)}})

    still = lines_while(tmp_path, "node.flush", "hv2", answer)
    assert still == "hv2: 3 VMs still on it; web01 50 %, 512 MiB of 1 GiB"
    home = lines_while(tmp_path, "node.ready", "hv2", answer)
    assert home == "hv2: 2 VMs still away; db01 50 %, 512 MiB of 1 GiB"


def test_a_dry_run_of_a_rebalance_shows_its_moves_as_a_table(tmp_path: Path) -> None:
    moves = [
        event("vm.migration_requested", f"vm/id{i}", "x", source="hv1", target="hv2", why=["full"]) for i in (1, 2)
    ]
    planned = {**reply("cluster.rebalance", events=moves).body, "record": None, "dry_run": True}
    said: Answer = lambda asked: Say(planned) if asked.method == "POST" else Say({"name": f"web0{asked.path[-1]}"})  # noqa: E731
    with FakeGateway(tmp_path, said) as gateway:
        ran = cli_on(gateway, tmp_path)("cluster", "rebalance", "--dry-run")
    assert ran.out.splitlines() == ["VM     FROM  TO   WHY", "web01  hv1   hv2  full", "web02  hv1   hv2  full"]
    assert "dry run" in ran.err


MOVED = [
    record(
        10,
        event("vm.migration_requested", "vm/id1", "live migration requested", source="hv1", target="hv2"),
        event("vm.migration_requested", "vm/id2", "live migration requested", source="hv1", target="hv2"),
    ),
    record(12, event("vm.arrived", "vm/id1", "runs on, on hv2")),
]
ARRIVED = record(14, event("vm.arrived", "vm/id2", "runs on, on hv2"))
STAYED = record(14, {**event("vm.migration_failed", "vm/id2", "not migrated: no room"), "failure": True})


def of_a_rebalance(*late: dict[str, Any]) -> Answer:
    def answer(asked: Asked) -> Say:
        if asked.method == "POST":
            return reply("cluster.rebalance", events=MOVED[0]["events"])
        if asked.path == "/history":
            return Say({"position": 12, "records": MOVED[::-1], "next_before": None})
        if asked.path == "/events":
            assert asked.query["correlation"] == "r10"
            return Say({"position": 14, "records": late, "next_after": 14})
        return Say({"name": {"id1": "web01", "id2": "db01"}[asked.path.removeprefix("/vms/")]})

    return answer


def test_a_rebalance_is_waited_for_until_each_vm_has_arrived(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, of_a_rebalance(ARRIVED)) as gateway:
        ran = cli_on(gateway, tmp_path)("cluster", "rebalance", "--wait")
    assert ran.code == 0, ran.err
    table, told = ran.out.splitlines()[:3], ran.out.splitlines()[3]
    assert table[1:] == ["web01  runs on, on hv2  2.0 s", "db01   runs on, on hv2  4.0 s"]
    assert told.startswith("2 of 2 VMs moved (+")
    assert "db01: runs on, on hv2" in ran.err


def test_a_rebalance_of_which_a_vm_stays_behind_fails(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, of_a_rebalance(STAYED)) as gateway:
        ran = cli_on(gateway, tmp_path)("cluster", "rebalance", "--wait")
        data = cli_on(gateway, tmp_path)("cluster", "rebalance", "--wait", "-o", "json")
    assert ran.code == data.code == 6
    assert "1 of 2 VMs moved" in ran.out and "Error: 1 of 2 VMs failed" in ran.err
    shown = json.loads(data.out)
    assert shown["outcome"]["success"] is False
    assert [(vm["vm"], vm["success"]) for vm in shown["vms"]] == [("web01", True), ("db01", False)]


def test_a_rebalance_that_takes_longer_than_one_waits_is_neither(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, of_a_rebalance()) as gateway:
        data = cli_on(gateway, tmp_path)("cluster", "rebalance", "--wait", "--wait-timeout", "1", "-o", "json")
    assert data.code == 7
    shown = json.loads(data.out)
    assert shown["outcome"]["success"] is None
    assert [vm["success"] for vm in shown["vms"]] == [True, None]


def of_a_confirmation(*looks: list[dict[str, Any]]) -> Answer:
    """hv2 was lost with what the first look shows; the others follow, and the last one stays."""
    later = list(looks)

    def answer(asked: Asked) -> Say:
        if asked.method == "POST":
            fenced = event("node.fenced", "node/hv2", "fenced (manual): root says that it is off")
            return reply("node.confirm_fenced", events=[fenced])
        if asked.path == "/vms":
            items = later.pop(0) if len(later) > 1 else later[0]
            return Say({"position": 10, "items": items, "next": None})
        return Say({"error": "no node can take db01: hv1 has 10 MiB free"})

    return answer


def row(name: str, node: str, state: str = "running") -> dict[str, Any]:
    return {"id": f"id-{name}", "name": name, "node": node, "state": state}


def test_a_confirmed_fencing_is_waited_for_until_the_vms_run_again(tmp_path: Path) -> None:
    before = [row("web01", "hv2"), row("db01", "hv2"), row("old", "hv2", "stopped"), row("off", "hv2", "stopping")]
    between = [row("web01", "hv1", "starting"), row("db01", "hv2"), row("off", "hv2", "stopped")]
    after = [row("web01", "hv1"), row("db01", "hv3"), row("off", "hv2", "stopped")]
    with FakeGateway(tmp_path, of_a_confirmation(before, between, after)) as gateway:
        ran = cli_on(gateway, tmp_path)("node", "confirm-fenced", "hv2", "--yes", "--wait")
    assert ran.code == 0, ran.err
    shown = [line.split("  ")[:2] for line in ran.out.splitlines()[1:4]]
    assert [words[0].split()[0] for words in shown] == ["web01", "db01", "off"]
    assert "runs on hv1" in ran.out and "runs on hv3" in ran.out and "off, like its whole node" in ran.out
    assert "3 of 3 VMs recovered" in ran.out


def test_a_vm_that_no_node_can_take_is_told_of_when_the_waiting_ends(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, of_a_confirmation([row("db01", "hv2")])) as gateway:
        ran = cli_on(gateway, tmp_path)("node", "confirm-fenced", "hv2", "--yes", "--wait", "--wait-timeout", "1")
    assert ran.code == 7
    assert "no node can take db01: hv1 has 10 MiB free" in ran.out
    assert "1 of 1 VMs were not recovered within 1 s" in ran.err


def test_a_node_that_was_added_is_waited_for_until_it_is_ready(tmp_path: Path) -> None:
    added = [event("node.joined", "node/hv4", "node hv4 is a member; it joins when pvcd starts there")]
    ready = record(11, event("node.ready", "node/hv4", "node hv4 ready (1024 MiB, 2 CPUs, tcg)"))
    said: Answer = lambda asked: (  # noqa: E731
        reply("node.add", events=added, outcomes={"node.ready": True})
        if asked.method == "POST"
        else Say({"position": 11, "records": [ready], "next_after": 11})
    )
    with FakeGateway(tmp_path, said) as gateway:
        ran = cli_on(gateway, tmp_path)("node", "add", "hv4", "--wait")
    assert ran.code == 0 and ran.out.startswith("Node hv4 ready (1024 MiB, 2 CPUs, tcg)")
    assert "Node hv4 is a member; it joins when pvcd starts there" in ran.err


def test_what_is_done_at_once_is_told_once(tmp_path: Path) -> None:
    moved = [event("vm.moved", "vm/id1", "its home is hv1 now")]
    said: Answer = lambda asked: (  # noqa: E731
        reply("vm.move", events=moved, outcomes={"vm.moved": True})
        if asked.method == "POST"
        else Say({"position": 10, "records": [record(10, *moved)], "next_after": 10})
    )
    with FakeGateway(tmp_path, said) as gateway:
        ran = cli_on(gateway, tmp_path)("vm", "move", "web01", "hv1", "--wait")
    assert ran.code == 0
    assert (ran.out + ran.err).count("its home is hv1 now") == 1


def test_what_is_about_many_vms_names_each(tmp_path: Path) -> None:
    moves = [event("vm.moved", f"vm/id{i}", "moved from hv1 to hv2") for i in (1, 2)]
    said: Answer = lambda asked: (  # noqa: E731
        reply("cluster.set_maintenance", events=moves)
        if asked.method == "POST"
        else Say({"name": f"web0{asked.path[-1]}"})
    )
    with FakeGateway(tmp_path, said) as gateway:
        ran = cli_on(gateway, tmp_path)("cluster", "maintenance", "on")
    assert ran.out.splitlines() == ["web01: moved from hv1 to hv2", "web02: moved from hv1 to hv2"]


def test_faults_are_listed_and_none_is_good_news(tmp_path: Path) -> None:
    fault = {
        "id": "node.lost/hv2",
        "code": "node.lost",
        "subject": "node/hv2",
        "message": "node hv2 is lost",
        "since_us": 1,
        "acknowledged_by": "",
        "acknowledged_us": 0,
    }
    found = [fault]
    with FakeGateway(tmp_path, lambda _: Say({"position": 1, "items": found})) as gateway:
        cli = cli_on(gateway, tmp_path)
        assert "node.lost/hv2" in cli("fault", "list").out
        assert json.loads(cli("fault", "list", "--new", "-o", "json").out) == found
        found.clear()
        assert cli("fault", "list").out == "Nothing is wrong.\n"
    assert gateway.asked[1].query["acknowledged"] == "false"


def test_coordinators_are_named_when_the_cluster_begins(tmp_path: Path) -> None:
    made = Say({**reply("cluster.init", events=[]).body, "token": "pvc_0123456789ab_00"})
    with FakeGateway(tmp_path, lambda _: made) as gateway:
        cli = cli_on(gateway, tmp_path)
        ran = cli("cluster", "init", "main", "--coordinators", "hv1,hv2, hv3", "--no-wait")
        cli("cluster", "init", "main", "--coordinators", "hv1,hv2", "--coordinators", "hv3", "--no-wait")
    assert [asked.body for asked in gateway.asked] == [{"name": "main", "coordinators": ["hv1", "hv2", "hv3"]}] * 2
    assert "pvc connection add main https://hv1:7370 https://hv2:7370 https://hv3:7370" in ran.out


def test_a_connection_to_several_gateways_is_stored_though_one_is_down(tmp_path: Path) -> None:
    me = Say({"position": 1, "principal": "admin", "role": "admin"})
    with FakeGateway(tmp_path, lambda _: me) as gateway:
        cli = Cli(tmp_path, {})
        urls = (f"unix://{tmp_path}/nobody", f"unix://{gateway.socket}")
        added = cli("connection", "add", "main", *urls)
        listed = cli("connection", "list", "-o", "json")
        assert cli("-c", "main", "vm", "list").code != 0  # it is reached, and is no real gateway
    assert added.code == 0, added.err
    assert "There you are admin" in added.out
    assert f"{urls[0]} does not answer yet" in added.err
    assert [(one["url"], one["others"]) for one in json.loads(listed.out)] == [(urls[0], [urls[1]])]
    assert [asked.path for asked in gateway.asked] == ["/whoami", "/vms"]


def test_the_console_of_a_vm_elsewhere_names_the_node_to_ask(tmp_path: Path) -> None:
    there = problem(
        409, "the console of web01 is on node hv2", code="vm.console_elsewhere", hint="ask the gateway of hv2"
    )
    with FakeGateway(tmp_path, lambda _: there) as gateway:
        ran = cli_on(gateway, tmp_path)("vm", "log", "web01")
    assert ran.code == 1
    assert "Hint: ask the gateway of hv2" in ran.err
