"""A webhook is sent what its owner may see, as things stand when it is sent, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pvc.errors import NotFound
from pvc.sim.loop import run_virtual
from pvc.webhooks.course import Answer
from pvc.webhooks.sender import Sender
from tests.support.deliveries import World
from tests.unit.gateway_house import House, a_house

URL = "https://hooks.example.com/pvc"
SHOP = ({"role": "viewer", "tag": "shop"},)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        yield made


async def add(house: House, client: Any = None, **fields: Any) -> dict[str, Any]:
    reply = await (client or house.root).post("/webhooks", json={"name": "billing", "url": URL, **fields})
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


async def info(house: House) -> dict[str, Any]:
    found: dict[str, Any] = (await house.root.get("/webhooks/billing")).json()
    return found


async def test_it_is_its_makers_unless_it_is_said_whose_it_is(house: House) -> None:
    async with house.outside_with(await house.member("anna", {"role": "admin"})) as anna:
        await add(house, anna)
        shown = await info(house)
        assert (shown["settings"]["owner"], shown["sees"]) == ("anna", "everything")
        [hook] = house.state.webhooks.values()
        assert hook.settings.owner in house.state.principals and "anna" not in hook.settings.owner, "sealed in the log"
        await house.member("shop-service", {"role": "viewer", "name": "shop*"})
        reply = await anna.patch("/webhooks/billing", json={"owner": "shop-service"})
        assert "some VMs only" in reply.json()["notes"][0]
        shown = await info(house)
        assert (shown["settings"]["owner"], shown["sees"]) == ("shop-service", "some VMs")


async def test_roots_is_the_clusters_and_is_sent_everything(house: House) -> None:
    await add(house)
    shown = await info(house)
    assert "owner" not in shown["settings"] and shown["sees"] == "everything"


async def test_nobody_who_is_not_known_can_own_one(house: House) -> None:
    reply = await house.root.post("/webhooks", json={"name": "billing", "url": URL, "owner": "nobody"})
    assert (reply.status_code, reply.json()["code"]) == (404, "access.principal_not_found")
    assert house.state.webhooks == {}


async def test_an_owner_whose_name_is_erased_goes_on_to_own_it(house: House) -> None:
    await house.member("anna", {"role": "viewer", "tag": "shop"})
    await add(house, owner="anna")
    [before] = house.state.webhooks.values()
    reply = await house.root.post("/audit/erase", json={"principal": "anna"})
    assert reply.status_code == 200, reply.text
    [hook] = house.state.webhooks.values()
    shown = await info(house)
    assert hook.settings.owner == before.settings.owner and shown["sees"] == "some VMs"
    assert "anna" not in str(shown)


@pytest.mark.parametrize("role", ["viewer", "operator", "auditor"])
async def test_who_is_no_admin_can_make_none_for_nobody(house: House, role: str) -> None:
    await add(house)
    async with house.outside_with(await house.member("bert", {"role": role})) as bert:
        for method, path in (
            ("POST", "/webhooks?name=spare&url=https://hooks.example.com/"),
            ("PATCH", "/webhooks/billing?owner=bert"),
            ("POST", "/webhooks/billing/replay?since=1"),
            ("POST", "/webhooks/billing/rotate-secret"),
            ("POST", "/webhooks/billing/resume"),
            ("POST", "/webhooks/billing/test"),
            ("DELETE", "/webhooks/billing"),
        ):
            reply = await bert.request(method, path)
            assert (reply.status_code, reply.json()["code"]) == (403, "access.forbidden"), path
        assert (await bert.get("/webhooks/billing/deliveries")).status_code == (403 if role == "viewer" else 200)
        assert (await bert.get("/webhooks/billing")).status_code == 200
    await house.settle()
    refused = (await house.root.get("/history?type=access.refused")).json()["records"]
    assert len(refused) == (8 if role == "viewer" else 7), "each is on the audit"


async def test_whoever_is_limited_does_not_see_webhooks_nor_their_history(house: House) -> None:
    await add(house)
    hook = next(iter(house.state.webhooks))
    async with house.outside_with(await house.member("bert", {"role": "admin", "tag": "shop"})) as bert:
        assert (await bert.get("/webhooks")).status_code == 403
        assert (await bert.get("/webhooks/billing")).status_code == 403
        reply = await bert.get(f"/history?subject=webhook/{hook}")
        assert reply.status_code in (200, 403, 404) and "hooks.example.com" not in reply.text
        reply = await bert.get("/events?after=0&wait_s=0")
        assert reply.status_code == 200 and "webhook." not in reply.text


async def test_no_secret_is_shown_twice_nor_in_any_reply(house: House) -> None:
    secret = (await add(house))["secret"]
    bare = secret.removeprefix("whsec_")
    rotated = (await house.root.post("/webhooks/billing/rotate-secret")).json()["secret"]
    assert rotated != secret
    for path in (
        "/webhooks",
        "/webhooks/billing",
        "/history",
        "/events?after=0&wait_s=0",
        "/diff?old=1",
        "/log/records",
    ):
        reply = await house.root.get(path)
        assert reply.status_code == 200, path
        assert bare not in reply.text and rotated.removeprefix("whsec_") not in reply.text, path


def owned(world: World, *grants: dict[str, str], name: str = "service") -> None:
    world.cluster.do("access.add", principal=name, grants=list(grants))


def sent_names(world: World) -> list[str]:
    """The VMs whose definitions were taken, in order."""
    by_position = {entry.position: entry for entry in world.cluster.entries}
    names = {vm.id: vm.name for vm in world.state.vms.values()}
    found = []
    for one in world.taken:
        position, index = one.rsplit("-", 2)[1:]
        raw = by_position[int(position)].record.events[int(index)]
        found.append(names.get(_vm_of(bytes(raw.data)), "?"))
    return found


def _vm_of(data: bytes) -> str:
    return str(msgspec.msgpack.decode(data).get("vm", ""))


def define(world: World, name: str, *tags: str) -> None:
    world.cluster.do("vm.define", name=name, memory_mib=64, tags=tags)
    world.wake()


def test_a_limited_owners_is_sent_what_is_about_the_vms_that_are_covered_now() -> None:
    async def run() -> None:
        world = World(lambda ids: Answer(status=200), owner="service", rate=1000)
        owned(world, *SHOP)
        await world.begin()
        world.elect()
        for name, tags in (("shop01", ["shop"]), ("bank01", []), ("shop02", ["shop"])):
            define(world, name, *tags)
        await asyncio.sleep(5)
        assert sent_names(world) == ["shop01", "shop02"], "nothing of the bank, of nodes, of the cluster, of webhooks"
        world.cluster.do("vm.remove_tag", vm="shop02", tag="shop")
        world.cluster.do("vm.set_autostart", vm="shop02", autostart=True)
        world.cluster.do("vm.set_autostart", vm="shop01", autostart=True)
        world.wake()
        await asyncio.sleep(5)
        assert sent_names(world)[2:] == ["shop01"], "what was shop02's is nobody's in the scope any more"
        world.cluster.do("webhook.replay", hook="billing", since="1", first=1)
        world.wake()
        await asyncio.sleep(5)
        assert set(sent_names(world)[3:]) == {"shop01"}, "not by a replay either"
        assert (await world.cursor()).tail == world.state.position, "what is not sent is passed"

    run_virtual(run())


def test_what_waits_for_a_further_try_is_looked_at_again() -> None:
    async def run() -> None:
        alive = False
        world = World(lambda ids: Answer(status=200 if alive else 500), owner="service", rate=1000)
        owned(world, *SHOP)
        await world.begin()
        world.elect()
        define(world, "shop01", "shop")
        define(world, "shop02", "shop")
        await asyncio.sleep(2)
        assert world.posted and not world.taken
        world.cluster.do("vm.remove_tag", vm="shop01", tag="shop")
        alive = True
        world.cluster.do("webhook.resume", hook="billing")
        world.wake()
        await asyncio.sleep(5)
        assert sent_names(world) == ["shop02"]

    run_virtual(run())


@pytest.mark.parametrize("how", ["removed", "demoted"])
def test_an_owner_who_may_read_nothing_ends_it_and_a_fault_says_so(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        world = World(lambda ids: Answer(status=200), types=("vm.*",), owner="service", rate=1000)
        owned(world, {"role": "viewer"})
        await world.begin()
        world.elect()
        world.happen(3)
        await world.until_done()
        if how == "removed":
            world.cluster.do("access.remove", principal="service")
            world.happen(3)
            await asyncio.sleep(100)
            assert len(world.taken) == 3 and world.hook.disabled == "its owner may not read the history any more"
            [fault] = world.state.faults.values()
            assert fault.code == "webhook.disabled"
            world.cluster.do("webhook.resume", hook="billing")
            world.wake()
            await asyncio.sleep(100)
            assert len(world.taken) == 3 and world.hook.disabled, "that alone changes nothing"
            owned(world, {"role": "viewer"}, name="heir")
            world.cluster.do("webhook.modify", hook="billing", owner="heir")
            world.cluster.do("webhook.resume", hook="billing")
            world.wake()
            await world.until_done()
            assert world.taken == world.wanted() and world.state.faults == {}, "nothing is lost"
        else:
            world.cluster.do("access.modify", principal="service", grants=[{"role": "viewer", "name": "shop*"}])
            world.happen(3)
            await asyncio.sleep(100)
            assert len(world.taken) == 3 and not world.hook.disabled

    run_virtual(run())


def test_one_for_an_owner_who_is_not_there_cannot_be_decided() -> None:
    async def run() -> None:
        world = World(lambda ids: Answer(status=200), owner="nobody")
        with pytest.raises(NotFound) as refusal:
            await world.begin()
        assert refusal.value.code == "access.principal_not_found"

    run_virtual(run())


async def test_a_gateway_that_does_not_deliver_keeps_no_connection_of_a_test_open(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(house)
    [hook] = house.state.webhooks
    forgotten: list[str] = []

    async def forget(_: object, hook_id: str) -> None:
        forgotten.append(hook_id)

    monkeypatch.setattr(Sender, "forget", forget)
    assert house.state.cluster is not None
    house.state.put_cluster(msgspec.structs.replace(house.state.cluster, primary="hv1"))
    assert (await house.root.post("/webhooks/billing/test")).status_code == 200
    assert not forgotten, "the deliverer may be in the midst of a request"
    house.state.put_cluster(msgspec.structs.replace(house.state.cluster, primary="hv2"))
    assert (await house.root.post("/webhooks/billing/test")).status_code == 200
    assert forgotten == [hook]
