"""Operations over HTTP: what commands begin, what comes of it, waiting for it, and giving it up."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pvc.commands.facts import Ending, ReportEnded, ReportRunning, ReportStartFailed
from pvc.commands.facts_cluster import ReportFlushStep, ReportPrimary
from pvc.commands.facts_moves import ReportArrived, ReportMigrationFailed, ReportPrepared
from pvc.errors import Unavailable
from pvc.log.sqlite_common import ForeignFormat
from pvc.runtime.operation_file import OperationFile
from pvc.runtime.operations import Operations
from tests.unit.gateway_house import NODE, House, a_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        yield made


async def begin(house: House, path: str, **body: Any) -> str:
    reply = await house.root.post(path, json=body)
    assert reply.status_code == 200, reply.text
    operation = reply.json()["operation"]
    assert operation["id"] == reply.json()["record"]
    assert operation["href"] == f"/api/v1/operations/{operation['id']}"
    return str(operation["id"])


async def show(house: House, operation: str, query: str = "") -> dict[str, Any]:
    reply = await house.root.get(f"/operations/{operation}{query}")
    assert reply.status_code == 200, reply.text
    told: dict[str, Any] = reply.json()
    return told


def vm_of(house: House, name: str = "web01") -> Any:
    return house.state.vms[house.state.vm_names[name]]


async def runs(house: House, name: str = "web01", node: str = NODE) -> None:
    vm = vm_of(house, name)
    await house.report(ReportRunning(vm=vm.id, node=node, epoch=vm.epoch), cause=vm.cause)


async def leaves(house: House, name: str = "web01") -> None:
    """Let a migration go its way up to the arrival."""
    vm = vm_of(house, name)
    move = vm.migration
    await house.report(ReportPrepared(vm=vm.id, node=move.target, migration=move.id), cause=vm.cause)
    await house.report(ReportEnded(vm=vm.id, node=vm.node, epoch=vm.epoch, ending=Ending.MIGRATED), cause=vm.cause)
    await house.report(ReportArrived(vm=vm.id, node=move.target, epoch=vm.epoch), cause=vm.cause)


async def steps(house: House) -> None:
    """Let the primary look at the flush of its node once more."""
    assert house.state.cluster is not None
    step = ReportFlushStep(primary=NODE, epoch=house.state.cluster.primary_epoch, node=NODE)
    await house.report(step, cause=house.state.nodes[NODE].cause)


async def test_a_start_is_pending_until_the_vm_runs_and_has_succeeded_then(house: House) -> None:
    await house.define()
    operation = await begin(house, "/vms/web01/start")
    told = await show(house, operation)
    assert (told["state"], told["command"], told["ended"], told["problem"]) == ("pending", "vm.start", None, None)
    assert told["subjects"] == [{"subject": f"vm/{vm_of(house).id}", "name": "web01"}]
    assert told["progress"] == {
        "done": 0,
        "total": 1,
        "failed": 0,
        "text": "start requested on hv1",
        "transfer": None,
    }
    await runs(house)
    told = await show(house, operation)
    assert (told["state"], told["progress"]["done"], told["progress"]["text"]) == ("succeeded", 1, "running on hv1")
    assert told["position"] == house.services.world.position
    assert told["ended_us"] > told["started_us"]
    assert not told["cancellable"]


async def test_a_start_that_fails_says_why(house: House) -> None:
    await house.define()
    operation = await begin(house, "/vms/web01/start")
    vm = vm_of(house)
    failure = ReportStartFailed(vm=vm.id, node=NODE, epoch=vm.epoch, code="hypervisor.refused", message="no such disk")
    await house.report(failure, cause=vm.cause)
    told = await show(house, operation)
    assert told["state"] == "failed"
    assert told["problem"] == {"code": "hypervisor.refused", "detail": "start failed on hv1: no such disk"}
    assert told["progress"]["failed"] == 1


async def test_a_start_that_somebody_stops_was_cancelled(house: House) -> None:
    await house.define()
    started = await begin(house, "/vms/web01/start")
    stopped = await begin(house, "/vms/web01/stop")
    assert (await show(house, started))["state"] == "cancelled"
    assert (await show(house, started))["problem"]["code"] == "vm.stop_requested"
    vm = vm_of(house)
    await house.report(ReportEnded(vm=vm.id, node=NODE, epoch=vm.epoch, ending=Ending.DESTROYED), cause=vm.cause)
    assert (await show(house, stopped))["state"] == "succeeded"


async def test_what_is_done_at_once_is_no_operation(house: House) -> None:
    reply = (await house.root.post("/vms", json={"name": "web01", "memory_mib": 64, "vcpus": 1})).json()
    assert reply["operation"] is None and reply["record"]
    none = await house.root.get(f"/operations/{reply['record']}")
    assert (none.status_code, none.json()["code"]) == (404, "operation.not_found")
    dry = (await house.root.post("/vms/web01/start?dry_run=true")).json()
    assert dry["operation"] is None


async def test_a_change_that_restarts_the_vm_is_over_when_it_runs_again(house: House) -> None:
    await house.define()
    await house.start()
    dry = (await house.root.patch("/vms/web01?dry_run=true", json={"memory_mib": 128, "restart": True})).json()
    assert dry["operation"] is None and dry["outcomes"]["vm.started"]
    answer = await house.root.patch(
        "/vms/web01", json={"memory_mib": 128, "restart": True}, headers={"Idempotency-Key": "k"}
    )
    reply = answer.json()
    assert reply["outcomes"]["vm.started"]
    operation = reply["operation"]["id"]
    assert (await show(house, operation))["state"] == "pending"
    again = await house.root.patch(
        "/vms/web01", json={"memory_mib": 128, "restart": True}, headers={"Idempotency-Key": "k"}
    )
    assert again.json()["repeated"] and again.json()["operation"] == reply["operation"]
    vm = vm_of(house)
    await house.report(ReportEnded(vm=vm.id, node=NODE, epoch=vm.epoch - 1, ending=Ending.GUEST), cause=vm.cause)
    await runs(house)
    assert (await show(house, operation))["state"] == "succeeded"


async def test_a_change_that_restarts_nothing_is_done_at_once(house: House) -> None:
    await house.define()
    await house.start()
    for query in ("?dry_run=true", ""):
        told = (await house.root.patch(f"/vms/web01{query}", json={"memory_mib": 128})).json()
        assert (told["changed"], told["operation"], told["outcomes"]) == (True, None, {})
    none = await house.root.get(f"/operations/{told['record']}")
    assert (none.status_code, none.json()["code"]) == (404, "operation.not_found")
    same = (await house.root.patch("/vms/web01", json={"memory_mib": 128})).json()
    assert (same["changed"], same["operation"], same["outcomes"]) == (False, None, {})


async def test_a_refused_command_begins_none(house: House) -> None:
    await house.define()
    await house.start()
    before = (await house.root.get("/operations")).json()["items"]
    refused = await house.root.post("/vms/web01/start")
    assert refused.status_code == 409
    assert (await house.root.get("/operations")).json()["items"] == before


async def test_the_same_key_gives_the_same_operation(house: House) -> None:
    await house.define()
    replies = [await house.root.post("/vms/web01/start", headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert replies[1].json()["repeated"]
    assert replies[0].json()["operation"] == replies[1].json()["operation"] is not None


async def test_waiting_answers_as_soon_as_it_is_over(house: House) -> None:
    await house.define()
    operation = await begin(house, "/vms/web01/start")
    waiting = asyncio.create_task(show(house, operation, "?wait=60"))
    await house.settle()
    assert not waiting.done()
    await runs(house)
    assert (await asyncio.wait_for(waiting, 10))["state"] == "succeeded"
    assert (await show(house, operation, "?wait=60"))["state"] == "succeeded", "what is over is told at once"


async def test_waiting_for_a_change_answers_with_the_first_one(house: House) -> None:
    await house.second_node()
    await house.define()
    await house.start()
    operation = await begin(house, "/vms/web01/migrate", node="hv2")
    seen = (await show(house, operation))["position"]
    waiting = asyncio.create_task(show(house, operation, f"?wait=60&seen={seen}"))
    await house.settle()
    assert not waiting.done()
    vm = vm_of(house)
    await house.report(ReportPrepared(vm=vm.id, node="hv2", migration=vm.migration.id), cause=vm.cause)
    told = await asyncio.wait_for(waiting, 10)
    assert (told["state"], told["progress"]["text"]) == ("running", "expected on hv2")


async def test_waiting_ends_with_the_time_and_with_the_daemon(house: House) -> None:
    await house.define()
    operation = await begin(house, "/vms/web01/start")
    assert (await show(house, operation, "?wait=1"))["state"] == "pending"
    waiting = asyncio.create_task(show(house, operation, "?wait=60"))
    await house.settle()
    house.services.stopping.set()
    assert (await asyncio.wait_for(waiting, 10))["state"] == "pending"


async def test_a_migration_is_followed_and_can_be_cancelled(house: House) -> None:
    await house.second_node()
    await house.define()
    await house.start()
    operation = await begin(house, "/vms/web01/migrate", node="hv2")
    assert (await show(house, operation))["cancellable"]
    dry = await house.root.post(f"/operations/{operation}/cancel?dry_run=true")
    assert dry.json()["dry_run"] and (await show(house, operation))["cancellable"]
    reply = await house.root.post(f"/operations/{operation}/cancel", headers={"Idempotency-Key": "c"})
    assert (reply.status_code, reply.json()["name"]) == (200, "vm.cancel_migration")
    told = await show(house, operation)
    assert (told["state"], told["cancellable"]) == ("running", False)
    vm = vm_of(house)
    failed = ReportMigrationFailed(
        vm=vm.id, node=NODE, migration=vm.migration.id, code="x.cancelled", message="given up"
    )
    await house.report(failed, cause=vm.cause)
    assert (await show(house, operation))["state"] == "cancelled"
    assert (await show(house, reply.json()["operation"]["id"]))["state"] == "succeeded"
    again = await house.root.post(f"/operations/{operation}/cancel", headers={"Idempotency-Key": "c"})
    assert again.json()["repeated"] and again.json()["record"] == reply.json()["record"]
    late = await house.root.post(f"/operations/{operation}/cancel")
    assert (late.status_code, late.json()["code"]) == (409, "operation.ended")


async def test_a_migration_that_arrives_has_succeeded(house: House) -> None:
    await house.second_node()
    await house.define()
    await house.start()
    operation = await begin(house, "/vms/web01/migrate", node="hv2")
    await leaves(house)
    told = await show(house, operation)
    assert (told["state"], told["progress"]["text"]) == ("succeeded", "runs on, on hv2")


async def test_what_cannot_be_taken_back_is_refused_with_a_reason(house: House) -> None:
    await house.define()
    operation = await begin(house, "/vms/web01/start")
    reply = await house.root.post(f"/operations/{operation}/cancel")
    assert (reply.status_code, reply.json()["code"]) == (409, "operation.not_cancellable")
    assert "pvc vm stop" in reply.json()["hint"]


async def test_a_cancellation_never_hits_a_later_migration_of_the_same_vm(house: House) -> None:
    await house.second_node()
    await house.define()
    await house.start()
    first = await begin(house, "/vms/web01/migrate", node="hv2")
    await leaves(house)
    second = await begin(house, "/vms/web01/migrate", node=NODE)
    reply = await house.root.post(f"/operations/{first}/cancel")
    assert reply.json()["code"] == "operation.ended"
    assert (await show(house, second))["cancellable"]


async def flushing(house: House) -> str:
    await house.second_node()
    await house.report(ReportPrimary(node=NODE))
    for name in ("web01", "web02"):
        await house.define(name=name, node=NODE)
        await house.start(name)
    return await begin(house, f"/nodes/{NODE}/flush")


async def test_a_flush_counts_its_vms_and_is_over_when_they_have_left(house: House) -> None:
    operation = await flushing(house)
    told = await show(house, operation)
    assert (told["state"], told["progress"]["done"], told["progress"]["total"]) == ("pending", 0, 2)
    assert [(vm["name"], vm["state"]) for vm in told["vms"]] == [("web01", "pending"), ("web02", "pending")]
    await steps(house)
    await leaves(house, "web01")
    told = await show(house, operation)
    assert (told["state"], told["progress"]["done"], told["progress"]["total"]) == ("running", 1, 2)
    assert [(vm["name"], vm["state"]) for vm in told["vms"]] == [("web01", "succeeded"), ("web02", "running")]
    await leaves(house, "web02")
    await steps(house)
    told = await show(house, operation)
    assert (told["state"], told["progress"]["done"]) == ("succeeded", 2)
    assert told["progress"]["text"] == "flushed: no VM runs on it"
    assert all(vm["took_us"] > 0 for vm in told["vms"])


async def test_a_flush_that_leaves_a_vm_behind_has_failed(house: House) -> None:
    await house.second_node()
    await house.report(ReportPrimary(node=NODE))
    await house.define()
    await house.start()
    await house.root.post("/vms/web01/migration-method", json={"migration_method": "none"})
    operation = await begin(house, f"/nodes/{NODE}/flush")
    await steps(house)
    told = await show(house, operation)
    assert (told["state"], told["problem"]["code"]) == ("failed", "node.flush_incomplete")
    assert "web01" in told["problem"]["detail"]
    assert [(vm["name"], vm["state"]) for vm in told["vms"]] == [("web01", "failed")]


async def test_cancelling_a_flush_brings_its_vms_home(house: House) -> None:
    operation = await flushing(house)
    await steps(house)
    reply = await house.root.post(f"/operations/{operation}/cancel")
    assert reply.json()["name"] == "node.ready"
    assert (await show(house, operation))["state"] == "running", "two VMs are on their way"
    await leaves(house, "web01")
    await leaves(house, "web02")
    assert (await show(house, operation))["state"] == "cancelled"


async def test_a_rebalance_is_over_when_each_of_its_vms_has_got_somewhere(house: House) -> None:
    for name in ("web01", "web02", "web03", "web04"):
        await house.define(name=name, memory_mib=1024, node=NODE)
        await house.start(name)
    await house.second_node()
    operation = await begin(house, "/cluster/rebalance", moves=2)
    told = await show(house, operation)
    assert (told["progress"]["total"], told["progress"]["done"]) == (2, 0)
    first, second = (one["name"] for one in told["subjects"])
    await leaves(house, first)
    assert (await show(house, operation))["state"] == "running"
    vm = vm_of(house, second)
    failed = ReportMigrationFailed(vm=vm.id, node=NODE, migration=vm.migration.id, code="x.y", message="no")
    await house.report(failed, cause=vm.cause)
    told = await show(house, operation)
    assert (told["state"], told["problem"]["code"]) == ("failed", "operation.partly_failed")
    assert told["progress"]["failed"] == 1


async def test_the_list_filters_and_pages(house: House) -> None:
    for name in ("web01", "web02"):
        await house.define(name=name)
        await house.start(name)
    shut = await begin(house, "/vms/web01/shutdown")

    async def listed(query: str) -> list[tuple[str, str]]:
        reply = await house.root.get(f"/operations?{query}")
        assert reply.status_code == 200, reply.text
        return [(one["command"], one["subjects"][0]["name"]) for one in reply.json()["items"]]

    assert await listed("state=pending") == [("vm.shutdown", "web01")]
    assert await listed("subject=vm/web01") == [("vm.shutdown", "web01"), ("vm.start", "web01")]
    assert await listed("command=vm.*&state=succeeded") == [("vm.start", "web02"), ("vm.start", "web01")]
    assert await listed("actor=nobody") == []
    page = (await house.root.get("/operations?limit=1")).json()
    assert [one["id"] for one in page["items"]] == [shut]
    everything, after = [page["items"][0]["id"]], page["next"]
    while after is not None:
        page = (await house.root.get(f"/operations?limit=1&after={after}")).json()
        everything += [one["id"] for one in page["items"]]
        after = page["next"]
    newest_first = [one["id"] for one in (await house.root.get("/operations")).json()["items"]]
    assert everything == newest_first
    upwards, after = list[str](), ""
    while after is not None:
        page = (await house.root.get(f"/operations?limit=2&sort=started_us&fields=id,state&after={after}")).json()
        assert all(one.keys() == {"id", "state"} for one in page["items"])
        upwards += [one["id"] for one in page["items"]]
        after = page["next"]
    assert upwards == newest_first[::-1]


async def test_who_sees_only_some_vms_sees_only_their_operations(house: House) -> None:
    await house.define(name="web01", tags=["shop"])
    await house.define(name="db01")
    seen = await begin(house, "/vms/web01/start")
    hidden = await begin(house, "/vms/db01/start")
    token = await house.member("mia", {"role": "operator", "tag": "shop"})
    async with house.outside_with(token) as mia:
        items = (await mia.get("/operations")).json()["items"]
        assert [one["id"] for one in items] == [seen]
        refused = await mia.get(f"/operations/{hidden}")
        assert (refused.status_code, refused.json()["code"]) == (404, "operation.not_found")
        missing = await mia.post(f"/operations/{hidden}/cancel")
        assert (missing.status_code, missing.json()["code"]) == (404, "operation.not_found")


async def test_who_may_not_flush_may_not_cancel_a_flush(house: House) -> None:
    operation = await flushing(house)
    token = await house.member("otto", {"role": "operator"})
    async with house.outside_with(token) as otto:
        refused = await otto.post(f"/operations/{operation}/cancel")
        assert (refused.status_code, refused.json()["code"]) == (403, "access.forbidden")
    assert (await show(house, operation))["state"] == "pending"


async def test_a_removed_vm_leaves_its_operations_with_its_name(house: House) -> None:
    await house.define()
    operation = await begin(house, "/vms/web01/start")
    vm = vm_of(house)
    failure = ReportStartFailed(vm=vm.id, node=NODE, epoch=vm.epoch, code="x.y", message="no")
    await house.report(failure, cause=vm.cause)
    assert (await house.root.delete("/vms/web01")).status_code == 200
    assert (await show(house, operation))["subjects"][0]["name"] == "web01"
    items = (await house.root.get("/operations?subject=vm/web01")).json()["items"]
    assert [one["id"] for one in items] == [operation]


async def test_another_gateway_finds_the_same_from_the_log_alone(house: House, tmp_path: Path) -> None:
    operation = await flushing(house)
    await steps(house)
    await leaves(house, "web01")
    told = await show(house, operation)
    other = await Operations.open(tmp_path / "other.db")
    running = asyncio.create_task(other.run(house.services.history))
    try:
        await other.reach(house.services.world.position, 10)
        mine = await house.services.operations.get(operation)
        assert await other.get(operation) == mine is not None
        assert mine.changed == told["position"]
        assert await other.members(mine.position, 10) == await house.services.operations.members(mine.position, 10)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await other.close()


async def test_a_file_of_another_log_is_made_anew(house: House, tmp_path: Path) -> None:
    (tmp_path / "alien").mkdir()
    async with a_house(tmp_path / "alien") as alien:
        for number in range(10):
            await alien.define(name=f"alien{number}")
        await begin(alien, "/vms/alien1/start")
    await house.define()
    mine = await begin(house, "/vms/web01/start")
    moved = await Operations.open(tmp_path / "alien" / "operations.db")
    running = asyncio.create_task(moved.run(house.services.history))
    try:
        async with asyncio.timeout(10):
            while not await _has(moved, mine):
                await asyncio.sleep(0.01)
        assert [one.id for one in await moved.find(_everything())] == [mine, *await _rest(house)]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await moved.close()


async def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "operations.db").write_bytes(b"no database at all, but long enough to be looked at" * 20)
    async with a_house(tmp_path) as house:
        await house.define()
        operation = await begin(house, "/vms/web01/start")
        assert (await show(house, operation))["state"] == "pending"


async def _has(operations: Operations, wanted: str) -> bool:
    with contextlib.suppress(Unavailable):  # it is being made anew just now
        return await operations.get(wanted) is not None
    return False


def _everything() -> Any:
    from pvc.runtime.operation_file import OperationQuery

    return OperationQuery()


async def _rest(house: House) -> list[str]:
    return [one.id for one in await house.services.operations.find(_everything())][1:]


async def test_a_file_that_is_lost_is_read_anew_though_nothing_more_happens(house: House) -> None:
    await house.define()
    operation = await begin(house, "/vms/web01/start")
    operations = house.services.operations
    await operations.reach(house.services.world.position, 20)
    found = await asyncio.gather(*(operations._run(_damaged) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(one, Unavailable) for one in found)
    async with asyncio.timeout(20):
        await operations.reach(house.services.world.position, 20)
    assert (await show(house, operation))["command"] == "vm.start"


async def test_a_file_that_could_not_be_made_again_is_made_once_there_is_room(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.define()
    operation = await begin(house, "/vms/web01/start")
    operations = house.services.operations
    await operations.reach(house.services.world.position, 20)

    def full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as while_full:
        while_full.setattr(OperationFile, "__init__", full)
        with pytest.raises(Unavailable):
            await operations._run(_damaged)
        with pytest.raises(Unavailable, match="full"):
            await operations.get(operation)
    async with asyncio.timeout(20):
        await operations.reach(house.services.world.position, 20)
    assert (await show(house, operation))["command"] == "vm.start"


async def test_who_waits_counts_among_the_streams_that_one_may_have(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.define()
    operation = await begin(house, "/vms/web01/start")
    monkeypatch.setattr("pvc.gateway.event_hub.MAX_STREAMS_EACH", 0)
    refused = await house.root.get(f"/operations/{operation}?wait=1")
    assert (refused.status_code, refused.json()["code"]) == (503, "event.too_many_streams")
    assert (await show(house, operation))["state"] == "pending"


def _damaged(*_: Any) -> None:
    raise ForeignFormat("not of this version")
