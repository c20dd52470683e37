"""Every list can be sorted, paged and cut down, in one way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvc.errors import InvalidInput
from pvc.gateway.app import all_endpoints
from pvc.gateway.endpoint import Endpoint
from pvc.gateway.lists import ListArguments, ListOf, by_attributes
from tests.unit.gateway_house import House, a_house

ALL = [endpoint for endpoint in all_endpoints() if endpoint.listing is not None]
LISTS = [endpoint for endpoint in ALL if not endpoint.name.startswith("webhook.")]
"""Those that a house has something to show of."""


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
        yield made


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
    }


@pytest.mark.parametrize("endpoint", LISTS, ids=lambda endpoint: endpoint.name)
async def test_a_list_in_pages_is_the_whole_list_in_whatever_order(house: House, endpoint: Endpoint) -> None:
    assert endpoint.listing is not None
    orders = ["", *endpoint.listing.sortable, ",".join(endpoint.listing.sortable[:3:2])]
    for order in orders:
        whole = (await house.root.get(endpoint.path, params={"sort": order, "limit": 1_000})).json()
        assert whole["items"] and whole["next"] is None, (order, whole)
        assert [item async for item in pages(house, endpoint.path, order)] == whole["items"], order


async def pages(house: House, path: str, order: str) -> AsyncIterator[Any]:
    after: str | None = ""
    while after is not None:
        reply = await house.root.get(path, params={"sort": order, "limit": 1, "after": after})
        assert reply.status_code == 200, reply.text
        page = reply.json()
        assert len(page["items"]) <= 1
        for item in page["items"]:
            yield item
        after = page["next"]


@pytest.mark.parametrize("endpoint", LISTS, ids=lambda endpoint: endpoint.name)
async def test_only_the_fields_that_were_asked_for_come(house: House, endpoint: Endpoint) -> None:
    assert endpoint.listing is not None
    wanted = endpoint.listing.fields[:2]
    whole = (await house.root.get(endpoint.path)).json()["items"]
    cut = (await house.root.get(endpoint.path, params={"fields": ",".join(wanted)})).json()["items"]
    assert cut == [{name: item[name] for name in wanted} for item in whole] != []


@pytest.mark.parametrize("endpoint", LISTS, ids=lambda endpoint: endpoint.name)
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
    reply = await house.root.get(f"{endpoint.path}?{query}")
    assert (reply.status_code, reply.json()["code"], reply.json()["field"]) == (422, code, field)


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
