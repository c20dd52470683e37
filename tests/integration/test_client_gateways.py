"""A connection to several gateways: the next one answers where one is down, and nothing is done twice for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.client import core
from pvc.client.connections import Connection
from pvc.client.errors import ApiError, Unreachable
from pvc.client.json_client import JsonClient
from tests.integration.fake_gateway import Answer, Asked, Drop, FakeGateway, Say, events, operation, problem, reply

ELSEWHERE = problem(409, "the console of web01 is on node hv2, this is hv1", code="vm.console_elsewhere")
SEEN = Say({"position": 12, "name": "web01"})


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "RETRY_PAUSE_S", 0.01)


def says(answer: Say | Drop) -> Answer:
    return lambda _: answer


@contextlib.contextmanager
def gateways(folder: Path, *answers: Answer) -> Iterator[list[FakeGateway]]:
    with contextlib.ExitStack() as stack:
        made = []
        for i, answer in enumerate(answers):
            (folder / str(i)).mkdir()
            made.append(stack.enter_context(FakeGateway(folder / str(i), answer)))
        yield made


def client_of(*sockets: Path) -> JsonClient:
    url, *others = (f"unix://{socket}" for socket in sockets)
    return JsonClient(Connection("test", url, others=tuple(others)))


def test_a_gateway_that_is_down_is_passed_over_at_once_and_from_then_on(tmp_path: Path) -> None:
    with gateways(tmp_path, says(SEEN)) as (up,):
        client = client_of(tmp_path / "nobody", up.socket)
        assert client.vm("web01")["name"] == "web01"
        assert client.vm("web01")["name"] == "web01"
    assert len(up.asked) == 2


def test_a_command_goes_to_the_next_gateway_under_the_same_key(tmp_path: Path) -> None:
    with gateways(tmp_path, says(Drop()), says(problem(503, "no log")), says(reply("vm.start"))) as all_three:
        client = client_of(*(gateway.socket for gateway in all_three))
        assert client.command("vm.start", {"vm": "web01"})["record"] == "r10"
    assert [len(gateway.asked) for gateway in all_three] == [1, 1, 1]
    assert len({gateway.asked[0].key for gateway in all_three}) == 1


def test_a_refusal_is_not_taken_to_another_gateway(tmp_path: Path) -> None:
    with gateways(tmp_path, says(problem(409, "it runs")), says(reply("vm.start"))) as (one, other):
        with pytest.raises(ApiError, match="it runs"):
            client_of(one.socket, other.socket).command("vm.start", {"vm": "web01"})
        assert other.asked == []


def test_what_one_gateway_said_the_next_has_to_have_seen(tmp_path: Path) -> None:
    first: list[Say | Drop] = [SEEN, Drop()]
    with gateways(tmp_path, lambda _: first.pop(0), says(SEEN)) as (one, other):
        client = client_of(one.socket, other.socket)
        client.vm("web01")
        client.core.gateways.close()  # so that what follows is lost, and not only stale
        client.vm("web01")
    assert other.asked[0].query["min_position"] == "12"


def test_where_none_answers_all_are_named(tmp_path: Path) -> None:
    with pytest.raises(Unreachable) as caught:
        client_of(tmp_path / "one", tmp_path / "two").cluster()
    assert caught.value.message.startswith(f"none of the gateways unix://{tmp_path}/one, unix://{tmp_path}/two can be")


def test_a_log_is_read_at_the_gateway_that_has_it(tmp_path: Path) -> None:
    text = Say(b"hello\n", content_type="text/plain")
    with gateways(tmp_path, says(ELSEWHERE), says(text)) as (one, other):
        client = client_of(one.socket, tmp_path / "nobody", other.socket)
        assert b"".join(client.vm_log("web01")) == b"hello\n"


def test_a_log_that_nobody_who_answers_has_is_refused_with_the_node_to_ask(tmp_path: Path) -> None:
    with gateways(tmp_path, says(ELSEWHERE)) as (one,):
        with pytest.raises(ApiError, match="is on node hv2"):
            list(client_of(one.socket, tmp_path / "nobody").vm_log("web01"))
        with pytest.raises(ApiError, match="is on node hv2"):
            list(client_of(one.socket).vm_log("web01"))


def test_an_outcome_in_the_commands_own_record_ends_the_waiting_at_once(tmp_path: Path) -> None:
    moved = {"type": "vm.moved", "subject": "vm/id1", "summary": "moved from hv1 to hv2", "data": {}}

    def answer(asked: Asked) -> Say:
        if asked.method == "POST":
            return reply("vm.move", outcomes={"vm.moved": True, "vm.arrived": True}, events=[moved])
        if asked.path == "/operations/r10":
            return operation("succeeded", position=10)
        return events(("vm.moved", "moved from hv1 to hv2"), position=10)

    with gateways(tmp_path, answer) as (one,):
        client = client_of(one.socket)
        outcome = client.wait_for(client.command("vm.move", {"vm": "web01"}), timeout_s=10)
    assert outcome is not None and outcome.event is not None and outcome.record is not None
    assert (outcome.success, outcome.event["summary"], outcome.record["position"]) == (
        True,
        "moved from hv1 to hv2",
        10,
    )
    assert [asked.query["after"] for asked in one.asked if asked.path == "/events"] == ["9"]
    assert len(one.asked) == 3, "the command, its operation, and what happened"


def test_what_a_record_says_of_another_vm_is_no_outcome(tmp_path: Path) -> None:
    both = [
        {"type": "vm.recovered", "subject": f"vm/{vm}", "summary": f"{vm} recovered", "data": {}}
        for vm in ("id2", "id1")
    ]
    page = events(("vm.recovered", "x"))
    page.body["records"][0]["events"] = both

    def answer(asked: Asked) -> Say:
        if asked.method == "POST":
            return reply("vm.start", outcomes={"vm.recovered": False})
        return operation("failed", code="vm.recovered") if asked.path == "/operations/r10" else page

    with gateways(tmp_path, answer) as (one,):
        client = client_of(one.socket)
        outcome = client.wait_for(client.command("vm.start", {"vm": "web01"}), timeout_s=10)
    assert outcome is not None
    assert outcome.event is not None and outcome.event["summary"] == "id1 recovered"
