"""Commands over HTTP: every one of the registry, however its fields come, once and only once."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pvc.commands.base import CommandSpec, Decision
from pvc.commands.facts_log import ReportSigningKey
from pvc.commands.registry import COMMANDS
from pvc.events.access import TokenCreated
from pvc.events.cluster import CommandRejected
from pvc.events.record import unseal
from pvc.events.types import Role
from pvc.gateway import commands as gateway_commands
from pvc.projections.vm_machine import VmState
from pvc.proof.note import origin_of
from tests.support.keys import TestKey
from tests.unit.gateway_house import WEB01, House, a_house

IN_STATE = {
    "vm.modify": "running",
    "vm.shutdown": "running",
    "vm.stop": "running",
    "vm.restart": "running",
    "vm.reset": "running",
    "vm.enable": "disabled",
    "vm.migrate": "running",
    "vm.move": "running",
    "vm.cancel_migration": "running",
}
"""The state that the example's VM must be in; stopped for all others."""


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        yield made


@pytest.mark.parametrize("spec", [spec for spec in COMMANDS if spec.name != "cluster.init"], ids=lambda spec: spec.name)
async def test_the_example_of_every_command_is_accepted_at_its_route(house: House, spec: CommandSpec) -> None:
    await prepare(house, spec)
    before = house.services.world.position
    reply = await house.root.request(spec.method, path_of(spec), json=body_of(spec))
    assert reply.status_code == 200, reply.text
    told = reply.json()
    assert told["name"] == spec.name
    assert told["position"] == before + 1 == int(reply.headers["PVC-Position"])
    assert told["changed"] and not told["repeated"] and not told["dry_run"]
    assert told["outcomes"] == dict(spec.outcomes)
    assert told["events"] and all(event["summary"] for event in told["events"])
    assert unseal((await house.log.read(told["position"], 1))[0]).record.id == told["record"]


@pytest.mark.parametrize("spec", [spec for spec in COMMANDS if spec.name != "cluster.init"], ids=lambda spec: spec.name)
async def test_a_dry_run_of_every_command_tells_the_same_and_writes_nothing(house: House, spec: CommandSpec) -> None:
    await prepare(house, spec)
    before, state_hash = house.services.world.position, house.state.state_hash()
    dry = (await house.root.request(spec.method, f"{path_of(spec)}?dry_run=true", json=body_of(spec))).json()
    assert (house.services.world.position, house.state.state_hash()) == (before, state_hash)
    assert dry["dry_run"] and dry["record"] is None and dry["position"] == before
    real = (await house.root.request(spec.method, path_of(spec), json=body_of(spec))).json()
    assert [event["type"] for event in dry["events"]] == [event["type"] for event in real["events"]]


async def test_a_dry_run_is_refused_as_the_real_thing_is_and_leaves_no_record(house: House) -> None:
    before = house.services.world.position
    reply = await house.root.post("/vms/nowhere/start?dry_run=true")
    assert (reply.status_code, reply.json()["code"]) == (404, "vm.not_found")
    assert house.services.world.position == before


async def test_an_empty_dry_run_is_neither_carried_out_nor_tried_out(house: House) -> None:
    await house.define()
    reply = await house.root.delete("/vms/web01?dry_run=")
    assert (reply.status_code, reply.json()["field"]) == (422, "dry_run")
    assert "web01" in house.state.vm_names


async def test_json_form_multipart_and_query_mean_the_same(house: House) -> None:
    fields = {"memory_mib": 1024, "vcpus": 2, "autostart": True, "tags": ["a", "b"], "description": "null"}
    disks = [{"path": "/srv/{name}.raw", "read_only": True}]
    texts = {
        "memory_mib": "1024",
        "vcpus": "2",
        "autostart": "true",
        "tags": ["a", "b"],
        "description": "null",
        "disks": json.dumps(disks[0]),
    }
    flat = {**texts, "tags": "a,b"}
    post = house.root.post
    replies = {
        "by-json": await post("/vms", json={**fields, "disks": disks, "name": "by-json"}),
        "by-form": await post("/vms", data={**texts, "name": "by-form"}),
        "by-files": await post("/vms", data={**flat}, files={"name": ("name.txt", b"by-files")}),
        "by-query": await post("/vms", params={**texts, "name": "by-query"}),
    }
    for name, reply in replies.items():
        assert reply.status_code == 200, (name, reply.text)
    made = {name: house.state.vms[house.state.vm_names[name]] for name in replies}
    assert len({(vm.spec, vm.autostart, tuple(vm.tags), vm.description) for vm in made.values()}) == 1
    assert made["by-form"].description == "null", "text that looks like nothing is text"


