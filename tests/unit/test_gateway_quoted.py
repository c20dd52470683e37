"""Sealed names that somebody sends in: they are not opened for who has no token, nor because a refusal quotes them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from pvc.events.record import Actor
from pvc.gateway.quoted import BODY, what_was_asked
from tests.unit.gateway_house import House, a_house

NAME, ADDRESS = "anna.kowalska", "198.51.100.23"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        await made.person(NAME)
        yield made


async def sealed_texts(house: House) -> list[str]:
    """As whoever has a backup or receives events has them."""
    principal = await house.services.people.find(NAME)
    actor = Actor(principal=principal, method="token", address=ADDRESS)
    return [principal, (await house.services.people.seal_actor(actor)).address]


@pytest.mark.parametrize("path", ["/{}", "/vms/{}", "/no/such/{}"])
@pytest.mark.parametrize("method", ["GET", "PUT", "{}"])
async def test_nothing_is_opened_for_who_has_no_token(house: House, path: str, method: str) -> None:
    for sealed in await sealed_texts(house):
        reply = await house.outside.request(method.format(sealed), path.format(sealed))
        assert reply.status_code in (401, 404, 405)
        assert NAME not in reply.text and ADDRESS not in reply.text


async def test_nor_are_keys_looked_for_on_their_behalf(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(house.services.people.keyring, "read", asked.append)
    reply = await house.outside.get("/person~01234567~" + "A" * 40)
    assert (reply.status_code, asked) == (404, [])


@pytest.mark.parametrize(
    ("method", "path", "arguments"),
    [
        ("GET", "/{}", {}),
        ("GET", "/{}AAAA", {}),
        ("GET", "/vms?min_position={}", {}),
        ("GET", "/vms?{}=1", {}),
        ("GET", "/vms/{}", {}),
        ("POST", "/vms", {"json": {"{}": 1}}),
        ("POST", "/vms", {"json": {"name": "{}"}}),
        ("POST", "/vms", {"data": {"memory_mib": "{}"}}),
        ("POST", "/vms", {"content": b"{}", "headers": {"Content-Type": "{}"}}),
    ],
)
async def test_a_refusal_quotes_as_it_was_sent(house: House, method: str, path: str, arguments: dict[str, Any]) -> None:
    token = await house.member("bert", {"role": "operator", "tag": "shop"})
    async with house.outside_with(token) as bert:
        for sealed in await sealed_texts(house):
            reply = await bert.request(method, path.replace("{}", sealed), **_filled(arguments, sealed))
            assert reply.status_code >= 400, reply.text
            assert NAME not in reply.text and ADDRESS not in reply.text


@pytest.mark.parametrize("path", ["/{}" + "A" * 99, "/" + "A" * 300 + "{}"])
async def test_nor_is_opened_what_a_refusal_has_cut(house: House, path: str) -> None:
    """The cut may fall where the sealed text ends."""
    token = await house.member("bert", {"role": "viewer"})
    async with house.outside_with(token) as bert:
        for sealed in await sealed_texts(house):
            before = "A" * (200 - len("/api/v1/") - len(sealed))
            reply = await bert.get(f"/{before}{sealed}" + "A" * 99)
            assert reply.status_code == 404 and NAME not in reply.text and ADDRESS not in reply.text
            assert NAME not in (await bert.get(path.format(sealed))).text


def test_what_was_asked_is_also_what_its_escapes_stand_for() -> None:
    sealed = "person~01234567~" + "A" * 40
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in sealed)
    for body in (sealed, f'{{"name": "{escaped}"}}', f"name={quote(sealed, safe='')}", f"name=%70{sealed[1:]}"):
        assert sealed in what_was_asked({"path": "/", BODY: body.encode()}), body
    assert sealed in what_was_asked({"path": "/", "query_string": b"name=%70" + sealed[1:].encode()})
    assert sealed in what_was_asked({"path": "/" + sealed, BODY: b"\xff{"})
    assert sealed in what_was_asked({"headers": [(b"if-match", sealed.encode())]})


async def test_a_refusal_that_tells_of_somebody_else_names_them(house: House) -> None:
    """What the gateway says of its own is opened as ever, for who may be told."""
    token = await house.member("bert", {"role": "viewer"})
    async with house.outside_with(token) as bert:
        reply = await bert.post("/vms", json={"name": "x"})
    assert reply.status_code == 403 and "bert" in reply.text and "person~" not in reply.text


def _filled(value: Any, sealed: str) -> Any:
    if isinstance(value, dict):
        return {_filled(key, sealed): _filled(one, sealed) for key, one in value.items()}
    return value.replace("{}", sealed) if isinstance(value, str) else value
