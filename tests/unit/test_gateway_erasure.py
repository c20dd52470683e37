"""Erasing people through the gateway: what is sealed, what is shown before and after, and what stays as it was."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pvc.commands.audit import ErasePerson, erase_person
from pvc.commands.base import Decision
from pvc.commands.facts import REPORTS
from pvc.errors import Rejected
from pvc.events.access import TokenCreated
from pvc.events.record import Actor, unseal
from pvc.events.registry import decode_event
from pvc.events.sealed import erased_name, parse_sealed
from pvc.events.types import Role
from pvc.keyring.memory import MemoryKeyring
from pvc.node.erasing import Erasing
from pvc.projections.fold import fold
from pvc.projections.snapshot import snapshot
from pvc.projections.state import ClusterState
from pvc.runtime.appender import Outcome, Request
from tests.support.waiting import until
from tests.unit.gateway_house import NODE_ACTOR, House, a_context, a_house

NAME, ADDRESS = "anna.kowalska", "198.51.100.23"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        yield made


@contextlib.asynccontextmanager
async def destroying(house: House) -> AsyncIterator[None]:
    """The node's part beside the gateway."""

    async def submit(report: Any, cause: str = "") -> Outcome:
        name, decide = REPORTS[type(report)]
        request = Request(name=name, command=report, decide=decide, actor=NODE_ACTOR, cause=cause)
        return await house.services.appender.submit(request)

    services = house.services
    erasing = Erasing("hv1", services.world, services.people, submit, lambda: 0)
    task = asyncio.create_task(erasing.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def anna_acts(house: House) -> httpx.AsyncClient:
    """She defines a VM, is refused something, acknowledges a fault and says that a node is off."""
    anna = house.outside_with(await house.person(NAME), ADDRESS)
    assert (await anna.post("/vms", json={"name": "web01", "memory_mib": 512, "vcpus": 1})).status_code == 200
    assert (await anna.post("/vms/web01/stop")).status_code == 409
    await house.second_node()
    await house.lose("hv2")
    assert (await anna.post("/faults/acknowledge", json={"fault": "node.lost/hv2"})).status_code == 200
    assert (await anna.post("/nodes/hv2/confirm-fenced")).status_code == 200
    await house.settle()  # that she came in is a record, too
    return anna


async def erase(house: House, name: str = NAME, **controls: Any) -> dict[str, Any]:
    reply = await house.root.post("/audit/erase", params=controls, json={"principal": name})
    assert reply.status_code == 200, reply.text
    told: dict[str, Any] = reply.json()
    return told


async def erased(house: House, name: str = NAME) -> str:
    """Erase and wait until the key is destroyed; returns the pseudonym."""
    key: str = (await erase(house, name))["events"][0]["data"]["key"]
    await until(lambda: bool(house.state.erasures[key].erased_us))
    return erased_name(key)


async def history(house: House, query: str = "") -> list[dict[str, Any]]:
    reply = await house.root.get(f"/history?{query}")
    assert reply.status_code == 200, reply.text
    records: list[dict[str, Any]] = reply.json()["records"]
    return records


def bytes_of(house: House, folder: Path) -> bytes:
    files = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    return files + snapshot(house.state)


async def test_neither_name_nor_address_is_in_log_replica_or_snapshot(house: House, tmp_path: Path) -> None:
    await anna_acts(house)
    assert len(await history(house, f"actor={NAME}")) == 5
    everything = await house.log_bytes() + bytes_of(house, tmp_path)
    assert b"web01" in everything, "it is where things are looked for"
    for text in (NAME, "kowalska", ADDRESS, "198.51"):
        assert text.encode() not in everything


async def test_readers_see_names_as_before(house: House) -> None:
    anna = await anna_acts(house)
    defined = (await history(house, "subject=vm/web01"))[-1]
    assert (defined["actor"]["principal"], defined["actor"]["address"]) == (NAME, ADDRESS)
    assert (await anna.get("/whoami")).json()["principal"] == NAME
    faults = (await house.root.get("/faults")).json()["items"]
    assert [fault["acknowledged_by"] for fault in faults if fault["acknowledged_by"]] == [NAME]
    told = (await history(house, "type=node.fenced"))[0]["events"][0]["summary"]
    assert told == f"fenced (manual): {NAME} says that it is off"
    diff = (await house.root.get("/diff", params={"old": "3", "subject": "vm/web01"})).json()
    assert diff["items"][0]["by"][-1]["actor"]["principal"] == NAME
    token = (await history(house, "type=access.token_created"))[0]["events"][0]
    assert token["summary"].endswith(f"made for {NAME}")


async def test_a_refusal_by_role_names_the_person_to_the_person_alone(house: House) -> None:
    viewer = house.outside_with(await house.person("bert", Role.VIEWER))
    reply = await viewer.post("/vms/web01/start")
    assert reply.status_code == 403 and reply.json()["detail"].startswith("bert (viewer) may not do this")
    assert int(reply.headers["content-length"]) == len(reply.content)


async def test_after_the_erasure_a_pseudonym_stands_where_the_name_did(house: House) -> None:
    await anna_acts(house)
    before = await history(house)
    async with destroying(house):
        pseudonym = await erased(house)
    after = (await history(house))[-len(before) :]
    assert NAME not in json.dumps(after) and ADDRESS not in json.dumps(after)
    as_erased = json.dumps(before).replace(NAME, pseudonym).replace(f'"{ADDRESS}"', '"erased"')
    assert json.loads(as_erased) == after
    assert len(await history(house, f"actor={pseudonym}")) == 5
    assert await history(house, f"actor={NAME}") == []


async def test_an_erasure_changes_no_byte_that_was_written(house: House) -> None:
    await anna_acts(house)
    length = house.services.world.position
    before = await house.log.read(1, length)
    root = await house.services.history.root(length)
    async with destroying(house):
        await erased(house)
    assert await house.log.read(1, length) == before
    assert await house.services.history.root(length) == root
    replayed = ClusterState()
    for data in await house.log.read(1, 10_000):
        fold(replayed, unseal(data))
    assert replayed.state_hash() == house.state.state_hash()


async def test_the_key_is_gone_and_the_log_says_so(house: House) -> None:
    await anna_acts(house)
    async with destroying(house):
        pseudonym = await erased(house)
        assert await house.services.people.keyring.find(NAME) is None
        assert house.services.people._keys.keys() <= set(await house.services.people.keyring.ids())
    gone, requested = await history(house, "type=access.*&limit=2")
    assert gone["events"][0]["summary"] == f"key {pseudonym[-8:]} of {pseudonym} is destroyed, by node hv1"
    assert gone["cause"] == requested["id"]


async def test_what_becomes_unreadable_and_what_stays_is_told_before_and_changes_nothing(house: House) -> None:
    await anna_acts(house)
    before = house.services.world.position
    dry = await erase(house, dry_run="true")
    assert (house.services.world.position, dry["dry_run"]) == (before, True)
    notes = "\n".join(dry["notes"])
    assert f"{NAME} in 5 records" in notes
    assert "stays: what was done in them" in notes and "goes on: the token" in notes and "backups" in notes
    assert "of before names were sealed" not in notes
    assert await house.services.people.find(NAME)


async def test_records_of_before_names_were_sealed_are_said_to_stay(house: House) -> None:
    async with destroying(house):
        plain = Actor(principal="bert", method="token", address="192.0.2.9")
        made = TokenCreated(token="b" * 12, principal="bert", role=Role.ADMIN, secret_sha256="5f" * 32)
        await house.services.appender.submit(
            Request(name="old", command=made, decide=lambda *_: Decision(events=(made,)), actor=plain)
        )
        await house.services.people.seal("bert")
        told = await erase(house, "bert")
        assert any("stays readable: bert, in 1 record of before" in note for note in told["notes"])
    old = (await history(house, "actor=bert"))[-1]
    assert (old["actor"]["principal"], old["actor"]["address"]) == ("bert", "192.0.2.9")


async def test_the_people_of_the_log_are_listed_with_what_became_of_them(house: House) -> None:
    async def people() -> list[tuple[str, str, int]]:
        items = (await house.root.get("/audit/people")).json()["items"]
        return [(one["name"], one["state"], one["records"]) for one in items]

    assert await people() == [("admin", "readable", 0)]
    await anna_acts(house)
    assert await people() == [("admin", "readable", 0), (NAME, "readable", 5)]
    key = (await erase(house))["events"][0]["data"]["key"]
    assert (await people())[1:] == [(f"erased-{key}", "erasing", 5)]
    async with destroying(house):
        await until(lambda: bool(house.state.erasures[key].erased_us))
    await house.services.people.seal(NAME)
    assert (await people())[1:] == [(NAME, "readable", 0), (f"erased-{key}", "erased", 5)]
    viewer = house.outside_with(await house.person("bert", Role.VIEWER))
    assert (await viewer.get("/audit/people")).status_code == 403


async def test_keys_are_copied_to_root_on_a_node_alone_and_come_back_but_for_the_erased(house: House) -> None:
    anna = await anna_acts(house)
    bert = house.outside_with(await house.person("bert"))
    for refused in (await anna.get("/audit/keys"), await bert.post("/audit/keys", json={"keys": []})):
        assert (refused.status_code, refused.json()["code"]) == (403, "access.only_local")
    copies = (await house.root.get("/audit/keys")).json()["keys"]
    assert [copy["principal"] for copy in copies] == ["admin", NAME, "bert"]
    async with destroying(house):
        await erased(house)

        # All is lost; bert acts before the copy is there, and the others do not.
        house.services.people.keyring = MemoryKeyring()
        for copy in copies:
            house.services.people.forget(copy["id"])
        await house.services.people.seal("bert")
        reply = (await house.root.post("/audit/keys", json={"keys": copies})).json()
        assert (reply["kept"], reply["erased"], reply["taken"]) == (1, 1, ["bert"])
        assert (await house.services.people.keyring.find("admin")) is not None
        again = (await house.root.post("/audit/keys", json={"keys": copies[:1]})).json()
        assert again["kept"] == 1
    bad = {"keys": [{**copies[0], "secret": "c2hvcnQ="}]}
    assert (await house.root.post("/audit/keys", json=bad)).status_code == 422


async def test_nobody_can_be_erased_who_has_no_key(house: House) -> None:
    before = house.services.world.position
    for name in ("nobody", "root", "erased-00000000"):
        reply = await house.root.post("/audit/erase", json={"principal": name})
        assert (reply.status_code, reply.json()["code"]) == (404, "access.person_not_found")
    assert (await house.root.post("/audit/erase", json={"principal": "node/hv1"})).status_code == 422
    assert house.services.world.position == before


async def test_only_an_admin_may_erase(house: House) -> None:
    await house.person(NAME)
    operator = house.outside_with(await house.person("bert", Role.OPERATOR))
    assert (await operator.post("/audit/erase", json={"principal": NAME})).status_code == 403
    assert await house.services.people.find(NAME)


async def test_asked_for_again_under_the_same_key_it_is_the_same_erasure(house: House) -> None:
    await anna_acts(house)
    headers = {"Idempotency-Key": "erase-anna"}
    async with destroying(house):
        first = await house.root.post("/audit/erase", json={"principal": NAME}, headers=headers)
        key = first.json()["events"][0]["data"]["key"]
        await until(lambda: bool(house.state.erasures[key].erased_us))
        again = await house.root.post("/audit/erase", json={"principal": NAME}, headers=headers)
    assert (again.status_code, again.json()["repeated"]) == (200, True)
    assert again.json()["position"] == first.json()["position"]
    other = await house.root.post("/audit/erase", json={"principal": NAME}, headers={"Idempotency-Key": "another"})
    assert other.status_code == 404


async def test_the_record_of_an_erasure_does_not_tell_whose_it_was(house: House) -> None:
    await anna_acts(house)
    told = await erase(house)
    record = unseal((await house.log.read(told["position"], 1))[0])
    assert NAME.encode() not in record.data
    assert record.record.actor.principal == "root"


async def test_the_token_of_who_was_erased_goes_on_under_the_pseudonym(house: House) -> None:
    anna = await anna_acts(house)
    async with destroying(house):
        pseudonym = await erased(house)
        reply = await anna.post("/vms/web01/disable")
        assert reply.status_code == 200
        assert (await anna.get("/whoami")).json()["principal"] == pseudonym
    newest = (await history(house, "type=vm.disabled"))[0]["actor"]
    assert (newest["principal"], newest["address"]) == (pseudonym, ADDRESS)
    assert len(await history(house, f"actor={pseudonym}")) == 6


async def test_who_comes_back_under_the_old_name_has_a_new_key(house: House) -> None:
    await anna_acts(house)
    async with destroying(house):
        pseudonym = await erased(house)
        sealed = await house.services.people.seal(NAME)
    found = parse_sealed(sealed)
    assert found is not None and erased_name(found.key) != pseudonym


async def test_without_keys_a_new_persons_command_is_refused_and_nothing_written(house: House) -> None:
    anna = house.outside_with(await house.person(NAME), ADDRESS)
    house.services.people.forget(next(iter(house.services.people._keys)))
    for key in list(house.services.people._keys):
        house.services.people.forget(key)
    keyring = MemoryKeyring()
    await keyring.close()
    house.services.people.keyring = keyring
    before = house.services.world.position
    reply = await anna.post("/vms", json={"name": "web01", "memory_mib": 512, "vcpus": 1})
    assert (reply.status_code, reply.json()["code"]) == (503, "keyring.closed")
    assert house.services.world.position == before
    shown = (await history(house, "type=access.token_created"))[0]["events"][0]["summary"]
    assert "made for person-" in shown


async def test_an_undo_by_a_person_is_sealed_too(house: House) -> None:
    anna = await anna_acts(house)
    position = (await anna.post("/vms/web01/disable")).json()["position"]
    reply = await anna.post(f"/undo/{position}")
    assert reply.status_code == 200, reply.text
    record = unseal((await house.log.read(reply.json()["position"], 1))[0]).record
    assert parse_sealed(record.actor.principal) is not None
    tagged = (await anna.post("/vms/web01/tags", json={"tag": "shop"})).json()["position"]
    await anna.delete("/vms/web01/tags/shop")
    changed = await anna.post(f"/undo/{tagged}")
    assert changed.status_code == 409 and f"by {NAME} (" in changed.json()["detail"]


async def test_an_erasure_cannot_be_undone(house: House) -> None:
    await anna_acts(house)
    told = await erase(house)
    reply = await house.root.post(f"/undo/{told['position']}")
    assert (reply.status_code, reply.json()["code"]) == (409, "undo.no_inverse")


async def test_the_first_admins_name_is_sealed(tmp_path: Path) -> None:
    async with a_house(tmp_path, initialised=False) as house:
        headers = {"Idempotency-Key": "the-beginning"}
        fields = {"name": "main", "admin": NAME}
        first = await house.root.post("/cluster/init", json=fields, headers=headers)
        assert first.status_code == 200, first.text
        assert NAME.encode() not in await house.log_bytes()
        anna = house.outside_with(first.json()["token"])
        assert (await anna.get("/whoami")).json()["principal"] == NAME
        again = await house.root.post("/cluster/init", json=fields, headers=headers)
        assert again.json()["repeated"]
        event = decode_event(unseal((await house.log.read(1, 1))[0]).record.events[-1])
        assert isinstance(event, TokenCreated) and parse_sealed(event.principal) is not None


@pytest.mark.parametrize("name", ["root", "erased-3f2a91c0", "person-3f2a91c0", "node/hv1", "an na", "", "a\n", "-a"])
async def test_a_name_that_could_be_taken_for_another_is_refused(tmp_path: Path, name: str) -> None:
    async with a_house(tmp_path, initialised=False) as house:
        reply = await house.root.post("/cluster/init", json={"name": "main", "admin": name})
        assert reply.status_code == 422
        assert house.services.world.position == 0


async def test_a_dry_run_makes_nobody_a_key(tmp_path: Path) -> None:
    async with a_house(tmp_path, initialised=False) as house:
        reply = await house.root.post("/cluster/init?dry_run=true", json={"name": "main", "admin": NAME})
        assert reply.status_code == 200
        assert await house.services.people.keyring.ids() == []


async def test_the_core_is_not_to_be_given_a_name(house: House) -> None:
    with pytest.raises(Rejected) as refusal:
        erase_person(house.state, ErasePerson(principal="anna"), a_context())
    assert refusal.value.code == "access.person_not_sealed" and "anna" not in refusal.value.message
