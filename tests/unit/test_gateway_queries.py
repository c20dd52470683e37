"""Queries: lists with filters and pages, single things, and the document that describes it all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import openapi_spec_validator
import pytest

from pvc.commands.registry import COMMANDS
from pvc.gateway.app import all_endpoints
from tests.unit.gateway_house import House, a_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        for name in ("web02", "db01", "web01", "web10"):
            await made.define(name=name, memory_mib=256)
        yield made


async def test_vms_are_listed_by_name_with_the_position(house: House) -> None:
    reply = await house.root.get("/vms")
    page = reply.json()
    assert [vm["name"] for vm in page["items"]] == ["db01", "web01", "web02", "web10"]
    assert page["next"] is None
    assert page["position"] == house.services.world.position == int(reply.headers["PVC-Position"])


async def test_filters_keep_what_matches_all_of_them(house: House) -> None:
    await house.start("web02")
    await house.root.post("/vms/web02/tags", json={"tag": "prod"})
    await house.root.post("/vms/db01/tags", json={"tag": "prod"})
    assert await names(house, "?state=running") == ["web02"]
    assert await names(house, "?state=running,stopped&tag=prod") == ["db01", "web02"]
    assert await names(house, "?state=stopped&state=failed&tag=prod") == ["db01"]
    assert await names(house, "?name=web0*") == ["web01", "web02"]
    assert await names(house, "?node=hv1&name=*1*&tag=prod") == ["db01"]
    assert await names(house, "?node=hv2") == []


async def test_pages_cover_the_list_without_gap_or_repeat(house: House) -> None:
    seen: list[str] = []
    after = ""
    for _ in range(10):
        page = (await house.root.get("/vms", params={"limit": 2, "after": after})).json()
        seen += [vm["name"] for vm in page["items"]]
        after = page["next"]
        if after is None:
            break
    assert seen == ["db01", "web01", "web02", "web10"]


async def test_one_vm_is_shown_by_name_and_by_id(house: House) -> None:
    by_name = (await house.root.get("/vms/web01")).json()
    by_id = (await house.root.get(f"/vms/{by_name['id']}")).json()
    assert by_name == by_id
    assert (by_name["state"], by_name["spec"]["memory_mib"]) == ("stopped", 256)


async def test_nodes_and_the_cluster_are_shown(house: House) -> None:
    await house.start("web01")
    page = (await house.root.get("/nodes")).json()
    node = (await house.root.get("/nodes/hv1")).json()
    assert page["items"] == [node]
    assert (node["ready"], node["vms"], node["vms_running"], node["memory_allocated_mib"]) == (True, 4, 1, 256)
    cluster = (await house.root.get("/cluster")).json()
    assert (cluster["name"], cluster["vms"], cluster["vms_by_state"]) == ("main", 4, {"running": 1, "stopped": 3})


async def test_a_query_waits_for_the_position_asked_for(house: House) -> None:
    ahead = house.services.world.position + 1
    waiting = asyncio.create_task(house.root.get(f"/vms?min_position={ahead}"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await house.define(name="zz")
    reply = await waiting
    assert "zz" in [vm["name"] for vm in reply.json()["items"]]


async def test_a_position_that_does_not_come_is_told_as_behind(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pvc.gateway.app.REACH_DEADLINE_S", 0.05)
    reply = await house.root.get("/vms?min_position=9999")
    assert (reply.status_code, reply.json()["code"], reply.headers["Retry-After"]) == (503, "log.behind", "1")


async def test_head_is_answered_as_get_is(house: House) -> None:
    reply = await house.root.head("/vms")
    assert reply.status_code == 200 and int(reply.headers["PVC-Position"]) == house.services.world.position


async def test_the_openapi_document_is_valid_and_has_every_endpoint(house: House) -> None:
    document = (await house.root.get("/openapi.json")).json()
    openapi_spec_validator.validate(document)
    described = {operation["operationId"] for methods in document["paths"].values() for operation in methods.values()}
    assert described == {endpoint.name for endpoint in all_endpoints()} | {"health", "vm.console"}
    for spec in COMMANDS:
        operation = document["paths"][f"/api/v1{spec.path}"][spec.method.lower()]
        assert operation["summary"] and operation["x-action"] == spec.action.value
        assert "422" in operation["responses"] and "409" in operation["responses"]
    init = document["components"]["schemas"]["InitCluster"]
    assert set(init["properties"]) == {"name", "coordinators", "admin"}, "what only the gateway sets is not shown"


async def test_the_cards_are_served_too(house: House) -> None:
    cards = (await house.root.get("/commands")).json()
    assert [card["name"] for card in cards] == [spec.name for spec in COMMANDS]
    assert "token_sha256" not in {field["name"] for card in cards for field in card["fields"]}


async def names(house: House, query: str) -> list[str]:
    reply = await house.root.get(f"/vms{query}")
    assert reply.status_code == 200, reply.text
    return [vm["name"] for vm in reply.json()["items"]]
