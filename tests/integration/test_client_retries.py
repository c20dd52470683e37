"""The client in accidents: lost replies, restarts, silence. Whatever happens, a command is sent under one key."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from pvc.client import core
from pvc.client.connections import Connection
from pvc.client.errors import ApiError, Unreachable, WaitTimedOut
from pvc.client.json_client import JsonClient
from tests.integration.fake_gateway import Answer, Asked, Drop, FakeGateway, Say, events, operation, problem, reply


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "RETRY_PAUSE_S", 0.01)


def in_turn(*answers: Say | Drop) -> Answer:
    """Each answer once, the last one for ever."""
    left = list(answers)
    return lambda asked: left.pop(0) if len(left) > 1 else left[0]


def client_of(gateway: FakeGateway) -> JsonClient:
    return JsonClient(Connection("test", f"unix://{gateway.socket}"))


def test_a_lost_reply_is_asked_for_again_under_the_same_key(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, in_turn(Drop(), Drop(), reply("vm.start"))) as gateway:
        assert client_of(gateway).command("vm.start", {"vm": "web01"})["record"] == "r10"
    assert len(gateway.asked) == 3
    assert len({asked.key for asked in gateway.asked}) == 1
    assert len(gateway.asked[0].key) >= 26


def test_two_commands_never_share_a_key(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, in_turn(reply("vm.start"))) as gateway:
        client = client_of(gateway)
        client.command("vm.start", {"vm": "web01"})
        client.command("vm.start", {"vm": "web01"})
    assert gateway.asked[0].key != gateway.asked[1].key


@pytest.mark.parametrize("status", [503, 504])
def test_what_passes_by_itself_is_tried_again(tmp_path: Path, status: int) -> None:
    with FakeGateway(tmp_path, in_turn(problem(status, "busy"), reply("vm.start"))) as gateway:
        assert client_of(gateway).command("vm.start", {"vm": "web01"})["changed"]
    assert len({asked.key for asked in gateway.asked}) == 1


def test_a_refusal_is_not_tried_again(tmp_path: Path) -> None:
    refusal = problem(409, "web01 is already running", code="vm.is_running", hint="stop it")
    with FakeGateway(tmp_path, in_turn(refusal)) as gateway, pytest.raises(ApiError) as caught:
        client_of(gateway).command("vm.start", {"vm": "web01"})
    assert len(gateway.asked) == 1
    error = caught.value
    assert (error.status, error.code, error.message, error.hint) == (
        409,
        "vm.is_running",
        "web01 is already running",
        "stop it",
    )


def test_trying_again_has_an_end_and_the_last_reason_is_told(tmp_path: Path) -> None:
    full = problem(503, "the disk is full", code="log.disk_full")
    with FakeGateway(tmp_path, in_turn(full)) as gateway, pytest.raises(ApiError) as caught:
        client_of(gateway).command("vm.start", {"vm": "web01"})
    assert caught.value.code == "log.disk_full"
    assert len(gateway.asked) == core.MAX_TRIES


def test_a_command_whose_reply_never_comes_may_have_been_carried_out(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, in_turn(Drop())) as gateway, pytest.raises(Unreachable) as caught:
        client_of(gateway).command("vm.start", {"vm": "web01"})
    assert caught.value.code == "client.no_reply"
    assert "history" in caught.value.hint


def test_where_nobody_listens_nobody_waits(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(Unreachable) as caught:
        JsonClient(Connection("test", f"unix://{tmp_path}/nothing.sock")).whoami()
    assert caught.value.code == "client.unreachable"
    assert time.monotonic() - began < 1


def test_fields_go_into_the_path_safely_and_the_rest_into_the_body(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, in_turn(reply("vm.add_tag"))) as gateway:
        client = client_of(gateway)
        client.command("vm.add_tag", {"vm": "a/../b c", "tag": "x", "protected": None})
        client.command("vm.remove_tag", {"vm": "web01", "tag": "a:b"}, dry_run=True)
    added, removed = gateway.asked
    assert (added.method, added.path, added.body) == ("POST", "/vms/a%2F..%2Fb%20c/tags", {"tag": "x"})
    assert (removed.method, removed.path, removed.body) == ("DELETE", "/vms/web01/tags/a%3Ab", None)
    assert removed.query == {"dry_run": "true"}


def test_a_query_is_at_least_as_fresh_as_the_command_before_it(tmp_path: Path) -> None:
    def answer(asked: Asked) -> Say:
        return reply("vm.start") if asked.method == "POST" else Say({"position": 12, "name": "web01"})

    with FakeGateway(tmp_path, answer) as gateway:
        client = client_of(gateway)
        client.vm("web01")
        client.command("vm.start", {"vm": "web01"})
        client.vm("web01")
    assert "min_position" not in gateway.asked[0].query
    assert gateway.asked[2].query["min_position"] == "12"


def test_a_list_is_read_to_its_last_page(tmp_path: Path) -> None:
    pages = [
        Say({"position": 1, "items": [{"name": "a"}], "next": "a"}),
        Say({"position": 1, "items": [{"name": "b"}], "next": None}),
    ]
    with FakeGateway(tmp_path, in_turn(*pages)) as gateway:
        assert [row["name"] for row in client_of(gateway).vms()] == ["a", "b"]
    assert gateway.asked[1].query["after"] == "a"


OUTCOMES = {"vm.started": True, "vm.start_failed": False}


def waiting(*looks: Say | Drop, told: Mapping[str, Say]) -> Answer:
    """Each look at the operation once, the last one for ever; what was told after a position."""
    left = list(looks)

    def answer(asked: Asked) -> Say | Drop:
        if asked.method == "POST":
            return reply("vm.start", outcomes=OUTCOMES)
        if asked.path == "/events":
            return told[asked.query["after"]]
        assert asked.path == "/operations/r10"
        return left.pop(0) if len(left) > 1 else left[0]

    return answer


def test_waiting_ends_with_the_operation_and_tells_what_came_before(tmp_path: Path) -> None:
    looks = (operation("pending", position=10), operation("running"), operation("succeeded", position=12))
    told = {
        "10": events(("vm.thought_about", "thinking")),
        "11": events(("vm.started", "running on hv1"), position=12),
    }
    seen: list[str] = []
    with FakeGateway(tmp_path, waiting(*looks, told=told)) as gateway:
        client = client_of(gateway)
        started = client.command("vm.start", {"vm": "web01"})
        outcome = client.wait_for(started, timeout_s=10, on_progress=lambda r: seen.append(r["events"][0]["summary"]))
    assert outcome is not None
    assert (outcome.success, outcome.text) == (True, "running on hv1")
    assert seen == ["thinking", "running on hv1"]
    assert outcome.record is not None and outcome.record["position"] == 12
    looked = [asked.query for asked in gateway.asked if asked.path == "/operations/r10"]
    assert [query.get("seen") for query in looked] == [None, "10", "11"]
    assert ["wait" in query for query in looked] == [False, True, True]
    asked_for = [asked.query for asked in gateway.asked if asked.path == "/events"]
    assert [(query["after"], query["subject"]) for query in asked_for] == [("10", "vm/id1"), ("11", "vm/id1")]
    assert {query["wait_s"] for query in asked_for} == {"0"}


def test_waiting_does_not_hang_on_a_gateway_that_has_not_the_events_yet(tmp_path: Path) -> None:
    behind = Say({"position": 11, "records": [], "next_after": 10})
    ended = operation("succeeded", text="running on hv1")
    with FakeGateway(tmp_path, waiting(ended, told={"10": behind})) as gateway:
        client = client_of(gateway)
        outcome = client.wait_for(client.command("vm.start", {"vm": "web01"}), timeout_s=10)
    assert outcome is not None
    assert (outcome.success, outcome.text, outcome.event) == (True, "running on hv1", None)


def test_waiting_outlives_a_restart_of_the_gateway(tmp_path: Path) -> None:
    failed = operation("failed", text="no such disk", code="vm.start_failed")
    told = {"10": events(("vm.start_failed", "no such disk"))}
    with FakeGateway(tmp_path, waiting(*[Drop()] * 5, failed, told=told)) as gateway:
        client = client_of(gateway)
        outcome = client.wait_for(client.command("vm.start", {"vm": "web01"}), timeout_s=10)
    assert outcome is not None
    assert not outcome.success


def test_waiting_ends_when_the_time_is_over(tmp_path: Path) -> None:
    with FakeGateway(tmp_path, waiting(operation("pending", position=10), told={})) as gateway:
        client = client_of(gateway)
        started = client.command("vm.start", {"vm": "web01"})
        with pytest.raises(WaitTimedOut, match=r"vm\.start was accepted, but its outcome did not come within 0\.2 s"):
            client.wait_for(started, timeout_s=0.2)


def test_where_nothing_changed_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    said = {**reply("vm.start", outcomes=OUTCOMES).body, "record": None, "changed": False, "events": []}
    said["operation"] = None
    with FakeGateway(tmp_path, in_turn(Say(said))) as gateway:
        client = client_of(gateway)
        assert client.wait_for(client.command("vm.start", {"vm": "web01"}), timeout_s=1) is None


def test_what_is_no_gateway_is_recognised(tmp_path: Path) -> None:
    page = Say(b"<html>hello</html>", 404, "text/html")
    with FakeGateway(tmp_path, in_turn(page)) as gateway, pytest.raises(Unreachable) as caught:
        client_of(gateway).whoami()
    assert caught.value.code == "client.not_a_gateway"
