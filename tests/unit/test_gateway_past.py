"""Reads at a past moment: by position or time, of every kind, with what was measured left out and clear refusals."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.gateway_house import House, a_house
from tests.unit.test_gateway_input import check_problem


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        yield made


async def get(house: House, path: str) -> dict[str, Any]:
    reply = await house.root.get(path)
    assert reply.status_code == 200, reply.text
    document: dict[str, Any] = reply.json()
    return document


async def test_a_vm_is_shown_as_it_was(house: House) -> None:
    await house.define()
    defined = house.state.position
    await house.root.patch("/vms/web01", json={"memory_mib": 1024})
    await house.start()
    before, now = await get(house, f"/vms/web01?at={defined}"), await get(house, "/vms/web01")
    assert (before["spec"]["memory_mib"], before["state"], before["position"]) == (512, "stopped", defined)
    assert (now["spec"]["memory_mib"], now["state"]) == (1024, "running")


async def test_a_reply_says_which_moment_it_is_of(house: House) -> None:
    await house.define()
    reply = await house.root.get("/vms?at=2")
    assert (reply.headers["pvc-position"], reply.headers["pvc-at"]) == ("2", "2")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", reply.headers["pvc-at-time"])
    assert (reply.json()["position"], reply.json()["items"]) == (2, [])
    present = await house.root.get("/vms")
    assert "pvc-at" not in present.headers and len(present.json()["items"]) == 1


async def test_every_read_takes_a_moment(house: House) -> None:
    await house.second_node()
    await house.define()
    then = house.state.position
    hash_then = house.state.state_hash()
    await house.lose("hv2")
    await house.root.delete("/vms/web01")
    assert (await get(house, "/cluster"))["faults"] == 1
    cluster = await get(house, f"/cluster?at={then}")
    assert (cluster["position"], cluster["faults"], cluster["vms"]) == (then, 0, 1)
    assert cluster["state_hash"] == hash_then
    assert (await get(house, f"/faults?at={then}"))["items"] == []
    assert [node["state"] for node in (await get(house, f"/nodes?at={then}"))["items"]] == ["ready", "ready"]
    assert (await get(house, f"/nodes/hv2?at={then}"))["state"] == "ready"
    assert (await get(house, "/nodes/hv2"))["state"] == "lost"
    assert [row["name"] for row in (await get(house, f"/vms?at={then}"))["items"]] == ["web01"]
    history = await get(house, f"/history?at={then}")
    assert (history["position"], history["records"][0]["position"]) == (then, then)
    older = await get(house, f"/history?at={then}&before=3&limit=1")
    assert [record["position"] for record in older["records"]] == [2]


async def test_what_is_measured_is_of_the_present_only(house: House) -> None:
    await house.define()
    await house.hear(cpu_per_cent=12.0, memory_used_mib=100)
    assert (await get(house, "/nodes/hv1"))["usage"] is not None
    past = await get(house, f"/nodes/hv1?at={house.state.position}")
    assert (past["usage"], past["present"]) == (None, None)
    assert (await get(house, f"/cluster?at={house.state.position}"))["zookeeper"] == {}


async def test_a_time_or_how_long_ago_names_a_moment(house: House) -> None:
    await house.define()
    defined = house.state.position
    record = (await get(house, "/history?limit=1"))["records"][0]
    await asyncio.sleep(0.005)
    await house.root.delete("/vms/web01")
    assert (await get(house, f"/vms?at={record['time'].replace('Z', '999Z')}"))["position"] == defined
    assert (await get(house, "/vms?at=0s"))["position"] == house.state.position
    assert (await get(house, "/vms?at=now"))["position"] == house.state.position


async def test_pages_of_the_past_are_of_one_moment(house: House) -> None:
    for name in ("a", "b", "c"):
        await house.define(name=name)
    then = house.state.position
    await house.root.delete("/vms/b")
    first = await get(house, f"/vms?at={then}&limit=2")
    second = await get(house, f"/vms?at={first['position']}&limit=2&after={first['next']}")
    assert [row["name"] for row in first["items"] + second["items"]] == ["a", "b", "c"]
    tagged = await get(house, f"/vms?at={then}&name=b*&state=stopped&node=hv1")
    assert [row["name"] for row in tagged["items"]] == ["b"]


@pytest.mark.parametrize(
    ("at", "status", "code"),
    [
        ("999", 404, "at.not_yet"),
        ("2999-01-01", 404, "at.not_yet"),
        ("0", 404, "at.before_cluster"),
        ("1999-01-01", 404, "at.before_cluster"),
        ("999999w", 404, "at.before_cluster"),
        ("sometime", 422, "input.invalid"),
        ("-3", 422, "input.invalid"),
    ],
)
async def test_a_moment_that_is_none_is_refused_with_a_reason(house: House, at: str, status: int, code: str) -> None:
    for path in ("/vms", "/cluster", "/history", "/vms/web01"):
        problem = check_problem(await house.root.get(f"{path}?at={at}"), status, code)
        assert problem["field"] == "at" and problem["hint"]


async def test_what_was_not_yet_there_is_not_found_then(house: House) -> None:
    await house.define()
    await house.second_node()
    problem = check_problem(await house.root.get("/vms/web01?at=2"), 404, "vm.not_found")
    assert re.match(r"there was no VM 'web01' at position 2 \(\d{4}-", problem["detail"])
    problem = check_problem(await house.root.get("/nodes/hv2?at=2"), 404, "node.not_found")
    assert problem["detail"].startswith("there was no node 'hv2' at position 2 (")


async def test_a_vm_that_had_another_name_then_is_told_by_it(house: House) -> None:
    await house.define(name="old01")
    then = house.state.position
    await house.root.post("/vms/old01/rename", json={"name": "web01"})
    problem = check_problem(await house.root.get(f"/vms/web01?at={then}"), 404, "vm.not_found")
    assert problem["hint"] == "what is web01 now was called old01 then"
    assert (await get(house, f"/vms/old01?at={then}"))["name"] == "old01"


async def test_what_is_about_the_present_only_takes_no_moment(house: House) -> None:
    for path in ("/whoami", "/commands", "/events"):
        check_problem(await house.root.get(f"{path}?at=1"), 422, "input.unknown_field")


async def test_readers_at_once_of_one_moment_are_told_the_same(house: House) -> None:
    hashes = {}
    for number in range(40):
        await house.define(name=f"vm{number}")
        hashes[house.state.position] = house.state.state_hash()
    asked = [position for position in hashes for _ in range(3)]
    replies = await asyncio.gather(*(get(house, f"/cluster?at={position}") for position in asked))
    assert [reply["state_hash"] for reply in replies] == [hashes[position] for position in asked]


async def test_looking_back_changes_nothing(house: House) -> None:
    await house.define()
    await house.start()
    before, length = house.state.state_hash(), len(await house.log_bytes())
    for position in range(1, house.state.position + 1):
        await get(house, f"/cluster?at={position}")
    assert (house.state.state_hash(), len(await house.log_bytes())) == (before, length)


async def test_who_could_do_what_at_a_past_moment(house: House) -> None:
    token = await house.member("anna", {"role": "operator"})
    then = house.state.position
    await house.root.patch("/access/anna", json={"grants": [{"role": "viewer"}], "description": "left the team"})
    await house.root.delete("/access/anna")
    info = await get(house, f"/access/anna?at={then}")
    assert (info["position"], info["principal"]["name"]) == (then, "anna")
    assert [grant["role"] for grant in info["principal"]["grants"]] == ["operator"]
    assert [one["id"] for one in info["tokens"]] == [token.split("_")[1]] and not info["tokens"][0]["expired"]
    named = [row["name"] for row in (await get(house, f"/access?at={then}"))["items"]]
    assert "anna" in named and "anna" not in [row["name"] for row in (await get(house, "/access"))["items"]]
    problem = check_problem(await house.root.get("/access/anna?at=2"), 404, "access.principal_not_found")
    assert problem["detail"].startswith("there was no principal 'anna' at position 2")
    async with house.outside_with(await house.member("bert", {"role": "viewer"})) as bert:
        check_problem(await bert.get(f"/access/anna?at={then}"), 403, "access.not_own")
        assert (await bert.get(f"/access?at={then}")).json()["items"] == [], "of the past, too, only oneself"


async def test_webhooks_as_they_were_without_how_far_they_had_come(house: House) -> None:
    await house.root.post("/webhooks", json={"name": "billing", "url": "https://hooks.example.com/pvc"})
    added = house.state.position
    await house.root.post("/webhooks/billing/pause", json={"reason": "it moves"})
    paused = house.state.position
    await house.root.post("/webhooks/billing/rotate-secret", json={})
    await house.root.delete("/webhooks/billing")
    then = await get(house, f"/webhooks/billing?at={added}")
    assert (then["state"], then["lag"], then["delivered"], then["last"]) == ("proving", None, None, "")
    assert (then["deliverer"], then["trouble"], len(then["secrets"])) == ("", "", 1)
    assert not {"box", "sealed", "secret"} & set(then["secrets"][0])
    told = await get(house, f"/webhooks?at={paused}")
    assert told["position"] == paused and (await get(house, "/webhooks"))["items"] == []
    assert [(row["state"], row["reason"]) for row in told["items"]] == [("paused", "it moves")]
    problem = check_problem(await house.root.get("/webhooks/billing?at=2"), 404, "webhook.not_found")
    assert "at position 2" in problem["detail"]
