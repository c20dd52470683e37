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
from tests.integration.fake_gateway import Answer, Asked, FakeGateway, Say, operation, problem, reply

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


REQUESTED = event("node.flush_requested", "node/hv2", "flush requested")
INCOMPLETE = event("node.flush_incomplete", "node/hv2", "flushed, but for db01: no room")


def of_a_flush(*looks: Say, told: dict[str, Any] | None = None) -> Answer:
    """Each look at the operation once, the last one for ever; what was told of the node."""
    left: list[Say] = []

    def answer(asked: Asked) -> Say:
        if asked.method == "POST":
            left[:] = looks
            return reply("node.flush", outcomes=OUTCOMES, events=[REQUESTED])
        if asked.path == "/operations/r10":
            return left.pop(0) if len(left) > 1 else left[0]
        if asked.path == "/events":
            assert asked.query["subject"] == "node/hv2"
            records = [told] if told is not None and told["position"] > int(asked.query["after"]) else []
            return Say({"position": 17, "records": records, "next_after": 17})
        return Say({"vms_running": 2, "vms_away": 0})

    return answer


def cli_on(gateway: FakeGateway, tmp_path: Path) -> Cli:
    return Cli(tmp_path, {"PVC_SOCKET": str(gateway.socket)})


def test_a_flush_that_was_waited_for_tells_what_became_of_each_vm(tmp_path: Path) -> None:
    ended = [("web01", "succeeded", "runs on, on hv1", 2.0), ("db01", "failed", "not migrated: no room", 3.0)]
    failed = operation("failed", position=15, text=INCOMPLETE["summary"], code="node.flush_incomplete", vms=ended)
    with FakeGateway(tmp_path, of_a_flush(failed, told=record(15, INCOMPLETE))) as gateway:
        ran = cli_on(gateway, tmp_path)("node", "flush", "hv2", "--wait")
        data = cli_on(gateway, tmp_path)("node", "flush", "hv2", "--wait", "-o", "json")
    assert ran.code == data.code == 6
    assert ran.out.splitlines()[1:] == [
        "web01  runs on, on hv1        2.0 s",
        "db01   not migrated: no room  3.0 s",
    ]
    assert "Error: hv2: flushed, but for db01: no room" in ran.err
    assert "pvc history node hv2" in ran.err
    shown = json.loads(data.out)
    assert [(vm["vm"], vm["success"]) for vm in shown["vms"]] == [("web01", True), ("db01", False)]
    assert shown["outcome"] == {"success": False, "record": record(15, INCOMPLETE)}


def test_a_flush_waits_for_the_vms_that_have_left_and_not_arrived(tmp_path: Path) -> None:
    """As it really comes: a node is flushed once the last VM has left it, and that VM arrives afterwards."""
    flushed = record(15, event("node.flushed", "node/hv2", "flushed: no VM runs on it"))
    web01 = ("web01", "succeeded", "runs on, on hv1", 2.0)
    leaving = operation("running", position=15, vms=[web01, ("db01", "running", "has left hv2 for hv1", 0.0)])
    arrived = operation(
        "succeeded", position=17, text="runs on, on hv1", vms=[web01, ("db01", "succeeded", "runs on, on hv1", 6.0)]
    )
    with FakeGateway(tmp_path, of_a_flush(leaving, arrived, told=flushed)) as gateway:
        ran = cli_on(gateway, tmp_path)("node", "flush", "hv2", "--wait")
    assert ran.code == 0
    assert ran.out.splitlines()[1:3] == [
        "web01  runs on, on hv1  2.0 s",
        "db01   runs on, on hv1  6.0 s",
    ]
    assert ran.out.splitlines()[3].startswith("hv2: flushed: no VM runs on it (+")


def test_a_migration_moves_a_bar_on_a_terminal(tmp_path: Path) -> None:
    looked = [0]

    def answer(asked: Asked) -> Say:
        if asked.method == "POST":
            return reply("vm.migrate", outcomes={"vm.arrived": True})
        if asked.path == "/vms/web01":
            looked[0] += 1
            done = {"per_cent": 35.0, "total_bytes": 2 << 30, "remaining_bytes": 1 << 30, "seconds": 1.0}
            return Say({"migration": {"live": True, "progress": done}})
        if asked.path == "/operations/r10":
            return operation("pending", position=10) if looked[0] < 2 else operation("succeeded")
        arrived = record(11, event("vm.arrived", "vm/id1", "runs on, on hv2"))
        return Say({"position": 11, "records": [arrived], "next_after": 11})

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


MOVES = [
    event("vm.migration_requested", f"vm/{name}", "live migration requested", source="hv1", target="hv2")
    for name in ("web01", "db01")
]
WEB01 = ("web01", "succeeded", "runs on, on hv2", 2.0)
ON_ITS_WAY = operation("running", position=12, vms=[WEB01, ("db01", "running", "live migration requested", 0.0)])
ARRIVED = operation("succeeded", position=14, vms=[WEB01, ("db01", "succeeded", "runs on, on hv2", 4.0)])
STAYED = operation(
    "failed", position=14, code="operation.partly_failed", vms=[WEB01, ("db01", "failed", "not migrated: no room", 4.0)]
)


