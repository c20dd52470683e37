"""The typed client, blocking and for asyncio, at gateways that misbehave: one suite for both."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pvc.client import (
    ApiError,
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    OperationFailed,
    OutcomeUnknown,
    PreconditionFailed,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    Unreachable,
    WaitTimedOut,
    core,
    following,
)
from tests.integration.fake_gateway import Answer, Asked, Drop, FakeGateway, Hang, Pour, Said, Say, problem, reply
from tests.support.both_clients import KINDS, MadeClient, clients

ROW = {"name": "web01", "id": "id1", "state": "running", "node": "hv1"}


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Iterator[MadeClient]:
    yield from clients(request.param)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "RETRY_PAUSE_S", 0.01)
    monkeypatch.setattr(following, "PAUSE_S", 0.01)


def in_turn(*answers: Said) -> Answer:
    """Each answer once, the last one for ever."""
    left = list(answers)
    return lambda asked: left.pop(0) if len(left) > 1 else left[0]


@contextlib.contextmanager
def gateways(folder: Path, *answers: Answer) -> Iterator[list[FakeGateway]]:
    with contextlib.ExitStack() as stack:
        made = []
        for i, answer in enumerate(answers):
            (folder / str(i)).mkdir()
            made.append(stack.enter_context(FakeGateway(folder / str(i), answer)))
        yield made


def at(*gateways: FakeGateway) -> list[str]:
    return [f"unix://{gateway.socket}" for gateway in gateways]


def record(position: int, kind: str = "vm.started") -> dict[str, Any]:
    event = {"type": kind, "subject": "vm/id1", "summary": f"number {position}", "data": {}}
    actor = {"principal": "node/hv1", "method": "node"}
    return {"position": position, "id": f"r{position}", "actor": actor, "events": [event]}


def begun(name: str = "vm.start") -> Say:
    said = reply(name)
    return said._replace(body={**said.body, "operation": {"id": "o1", "href": "/api/v1/operations/o1"}})


def operation(state: str, *, position: int = 11, text: str = "", code: str = "") -> Say:
    progress = {"done": 0, "total": 1, "failed": 0, "text": text, "transfer": None}
    told = {"code": code, "detail": text} if code else None
    return Say({"id": "o1", "state": state, "progress": progress, "problem": told, "position": position})


def commanding(*looks: Said) -> Answer:
    """Takes any command, and then shows its operation, each time as it is said here."""
    left = list(looks)

    def answer(asked: Asked) -> Said:
        if asked.method != "GET":
            return begun()
        return left.pop(0) if len(left) > 1 else left[0]

    return answer


# What is asked, and what comes of it.


def test_replies_are_structs_whatever_newer_or_older_gateways_say(make: MadeClient, tmp_path: Path) -> None:
    with gateways(tmp_path, in_turn(Say({**ROW, "invented_later": {"x": 1}}))) as (one,):
        vm = make(at(one)).vms.get("web01")
    assert (vm.name, vm.state, vm.defined_us) == ("web01", "running", 0)
    assert (vm.tags, vm.usage, vm.spec.vcpus) == ([], None, 0)
    assert not hasattr(vm, "invented_later")


def test_a_list_is_all_of_one_moment_however_many_pages_it_has(make: MadeClient, tmp_path: Path) -> None:
    then = {"PVC-At": "40", "PVC-At-Time": "2025-01-31T12:00:00Z"}
    pages = (
        Say({"items": [ROW], "next": "web01", "position": 40}, headers=then),
        Say({"items": [{**ROW, "name": "web02"}], "next": None, "position": 40}, headers=then),
    )
    with gateways(tmp_path, in_turn(*pages)) as (one,):
        found = make(at(one)).vms.list(state=["running", "starting"], at="2h")
    assert [vm.name for vm in found] == ["web01", "web02"]
    first, second = (asked.query for asked in one.asked)
    assert (first["state"], first["at"], "after" in first) == ("running,starting", "2h", False)
    assert (second["state"], second["at"], second["after"]) == ("running,starting", "40", "web01")


def test_of_a_list_no_more_is_asked_for_than_is_wanted(make: MadeClient, tmp_path: Path) -> None:
    with gateways(tmp_path, in_turn(Say({"items": [ROW, ROW], "next": "web02"}))) as (one,):
        client = make(at(one))
        assert len(client.vms.list(limit=2)) == 2
        assert client.vms.list(limit=0) == []
    assert [asked.query["limit"] for asked in one.asked] == ["2"]


def test_fields_go_into_the_path_safely_and_only_what_is_given_into_the_body(make: MadeClient, tmp_path: Path) -> None:
    with gateways(tmp_path, in_turn(reply("vm.add_tag"))) as (one,):
        client = make(at(one))
        client.vms.add_tag("a/../b c", "x")
        client.vms.modify("web01", description="", disks=[{"path": "/x"}], dry_run=True)
        client.vms.remove("web01")
    added, modified, removed = one.asked
    assert (added.method, added.path, added.body) == ("POST", "/vms/a%2F..%2Fb%20c/tags", {"tag": "x"})
    assert (modified.body, modified.query["dry_run"]) == ({"description": "", "disks": [{"path": "/x"}]}, "true")
    assert (removed.method, removed.body) == ("DELETE", None)


def test_what_is_read_is_at_least_as_fresh_as_what_was_written(make: MadeClient, tmp_path: Path) -> None:
    with gateways(tmp_path, lambda asked: reply("vm.start") if asked.method == "POST" else Say(ROW)) as (one,):
        client = make(at(one))
        client.vms.get("web01")
        client.vms.start("web01")
        client.vms.get("web01")
        assert client.position == 10
    assert ["min_position" in asked.query for asked in one.asked] == [False, False, True]
    assert one.asked[2].query["min_position"] == "10"


# Accidents.


def test_a_reply_that_is_lost_is_asked_for_again_under_the_same_key(make: MadeClient, tmp_path: Path) -> None:
    with gateways(tmp_path, in_turn(Drop(), Drop(), reply("vm.start"))) as (one,):
        client = make(at(one))
        assert client.vms.start("web01").changed
        client.vms.start("web01")
    keys = [asked.key for asked in one.asked]
    assert len(keys) == 4
    assert len(set(keys[:3])) == 1
    assert keys[3] != keys[0]


def test_a_key_of_ones_own_is_used(make: MadeClient, tmp_path: Path) -> None:
    with gateways(tmp_path, in_turn(Drop(), reply("vm.start"))) as (one,):
        make(at(one)).vms.start("web01", key="mine")
    assert [asked.key for asked in one.asked] == ["mine", "mine"]


def test_a_kept_connection_that_died_is_replaced(make: MadeClient, tmp_path: Path) -> None:
    said: list[Said] = [Say(ROW), Drop(), Say(ROW)]
    with gateways(tmp_path, lambda _: said.pop(0)) as (one,):
        client = make(at(one), tries=1)
        client.vms.get("web01")
        assert client.vms.get("web01").name == "web01"


@pytest.mark.parametrize("status", [429, 503, 504])
def test_what_passes_by_itself_is_tried_again(make: MadeClient, tmp_path: Path, status: int) -> None:
    busy = problem(status, "busy")._replace(headers={"Retry-After": "0"})
    with gateways(tmp_path, in_turn(busy, reply("vm.start"))) as (one,):
        assert make(at(one)).vms.start("web01").changed
    assert len({asked.key for asked in one.asked}) == 1


def test_who_is_told_to_slow_down_does_not_go_to_the_next_gateway(make: MadeClient, tmp_path: Path) -> None:
    slow = problem(429, "too many")._replace(headers={"Retry-After": "0"})
    with gateways(tmp_path, in_turn(slow, slow, Say(ROW)), in_turn(Say(ROW))) as (one, other):
        assert make(at(one, other)).vms.get("web01").name == "web01"
    assert (len(one.asked), len(other.asked)) == (3, 0)


def test_who_would_have_to_wait_too_long_is_told_so_at_once(make: MadeClient, tmp_path: Path) -> None:
    slow = problem(429, "too many")._replace(headers={"Retry-After": "3600"})
    with gateways(tmp_path, in_turn(slow)) as (one,), pytest.raises(TooManyRequests) as caught:
        make(at(one)).vms.get("web01")
    assert caught.value.retry_after_s == 3600
    assert len(one.asked) == 1


def test_a_wrong_token_is_not_tried_until_it_locks_others_out(make: MadeClient, tmp_path: Path) -> None:
    locked = problem(429, "too many", code="access.too_many_failures")._replace(headers={"Retry-After": "0"})
    with gateways(tmp_path, in_turn(locked)) as (one,), pytest.raises(TooManyRequests):
        make(at(one)).vms.get("web01")
    assert len(one.asked) == 1


def test_a_gateway_that_stays_busy_is_given_up(make: MadeClient, tmp_path: Path) -> None:
    full = problem(503, "the disk is full", code="log.disk_full")
    with gateways(tmp_path, in_turn(full)) as (one,), pytest.raises(Unavailable) as caught:
        make(at(one)).vms.start("web01")
    assert caught.value.code == "log.disk_full"
    assert len(one.asked) == core.MAX_TRIES


def test_a_gateway_that_says_nothing_is_given_up_at_the_deadline(make: MadeClient, tmp_path: Path) -> None:
    with gateways(tmp_path, in_turn(Hang())) as (one,), pytest.raises(Unreachable) as caught:
        make(at(one), deadline_s=0.3).vms.start("web01")
    assert caught.value.code == "client.no_reply"


def test_the_next_gateway_takes_over_under_the_same_key(make: MadeClient, tmp_path: Path) -> None:
    silent, busy, well = in_turn(Drop()), in_turn(problem(503, "no log")), in_turn(reply("vm.start"))
    with gateways(tmp_path, silent, busy, well) as all_three:
        client = make([f"unix://{tmp_path}/nobody", *at(*all_three)])
        client.vms.start("web01")
        client.vms.start("web01")
    assert [len(gateway.asked) for gateway in all_three] == [1, 1, 2]
    assert len({gateway.asked[0].key for gateway in all_three}) == 1


def test_where_nobody_is_all_are_named(make: MadeClient, tmp_path: Path) -> None:
    with pytest.raises(Unreachable) as caught:
        make([f"unix://{tmp_path}/one", f"unix://{tmp_path}/two"]).cluster.get()
    assert f"unix://{tmp_path}/one, unix://{tmp_path}/two" in caught.value.message


KINDS_OF_REFUSAL = {
    400: InvalidInput,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: PreconditionFailed,
    418: ApiError,
    422: InvalidInput,
    429: TooManyRequests,
    503: Unavailable,
    504: OutcomeUnknown,
}


@pytest.mark.parametrize("status", KINDS_OF_REFUSAL)
def test_a_refusal_is_an_exception_of_its_own_kind(make: MadeClient, tmp_path: Path, status: int) -> None:
    refusal = problem(status, "web01 cannot", code="vm.cannot", hint="do that first")
    refusal = refusal._replace(body={**refusal.body, "field": "vm"})
    with gateways(tmp_path, in_turn(refusal)) as (one,), pytest.raises(ApiError) as caught:
        make(at(one), tries=1).vms.start("web01")
    error = caught.value
    assert type(error) is KINDS_OF_REFUSAL[status]
    assert (error.status, error.code, error.field, error.hint) == (status, "vm.cannot", "vm", "do that first")


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[1, 2]", b'{"name": 7}', b""])
def test_what_is_no_gateway_is_recognised(make: MadeClient, tmp_path: Path, body: bytes) -> None:
    with gateways(tmp_path, in_turn(Say(body))) as (one,), pytest.raises(Unreachable) as caught:
        make(at(one)).vms.get("web01")
    assert caught.value.code == "client.not_a_gateway"


# Operations.


def test_waiting_ends_with_the_end_and_tells_of_each_step(make: MadeClient, tmp_path: Path) -> None:
    looks = (operation("pending"), operation("running", position=12, text="half"), operation("succeeded", position=13))
    seen: list[str] = []
    with gateways(tmp_path, commanding(*looks)) as (one,):
        started = make(at(one)).vms.start("web01")
        ended = started.wait(60, on_progress=lambda info: seen.append(info.state))
    assert (started.id, ended.state, seen) == ("o1", "succeeded", ["pending", "running", "succeeded"])
    asked = [(asked.query.get("wait"), asked.query.get("seen")) for asked in one.asked[1:]]
    assert asked == [(None, None), ("25", "11"), ("25", "12")]


def test_waiting_outlives_a_restart_of_the_gateway(make: MadeClient, tmp_path: Path) -> None:
    down = (Drop(), Drop(), Drop(), Drop(), Drop(), problem(503, "starting"))
    with gateways(tmp_path, commanding(operation("running"), *down, operation("succeeded"))) as (one,):
        assert make(at(one)).vms.start("web01").wait(60).state == "succeeded"


@pytest.mark.parametrize(("state", "said"), [("failed", "has failed"), ("cancelled", "was cancelled")])
def test_what_fails_while_one_waits_is_an_exception(make: MadeClient, tmp_path: Path, state: str, said: str) -> None:
    looks = operation(state, text="no such disk", code="vm.start_failed")
    with gateways(tmp_path, commanding(looks)) as (one,), pytest.raises(OperationFailed) as caught:
        make(at(one)).vms.start("web01", wait=60)
    assert caught.value.message == f"vm.start {said}: no such disk"
    assert (caught.value.code, caught.value.operation.state) == ("vm.start_failed", state)


@pytest.mark.parametrize("ending", ["running", "failed"])
def test_a_secret_outlives_the_failure_of_what_was_waited_for(make: MadeClient, tmp_path: Path, ending: str) -> None:
    added = begun("webhook.add")
    added = added._replace(body={**added.body, "secret": "whsec_x"})
    look = operation(ending, text="no receiver", code="webhook.unverified" if ending == "failed" else "")

    def answer(asked: Asked) -> Said:
        return look if asked.method == "GET" else added

    with gateways(tmp_path, answer) as (one,), pytest.raises((WaitTimedOut, OperationFailed)) as caught:
        make(at(one)).webhooks.add("billing", "https://billing.example.com", wait=0.2)
    assert caught.value.begun is not None, "it was accepted"
    assert (caught.value.begun.secret, caught.value.begun.id) == ("whsec_x", "o1")


def test_what_was_refused_has_begun_nothing(make: MadeClient, tmp_path: Path) -> None:
    with gateways(tmp_path, in_turn(problem(409, "no"))) as (one,), pytest.raises(Conflict) as caught:
        make(at(one)).vms.start("web01", wait=1)
    assert caught.value.begun is None


def test_what_goes_on_for_too_long_goes_on_without_us(make: MadeClient, tmp_path: Path) -> None:
    with gateways(tmp_path, commanding(operation("running"))) as (one,), pytest.raises(WaitTimedOut, match=r"0\.2 s"):
        make(at(one)).vms.start("web01").wait(0.2)


def test_a_gateway_that_does_not_wait_is_not_asked_as_fast_as_it_answers(make: MadeClient, tmp_path: Path) -> None:
    """One that is about to stop answers at once."""
    with gateways(tmp_path, commanding(operation("running"))) as (one,), pytest.raises(WaitTimedOut):
        make(at(one)).vms.start("web01").wait(3)
    assert len(one.asked) < 50


def test_where_nothing_was_begun_there_is_nothing_to_wait_for(make: MadeClient, tmp_path: Path) -> None:
    with gateways(tmp_path, in_turn(reply("vm.define"))) as (one,):
        defined = make(at(one)).vms.define("web01")
        assert (defined.id, defined.wait(), defined.info(), defined.cancel()) == ("", None, None, None)
    assert len(one.asked) == 1


def test_an_operation_is_cancelled_under_a_key_of_its_own(make: MadeClient, tmp_path: Path) -> None:
    with gateways(tmp_path, in_turn(begun("vm.migrate"), Drop(), reply("vm.cancel_migration"))) as (one,):
        assert make(at(one)).vms.migrate("web01").cancel().name == "vm.cancel_migration"
    asked = one.asked[1:]
    assert {(one.method, one.path) for one in asked} == {("POST", "/operations/o1/cancel")}
    assert len({one.key for one in asked} | {""}) == 2


# Events.


def test_events_go_on_where_the_line_broke_at_the_next_gateway(make: MadeClient, tmp_path: Path) -> None:
    first = in_turn(Pour((record(3), record(4))), problem(503, "stopping"))
    second = in_turn(Pour((record(5), {"position": 8, "bookmark": True})), Pour((record(9),), broken=False))
    with gateways(tmp_path, first, second) as (one, other):
        events = make(at(one, other)).events(after=2, types=["vm.*"], tag="production")
        assert [next(events).position for _ in range(4)] == [3, 4, 5, 9]
        events.close()
    asked = [asked.query for asked in (*one.asked, *other.asked)]
    assert {query["types"] for query in asked} == {"vm.*"}
    assert {query["tag"] for query in asked} == {"production"}
    assert [query["after"] for query in asked] == ["2", "8", "4", "8"]


def test_the_time_that_a_program_takes_for_a_record_is_no_silence_of_the_gateways(
    make: MadeClient, tmp_path: Path
) -> None:
    with gateways(tmp_path, in_turn(Pour((record(1),)), Pour((record(2),)))) as (one,):
        events = make(at(one)).events(after=0, patience_s=0.2)
        assert next(events).position == 1
        time.sleep(0.5)  # the line breaks meanwhile
        assert next(events).position == 2
        events.close()


def test_gateways_that_stay_silent_are_given_up_when_the_patience_is_over(make: MadeClient, tmp_path: Path) -> None:
    with gateways(tmp_path, in_turn(Pour((record(1),)), Drop())) as (one,):
        events = make(at(one)).events(after=0, patience_s=0.2)
        assert next(events).position == 1
        with pytest.raises(Unreachable):
            next(events)
        events.close()
    assert len(one.asked) > 2


def test_events_begin_now_where_no_position_is_given(make: MadeClient, tmp_path: Path) -> None:
    def answer(asked: Asked) -> Said:
        return (
            Say({"principal": "root"}, headers={"PVC-Position": "7"}) if asked.path == "/whoami" else Pour((record(8),))
        )

    with gateways(tmp_path, answer) as (one,), make(at(one)).events() as events:
        assert next(events).position == 8
        assert events.position == 8
    assert one.asked[1].query["after"] == "7"


def test_a_gateway_that_stops_is_left_for_the_next(make: MadeClient, tmp_path: Path) -> None:
    stopping = {"end": {"status": 503, "detail": "stopping", "code": "event.gateway_stopping", "hint": "", "field": ""}}
    with gateways(tmp_path, in_turn(Pour((record(1), stopping))), in_turn(Pour((record(2),)))) as (one, other):
        events = make(at(one, other)).events(after=0)
        assert [next(events).position, next(events).position] == [1, 2]
        events.close()


def test_a_token_that_is_revoked_ends_the_events(make: MadeClient, tmp_path: Path) -> None:
    revoked = {"end": {"status": 401, "detail": "revoked", "code": "access.token_revoked", "hint": "", "field": ""}}
    with gateways(tmp_path, in_turn(Pour((record(1), revoked)))) as (one,):
        events = make(at(one)).events(after=0)
        assert next(events).position == 1
        with pytest.raises(Unauthenticated):
            next(events)
        events.close()


def test_a_line_that_breaks_before_anything_came_is_no_endless_loop(make: MadeClient, tmp_path: Path) -> None:
    with gateways(tmp_path, in_turn(Pour(()))) as (one,), pytest.raises(Unreachable):
        next(make(at(one)).events(after=0))
    assert len(one.asked) == 1


def test_without_following_the_events_end_with_what_there_is(make: MadeClient, tmp_path: Path) -> None:
    pages = (
        Say({"position": 9, "records": [record(3)], "next_after": 4}),
        Say({"position": 12, "records": [], "next_after": 6}),
        Say({"position": 12, "records": [record(9), record(11)], "next_after": 12}),
    )
    with gateways(tmp_path, in_turn(*pages)) as (one,):
        events = make(at(one)).events(follow=False)
        assert [record.position for record in events] == [3, 9]
        assert events.position == 9
    assert [asked.query["after"] for asked in one.asked] == ["0", "3", "6"]


def test_a_log_is_read_at_the_gateway_that_has_it(make: MadeClient, tmp_path: Path) -> None:
    elsewhere = in_turn(problem(409, "the console of web01 is on node hv2", code="vm.console_elsewhere"))
    text = in_turn(Say(b"hello\n", content_type="text/plain"))
    with gateways(tmp_path, elsewhere, text) as (one, other):
        assert b"".join(make(at(one, other)).vms.log("web01", lines=5)) == b"hello\n"
        with pytest.raises(Unreachable, match="has ended the log"):
            list(make(at(one, other)).vms.log("web01", follow=True))
    assert other.asked[0].query == {"lines": "5", "follow": "false"}
