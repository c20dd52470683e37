"""Input that was made to break something: each is a refusal, none a defect, and none says two things at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pvc.gateway.records import iso_time
from tests.unit.gateway_house import House, a_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        await made.define()
        yield made


async def test_half_a_character_in_a_list_of_the_query_is_refused(house: House) -> None:
    fields = {"name": "web02", "memory_mib": "64", "disks": '[{"path": "/\\ud800"}]'}
    for given in ({"params": fields}, {"data": fields}):
        refused(await house.root.post("/vms", **given), 422, "input.invalid")  # type: ignore[arg-type]
    assert "web02" not in house.state.vm_names


@pytest.mark.parametrize("text", ['[{"path": "/a", "path": "/b"}]', '{"path": "/a", "read_only": true, "path": "/b"}'])
async def test_a_name_that_stands_twice_in_a_list_of_a_form_is_refused(house: House, text: str) -> None:
    reply = await house.root.post("/vms", data={"name": "web02", "memory_mib": "64", "disks": text})
    refused(reply, 422, "input.conflict")
    assert "web02" not in house.state.vm_names


@pytest.mark.parametrize("path", ["/vms", "/nodes", "/cluster", "/history"])
async def test_a_time_past_the_last_there_is_is_not_yet(house: House, path: str) -> None:
    reply = await house.root.get(path, params={"at": "9999-12-31T23:59:59-23:59"})
    refused(reply, 404, "at.not_yet")


@pytest.mark.parametrize("charset", ["undefined", "utf-16", "idna", "punycode", "hex", "\\x00", "unicode_escape"])
async def test_a_form_in_a_charset_that_decodes_nothing_is_no_defect(house: House, charset: str) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\na\xff\xfe.\r\n--x--'
    headers = {"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"}
    reply = await house.root.post("/vms", content=body, headers=headers)
    assert reply.status_code in (400, 422) and reply.json()["code"].startswith("input."), reply.text


@pytest.mark.parametrize("time_us", [-(1 << 62), -1, 0, 253_402_300_800_000_000, 1 << 62])
def test_a_record_that_says_to_be_of_no_time_at_all_can_be_shown(time_us: int) -> None:
    assert iso_time(time_us) in ("1970-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z")


@pytest.mark.parametrize(
    "name",
    [
        "wеb01",  # a Cyrillic letter
        "web01\u200b",
        "web\u202e10",
        "ｗｅｂ０１",
        "WEB01",
        "web01\u0301",
        "web01\0",
        "web01\n",
        "..",
        "web01/../web01",
        "%77eb01",
        "web01;reboot",
    ],
)
async def test_no_name_looks_like_another_or_means_more_than_a_name(house: House, name: str) -> None:
    refused(await house.root.post("/vms", json={"name": name, "memory_mib": 64}), 422, "input.invalid")
    refused(await house.root.post("/vms/web01/rename", json={"name": name}), 422, "input.invalid")


async def test_another_spelling_of_a_path_is_not_another_way_in(house: House) -> None:
    for path in ("/../vms", "/%2e%2e/vms", "//vms", "/vms/", "/vms/web01//start", "/VMS", "/vms%00", "/vms;x=1"):
        reply = await house.outside.get(httpx.URL(f"http://pvc/api/v1{path}"))
        assert reply.status_code in (401, 404, 405) and reply.json()["code"], (path, reply.text)


def refused(reply: httpx.Response, status: int, code: str) -> None:
    problem: dict[str, Any] = reply.json()
    assert (reply.status_code, problem["code"]) == (status, code), reply.text
