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