def of_many(name: str, told: list[dict[str, Any]], *looks: Say) -> Answer:
    """A command that begins something for many VMs; its operation as it stands at each look, and then on."""
    left: list[Say] = []

    def answer(asked: Asked) -> Say:
        if asked.method == "POST":
            left[:] = looks
            return reply(name, events=told, begins=True)
        assert asked.path == "/operations/r10", "nothing else says what becomes of the VMs"
        return left.pop(0) if len(left) > 1 else left[0]

    return answer


def test_a_rebalance_is_waited_for_until_each_vm_has_arrived(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, of_many("cluster.rebalance", MOVES, ON_ITS_WAY, ARRIVED)) as gateway:
        ran = cli_on(gateway, tmp_path)("cluster", "rebalance", "--wait")
    assert ran.code == 0, ran.err
    table, told = ran.out.splitlines()[:3], ran.out.splitlines()[3]
    assert table[1:] == ["web01  runs on, on hv2  2.0 s", "db01   runs on, on hv2  4.0 s"]
    assert told.startswith("2 of 2 VMs moved (+")
    assert ran.err.splitlines() == [
        "web01: runs on, on hv2",
        "db01: live migration requested",
        "db01: runs on, on hv2",
    ]


def test_a_rebalance_of_which_a_vm_stays_behind_fails(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, of_many("cluster.rebalance", MOVES, ON_ITS_WAY, STAYED)) as gateway:
        ran = cli_on(gateway, tmp_path)("cluster", "rebalance", "--wait")
        data = cli_on(gateway, tmp_path)("cluster", "rebalance", "--wait", "-o", "json")
    assert ran.code == data.code == 6
    assert "1 of 2 VMs moved" in ran.out and "Error: 1 of 2 VMs failed" in ran.err
    assert "`pvc history vm db01` shows how it came about" in ran.err
    shown = json.loads(data.out)
    assert shown["outcome"]["success"] is False
    assert [(vm["vm"], vm["success"]) for vm in shown["vms"]] == [("web01", True), ("db01", False)]


def test_a_rebalance_that_takes_longer_than_one_waits_is_neither(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, of_many("cluster.rebalance", MOVES, ON_ITS_WAY)) as gateway:
        data = cli_on(gateway, tmp_path)("cluster", "rebalance", "--wait", "--wait-timeout", "1", "-o", "json")
    assert data.code == 7
    shown = json.loads(data.out)
    assert shown["outcome"]["success"] is None
    assert [vm["success"] for vm in shown["vms"]] == [True, None]


FENCED = [event("node.fenced", "node/hv2", "fenced (manual): root says that it is off")]


def test_a_confirmed_fencing_is_waited_for_until_the_vms_run_again(tmp_path: Path) -> None:
    waiting = [(name, "pending", "", 0.0) for name in ("db01", "off", "web01")]
    again = [
        ("db01", "succeeded", "running on hv3", 4.0),
        ("off", "succeeded", "off, like its whole node", 0.0),
        ("web01", "succeeded", "running on hv1", 3.0),
    ]
    looks = operation("pending", position=10, vms=waiting), operation("succeeded", vms=again)
    with FakeGateway(tmp_path, of_many("node.confirm_fenced", FENCED, *looks)) as gateway:
        ran = cli_on(gateway, tmp_path)("node", "confirm-fenced", "hv2", "--yes", "--wait")
    assert ran.code == 0, ran.err
    assert [line.split()[0] for line in ran.out.splitlines()[1:4]] == ["db01", "off", "web01"]
    assert "running on hv1" in ran.out and "running on hv3" in ran.out and "off, like its whole node" in ran.out
    assert "3 of 3 VMs recovered" in ran.out
    assert ran.err.startswith("hv2: fenced (manual): root says that it is off\ndb01: running on hv3\n")


def test_a_vm_that_no_node_can_take_is_told_of_when_the_waiting_ends(tmp_path: Path) -> None:
    look = operation("running", vms=[("db01", "running", "no node can take db01: hv1 has 10 MiB free", 0.0)])
    with FakeGateway(tmp_path, of_many("node.confirm_fenced", FENCED, look)) as gateway:
        ran = cli_on(gateway, tmp_path)("node", "confirm-fenced", "hv2", "--yes", "--wait", "--wait-timeout", "1")
    assert ran.code == 7
    assert "no node can take db01: hv1 has 10 MiB free" in ran.out
    assert "0 of 1 VMs recovered" in ran.out
    assert "its outcome did not come within 1 s" in ran.err


def test_a_node_that_was_added_is_waited_for_until_it_is_ready(tmp_path: Path) -> None:
    added = [event("node.joined", "node/hv4", "node hv4 is a member; it joins when pvcd starts there")]
    ready = record(11, event("node.ready", "node/hv4", "node hv4 ready (1024 MiB, 2 CPUs, tcg)"))
    said: Answer = lambda asked: (  # noqa: E731
        reply("node.add", events=added, outcomes={"node.ready": True})
        if asked.method == "POST"
        else operation("succeeded")
        if asked.path == "/operations/r10"
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
        else operation("succeeded", position=10, text="its home is hv1 now")
        if asked.path == "/operations/r10"
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
