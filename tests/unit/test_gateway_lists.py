"""Every list can be sorted, paged and cut down, in one way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pvc.commands.facts_log import ReportSigningKey
from pvc.commands.facts_webhook import ReportWebhookParked
from pvc.errors import InvalidInput
from pvc.gateway.app import all_endpoints
from pvc.gateway.endpoint import Endpoint
from pvc.gateway.lists import ListArguments, ListOf, by_attributes
from pvc.gateway.webhook_commands import ports_of
from pvc.proof.note import origin_of
from pvc.webhooks.cursor import Try, encode, new_cursor
from pvc.webhooks.store import ABSENT
from tests.support.keys import TestKey
from tests.unit.gateway_house import House, a_house

ALL = [endpoint for endpoint in all_endpoints() if endpoint.listing is not None]
BY_CURSOR = [endpoint for endpoint in ALL if "next" in endpoint.reply.__struct_fields__]
RECORD_LISTS = [endpoint for endpoint in ALL if "next_before" in endpoint.reply.__struct_fields__]
"""Those in pages by position, the newest first or the oldest."""

PLACES = {"hook": "billing"}
"""What stands in the path of lists that are about one thing."""

LISTS = [endpoint for endpoint in ALL if "next_before" in endpoint.reply.__struct_fields__]
"""Those in pages by position, the newest first or the oldest."""

NOTHING_HERE = {"webhook.list", "webhook.deliveries", "webhook.parked", "log.keys"}
"""Those that a house has nothing to show of."""


NEEDED = {"time.diff": {"old": "1"}, "audit.who": {"subject": "vm/vm1"}}
"""Arguments without which there is no such list."""


class Thing(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    size: int
    word: str
    flag: bool | None


THINGS: ListOf[Thing] = ListOf(
    item=Thing, sorts=by_attributes("id", "size", "word", "flag"), order="id", key=lambda thing: thing.id
)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        for number, memory in enumerate((64, 512, 128, 512, 64)):
            await made.define(name=f"vm{number}", memory_mib=memory, tags=["even"] if number % 2 == 0 else [])
        await made.second_node()
        await made.lose("hv2")
        await made.member("anna", {"role": "viewer"})
        await made.start("vm1")
        await have_keys_and_webhooks(made)
        yield made


async def have_keys_and_webhooks(house: House) -> None:
    """Let there be a key that another took the place of, and webhooks, of which one was tried and has given up."""
    assert house.state.cluster is not None
    for word in ("one", "two"):
        key = TestKey(word, origin_of(house.state.cluster.id))
        await house.report(ReportSigningKey(node="hv1", key=str(key.public)))
    for name in ("crm", "billing"):
        reply = await house.root.post("/webhooks", json={"name": name, "url": f"https://{name}.example.com/"})
        assert reply.status_code == 200, reply.text
    hook = next(hook for hook in house.state.webhooks.values() if hook.name == "billing")
    epoch = house.state.cluster.primary_epoch
    for position, event in ((5, "vm.started"), (3, "vm.defined"), (4, "vm.defined")):
        await house.report(
            ReportWebhookParked(
                primary="hv1", epoch=epoch, hook=hook.id, position=position, index=0, event=event, tries=9, reason="500"
            )
        )
    tries = tuple(
        Try(id=f"try{number}", first=3, events=1, type="vm.defined", time_us=number // 2, number=number, status=status)
        for number, status in enumerate((500, 0, 500, 204))
    )
    store = ports_of(house.services).store
    await store.write(hook.id, encode(replace(new_cursor(hook), recent=tries)), ABSENT)


def path_of(endpoint: Endpoint) -> str:
    """Where a list is, of the thing that is there."""
    return endpoint.path.format(**PLACES)


def test_all_lists_are_here() -> None:
    assert {endpoint.name for endpoint in ALL} == {
        "webhook.list",
        "webhook.deliveries",
        "webhook.parked",
        "vm.list",
        "node.list",
        "fault.list",
        "access.list",
        "access.list_tokens",
        "audit.people",
        "operation.list",
        "history.list",
        "audit.logins",
        "audit.who",
        "event.stream",
        "time.diff",
        "log.keys",
    }


@pytest.mark.parametrize("endpoint", BY_CURSOR, ids=lambda endpoint: endpoint.name)
async def test_a_list_in_pages_is_the_whole_list_in_whatever_order(house: House, endpoint: Endpoint) -> None:
    assert endpoint.listing is not None
    orders = ["", *endpoint.listing.sortable, ",".join(endpoint.listing.sortable[:3:2])]
    for order in orders:
        rows = endpoint.listing.rows
        needed = NEEDED.get(endpoint.name, {})
        whole = (await house.root.get(path_of(endpoint), params={"sort": order, "limit": 500, **needed})).json()
        assert whole[rows] and whole["next"] is None, (order, whole)
        told = [item async for item in pages(house, endpoint, order)]
        assert [steady(item) for item in told] == [steady(item) for item in whole[rows]], order


def steady(item: dict[str, Any]) -> dict[str, Any]:
    """An item without what is another from one moment to the next."""
    return {name: value for name, value in item.items() if name != "lag_s"}


async def pages(house: House, endpoint: Endpoint, order: str) -> AsyncIterator[Any]:
    assert endpoint.listing is not None
    after: str | None = ""
    while after is not None:
        params = {"sort": order, "limit": 1, "after": after, **NEEDED.get(endpoint.name, {})}
        reply = await house.root.get(path_of(endpoint), params=params)
        assert reply.status_code == 200, reply.text
        page = reply.json()
        assert len(page[endpoint.listing.rows]) <= 1
        for item in page[endpoint.listing.rows]:
            yield item
        after = page["next"]


@pytest.mark.parametrize(
    "endpoint",
    [endpoint for endpoint in ALL if endpoint.name != "audit.logins"],
    ids=lambda endpoint: endpoint.name,
)
async def test_only_the_fields_that_were_asked_for_come(house: House, endpoint: Endpoint) -> None:
    assert endpoint.listing is not None
    wanted, needed = endpoint.listing.fields[:2], NEEDED.get(endpoint.name, {})
    whole = (await house.root.get(path_of(endpoint), params=needed)).json()[endpoint.listing.rows]
    chosen = {"fields": ",".join(wanted), **needed}
    cut = (await house.root.get(path_of(endpoint), params=chosen)).json()[endpoint.listing.rows]
    assert cut == [{name: item[name] for name in wanted} for item in whole] != []


@pytest.mark.parametrize("endpoint", ALL, ids=lambda endpoint: endpoint.name)
@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ("sort=nonsense", "input.invalid", "sort"),
        ("sort=--name", "input.invalid", "sort"),
        ("fields=nonsense", "input.invalid", "fields"),
        ("limit=0", "input.invalid", "limit"),
        ("limit=10001", "input.invalid", "limit"),
    ],
)
async def test_what_a_list_does_not_know_is_refused(
    house: House, endpoint: Endpoint, query: str, code: str, field: str
) -> None:
    name, _, value = query.partition("=")
    if endpoint.name == "event.stream" and name == "sort":
        code = "input.unknown_field"  # what has no end has one order
    reply = await house.root.get(path_of(endpoint), params={name: value, **NEEDED.get(endpoint.name, {})})
    assert (reply.status_code, reply.json()["code"], reply.json()["field"]) == (422, code, field)


@pytest.mark.parametrize("endpoint", RECORD_LISTS, ids=lambda endpoint: endpoint.name)
@pytest.mark.parametrize("sort", ["", "-position", "position", "position,-position"])
async def test_records_in_pages_are_all_records_either_way(house: House, endpoint: Endpoint, sort: str) -> None:
    await come_in(house)
    newest_first = (await house.root.get(path_of(endpoint), params={"limit": 1_000})).json()["records"]
    assert len(newest_first) > 1
    whole = newest_first[::-1] if sort.startswith("position") else newest_first
    argument, field = ("after", "next_after") if sort.startswith("position") else ("before", "next_before")
    told: list[Any] = []
    place: dict[str, Any] = {}
    while len(told) <= len(whole):
        page = (await house.root.get(path_of(endpoint), params={"sort": sort, "limit": 1, **place})).json()
        told += page["records"]
        assert page["next_before" if argument == "after" else "next_after"] is None
        if page[field] is None:
            break
        place = {argument: page[field]}
    assert told == whole


async def come_in(house: House) -> None:
    """Let two people show their tokens, so that there are logins."""
    for name in ("bert", "cleo"):
        async with house.outside_with(await house.member(name, {"role": "viewer"})) as client:
            assert (await client.get("/whoami")).status_code == 200
    await house.settle()


async def test_who_sees_some_vms_alone_pages_through_their_records_from_the_oldest_on(house: House) -> None:
    token = await house.member("dora", {"role": "viewer", "tag": "even"})
    async with house.outside_with(token) as dora:
        newest_first = (await dora.get("/history?limit=1000")).json()["records"]
        told: list[Any] = []
        after: int | None = 0
        while after is not None:
            page = (await dora.get("/history", params={"sort": "position", "limit": 1, "after": after})).json()
            told += page["records"]
            after = page["next_after"]
    assert told == newest_first[::-1]
    assert [record["events"][0]["type"] for record in told] == ["vm.defined"] * 3


async def test_the_bounds_of_a_history_hold_in_either_order(house: House) -> None:
    for sort, positions in (("position", [4, 5, 6]), ("-position", [6, 5, 4])):
        page = (await house.root.get(f"/history?after=3&before=7&sort={sort}&fields=position")).json()
        assert [record["position"] for record in page["records"]] == positions
        assert page["next_after"] is page["next_before"] is None
    page = (await house.root.get("/history?at=5&sort=position&fields=position")).json()
    assert [record["position"] for record in page["records"]] == [1, 2, 3, 4, 5]


async def test_the_names_in_what_is_left_of_a_record_are_those_that_may_be_shown(house: House) -> None:
    await come_in(house)
    for path in ("/audit/logins?fields=actor", "/events?fields=actor&wait_s=0&types=access.*"):
        records = (await house.root.get(path)).json()["records"]
        assert {"bert", "cleo"} <= {record["actor"]["principal"] for record in records}
        assert all(record.keys() == {"actor"} for record in records)


async def test_the_first_of_two_orders_by_the_same_field_counts(house: House) -> None:
    for path, field in (("/operations", "started_us"), ("/vms", "name")):
        once = (await house.root.get(path, params={"sort": field})).json()["items"]
        assert (await house.root.get(path, params={"sort": f"{field},-{field}"})).json()["items"] == once


async def test_keys_are_filtered_and_all_of_them_come_if_nothing_is_said(house: House) -> None:
    ids = [key["id"] for key in (await house.root.get("/log/keys")).json()["keys"]]
    assert len(ids) == 2
    for retired, wanted in (("true", ids[:1]), ("false", ids[1:])):
        page = (await house.root.get(f"/log/keys?retired={retired}&fields=id")).json()
        assert page["keys"] == [{"id": wanted[0]}] and page["next"] is None


async def test_changes_are_sorted(house: House) -> None:
    page = (await house.root.get("/diff?old=1&sort=-kind,-name&fields=kind,name&limit=500")).json()
    vms = [item["name"] for item in page["items"] if item["kind"] == "vm"]
    assert vms == ["vm4", "vm3", "vm2", "vm1", "vm0"]
    assert page["total"] == len(page["items"])


@pytest.mark.parametrize("cursor", ["nonsense", "e30", "W10", "WzFd", "ä", "W1tbMV0sIDFdXQ"])
async def test_a_cursor_of_nowhere_is_refused(house: House, cursor: str) -> None:
    reply = await house.root.get("/vms", params={"sort": "memory_mib", "after": cursor})
    assert (reply.status_code, reply.json()["code"]) == (422, "list.cursor_invalid")


async def test_a_cursor_of_another_order_is_refused(house: House) -> None:
    cursor = (await house.root.get("/vms?sort=-memory_mib&limit=1")).json()["next"]
    reply = await house.root.get("/vms", params={"sort": "memory_mib", "after": cursor})
    assert (reply.status_code, reply.json()["code"]) == (422, "list.cursor_invalid")


async def test_vms_are_sorted_and_filtered_at_once(house: House) -> None:
    reply = (await house.root.get("/vms?sort=-memory_mib,name&fields=name&tag=even")).json()
    assert [item["name"] for item in reply["items"]] == ["vm2", "vm0", "vm4"]
    past = (await house.root.get("/vms", params={"sort": "-name", "fields": "name", "at": "now"})).json()
    assert [item["name"] for item in past["items"]] == ["vm4", "vm3", "vm2", "vm1", "vm0"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("/nodes?state=lost", ["hv2"]),
        ("/nodes?flush=flushed", []),
        ("/nodes?state=ready,lost&sort=-name", ["hv2", "hv1"]),
    ],
)
async def test_nodes_are_filtered(house: House, query: str, names: list[str]) -> None:
    assert [item["name"] for item in (await house.root.get(query)).json()["items"]] == names


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("/faults?code=node.lost", 1),
        ("/faults?code=node.unfenced", 0),
        ("/faults?subject=node/hv2", 1),
        ("/faults?subject=node/hv1", 0),
        ("/access?kind=person", 2),
        ("/access?kind=service", 0),
        ("/tokens?expired=true", 0),
        ("/tokens?role=admin&expired=false", 2),
        ("/audit/people?state=erased", 0),
    ],
)
async def test_other_lists_are_filtered(house: House, query: str, count: int) -> None:
    assert len((await house.root.get(query)).json()["items"]) == count


@given(
    things=st.lists(
        st.builds(
            Thing,
            id=st.text(min_size=1, max_size=3),
            size=st.integers(-3, 3),
            word=st.text(max_size=2),
            flag=st.none() | st.booleans(),
        ),
        unique_by=lambda thing: thing.id,
        max_size=20,
    ),
    sort=st.lists(st.sampled_from(THINGS.sortable), max_size=3, unique=True),
    limit=st.integers(1, 7),
)
def test_pages_tell_everything_once_and_in_order(things: list[Thing], sort: list[str], limit: int) -> None:
    whole, _ = THINGS.page(things, ListArguments(sort=tuple(sort)))
    assert sorted(whole, key=lambda thing: thing.id) == sorted(things, key=lambda thing: thing.id)
    assert list(paged(things, tuple(sort), limit)) == whole


def paged(things: list[Thing], sort: tuple[str, ...], limit: int) -> Iterator[Thing]:
    after = ""
    while True:
        found, following = THINGS.page(things, ListArguments(sort=sort, limit=limit, after=after))
        yield from found
        if following is None:
            return
        after = following


@given(cursor=st.text(min_size=1, max_size=60))
def test_no_cursor_ends_in_anything_but_a_page_or_a_refusal(cursor: str) -> None:
    things = [Thing(id=str(number), size=number, word="w", flag=None) for number in range(3)]
    try:
        THINGS.page(things, ListArguments(sort=("size",), after=cursor))
    except InvalidInput as refusal:
        assert refusal.code == "list.cursor_invalid"
    else:
        raise AssertionError("a text that nobody made is no cursor")


def test_what_has_no_value_comes_first_and_fractions_stand_among_whole_numbers_over_all_pages() -> None:
    class Measured(msgspec.Struct, frozen=True, kw_only=True):
        id: str
        since: str | None
        load: float

    listing: ListOf[Measured] = ListOf(
        item=Measured, sorts=by_attributes("since", "load"), order="since", key=lambda one: one.id
    )
    things = [
        Measured(id="a", since="2026", load=1),
        Measured(id="b", since=None, load=0.5),
        Measured(id="c", since="2025", load=2.5),
        Measured(id="d", since=None, load=0),
    ]
    for sort, order in {"since": "bdca", "-since": "acbd", "load": "dbac", "-load": "cabd"}.items():
        told, after = "", ""
        while True:
            page, following = listing.page(things, ListArguments(limit=1, sort=(sort,), after=after))
            told += "".join(one.id for one in page)
            if following is None:
                break
            after = following
        assert told == order, sort
