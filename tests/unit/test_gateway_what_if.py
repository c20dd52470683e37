"""What-if over HTTP: questions as JSON, the forecast as a reply, and nothing written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pvc.events.types import Role
from tests.unit.gateway_house import House, a_house
from tests.unit.test_gateway_input import check_problem


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        yield made


async def test_a_forecast_answers_and_writes_nothing(house: House) -> None:
    await house.define()
    token = await house.token(Role.VIEWER)
    async with house.outside_with(token) as viewer:
        await viewer.get("/whoami")  # which is recorded, once a day
    await house.settle()
    before, log = house.state.state_hash(), await house.log_bytes()
    steps: list[dict[str, Any]] = [
        {"command": "vm.start", "fields": {"vm": "web01"}},
        {"command": "vm.start", "fields": {"vm": "web01"}},
    ]
    async with house.outside_with(token) as viewer:
        reply = await viewer.post("/whatif", json={"steps": steps})
    assert reply.status_code == 200, reply.text
    found = reply.json()
    assert [one["after"] for one in found["placements"]] == ["running"]
    assert found["answers"][0]["events"][0]["summary"] == "start requested on hv1"
    assert found["answers"][1]["refusal"]["code"] == "vm.is_running"
    assert (house.state.state_hash(), await house.log_bytes()) == (before, log)


async def test_the_loss_of_a_node_is_asked_about_in_the_same_way(house: House) -> None:
    await house.second_node(self_fence_s=10)
    reply = await house.root.post("/whatif", json={"steps": [{"node_loss": "hv2"}]})
    states = {node["node"]: (node["before"], node["after"]) for node in reply.json()["nodes"]}
    assert states == {"hv2": ("ready", "fenced")}


async def what_if(house: House, *steps: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    asked = [{"command": name, "fields": fields} for name, fields in steps]
    reply = await house.root.post("/whatif", json={"steps": asked})
    assert reply.status_code == 200, reply.text
    answers: list[dict[str, Any]] = reply.json()["answers"]
    return answers


def refused(answers: list[dict[str, Any]]) -> list[str]:
    return [answer["refusal"]["code"] if answer["refusal"] else "" for answer in answers]


async def test_people_are_known_by_their_names_as_they_are_to_the_commands_themselves(house: House) -> None:
    viewer = [{"role": "viewer"}]
    await house.member("anna", *viewer)
    before, log = house.state.state_hash(), await house.log_bytes()
    (added,) = await what_if(house, ("access.add", {"principal": "anna", "grants": viewer}))
    assert added["refusal"]["code"] == "access.principal_exists"
    assert added["refusal"]["message"] == "there is a principal anna already"
    told = await what_if(
        house,
        ("access.modify", {"principal": "anna", "grants": [{"role": "operator"}]}),
        ("access.create_token", {"principal": "anna"}),
        ("access.create_token", {"principal": "anna"}),
        ("webhook.add", {"name": "billing", "url": "https://hooks.example.com/pvc", "owner": "anna"}),
        ("access.remove", {"principal": "anna"}),
        ("access.create_token", {"principal": "anna"}),
    )
    assert refused(told) == ["", "", "", "", "", "access.principal_not_found"]
    tokens = [answer["events"][0]["data"]["token"] for answer in told[1:3]]
    assert len(set(tokens)) == 2 and all(tokens), "each step makes a token of its own"
    assert "anna" in told[5]["refusal"]["message"] and "person~" not in str(told)
    assert (house.state.state_hash(), await house.log_bytes()) == (before, log)


async def test_whom_an_earlier_step_adds_later_ones_know(house: House) -> None:
    grants = [{"role": "viewer"}]
    steps: list[tuple[str, dict[str, Any]]] = [
        ("access.create_token", {"principal": "zoe"}),
        ("access.add", {"principal": "zoe", "grants": grants}),
        ("access.create_token", {"principal": "zoe"}),
    ]
    told = await what_if(house, *steps)
    assert refused(told) == ["access.principal_not_found", "", ""]
    assert told[0]["refusal"]["message"] == "there is no principal 'zoe'"
    await house.services.people.seal("zoe")  # who has acted, and is no principal
    assert refused(await what_if(house, *steps)) == ["access.principal_not_found", "", ""]


async def test_a_replay_is_asked_about_with_the_moments_that_it_names(house: House) -> None:
    hook = {"name": "billing", "url": "https://hooks.example.com/pvc"}
    assert (await house.root.post("/webhooks", json=hook)).status_code == 200
    (told,) = await what_if(house, ("webhook.replay", {"hook": "billing", "since": "1", "until": "2"}))
    assert (told["events"][0]["data"]["first"], told["events"][0]["data"]["last"]) == (1, 2)
    (told,) = await what_if(house, ("webhook.replay", {"hook": "billing", "since": "999"}))
    assert told["refusal"]["code"] == "at.not_yet", "which is an answer to one question, and no end of all"


async def test_an_erasure_refers_to_its_own_dry_run(house: House) -> None:
    await house.member("anna", {"role": "viewer"})
    (told,) = await what_if(house, ("audit.erase", {"principal": "anna"}))
    assert told["refusal"]["code"] == "access.person_not_sealed"


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, "input.invalid", "steps"),
        ({"steps": []}, "input.invalid", "steps"),
        ({"steps": [{}]}, "input.invalid", "steps[0]"),
        ({"steps": [{"command": "vm.start", "node_loss": "hv1"}]}, "input.invalid", "steps[0]"),
        ({"steps": [{"command": "vm.fly"}]}, "whatif.unknown_command", "steps[0].command"),
        ({"steps": [{"command": "vm.start"}]}, "input.missing", "vm"),
        ({"steps": [{"command": "vm.start", "fields": {"vm": "web01", "x": 1}}]}, "input.unknown_field", "x"),
        ({"steps": [{"node_loss": "hv1"}] * 21}, "input.invalid", "steps"),
    ],
)
async def test_a_wrong_question_is_explained(house: House, body: dict[str, Any], code: str, field: str) -> None:
    problem = check_problem(await house.root.post("/whatif", json=body), 422, code)
    assert problem["field"] == field and problem["hint"]


async def test_a_body_that_is_no_json_is_refused(house: House) -> None:
    check_problem(await house.root.post("/whatif", data={"steps": "x"}), 415, "http.wrong_content_type")
    headers = {"Content-Type": "application/json"}
    check_problem(await house.root.post("/whatif", content=b"{", headers=headers), 400, "input.bad_json")
