"""Bad input: every kind has its status, a stable code, a message with the value in it, and a remedy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pvc.gateway.app import local_app
from pvc.gateway.bodies import MAX_BODY_BYTES
from tests.unit.gateway_house import WEB01, House, a_house

JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        await made.define()
        yield made


@pytest.mark.parametrize(
    ("fields", "code", "field", "message", "hint"),
    [
        ({"memory_mib": 8}, "input.invalid", "memory_mib", "must be at least 16, not 8", "Memory in MiB"),
        ({"memory_mib": "lots"}, "input.invalid", "memory_mib", 'a whole number, not "lots"', "2048"),
        ({"memory_mib": 1.5}, "input.invalid", "memory_mib", "a whole number, not 1.5", "2048"),
        ({"memory_mib": True}, "input.invalid", "memory_mib", "a whole number, not true", "2048"),
        ({"vcpus": 9999}, "input.invalid", "vcpus", "must be at most 1,024, not 9999", "virtual CPUs"),
        ({"name": "Web_01"}, "input.invalid", "name", 'cannot be "Web_01"', "DNS label"),
        ({"name": "web01\n"}, "input.invalid", "name", 'cannot be "web01\\n"', "DNS label"),
        ({"nmae": "x"}, "input.unknown_field", "nmae", 'there is no field "nmae"', "did you mean name"),
        ({"zzz": "x"}, "input.unknown_field", "zzz", 'there is no field "zzz"', "known: "),
        ({"selector": "memm"}, "input.invalid", "selector", 'cannot be "memm"', "did you mean mem"),
        ({"autostart": "maybe"}, "input.invalid", "autostart", 'true or false, not "maybe"', "booted"),
        ({"description": "x" * 501}, "input.invalid", "description", "at most 500 characters", "Free text"),
        ({"tags": "x"}, "input.invalid", "tags", 'must be a list, not "x"', "Tags"),
        ({"tags": ["ok", "no!"]}, "input.invalid", "tags[1]", 'cannot be "no!"', "A tag"),
        ({"disks": ["x"]}, "input.invalid", "disks[0]", "must be an object", ""),
        ({"disks": [{"format": "raw"}]}, "input.missing", "disks[0].path", "is missing", "Absolute path"),
        ({"disks": [{"path": "/x", "fromat": 1}]}, "input.unknown_field", "disks[0].fromat", "no field", "format"),
        ({"disks": [{"path": "relative"}]}, "input.invalid", "disks[0].path", 'cannot be "relative"', "Absolute"),
        ({"kernel": None, "name": None}, "vm.name_missing", "name", "needs a name", "give one"),
        ({"memory_mib": 9000, "node": "hv1"}, "vm.memory_too_much", "memory_mib", "9000 MiB", "less memory"),
    ],
)
async def test_a_wrong_field_is_named_with_its_value_and_a_remedy(
    house: House, fields: dict[str, Any], code: str, field: str, message: str, hint: str
) -> None:
    before = house.services.world.position
    reply = await house.root.post("/vms", json={**WEB01, "name": "web02", **fields})
    problem = check_problem(reply, 422, code)
    assert (problem["field"], message in problem["detail"], hint in problem["hint"]) == (field, True, True), problem
    assert not [vm for vm in house.state.vm_names if vm != "web01"]
    assert house.services.world.position <= before + 1, "at most the note of a refusal"


async def test_a_remedy_reads_as_sentences(house: House) -> None:
    reply = await house.root.post("/vms", json={"name": "web02", "memory_mib": 8})
    assert check_problem(reply, 422, "input.invalid")["hint"] == "Memory in MiB. For example 2048"


async def test_a_missing_field_is_named(house: House) -> None:
    problem = check_problem(await house.root.post("/vms/web01/autostart"), 422, "input.missing")
    assert problem["field"] == "autostart" and "booted" in problem["hint"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"name": "a",}', "line 1, column 14"),
        (b'{"name":\n  oops}', "line 2, column 3"),
        (b'{"name": "a', "unterminated string"),
        (b"[1]", "not an object"),
        (b'"text"', "not an object"),
        (b'{"name": "\xff"}', "byte 10 is not UTF-8"),
        (b'{"name": "\\ud800"}', "no character"),
        (b'{"memory_mib": NaN}', "NaN"),
        (b'{"memory_mib": ' + b"9" * 5000 + b"}", "digit"),
        (b'{"a":' * 50_000, "nested too deeply"),
        (b"\xef\xbb\xbf{}", "BOM"),
    ],
)
async def test_a_body_that_is_no_json_object_is_told_where_it_breaks(house: House, body: bytes, says: str) -> None:
    problem = check_problem(await house.root.post("/vms", content=body, headers=JSON), 400, "input.bad_json")
    assert says in problem["detail"], problem


async def test_a_field_that_stands_twice_in_the_json_is_refused(house: House) -> None:
    body = b'{"name": "web02", "memory_mib": 512, "name": "web03"}'
    problem = check_problem(await house.root.post("/vms", content=body, headers=JSON), 422, "input.conflict")
    assert problem["field"] == "name"


@pytest.mark.parametrize(
    ("kind", "body"),
    [("text/xml", b"<domain/>"), ("", b"{}"), ("application/octet-stream", b"x")],
)
async def test_a_body_of_another_kind_is_refused_with_the_kinds_there_are(house: House, kind: str, body: bytes) -> None:
    headers = {"Content-Type": kind} if kind else {}
    problem = check_problem(
        await house.root.post("/vms", content=body, headers=headers), 415, "http.wrong_content_type"
    )
    assert "application/json" in problem["hint"]


async def test_a_multipart_body_without_its_boundary_is_refused(house: House) -> None:
    headers = {"Content-Type": "multipart/form-data"}
    check_problem(await house.root.post("/vms", content=b"x", headers=headers), 400, "input.malformed")


async def test_a_form_of_more_fields_than_anybody_needs_is_refused_and_is_no_defect(house: House) -> None:
    many = {f"a{number}": "1" for number in range(2_000)}
    check_problem(await house.root.post("/vms", data=many), 400, "input.malformed")
    check_problem(await house.root.post("/vms", files=dict.fromkeys(many, b"x")), 400, "input.malformed")


async def test_sources_that_disagree_are_refused_and_ones_that_agree_are_not(house: House) -> None:
    problem = check_problem(
        await house.root.post("/vms/web01/autostart?autostart=true", json={"autostart": False}), 422, "input.conflict"
    )
    assert problem["field"] == "autostart" and "query" in problem["detail"] and "body" in problem["detail"]
    check_problem(await house.root.post("/vms/web01/start", json={"vm": "other"}), 422, "input.conflict")
    assert (await house.root.post("/vms/web01/start", json={"vm": "web01"})).status_code == 200


async def test_a_field_given_twice_in_a_form_is_refused(house: House) -> None:
    reply = await house.root.post("/vms", data={"name": ["a", "b"], "memory_mib": "512"})
    assert check_problem(reply, 422, "input.conflict")["field"] == "name"


async def test_the_fields_that_only_the_gateway_sets_are_not_known_outside(tmp_path: Path) -> None:
    async with a_house(tmp_path, initialised=False) as house:
        for field, value in (("token_id", "abcdefgh"), ("token_sha256", "0" * 64)):
            for given in ({"json": {"name": "main", field: value}}, {"params": {"name": "main", field: value}}):
                problem = check_problem(
                    await house.root.post("/cluster/init", **given),
                    422,
                    "input.unknown_field",
                )
                assert problem["field"] == field and field not in problem["hint"]
        assert house.services.world.position == 0


async def test_an_announced_body_over_the_limit_is_refused_unread(house: House) -> None:
    async def never_asked_for() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    headers = {**JSON, "Content-Length": str(MAX_BODY_BYTES + 1)}
    reply = await house.root.post("/vms", content=never_asked_for(), headers=headers)
    check_problem(reply, 413, "input.too_large")


async def test_an_endless_body_is_read_no_further_than_the_limit(house: House) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 64 * 1024
            yield b" " * 64 * 1024

    check_problem(await house.root.post("/vms", content=endless(), headers=JSON), 413, "input.too_large")
    assert sent <= MAX_BODY_BYTES + 2 * 64 * 1024


async def test_a_change_too_large_for_a_record_is_refused_and_loses_nothing(house: House) -> None:
    many = [{"path": f"/srv/{number}/" + "x" * 1000} for number in range(64)]
    nics = [{"bridge": "br0"}] * 32
    xml = "<domain>" + "<!-- " + "x" * 70_000 + " --></domain>"
    problem = check_problem(await house.root.post("/vms", json={"name": "web02", "xml": xml}), 422, "vm.xml_too_large")
    assert problem["field"] == "xml"
    assert (
        await house.root.post("/vms", json={**WEB01, "name": "web02", "disks": many, "nics": nics})
    ).status_code == 200


@pytest.mark.parametrize("text", ["70", "70.0", "7e1", "7.0E+1"])
async def test_a_whole_number_may_be_written_as_some_languages_do(house: House, text: str) -> None:
    reply = await house.root.post("/vms/web01/priority", content=f'{{"priority": {text}}}', headers=JSON)
    assert reply.status_code == 200, reply.text
    assert house.state.vms[house.state.vm_names["web01"]].priority == 70


@pytest.mark.parametrize("text", ["70.5", "1e400", "-1e400", "1e40", "NaN"])
async def test_what_is_no_whole_number_is_refused(house: House, text: str) -> None:
    reply = await house.root.post("/vms/web01/priority", content=f'{{"priority": {text}}}', headers=JSON)
    assert reply.status_code in (400, 422), reply.text
    assert reply.json()["code"] in ("input.invalid", "input.bad_json")


async def test_who_has_touched_a_webhook_can_be_asked(house: House) -> None:
    reply = await house.root.get("/audit/who", params={"subject": "webhook/nowhere"})
    assert (reply.status_code, reply.json()["code"]) == (404, "webhook.not_found")
    made = await house.root.post("/webhooks", json={"name": "billing", "url": "https://example.org/pvc"})
    assert made.status_code == 200, made.text
    who = (await house.root.get("/audit/who", params={"subject": "webhook/billing"})).json()
    assert [touch["actor"] for touch in who["touched"]] == ["root"]
    assert "webhook.manage" in who["may"][0]["actions"]


async def test_a_page_beyond_all_numbers_is_refused_as_its_description_says(house: House) -> None:
    reply = await house.root.get("/diff", params={"old": "1", "after": 10**27})
    assert (reply.status_code, reply.json()["field"]) == (422, "after")


async def test_the_greatest_position_that_is_described_is_understood(house: House) -> None:
    reply = await house.root.get("/history", params={"before": 1 << 62, "at": "now"})
    assert reply.status_code == 200 and reply.json()["records"]


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "9" * 30, "١"])
async def test_a_min_position_that_is_none_is_refused(house: House, value: str) -> None:
    check_problem(await house.root.get("/vms", params={"min_position": value}), 422, "input.invalid")


async def test_a_dry_run_that_is_neither_true_nor_false_is_refused(house: House) -> None:
    before = house.services.world.position
    check_problem(await house.root.post("/vms/web01/start?dry_run=maybe"), 422, "input.invalid")
    assert house.services.world.position == before


@pytest.mark.parametrize("control", ["dry_run", "min_position"])
async def test_a_control_given_twice_is_refused_rather_than_guessed(house: House, control: str) -> None:
    before = house.services.world.position
    reply = await house.root.post(f"/vms/web01/start?{control}=1&{control}=0")
    assert check_problem(reply, 422, "input.conflict")["field"] == control
    assert house.services.world.position == before


async def test_a_client_that_hangs_up_in_mid_body_is_no_defect(house: House, caplog: pytest.LogCaptureFixture) -> None:
    sent = []
    messages = [{"type": "http.request", "body": b'{"name"', "more_body": True}, {"type": "http.disconnect"}]
    scope = {
        "type": "http", "method": "POST", "path": "/api/v1/vms", "raw_path": b"", "query_string": b"",
        "headers": [(b"content-type", b"application/json")], "client": None,
    }  # fmt: skip

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    before = house.services.world.position
    with caplog.at_level("INFO"):
        await local_app(house.app)(scope, receive, send)
    assert sent[0]["status"] == 400
    assert "http.hung_up" in caplog.text and "Traceback" not in caplog.text
    assert house.services.world.position == before


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ("/vms?limit=0", "input.invalid", "limit"),
        ("/vms?limit=many", "input.invalid", "limit"),
        ("/vms?state=asleep", "input.invalid", "state[0]"),
        ("/vms?stat=running", "input.unknown_field", "stat"),
        ("/cluster?x=1", "input.unknown_field", "x"),
        ("/history?since=yesterday", "input.invalid", "since"),
        ("/history?until=2025-13-01", "input.invalid", "until"),
        ("/history?subject=moon/1", "input.invalid", "subject"),
        ("/history?before=x", "input.invalid", "before"),
        ("/events?wait_s=999", "input.invalid", "wait_s"),
        ("/vms/web01/log?lines=-1", "input.invalid", "lines"),
    ],
)
async def test_a_wrong_query_argument_is_named(house: House, query: str, code: str, field: str) -> None:
    assert check_problem(await house.root.get(query), 422, code)["field"] == field


async def test_what_is_not_there_is_a_problem_too(house: House) -> None:
    for path in ("/nowhere", "/vms/web01/nowhere", "/vms/", "/vms/web01/console"):
        check_problem(await house.root.get(path), 404, "http.no_such_route")
    problem = check_problem(await house.root.get("/vms/web1"), 404, "vm.not_found")
    assert "did you mean web01" in problem["hint"]
    check_problem(await house.root.get("/nodes/hv9"), 404, "node.not_found")


async def test_another_method_is_told_which_there_are(house: House) -> None:
    reply = await house.root.put("/vms")
    check_problem(reply, 405, "http.wrong_method")
    assert reply.headers["Allow"] == "GET, POST"


async def test_a_defect_is_told_without_its_inside_and_the_gateway_lives_on(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("pvc.gateway.queries.vm_info", broken)
    reply = await house.root.get("/vms/web01")
    problem = check_problem(reply, 500, "internal")
    assert "secret detail" not in reply.text and "Traceback" not in reply.text
    assert "RuntimeError" in problem["detail"]
    assert "secret detail" in caplog.text
    assert (await house.root.get("/vms")).status_code == 200


def check_problem(reply: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The reply is a problem of this kind, complete, with a remedy."""
    assert reply.headers["Content-Type"] == "application/problem+json", reply.text
    problem: dict[str, Any] = reply.json()
    assert (reply.status_code, problem["status"], problem["code"]) == (status, status, code), problem
    assert set(problem) == {"type", "title", "status", "detail", "code", "hint", "field", "position"}
    assert problem["detail"] and problem["title"] and problem["type"] == "about:blank"
    assert int(reply.headers["PVC-Position"]) == problem["position"]
    return problem