async def test_the_same_key_twice_does_it_once(house: House) -> None:
    first = await house.root.post("/vms", json=WEB01, headers={"Idempotency-Key": "key-1"})
    again = await house.root.post("/vms", json=WEB01, headers={"Idempotency-Key": "key-1"})
    assert first.json()["position"] == again.json()["position"]
    assert first.json()["events"] == again.json()["events"]
    assert (first.json()["repeated"], again.json()["repeated"]) == (False, True)
    assert len(house.state.vms) == 1


async def test_a_key_that_another_command_used_is_refused(house: House) -> None:
    await house.root.post("/vms", json=WEB01, headers={"Idempotency-Key": "key-1"})
    reply = await house.root.post("/vms/web01/start", headers={"Idempotency-Key": "key-1"})
    assert (reply.status_code, reply.json()["code"]) == (409, "idempotency.key_reused")
    assert house.state.vms[house.state.vm_names["web01"]].state is VmState.STOPPED


async def test_a_key_is_no_excuse_for_doing_something_else(house: House) -> None:
    """The same command under the same key, but about another VM, must not be answered with the first one's success."""
    await house.root.post("/vms", json=WEB01, headers={"Idempotency-Key": "key-1"})
    other = await house.root.post("/vms", json={**WEB01, "name": "web02"}, headers={"Idempotency-Key": "key-1"})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency.key_reused")
    same = await house.root.post("/vms", data={**WEB01}, headers={"Idempotency-Key": "key-1"})
    assert same.json()["repeated"] is True, "as a form it is the same command"


