"""The console's log over HTTP: the last lines, and following a file that grows or is begun anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn

import pytest
from starlette.requests import Request

from pvc.commands.access_rights import Asker, Rights
from pvc.events.record import Actor
from pvc.gateway import console
from pvc.gateway.auth import Principal
from pvc.gateway.endpoint import Call
from tests.unit.gateway_house import House, a_house
from tests.unit.test_gateway_input import check_problem


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        await made.define()
        yield made


def file_of(house: House, name: str = "web01") -> Path:
    return house.hypervisor.console_log(house.state.vm_names[name])


async def test_a_vm_that_never_ran_has_an_empty_log(house: House) -> None:
    reply = await house.root.get("/vms/web01/log")
    assert (reply.status_code, reply.text) == (200, "")
    assert reply.headers["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("content", "lines", "expected"),
    [
        ("a\nb\nc\n", 2, "b\nc\n"),
        ("a\nb\nc", 2, "b\nc"),
        ("a\nb\nc\n", 0, ""),
        ("a\nb\nc\n", 99, "a\nb\nc\n"),
        ("\n\n\n", 2, "\n\n"),
        ("x" * 200_000 + "\nlast\n", 1, "last\n"),
        ("line\n" * 50_000, 3, "line\n" * 3),
    ],
)
async def test_the_last_lines_are_those_at_the_end_of_the_file(
    house: House, content: str, lines: int, expected: str
) -> None:
    file_of(house).write_text(content)
    assert (await house.root.get(f"/vms/web01/log?lines={lines}")).text == expected


async def test_bytes_that_are_no_text_come_through_as_they_are(house: House) -> None:
    file_of(house).write_bytes(b"\x1b[31m\xff\x00\n")
    assert (await house.root.get("/vms/web01/log")).content == b"\x1b[31m\xff\x00\n"


async def test_never_more_than_the_limit_is_read(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "MAX_LOG_BYTES", 100_000)
    file_of(house).write_text("line\n" * 200_000)
    assert 100_000 <= len((await house.root.get("/vms/web01/log?lines=100000")).content) < 200_000


async def test_following_goes_on_over_growth_and_a_new_beginning(house: House) -> None:
    path = file_of(house)
    path.write_text("old\nfirst\n")
    text, end = console._last_lines(path, 1)
    assert text == b"first\n"
    with path.open("a") as file:
        file.write("second\n")
    text, end = console._read_on(path, end)
    assert text == b"second\n"
    assert console._read_on(path, end) == (b"", end)
    path.write_text("new\n")
    assert console._read_on(path, end) == (b"new\n", 4)
    path.unlink()
    assert console._read_on(path, 4) == (b"", 0)


async def test_the_log_of_a_vm_that_is_not_there_is_refused(house: House) -> None:
    check_problem(await house.root.get("/vms/none/log"), 404, "vm.not_found")


async def test_a_vm_on_another_node_is_asked_for_there(house: House) -> None:
    await house.second_node(address="10.0.0.2")
    await move_to_hv2(house)
    problem = check_problem(await house.root.get("/vms/web01/log"), 409, "vm.console_elsewhere")
    assert problem["detail"] == "the console of web01 is on node hv2, this is hv1"
    assert problem["hint"] == "ask the gateway of hv2 (10.0.0.2)"


async def test_following_ends_when_the_vm_has_gone_to_another_node_and_all_it_wrote_was_sent(house: House) -> None:
    await house.second_node()
    path = file_of(house)
    path.write_text("first\n")
    following = console._follow(house.services, a_call(), house.state.vm_names["web01"], path, b"", 0)
    assert [await anext(following), await anext(following)] == [b"", b"first\n"]
    with path.open("a") as file:
        file.write("last\n")
    await move_to_hv2(house)
    assert [chunk async for chunk in following] == [b"last\n"]


async def move_to_hv2(house: House) -> None:
    reply = await house.root.post("/vms/web01/move", json={"node": "hv2"})
    assert reply.status_code == 200, reply.text


def a_call() -> Call:
    """A request whose client stays."""

    async def receive() -> NoReturn:
        await asyncio.Event().wait()
        raise AssertionError("never reached")

    request = Request({"type": "http"}, receive)
    root = Principal(actor=Actor(principal="root", method="socket"), asker=Asker())
    return Call(request=request, principal=root, rights=Rights(everything=True))
