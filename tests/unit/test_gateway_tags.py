"""Entity tags: readers are spared what they have, and commands are held to what their senders have seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pvc.events.cluster import CommandRejected
from pvc.events.record import unseal
from tests.unit.gateway_house import NODE, House, a_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        await made.define()
        yield made


@pytest.mark.parametrize(
    "path", ["/vms/web01", f"/nodes/{NODE}", "/access/admin", "/vms", "/nodes", "/cluster", "/faults"]
)
async def test_what_a_reader_has_already_is_not_sent_again(house: House, path: str) -> None:
    first = await house.root.get(path)
    tag = first.headers["ETag"]
    again = await house.root.get(path, headers={"If-None-Match": f'"other", {tag}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == tag and again.headers["PVC-Position"] == first.headers["PVC-Position"]
    assert (await house.root.get(path, headers={"If-None-Match": '"other"'})).json() == first.json()
    assert (await house.root.get(path)).headers["ETag"] == tag


async def test_what_has_changed_is_sent(house: House) -> None:
    one = (await house.root.get("/vms/web01")).headers["ETag"]
    many = (await house.root.get("/vms")).headers["ETag"]
    assert many.startswith('W/"') and not one.startswith("W/")
    await house.start()
    assert (await house.root.get("/vms/web01", headers={"If-None-Match": one})).json()["state"] == "running"
    assert (await house.root.get("/vms", headers={"If-None-Match": many})).json()["items"][0]["state"] == "running"


async def test_a_list_keeps_its_tag_while_the_log_goes_on_elsewhere(house: House) -> None:
    tag = (await house.root.get("/vms")).headers["ETag"]
    await house.root.post("/cluster/maintenance", json={"maintenance": True})
    assert (await house.root.get("/vms", headers={"If-None-Match": tag})).status_code == 304


async def test_figures_change_the_tag_but_not_what_commands_are_held_to(house: House) -> None:
    before = (await house.root.get(f"/nodes/{NODE}")).headers["ETag"]
    await house.hear(load1=3.5)
    async with asyncio.timeout(10):
        while (after := (await house.root.get(f"/nodes/{NODE}")).headers["ETag"]) == before:
            await asyncio.sleep(0.05)
    assert after.partition(".")[0] == before.partition(".")[0]
    reply = await house.root.post(f"/nodes/{NODE}/flush", headers={"If-Match": before})
    assert reply.status_code == 200, reply.text


async def test_a_command_is_held_to_what_its_sender_has_seen(house: House) -> None:
    tag = (await house.root.get("/vms/web01")).headers["ETag"]
    body = {"priority": 70}
    assert (await house.root.post("/vms/web01/priority", json=body, headers={"If-Match": tag})).status_code == 200
    before = house.state.vms[house.state.vm_names["web01"]]
    late = await house.root.post("/vms/web01/priority", json={"priority": 10}, headers={"If-Match": tag})
    assert (late.status_code, late.json()["code"], late.json()["field"]) == (412, "precondition.changed", "If-Match")
    assert "web01" in late.json()["detail"] and str(before.position) in late.json()["detail"]
    assert house.state.vms[before.id].priority == 70
    dry = await house.root.post("/vms/web01/priority?dry_run=true", json={"priority": 10}, headers={"If-Match": tag})
    assert dry.status_code == 412
    refused = unseal((await house.log.read(house.services.world.position, 1))[0]).record
    assert refused.events[0].type == CommandRejected.TYPE, "the refusal is on the audit"


async def test_a_principal_is_held_to_what_its_sender_has_seen(house: House) -> None:
    tag = (await house.root.get("/access/admin")).headers["ETag"]
    change = {"description": "the first"}
    assert (await house.root.patch("/access/admin", json=change, headers={"If-Match": tag})).status_code == 200
    late = await house.root.patch("/access/admin", json={"description": "other"}, headers={"If-Match": tag})
    assert (late.status_code, late.json()["code"]) == (412, "precondition.changed")


async def test_of_two_that_have_seen_the_same_only_one_gets_through(house: House) -> None:
    tag = (await house.root.get("/vms/web01")).headers["ETag"]
    replies = await asyncio.gather(
        *(
            house.root.post("/vms/web01/priority", json={"priority": number}, headers={"If-Match": tag})
            for number in range(1, 20)
        )
    )
    assert sorted(reply.status_code for reply in replies) == [200] + [412] * 18


async def test_a_command_sent_again_under_its_key_is_not_refused_for_its_own_change(house: House) -> None:
    tag = (await house.root.get("/vms/web01")).headers["ETag"]
    headers = {"If-Match": tag, "Idempotency-Key": "once"}
    for repeated in (False, True):
        reply = await house.root.post("/vms/web01/priority", json={"priority": 70}, headers=headers)
        assert (reply.status_code, reply.json()["repeated"]) == (200, repeated)


@pytest.mark.parametrize("value", ["*", '"1", "{tag}"'])
async def test_any_of_several_tags_will_do(house: House, value: str) -> None:
    tag = (await house.root.get("/vms/web01")).headers["ETag"].strip('"')
    headers = {"If-Match": value.format(tag=tag)}
    assert (await house.root.post("/vms/web01/priority", json={"priority": 70}, headers=headers)).status_code == 200


@pytest.mark.parametrize("value", ["1043", 'W/"1043"', "", '"a" b', '"' + "x" * 300 + '"'])
async def test_a_tag_that_is_none_is_refused(house: House, value: str) -> None:
    before = house.state.vms[house.state.vm_names["web01"]]
    reply = await house.root.post("/vms/web01/priority", json={"priority": 70}, headers={"If-Match": value})
    assert (reply.status_code, reply.json()["code"]) == (422, "precondition.invalid")
    assert house.state.vms[before.id] == before


@pytest.mark.parametrize("path", ["/cluster/maintenance", "/undo/3", "/cluster/rebalance"])
async def test_where_there_is_no_subject_a_tag_is_refused_rather_than_overlooked(house: House, path: str) -> None:
    reply = await house.root.post(path, json={}, headers={"If-Match": '"1"'})
    assert (reply.status_code, reply.json()["code"]) == (422, "precondition.no_subject")


async def test_a_command_about_nothing_says_so_whatever_its_tag(house: House) -> None:
    reply = await house.root.post("/vms/nowhere/start", headers={"If-Match": '"1"'})
    assert (reply.status_code, reply.json()["code"]) == (404, "vm.not_found")
