"""History and events over HTTP: filters, pages, names that changed hands, and polls that wake."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pvc.commands import event_types
from pvc.errors import InvalidInput
from pvc.gateway.times import parse_time_us
from tests.unit.gateway_house import House, a_house
from tests.unit.test_gateway_input import check_problem


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        yield made


async def test_a_vms_history_tells_its_life_newest_first_with_causes(house: House) -> None:
    await house.define()
    await house.define(name="other")
    await house.start()
    records = await history(house, "subject=vm/web01")
    assert types(records) == [["vm.started"], ["vm.start_requested"], ["vm.defined"]]
    started, requested, defined = records
    assert started["cause"] == started["correlation"] == requested["id"] == requested["correlation"]
    assert defined["correlation"] == defined["id"] and defined["cause"] == ""
    assert started["actor"]["principal"] == "node/hv1"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", started["time"])
    assert started["events"][0]["summary"] == "running on hv1"


async def test_a_name_covers_every_vm_that_ever_had_it(house: House) -> None:
    first = (await house.define())["events"][0]["data"]["vm"]
    await house.root.post("/vms/web01/rename", json={"name": "old01"})
    await house.root.delete("/vms/old01")
    second = (await house.define())["events"][0]["data"]["vm"]
    records = await history(house, "subject=vm/web01")
    assert {event["subject"] for record in records for event in record["events"]} == {f"vm/{first}", f"vm/{second}"}
    assert types(records) == [["vm.defined"], ["vm.removed"], ["vm.renamed"], ["vm.defined"]]
    assert await history(house, "subject=vm/old01") == records[1:]
    assert await history(house, f"subject=vm/{first}") == records[1:]


async def test_a_history_says_which_things_its_subject_stands_for(house: House) -> None:
    vm = (await house.define())["events"][0]["data"]["vm"]
    page = (await house.root.get("/history?subject=vm/web01")).json()
    assert page["subjects"] == [f"vm/{vm}"]
    assert (await house.root.get("/history")).json()["subjects"] == []


async def test_filters_narrow_the_history(house: House) -> None:
    await house.define()
    await house.start()
    await house.root.post("/vms/web01/start")
    assert types(await history(house, "type=vm.started")) == [["vm.started"]]
    assert types(await history(house, "type=vm.started,command.*")) == [["command.rejected"], ["vm.started"]]
    assert types(await history(house, "actor=node/hv1&type=vm.*")) == [["vm.started"]]
    assert types(await history(house, "subject=node/hv1")) == [["node.joined", "node.ready"]]
    assert types(await history(house, "subject=vm/web01&type=vm.defined")) == [["vm.defined"]]
    assert types(await history(house, "subject=cluster")) == [["cluster.initialised", "access.token_created"]]
    started = (await history(house, "type=vm.started"))[0]
    chain = await history(house, f"correlation={started['id']}")
    assert types(chain) == [["vm.started"], ["vm.start_requested"]], "any record of a chain names the whole chain"
    assert await history(house, "correlation=unknown") == []
    assert await history(house, "type=vm.crashed") == []


async def test_a_range_of_time_has_both_its_ends_in_it(house: House) -> None:
    await house.define()
    whole = await history(house, "")
    last = whole[0]["time_us"]
    house_before = [record for record in whole if record["time_us"] < last]
    assert await history(house, "since=1h") == whole
    assert await history(house, "until=1h") == []
    assert (await history(house, f"until={iso(last - 1)}")) == house_before
    assert (await history(house, f"since={iso(last)}&until={iso(last)}"))[0] == whole[0]


async def test_pages_of_history_join_without_gap_or_repeat(house: House) -> None:
    for number in range(7):
        await house.define(name=f"vm{number}")
    whole = await history(house, "type=vm.defined")
    seen: list[dict[str, Any]] = []
    before = ""
    for _ in range(10):
        page = (await house.root.get(f"/history?type=vm.defined&limit=3{before}")).json()
        seen += page["records"]
        if page["next_before"] is None:
            break
        before = f"&before={page['next_before']}"
    assert seen == whole and len(whole) == 7
    positions = [record["position"] for record in await history(house, f"after={whole[3]['position']}")]
    assert positions == [record["position"] for record in whole[:3]]


async def test_a_vm_that_never_was_is_not_found_and_one_without_events_of_a_type_is_empty(house: House) -> None:
    await house.define()
    problem = check_problem(await house.root.get("/history?subject=vm/web1"), 404, "vm.not_found")
    assert "web01" in problem["hint"]
    check_problem(await house.root.get("/history?subject=node/hv9"), 404, "node.not_found")
    assert await history(house, "subject=vm/web01&type=vm.crashed") == []


@pytest.mark.parametrize("path", ["/history?type=", "/events?wait_s=0&types="])
async def test_a_type_of_events_that_there_is_not_is_refused_with_the_nearest_one(house: House, path: str) -> None:
    problem = check_problem(await house.root.get(f"{path}vm.started,vm.startd"), 422, "event.unknown_type")
    assert "'vm.startd'" in problem["detail"] and "vm.started" in problem["hint"]
    check_problem(await house.root.get(f"{path}vn.*"), 422, "event.unknown_type")
    check_problem(await house.root.get(f"{path}vm.st*"), 422, "event.unknown_type")
    for known in ("*", "vm.*", "vm.crashed"):
        assert (await house.root.get(path + known)).status_code == 200


async def test_a_type_of_a_later_version_can_be_asked_for_where_the_log_has_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.define()
    monkeypatch.setattr(event_types, "BY_TYPE", {"node.ready": object})
    assert types(await history(house, "type=vm.defined")) == [["vm.defined"]]
    assert types(await history(house, "type=vm.*")) == [["vm.defined"]]
    check_problem(await house.root.get("/history?type=vm.crashed"), 422, "event.unknown_type")


async def test_a_poll_returns_at_once_what_is_there(house: House) -> None:
    await house.define()
    page = (await house.root.get("/events?types=vm.defined&wait_s=5")).json()
    assert types(page["records"]) == [["vm.defined"]]
    assert page["next_after"] == house.services.world.position


async def test_a_poll_wakes_when_something_matches_and_passes_over_the_rest(house: House) -> None:
    after = house.services.world.position
    polling = asyncio.create_task(house.root.get(f"/events?after={after}&subject=vm/web01&wait_s=10"))
    for number in range(5):
        await house.define(name=f"other{number}")
    await asyncio.sleep(0.1)
    assert not polling.done()
    began = time.monotonic()
    defined = await house.define()
    page = (await polling).json()
    assert time.monotonic() - began < 1
    assert [record["position"] for record in page["records"]] == [defined["position"]]


async def test_a_poll_in_vain_returns_empty_with_the_position_to_go_on_from(house: House) -> None:
    began = time.monotonic()
    page = (await house.root.get("/events?after=99&wait_s=1")).json()
    assert 0.9 < time.monotonic() - began < 5
    assert page["records"] == [] and page["next_after"] == 99
    here = house.services.world.position
    page = (await house.root.get("/events?types=vm.crashed&wait_s=0")).json()
    assert page["records"] == [] and page["next_after"] == here


async def test_a_poll_after_a_position_that_is_not_there_tells_the_true_one(house: House) -> None:
    reply = await house.root.get("/events?after=999999&wait_s=0")
    true = house.services.world.position
    assert (reply.json()["position"], int(reply.headers["PVC-Position"])) == (true, true)
    assert reply.json()["next_after"] == 999_999


async def test_following_the_events_sees_each_record_once_in_order(house: House) -> None:
    async def follow() -> list[int]:
        after, seen = 0, []
        while len(seen) < 43:
            page = (await house.root.get(f"/events?after={after}&limit=7&wait_s=5")).json()
            seen += [record["position"] for record in page["records"]]
            after = page["next_after"]
        return seen

    following = asyncio.create_task(follow())
    await asyncio.gather(*(house.define(name=f"vm{number}") for number in range(40)))
    await house.root.delete("/vms/vm0")
    assert await asyncio.wait_for(following, 20) == list(range(1, 44))


async def test_a_poll_with_an_outcomes_correlation_sees_only_that_operation(house: House) -> None:
    await house.define()
    requested = (await house.root.post("/vms/web01/start")).json()
    polling = asyncio.create_task(
        house.root.get(f"/events?after={requested['position']}&correlation={requested['record']}&wait_s=10")
    )
    await house.define(name="other")
    vm = house.state.vms[house.state.vm_names["web01"]]
    from pvc.commands.facts import ReportRunning

    await house.report(ReportRunning(vm=vm.id, node="hv1", epoch=1), cause=vm.cause)
    assert types((await polling).json()["records"]) == [["vm.started"]]


def test_times_are_read_as_people_write_them() -> None:
    noon = 1_738_324_800_000_000
    for text in ("2025-01-31T12:00:00Z", "2025-01-31 12:00", "2025-01-31T13:00:00+01:00", "2025-01-31T13:00:00 01:00"):
        assert parse_time_us("since", text, 0) == noon, text
    assert parse_time_us("since", "2025-01-31", 0) == noon - 12 * 3_600_000_000
    assert [parse_time_us("since", text, noon) for text in ("90s", "2h", "1w")] == [
        noon - 90_000_000,
        noon - 7_200_000_000,
        noon - 604_800_000_000,
    ]
    for text in ("", "2 h", "soon", "-1h", "2025-02-30"):
        with pytest.raises(InvalidInput):
            parse_time_us("since", text, noon)


async def history(house: House, query: str) -> list[dict[str, Any]]:
    reply = await house.root.get(f"/history?{query}")
    assert reply.status_code == 200, reply.text
    records: list[dict[str, Any]] = reply.json()["records"]
    return records


def types(records: list[dict[str, Any]]) -> list[list[str]]:
    return [[event["type"] for event in record["events"]] for record in records]


def iso(time_us: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_us // 1_000_000)) + f".{time_us % 1_000_000:06d}Z"