async def test_a_key_older_than_the_state_remembers_still_does_nothing_twice(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await house.root.post("/vms", json=WEB01, headers={"Idempotency-Key": "old"})
    await house.define(name="other")
    monkeypatch.setattr(gateway_commands, "RECENT_COMMANDS", 1)
    house.state.recent.clear()
    again = await house.root.post("/vms", json=WEB01, headers={"Idempotency-Key": "old"})
    other = await house.root.post("/vms/web01/start", headers={"Idempotency-Key": "old"})
    assert (again.json()["repeated"], again.json()["record"]) == (True, first.json()["record"])
    assert (other.status_code, other.json()["code"]) == (409, "idempotency.key_reused")


@pytest.mark.parametrize("key", ["", "with space", "x" * 129, "tab\tin"])
async def test_a_key_that_is_no_key_is_refused(house: House, key: str) -> None:
    reply = await house.root.post("/vms", json=WEB01, headers={"Idempotency-Key": key})
    assert (reply.status_code, reply.json()["code"]) == (422, "idempotency.key_invalid")
    assert not house.state.vms


async def test_what_is_so_already_changes_nothing_and_says_so(house: House) -> None:
    await house.define()
    before = house.services.world.position
    reply = await house.root.post("/vms/web01/autostart", json={"autostart": False})
    assert reply.json()["changed"] is False and reply.json()["record"] is None
    assert house.services.world.position == before


async def test_a_refusal_is_a_record_in_the_history_of_the_vm_it_is_about(house: House) -> None:
    await house.define()
    refused = await house.root.post("/vms/web01/shutdown")
    assert (refused.status_code, refused.json()["code"]) == (409, "vm.is_stopped")
    history = (await house.root.get("/history?subject=vm/web01&limit=1")).json()
    assert history["records"][0]["events"][0]["type"] == CommandRejected.TYPE
    assert history["records"][0]["actor"]["principal"] == "root"


async def test_a_command_waits_for_the_position_it_is_to_follow(house: House) -> None:
    await house.define()
    ahead = house.services.world.position + 1
    waiting = asyncio.create_task(house.root.post(f"/vms/web01/start?min_position={ahead}"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await house.define(name="other")
    assert (await waiting).status_code == 200


async def test_a_client_that_goes_away_does_not_take_its_command_with_it(house: House) -> None:
    await house.define()
    request = asyncio.create_task(house.root.post("/vms/web01/start"))
    while not house.services.appender._queue:
        await asyncio.sleep(0)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    async with asyncio.timeout(5):
        while house.state.vms[house.state.vm_names["web01"]].state is not VmState.STARTING:
            await asyncio.sleep(0.01)


async def test_the_source_that_a_client_names_stands_in_the_history(house: House) -> None:
    await house.root.post("/vms", json=WEB01, headers={"PVC-Source": "cli/9.9"})
    await house.root.post("/vms", json={**WEB01, "name": "web02"}, headers={"PVC-Source": "not a\tword"})
    records = (await house.root.get("/history?type=vm.defined")).json()["records"]
    assert [record["actor"]["source"] for record in records] == ["api", "cli/9.9"]


async def test_every_command_leaves_one_line_in_the_nodes_log(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pvc.gateway.access")
    await house.define()
    await house.root.post("/vms/no%0Asuch=x/start")
    lines = [record.getMessage() for record in caplog.records if record.name == "pvc.gateway.access"]
    assert len(lines) == 2
    assert "command=vm.define about=web01 principal=root method=socket" in lines[0] and "result=ok" in lines[0]
    assert "result=vm.not_found" in lines[1] and "\n" not in lines[1]


async def prepare(house: House, spec: CommandSpec) -> None:
    """The VM of the example, in the state that the command needs, and a second node to the cluster."""
    if spec.name == "vm.define":
        return
    await house.define()
    await house.second_node("hv2")
    match IN_STATE.get(spec.name, "stopped"):
        case "running":
            await house.start()
        case "disabled":
            await did(house, "/vms/web01/disable")
    if spec.name in FIRST:
        path, fields = FIRST[spec.name]
        await did(house, path, **fields)
    if spec.name in ("fault.acknowledge", "node.confirm_fenced"):
        await house.lose("hv2")
    if spec.name == "log.rotate_key":
        assert house.state.cluster is not None
        key = TestKey("hv1", origin_of(house.state.cluster.id))
        await house.report(ReportSigningKey(node="hv1", key=str(key.public)))
    if spec.name in ("access.modify", "access.remove", "access.create_token"):
        await house.member("anna", {"role": "operator"})
    if "{token}" in spec.path:
        made = TokenCreated(
            token=str(spec.example["token"]), principal="anna", role=Role.VIEWER, secret_sha256="5f" * 32
        )
        await house.submit("test", None, lambda *_: Decision(events=(made,)))
    if spec.name.startswith("webhook.") and spec.name != "webhook.add":
        await did(house, "/webhooks", name="billing", url="https://hooks.example.com/pvc")
    if spec.name == "audit.erase":
        await house.person("anna")
    if spec.name == "cluster.rebalance":
        for name in ("db01", "db02"):
            await house.define(name=name, node="hv1", memory_mib=2048)
            await house.start(name)


FIRST: dict[str, tuple[str, dict[str, object]]] = {
    "vm.remove_tag": ("/vms/web01/tags", {"tag": "production"}),
    "vm.set_migration_method": ("/vms/web01/migration-method", {"migration_method": "none"}),
    "vm.unmigrate": ("/vms/web01/migrate", {"node": "hv2"}),
    "vm.cancel_migration": ("/vms/web01/migrate", {"node": "hv2"}),
    "node.remove": ("/nodes", {"node": "hv4"}),
    "node.ready": ("/nodes/hv2/flush", {}),
}
"""What has to be done before the example of a command makes sense."""


async def did(house: House, path: str, **fields: object) -> None:
    reply = await house.root.post(path, json=fields)
    assert reply.status_code == 200, reply.text


def path_of(spec: CommandSpec) -> str:
    return spec.path.format(**spec.example)


def body_of(spec: CommandSpec) -> dict[str, object]:
    return {name: value for name, value in spec.example.items() if f"{{{name}}}" not in spec.path}
