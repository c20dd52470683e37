"""Undo over HTTP: shown first, done once, told in the history, and refused with the position that stands in its way."""

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
        await made.define()
        yield made


async def undo(house: House, position: int, **headers: str) -> dict[str, Any]:
    reply = await house.root.post(f"/undo/{position}", headers=headers)
    assert reply.status_code == 200, reply.text
    document: dict[str, Any] = reply.json()
    return document


async def test_an_undo_is_shown_first_and_then_done(house: House) -> None:
    await house.root.post("/vms/web01/rename", json={"name": "web02"})
    position = house.state.position
    vm = house.state.vm_names["web02"]
    shown = (await house.root.post(f"/undo/{position}?dry_run=true")).json()
    assert (shown["name"], shown["fields"]) == ("vm.rename", {"vm": vm, "name": "web01"})
    assert (shown["dry_run"], shown["label"], shown["undone"]["position"]) == (True, "web02", position)
    assert house.state.position == position
    done = await undo(house, position)
    assert done["changed"] and house.state.vm_names == {"web01": vm}
    assert done["events"][0]["summary"] == "renamed from web02 to web01"


async def test_the_history_tells_what_undid_what(house: House) -> None:
    await house.root.post("/vms/web01/priority", json={"priority": 90})
    first = (await house.root.get("/history?limit=1")).json()["records"][0]
    await undo(house, first["position"])
    last = (await house.root.get("/history?limit=1")).json()["records"][0]
    assert (last["cause"], last["command"]["name"]) == (first["id"], "vm.set_priority")
    assert last["actor"]["principal"] == "root"


async def test_the_position_that_stands_in_the_way_is_named(house: House) -> None:
    await house.root.post("/vms/web01/priority", json={"priority": 90})
    first = house.state.position
    await house.root.post("/vms/web01/priority", json={"priority": 10})
    second = house.state.position
    await house.root.post("/vms/web01/tags", json={"tag": "x"})
    problem = check_problem(await house.root.post(f"/undo/{first}"), 409, "undo.changed_since")
    assert f"position {second}, by root (vm.set_priority)" in problem["detail"]
    assert f"pvc undo {second}" in problem["hint"]
    await house.root.delete("/vms/web01")
    problem = check_problem(await house.root.post(f"/undo/{first}"), 409, "undo.changed_since")
    assert f"position {house.state.position}, by root (vm.remove)" in problem["detail"]


async def test_an_undo_sent_again_is_not_done_twice(house: House) -> None:
    await house.root.post("/vms/web01/priority", json={"priority": 90})
    position = house.state.position
    first = await undo(house, position, **{"Idempotency-Key": "k1"})
    again = await undo(house, position, **{"Idempotency-Key": "k1"})
    assert (again["repeated"], again["record"], again["name"]) == (True, first["record"], "vm.set_priority")
    assert house.state.position == position + 1
    reply = await house.root.post(f"/undo/{position - 1}", headers={"Idempotency-Key": "k1"})
    check_problem(reply, 409, "idempotency.key_reused")


@pytest.mark.parametrize(
    ("position", "status", "code"),
    [
        ("0", 422, "input.invalid"),
        ("x", 422, "input.invalid"),
        ("999", 404, "at.not_yet"),
        ("1", 409, "undo.no_inverse"),
    ],
)
async def test_a_position_that_cannot_be_undone_is_refused(house: House, position: str, status: int, code: str) -> None:
    check_problem(await house.root.post(f"/undo/{position}"), status, code)


async def test_facts_and_refusals_have_nothing_to_undo(house: House) -> None:
    await house.start()
    check_problem(await house.root.post(f"/undo/{house.state.position}"), 409, "undo.is_fact")
    await house.root.post("/vms/web01/start")
    check_problem(await house.root.post(f"/undo/{house.state.position}"), 409, "undo.nothing_done")


async def test_what_the_inverse_is_refused_with_is_told(house: House) -> None:
    await house.root.delete("/vms/web01")
    removed = house.state.position
    await house.define()
    check_problem(await house.root.post(f"/undo/{removed}"), 409, "vm.name_taken")


async def test_people_and_webhooks_are_named_in_an_undo_of_what_was_done_to_them(house: House) -> None:
    await house.root.post("/access", json={"principal": "anna", "grants": [{"role": "viewer"}]})
    position = house.state.position
    shown = (await house.root.post(f"/undo/{position}?dry_run=true")).json()
    assert (shown["name"], shown["fields"], shown["label"]) == ("access.remove", {"principal": "anna"}, "anna")
    await house.root.post("/access/anna/tokens", json={})
    problem = check_problem(await house.root.post(f"/undo/{position}"), 409, "undo.changed_since")
    assert problem["detail"].startswith("what anna has of tokens was changed since: position ")
    assert "(access.create_token)" in problem["detail"]
    await undo(house, house.state.position)
    done = await undo(house, position)
    assert done["events"][0]["summary"] == "anna removed, with all tokens" and not house.state.principals.keys() - {
        token.principal for token in house.state.tokens.values()
    }
    await house.root.post("/webhooks", json={"name": "billing", "url": "https://hooks.example.com/pvc"})
    await house.root.post("/webhooks/billing/pause", json={"reason": "it moves"})
    paused = await undo(house, house.state.position)
    assert (paused["name"], paused["label"]) == ("webhook.resume", "billing")


async def test_an_undo_needs_the_role_of_its_command(house: House) -> None:
    await house.root.post("/cluster/maintenance", json={"maintenance": True})
    position = house.state.position
    for role, code in ((Role.VIEWER, "access.forbidden"), (Role.OPERATOR, "access.forbidden")):
        async with house.outside_with(await house.token(role)) as client:
            check_problem(await client.post(f"/undo/{position}"), 403, code)
    async with house.outside_with(await house.token(Role.ADMIN)) as client:
        assert (await client.post(f"/undo/{position}")).status_code == 200
