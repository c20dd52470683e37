"""What somebody with a narrow token or role does not come by in a roundabout way either."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pvc.gateway import event_hub, operations, sight
from pvc.gateway import events as gateway_events
from tests.unit.gateway_house import House, a_house
from tests.unit.test_gateway_input import check_problem


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        yield made


async def another_token(house: House, owner: str, role: str) -> str:
    """One more token of a principal that there is, for this role at most."""
    reply = await house.root.post(f"/access/{owner}/tokens", json={"role": role})
    assert reply.status_code == 200, reply.text
    token: str = reply.json()["token"]
    return token


def id_of(token: str) -> str:
    return token.split("_")[1]


async def test_a_token_neither_rotates_nor_revokes_one_that_may_do_more(house: House) -> None:
    full = await house.member("anna", {"role": "admin"})
    for role in ("viewer", "operator", "auditor"):
        async with house.outside_with(await another_token(house, "anna", role)) as monitor:
            check_problem(await monitor.post(f"/tokens/{id_of(full)}/rotate"), 403, "access.token_beyond")
            check_problem(await monitor.post(f"/tokens/{id_of(full)}/rotate?dry_run=true"), 403, "access.token_beyond")
            check_problem(await monitor.delete(f"/tokens/{id_of(full)}"), 403, "access.token_beyond")
    assert house.state.tokens[id_of(full)].replaced_by == ""
    async with house.outside_with(full) as anna:
        assert (await anna.get("/audit/logins")).status_code == 200


async def test_a_narrow_token_rotates_itself_and_stays_as_narrow(house: House) -> None:
    await house.member("anna", {"role": "admin"})
    weak, other = await another_token(house, "anna", "operator"), await another_token(house, "anna", "viewer")
    async with house.outside_with(weak) as service:
        rotated = (await service.post(f"/tokens/{id_of(weak)}/rotate")).json()["token"]
        assert (await service.delete(f"/tokens/{id_of(other)}")).status_code == 200, "what may do less"
    assert house.state.tokens[id_of(rotated)].role == "operator"
    async with house.outside_with(rotated) as service:
        check_problem(await service.post("/access", json={"principal": "m", "grants": []}), 403, "access.forbidden")


SHOP = {"role": "operator", "tag": "shop"}


async def test_a_name_stands_in_the_past_too_for_the_vm_that_is_ones_own_now(house: House) -> None:
    await house.define(name="db", description="the bank's ledger", tags=["bank"])
    await house.define(name="shop01", tags=["shop"], description="the shop's till")
    then = house.state.position
    await house.root.post("/vms/db/rename", json={"name": "db-old"})
    async with house.outside_with(await house.member("mallory", SHOP)) as mallory:
        check_problem(await mallory.get(f"/vms/db?at={then}"), 403, "access.out_of_scope")
        assert (await mallory.post("/vms/shop01/rename", json={"name": "db"})).status_code == 200
        then_own = (await mallory.get(f"/vms/db?at={then}")).json()
        assert (then_own["name"], then_own["description"]) == ("shop01", "the shop's till")
        assert (await mallory.get(f"/vms/db?at={house.state.position}")).json()["name"] == "db"
    assert (await house.root.get(f"/vms/db?at={then}")).json()["description"] == "the bank's ledger"


async def test_of_a_time_before_ones_vm_no_other_name_is_told(house: House) -> None:
    await house.define(name="bank-ledger01", tags=["bank"], description="the bank's ledger")
    await house.define(name="bank-ledger99", tags=["bank"])
    then = house.state.position
    await house.root.delete("/vms/bank-ledger99")
    await house.define(name="bank-ledger99", tags=["shop"])
    async with house.outside_with(await house.member("mallory", SHOP)) as mallory:
        reply = await mallory.get(f"/vms/bank-ledger99?at={then}")
        problem = check_problem(reply, 404, "vm.not_found")
        assert f"at position {then}" in problem["detail"] and "bank-ledger99" in problem["detail"]
        assert "ledger01" not in reply.text and "the bank's" not in reply.text


async def test_a_rename_out_of_the_scope_tells_nothing_of_the_name(house: House) -> None:
    await house.define(name="dev-1")
    await house.define(name="prod-db")
    by_name = {"role": "operator", "name": "dev-*"}
    async with house.outside_with(await house.member("mallory", by_name)) as mallory:
        for query in ("?dry_run=true", ""):
            for name in ("prod-db", "prod-free"):
                reply = await mallory.post(f"/vms/dev-1/rename{query}", json={"name": name})
                problem = check_problem(reply, 403, "access.out_of_scope")
                assert problem["detail"] == f"your role does not cover a VM '{name}'"
        assert (await mallory.post("/vms/dev-1/rename", json={"name": "dev-2"})).status_code == 200
    assert sorted(house.state.vm_names) == ["dev-2", "prod-db"]


async def rebalanced(house: House) -> str:
    """A record about two VMs, one of them with the tag shop; its name."""
    for name in ("shop00", "shop01", "shop02", "shop03"):
        await house.define(name=name, tags=["shop"], memory_mib=1500)
        await house.start(name)
    await house.define(name="bank01", memory_mib=1500, tags=["bank"])
    await house.start("bank01")
    await house.second_node("hv2")
    reply = await house.root.post("/cluster/rebalance", json={"moves": 5})
    moved = {event["subject"] for event in reply.json()["events"]}
    named = {name for name, vm_id in house.state.vm_names.items() if f"vm/{vm_id}" in moved}
    assert "bank01" in named and len(named) == 2, named
    return (named - {"bank01"}).pop()


async def test_filters_find_nothing_by_what_may_not_be_seen(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = await rebalanced(house)
    moves = "vm.migration_requested"
    async with house.outside_with(await house.member("mallory", SHOP)) as mallory:

        async def found(path: str, items: str) -> list[Any]:
            reply = await mallory.get(path)
            assert reply.status_code == 200 and "bank" not in reply.text, reply.text
            listed: list[Any] = reply.json()[items]
            return listed

        for most in (sight.MAX_AMONG, 0):
            monkeypatch.setattr(sight, "MAX_AMONG", most)
            monkeypatch.setattr(operations, "MAX_AMONG", most)
            for ref in ("bank01", house.state.vm_names["bank01"], "nothere"):
                assert await found(f"/events?subject=vm/{ref}&wait_s=0", "records") == []
                assert await found(f"/operations?subject=vm/{ref}", "items") == []
                assert await found(f"/history?subject=vm/{ref}", "records") == []
            for tag, number in (("bank", 0), ("shop", 1)):
                assert len(await found(f"/events?tag={tag}&types={moves}&wait_s=0", "records")) == number
                assert len(await found(f"/history?tag={tag}&type={moves}", "records")) == number
            assert len(await found(f"/events?subject=vm/{shop}&types={moves}&wait_s=0", "records")) == 1
            assert len(await found(f"/operations?subject=vm/{shop}&command=cluster.*", "items")) == 1
            assert len(await found(f"/history?subject=vm/{shop}&type={moves}", "records")) == 1


async def test_a_poll_takes_no_longer_where_there_is_something_hidden(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_events, "MAX_LOOKED_AT", 1)
    monkeypatch.setattr(event_hub, "MAX_BATCH", 1)
    await house.define(name="bank01")
    await house.root.post("/vms/bank01/disable")
    await house.define(name="shop01", tags=["shop"])
    async with house.outside_with(await house.member("mallory", SHOP)) as mallory:
        head = house.state.position
        for ref in ("bank01", "nothere"):
            page = (await mallory.get(f"/events?subject=vm/{ref}&wait_s=0")).json()
            assert page["records"] == [] and page["next_after"] >= head, ref


async def test_a_page_of_events_leaves_out_nothing_that_comes_after_what_is_hidden(house: House) -> None:
    await house.define(name="bank01")
    await house.define(name="bank02")
    await house.define(name="shop01", tags=["shop"])
    await house.define(name="shop02", tags=["shop"])
    async with house.outside_with(await house.member("mallory", SHOP)) as mallory:
        seen, after = [], 0
        for _ in range(10):
            page = (await mallory.get(f"/events?types=vm.defined&wait_s=0&limit=1&after={after}")).json()
            seen += [event["data"]["name"] for record in page["records"] for event in record["events"]]
            after = page["next_after"]
    assert seen == ["shop01", "shop02"]


async def test_who_waits_for_a_position_is_asked_again_whether_they_may(house: House) -> None:
    await house.define(name="shop01", tags=["shop"])
    revoked = await house.member("anna", {"role": "viewer"})
    narrowed = await house.member("bert", {"role": "viewer"})
    async with house.outside_with(revoked) as anna, house.outside_with(narrowed) as bert:
        for client in (anna, bert):
            await client.get("/whoami")
        await house.settle()
        far = house.state.position + 3
        waiting = [asyncio.create_task(client.get(f"/vms?min_position={far}")) for client in (anna, bert)]
        await house.settle()
        assert not any(task.done() for task in waiting)
        assert (await house.root.delete(f"/tokens/{id_of(revoked)}")).status_code == 200
        changed = await house.root.patch("/access/bert", json={"grants": [SHOP]})
        assert changed.status_code == 200, changed.text
        await house.define(name="bank01")
        annas, berts = await asyncio.gather(*waiting)
    check_problem(annas, 401, "access.token_invalid")
    assert [vm["name"] for vm in berts.json()["items"]] == ["shop01"]
