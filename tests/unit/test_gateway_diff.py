"""The difference of two moments over HTTP: what changed, from what to what, by whom; of one thing or of all."""

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


async def diff(house: House, **query: Any) -> dict[str, Any]:
    reply = await house.root.get("/diff", params=query)
    assert reply.status_code == 200, reply.text
    document: dict[str, Any] = reply.json()
    return document


async def test_a_diff_tells_what_changed_and_who_did_it(house: House) -> None:
    await house.define()
    old = house.state.position
    await house.root.patch("/vms/web01", json={"memory_mib": 1024})
    await house.start()
    found = await diff(house, old=old)
    assert (found["old"]["position"], found["new"]["position"]) == (old, house.state.position)
    (vm,) = found["items"]
    assert (vm["kind"], vm["name"], vm["change"]) == ("vm", "web01", "changed")
    fields = {field["field"]: (field["old"], field["new"]) for field in vm["fields"]}
    assert fields["spec.memory_mib"] == (512, 1024) and fields["state"] == ("stopped", "running")
    by = [(cause["actor"]["principal"], cause["command"]) for cause in vm["by"]]
    assert by == [("node/hv1", "vm.report_running"), ("root", "vm.start"), ("root", "vm.modify")]
    assert vm["by"][0]["summary"] == "running on hv1" and vm["by"][0]["position"] == house.state.position


async def test_equal_moments_differ_in_nothing(house: House) -> None:
    await house.define()
    same = await diff(house, old=house.state.position)
    assert (same["total"], same["items"]) == (0, []) and same["old"]["state_hash"] == same["new"]["state_hash"]
    refused = await house.root.post("/vms", json={"name": "web01", "memory_mib": 512})
    assert refused.status_code == 409
    found = await diff(house, old=house.state.position - 1)
    assert (found["total"], found["new"]["position"]) == (0, house.state.position), "a refusal changes nothing"


async def test_what_came_and_went_is_told_either_way_round(house: House) -> None:
    old = house.state.position
    await house.define()
    there = house.state.position
    await house.root.delete("/vms/web01")
    assert [item["change"] for item in (await diff(house, old=old, new=there))["items"]] == ["added"]
    removed = await diff(house, old=there, new="now")
    assert [item["change"] for item in removed["items"]] == ["removed"]
    assert removed["items"][0]["by"][0]["summary"] == "web01 removed"
    back = await diff(house, old=there, new=old)
    assert [item["change"] for item in back["items"]] == ["removed"]
    assert (await diff(house, old=old))["items"] == [], "it came and went"


async def test_a_lost_node_is_told_with_its_fault(house: House) -> None:
    await house.second_node()
    old = house.state.position
    await house.lose("hv2")
    found = (await diff(house, old=old))["items"]
    assert [(item["kind"], item["name"], item["change"]) for item in found] == [
        ("cluster", "main", "changed"),
        ("node", "hv2", "changed"),
        ("fault", "node.lost/hv2", "added"),
    ]
    assert all(item["by"] for item in found)
    assert found[2]["by"][0]["summary"].startswith("lost: ")


async def test_one_subject_is_told_alone_by_either_of_its_names(house: House) -> None:
    await house.define()
    await house.define(name="other")
    old = house.state.position
    await house.root.post("/vms/web01/rename", json={"name": "web02"})
    await house.root.delete("/vms/other")
    for subject in ("vm/web01", "vm/web02"):
        assert [item["name"] for item in (await diff(house, old=old, subject=subject))["items"]] == ["web02"]
    assert (await diff(house, old=old, subject="node/hv1"))["items"] == []
    problem = check_problem(await house.root.get(f"/diff?old={old}&subject=vm/nobody"), 404, "vm.not_found")
    assert "nor at" in problem["detail"]
    check_problem(await house.root.get(f"/diff?old={old}&subject=elephant"), 422, "input.invalid")


async def test_many_objects_come_in_pages(house: House) -> None:
    old = house.state.position
    for number in range(5):
        await house.define(name=f"vm{number}")
    new = house.state.position
    seen, after = [], ""
    while after is not None:
        page = await diff(house, old=old, new=new, limit=2, after=after)
        assert page["total"] == 5
        seen += [item["name"] for item in page["items"]]
        after = page["next"]
    assert seen == [f"vm{number}" for number in range(5)]


async def test_the_hash_of_a_tokens_secret_is_not_told(house: House) -> None:
    old = house.state.position
    await house.token(Role.OPERATOR)
    principal, token = (await diff(house, old=old))["items"]
    assert (principal["kind"], token["kind"]) == ("principal", "token") and token["by"]
    assert "secret" not in str(token)


@pytest.mark.parametrize(("query", "field"), [("old=sometime", "old"), ("old=1&new=999", "new"), ("new=1", "old")])
async def test_a_wrong_end_is_named(house: House, query: str, field: str) -> None:
    reply = await house.root.get(f"/diff?{query}")
    assert reply.status_code in (404, 422) and reply.json()["field"] == field
