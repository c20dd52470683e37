"""Pages of records, whoever asks for whatever of any size: all that may be seen, once, and the same from either end."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.gateway_house import a_house

TAGS = ("red", "blue")
FILTERS: tuple[dict[str, str], ...] = (
    {},
    {"type": "vm.*"},
    {"subject": "vm/vm0"},
    {"tag": "red"},
    {"since": "1h"},
    {"actor": "root"},
    {"type": "vm.defined,command.rejected", "tag": "blue"},
)

# A VM is defined with one of the tags or none, or started, which is refused where there is none.
steps = st.lists(
    st.tuples(st.just("define"), st.sampled_from([*TAGS, ""])) | st.tuples(st.just("start"), st.integers(0, 4)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=15)
@given(steps, st.sampled_from([*TAGS, ""]), st.integers(1, 5), st.integers(0, 12), st.integers(0, 30))
def test_pages_of_the_history_are_the_same_from_either_end(
    story: list[tuple[str, Any]], seen_tag: str, limit: int, after: int, before: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(compare(story, seen_tag, limit, {"after": after, "before": after + before}, Path(folder)))


async def compare(
    story: list[tuple[str, Any]], seen_tag: str, limit: int, bounds: dict[str, int], folder: Path
) -> None:
    async with a_house(folder) as house:
        grant = {"role": "viewer", "tag": seen_tag} if seen_tag else {"role": "viewer"}
        token = await house.member("anna", grant)
        defined = 0
        for step, value in story:
            if step == "define":
                await house.define(name=f"vm{defined}", tags=[value] if value else [])
                defined += 1
            else:
                await house.root.post(f"/vms/vm{value}/start")
        await house.define(name=f"vm{defined}", tags=list(TAGS))
        async with house.outside_with(token) as anna:
            for wanted in FILTERS:
                await compare_one(anna, {**wanted, **bounds}, limit)
                await compare_one(anna, wanted, limit)


async def compare_one(client: httpx.AsyncClient, wanted: dict[str, Any], limit: int) -> None:
    whole = await client.get("/history", params={**wanted, "limit": 1_000})
    if whole.status_code == 404:
        return  # there never was such a VM
    newest_first = whole.json()["records"]
    assert await told(client, {**wanted, "limit": limit}, "before") == newest_first
    oldest_first = await told(client, {**wanted, "limit": limit, "sort": "position"}, "after")
    assert oldest_first == newest_first[::-1]


async def told(client: httpx.AsyncClient, wanted: dict[str, Any], argument: str) -> list[Any]:
    """The records of all pages."""
    records: list[Any] = []
    while True:
        page = (await client.get("/history", params=wanted)).json()
        assert len(page["records"]) <= wanted["limit"]
        records += page["records"]
        following = page[f"next_{argument}"]
        if following is None:
            return records
        assert following != wanted.get(argument), "each page begins elsewhere"
        wanted = {**wanted, argument: following}
