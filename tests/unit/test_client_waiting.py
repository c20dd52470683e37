"""Waiting for an operation, in virtual time: it takes as long as was asked for, whatever the gateways do."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from pvc.client import operations, waiting
from pvc.client.api_types import Reply
from pvc.client.connections import Connection
from pvc.client.core import Core, Patience
from pvc.client.errors import Unreachable, WaitTimedOut
from pvc.client.ports import finish
from tests.unit.test_client_core import FakeIo

SILENCE = 1e9
OTHERS: tuple[tuple[str, ...], ...] = ((), ("http://two:7370",), ("http://two:7370", "http://three:7370"))
AT_ALL = pytest.mark.parametrize("others", OTHERS, ids=("one gateway", "two gateways", "three gateways"))


def said(document: dict[str, Any], status: int = 200) -> bytes:
    body = json.dumps(document).encode()
    return (
        b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body
    )


def operation(state: str) -> bytes:
    progress = {"done": 0, "total": 1, "failed": 0, "text": "", "transfer": None}
    return said({"id": "o1", "state": state, "progress": progress, "problem": None, "position": 11, "vms": []})


def core_on(io: FakeIo, others: tuple[str, ...]) -> Core:
    return Core(io, Connection("test", "http://one:7370", others=others), patience=Patience())


REPLY = {
    "name": "vm.start",
    "position": 10,
    "record": "r10",
    "operation": {"id": "o1"},
    "events": [{"type": "vm.start_requested", "subject": "vm/id1", "summary": "", "data": {}}],
    "outcomes": {"vm.started": True},
}


def by_program(core: Core) -> Any:
    return finish(operations.wait(core, "o1", "vm.start", 10.0))


def by_command_line(core: Core) -> Any:
    return finish(waiting.wait_for(core, cast("Reply", REPLY), timeout_s=10.0))


BOTH = pytest.mark.parametrize("wait", [by_program, by_command_line])


@BOTH
@AT_ALL
@pytest.mark.parametrize("answers", [(SILENCE,), (operation("running"), SILENCE)], ids=("at once", "after a look"))
def test_who_waits_ten_seconds_is_not_held_for_minutes_by_gateways_that_fall_silent(
    wait: Any, others: tuple[str, ...], answers: tuple[bytes | float, ...]
) -> None:
    io = FakeIo(*answers)
    with pytest.raises(WaitTimedOut, match="within 10 s"):
        wait(core_on(io, others))
    assert io.time_s - 1000 <= 10 + 2 * waiting.LATE_S


@pytest.mark.parametrize("others", OTHERS[1:], ids=("two gateways", "three gateways"))
def test_however_little_time_there_is_each_gateway_is_asked(others: tuple[str, ...]) -> None:
    io = FakeIo(*[SILENCE] * len(others), operation("succeeded"))
    assert by_program(core_on(io, others)).state == "succeeded"
    assert len(set(io.urls)) == len(others) + 1


def test_what_ended_meanwhile_is_still_seen_when_the_time_is_over() -> None:
    io = FakeIo(operation("running"), 9.5, operation("succeeded"))
    assert by_program(core_on(io, ())).state == "succeeded"


def test_who_waits_for_long_gives_a_call_no_more_than_its_deadline() -> None:
    io = FakeIo(SILENCE)
    with pytest.raises(WaitTimedOut):
        finish(operations.wait(core_on(io, ()), "o1", "vm.start", 600.0))
    assert 600 <= io.time_s - 1000 <= 600 + 2 * waiting.LATE_S
    assert len(io.requests) >= 8


NO_OPERATIONS: list[dict[str, Any]] = [
    {},
    {"hello": "world"},
    {"id": "o1", "progress": {"done": 0, "total": 1, "failed": 0, "text": ""}, "problem": None, "position": 11},
    {"id": "o1", "state": "running", "position": "x", "progress": {}, "problem": None},
    {"id": "o1", "state": 7, "position": 11, "progress": [], "problem": None},
    {"position": [1]},
]


@BOTH
@pytest.mark.parametrize("document", NO_OPERATIONS)
def test_json_that_is_no_operation_is_of_no_gateway_and_not_waited_for(wait: Any, document: dict[str, Any]) -> None:
    io = FakeIo(said(document))
    with pytest.raises(Unreachable, match=r"no PVC gateway answers at http://one:7370 \(HTTP 200, application/json\)"):
        wait(core_on(io, ()))
    assert len(io.requests) == 1


@BOTH
def test_what_a_proxy_says_in_a_gateways_place_passes(wait: Any) -> None:
    page, nothing = said({"error": "bad gateway"}, 502), said({"position": 11, "records": [], "next_after": 11})
    io = FakeIo(page, page, operation("succeeded"), nothing)
    assert wait(core_on(io, ())) is not None


@BOTH
def test_what_was_an_operation_before_is_waited_for_whatever_is_said_between(wait: Any) -> None:
    nothing = said({"position": 11, "records": [], "next_after": 11})
    looks = (operation("running"), *([nothing] if wait is by_command_line else []), said({}), operation("succeeded"))
    assert wait(core_on(FakeIo(*looks, nothing), ())) is not None


def test_half_an_operation_is_none_for_who_reads_plain_json() -> None:
    with pytest.raises(Unreachable, match="no PVC gateway answers"):
        by_command_line(core_on(FakeIo(said({"id": "o1", "state": "running", "position": 11})), ()))


def test_json_that_is_no_page_of_events_is_of_no_gateway() -> None:
    with pytest.raises(Unreachable, match="no PVC gateway answers"):
        by_command_line(core_on(FakeIo(operation("running"), said({"position": 12})), ()))
