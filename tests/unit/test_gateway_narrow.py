"""What somebody with a narrow token or role does not come by in a roundabout way either."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.gateway_house import House, a_house
from tests.unit.test_gateway_input import check_problem


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        yield made


async def another_token(house: House, owner: str, role: str) -> str:
    """One more token of a principal that there is, for this role at most."""
    reply = await house.root.post(f"/access/{owner}/tokens", json={"role": role})
    assert reply.status_code == 200, reply.text
    token: str = reply.json()["token"]
    return token


def id_of(token: str) -> str:
    return token.split("_")[1]


async def test_a_token_neither_rotates_nor_revokes_one_that_may_do_more(house: House) -> None:
    full = await house.member("anna", {"role": "admin"})
    for role in ("viewer", "operator", "auditor"):
        async with house.outside_with(await another_token(house, "anna", role)) as monitor:
            check_problem(await monitor.post(f"/tokens/{id_of(full)}/rotate"), 403, "access.token_beyond")
            check_problem(await monitor.post(f"/tokens/{id_of(full)}/rotate?dry_run=true"), 403, "access.token_beyond")
            check_problem(await monitor.delete(f"/tokens/{id_of(full)}"), 403, "access.token_beyond")
    assert house.state.tokens[id_of(full)].replaced_by == ""
    async with house.outside_with(full) as anna:
        assert (await anna.get("/audit/logins")).status_code == 200


async def test_a_narrow_token_rotates_itself_and_stays_as_narrow(house: House) -> None:
    await house.member("anna", {"role": "admin"})
    weak, other = await another_token(house, "anna", "operator"), await another_token(house, "anna", "viewer")
    async with house.outside_with(weak) as service:
        rotated = (await service.post(f"/tokens/{id_of(weak)}/rotate")).json()["token"]
        assert (await service.delete(f"/tokens/{id_of(other)}")).status_code == 200, "what may do less"
    assert house.state.tokens[id_of(rotated)].role == "operator"
    async with house.outside_with(rotated) as service:
        check_problem(await service.post("/access", json={"principal": "m", "grants": []}), 403, "access.forbidden")
