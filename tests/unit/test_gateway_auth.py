"""Who gets in, and how far: tokens, roles, the two doors, and what never leaks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pvc.clock import SystemClock
from pvc.commands.access_table import TABLE, Verdict
from pvc.errors import LogDamaged
from pvc.events.types import Role
from pvc.gateway.app import all_endpoints
from pvc.gateway.auth import FAILURES_ALLOWED, NODE_SHOWN
from pvc.gateway.endpoint import Endpoint
from pvc.gateway.services import PeerParts
from pvc.peers.credentials import Question, sign
from pvc.peers.secret import PeerSecret
from tests.unit.gateway_house import WEB01, House, a_house
from tests.unit.test_gateway_input import check_problem

ROLES = list(Role)
SECRET = "s" * 40

ONLY_LOCAL = {"audit.export_keys", "audit.import_keys"}
"""For root on a node, whatever the role of who comes over the network."""

OF_SOMEBODY = {"access.info", "access.rotate_token", "access.revoke_token"}
"""Those of the endpoints for what is one's own that name one thing; lists leave the others out."""


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path) as made:
        yield made


@pytest.mark.parametrize("endpoint", all_endpoints(), ids=lambda endpoint: endpoint.name)
async def test_every_endpoint_asks_for_a_token_and_for_its_action(house: House, endpoint: Endpoint) -> None:
    await house.define()
    before = house.services.world.position
    url = url_of(endpoint, position=before)
    stranger = await house.outside.request(endpoint.method, url)
    if endpoint.open:
        assert stranger.status_code in (200, 404), "who has no token yet may ask how to get one"
        return
    check_problem(stranger, 401, "access.unauthenticated")
    for role in ROLES:
        async with house.outside_with(await house.token(role)) as client:
            reply = await client.request(endpoint.method, url)
        verdict = TABLE[endpoint.action][role].whole
        if verdict is Verdict.DENY:
            problem = check_problem(reply, 403, "access.forbidden")
            assert role.value in problem["detail"] and endpoint.action.value in problem["detail"]
        elif endpoint.name in ONLY_LOCAL:
            check_problem(reply, 403, "access.only_local")
        elif verdict is Verdict.OWN and endpoint.name in OF_SOMEBODY:
            check_problem(reply, 403, "access.not_own")
        else:
            assert reply.status_code not in (401, 403), (role, reply.text)
    assert house.services.world.position > before


def url_of(endpoint: Endpoint, *, position: int) -> str:
    """A request that is about web01, and about nobody's token and principal."""
    values = {
        "vm": "web01",
        "node": "hv1",
        "tag": "x",
        "segment": "1-2",
        "principal": "nobody",
        "token": "nobodys0",
        "hook": "billing",
    }
    url = endpoint.path.format(position=position, **values)
    return f"{url}?wait_s=0" if "events" in url else url


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "access.unauthenticated"),
        ("", "access.unauthenticated"),
        ("Basic cm9vdDpyb290", "access.unauthenticated"),
        ("Bearer", "access.token_invalid"),
        ("Bearer nonsense", "access.token_invalid"),
        ("Bearer pvc_unknown00000_" + SECRET, "access.token_invalid"),
        ("Bearer pvc_viewer000000_" + SECRET + "wrong", "access.token_invalid"),
        ("Bearer pvc_viewer000000_", "access.token_invalid"),
        ("Bearer pvc_viewer000000_" + "é" * 40, "access.token_invalid"),
    ],
)
async def test_a_token_that_is_none_opens_nothing(house: House, authorization: str | None, code: str) -> None:
    await house.token(Role.VIEWER)
    headers = {} if authorization is None else {"Authorization": authorization.encode()}
    reply = await house.outside.get("/vms", headers=headers)
    problem = check_problem(reply, 401, code)
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert SECRET not in reply.text and "pvc_" in problem["hint"]


async def test_the_token_of_cluster_init_is_admin_and_is_shown_once(tmp_path: Path) -> None:
    async with a_house(tmp_path, initialised=False) as house:
        key = {"Idempotency-Key": "init"}
        first = (await house.root.post("/cluster/init", json={"name": "main"}, headers=key)).json()
        again = (await house.root.post("/cluster/init", json={"name": "main"}, headers=key)).json()
        assert first["position"] == again["position"] and again["repeated"]
        assert "token" not in again
        async with house.outside_with(first["token"]) as client:
            me = (await client.get("/whoami")).json()
        assert (me["principal"], me["role"], me["method"], me["cluster"]) == ("admin", "admin", "token", "main")
        secret = first["token"].rsplit("_", 1)[1]
        assert len(secret) == 64
        assert secret.encode() not in await house.log_bytes()


async def test_a_dry_run_of_cluster_init_shows_no_token(tmp_path: Path) -> None:
    async with a_house(tmp_path, initialised=False) as house:
        reply = (await house.root.post("/cluster/init?dry_run=true", json={"name": "main"})).json()
        assert reply["changed"] and "token" not in reply
        assert house.services.world.position == 0


async def test_a_second_cluster_init_is_refused(house: House) -> None:
    reply = await house.root.post("/cluster/init", json={"name": "other"})
    check_problem(reply, 409, "cluster.already_initialised")
    assert "token" not in reply.json()
    assert house.state.cluster is not None and house.state.cluster.name == "main"


async def test_before_there_is_a_cluster_only_root_can_make_one(tmp_path: Path) -> None:
    async with a_house(tmp_path, initialised=False) as house:
        check_problem(await house.outside.post("/cluster/init", json={"name": "x"}), 401, "cluster.not_initialised")
        check_problem(await house.outside.get("/vms"), 401, "cluster.not_initialised")
        for method, path in (("GET", "/vms"), ("GET", "/history"), ("POST", "/vms"), ("GET", "/nodes")):
            check_problem(await house.root.request(method, path), 409, "cluster.not_initialised")
        assert (await house.root.get("/cluster")).json()["initialised"] is False
        assert (await house.root.get("/whoami")).json()["principal"] == "root"
        assert (await house.outside.get("/health")).status_code == 200
        assert (await house.root.post("/cluster/init", json={"name": "main"})).status_code == 200


async def test_nobody_becomes_root_by_saying_so(house: House) -> None:
    for headers in ({"pvc.local": "true"}, {"PVC-Local": "true"}, {"X-Forwarded-For": "127.0.0.1"}):
        check_problem(await house.outside.get("/vms", headers=headers), 401, "access.unauthenticated")


async def test_too_many_wrong_tokens_slow_an_address_down_but_lock_nobody_out(house: House) -> None:
    good = await house.token(Role.VIEWER)
    bad = good + "x"
    async with house.outside_with(bad) as wrong, house.outside_with(good) as right:
        for _ in range(FAILURES_ALLOWED):
            check_problem(await wrong.get("/vms"), 401, "access.token_invalid")
        reply = await wrong.get("/vms")
        check_problem(reply, 429, "access.too_many_failures")
        assert 0 < int(reply.headers["Retry-After"]) < 60
        assert (await right.get("/vms")).status_code == 200
    async with house.outside_with(bad, address="192.0.2.8") as elsewhere:
        check_problem(await elsewhere.get("/vms"), 401, "access.token_invalid")


async def test_the_history_says_who_came_from_where(house: House) -> None:
    async with house.outside_with(await house.token(Role.OPERATOR), address="192.0.2.99") as client:
        await client.post("/vms", json=WEB01)
    record = (await house.root.get("/history?type=vm.defined")).json()["records"][0]
    assert record["actor"] == {
        "principal": "operator",
        "method": "token",
        "address": "192.0.2.99",
        "source": "api",
    }


async def test_no_secret_is_in_the_log_the_nodes_log_or_an_error(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = await house.token(Role.ADMIN)
    secret = token.rsplit("_", 1)[1]
    async with house.outside_with(token) as client:
        replies = [
            await client.post("/vms", json=WEB01),
            await client.post("/vms", json={**WEB01, "memory_mib": 1}),
            await client.post("/vms", content=b"{", headers={"Content-Type": "application/json"}),
            await client.post("/vms/none/start"),
            await client.get("/history"),
            await client.get("/cluster"),
        ]
    async with house.outside_with(token + "x") as client:
        replies.append(await client.get("/vms"))
    assert secret.encode() not in await house.log_bytes()
    assert all(secret not in reply.text for reply in replies)
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("pvc"))
    assert secret not in ours and "login refused address=192.0.2.7 token=admin" in ours


async def test_health_needs_no_token_and_tells_of_a_fault(house: House) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(house.app), base_url="http://pvc") as client:
        for path in ("/health", "/api/v1/health"):
            reply = await client.get(path)
            assert (reply.status_code, reply.json()["status"], reply.json()["reasons"]) == (200, "ok", [])
        house.services.world.fault = LogDamaged("the chain is broken at record 7", code="log.chain_broken")
        reply = await client.get("/health")
        assert (reply.status_code, reply.json()["status"]) == (503, "degraded")
        assert reply.json()["reasons"] == ["the fold has stopped: log.chain_broken"]
        refused = await house.root.post("/vms", json=WEB01)
        check_problem(refused, 503, "log.chain_broken")
        assert (await house.root.get("/vms")).status_code == 200, "reads go on from the last good state"
        check_problem(await client.post("/health"), 405, "http.wrong_method")


REPLICA = "/api/v1/log/replica"


async def a_secret() -> PeerSecret:
    secret = PeerSecret(lambda: asyncio.sleep(0, b"s" * 32), SystemClock())
    await secret.load()
    return secret


def signed(secret: bytes) -> dict[str, str]:
    question = Question(method="GET", target=REPLICA, to="hv1")
    return {"Authorization": sign(secret, question, node="hv2", now_s=int(time.time()))}


def as_node(house: House, node: str) -> httpx.AsyncClient:
    """A client that has shown the certificate of a node."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await house.app({**scope, NODE_SHOWN: node}, receive, send)

    transport = httpx.ASGITransport(app, client=("192.0.2.7", 12345))
    return httpx.AsyncClient(transport=transport, base_url="http://pvc/api/v1")


async def test_a_signature_opens_nothing_without_the_certificate_of_the_same_node(tmp_path: Path) -> None:
    async with a_house(tmp_path, peers=PeerParts(secret=await a_secret())) as house:
        stranger = await house.outside.get("/log/replica", headers=signed(b"s" * 32))
        check_problem(stranger, 401, "access.peer_certificate")
        async with as_node(house, "hv3") as other:
            check_problem(await other.get("/log/replica", headers=signed(b"s" * 32)), 401, "access.peer_certificate")
            assert (await other.get("/log/replica")).status_code == 401, "nor the certificate alone"


async def test_wrong_signatures_are_slowed_down_and_a_right_one_opens_all_the_same(tmp_path: Path) -> None:
    async with a_house(tmp_path, peers=PeerParts(secret=await a_secret())) as house:
        for _ in range(FAILURES_ALLOWED):
            check_problem(await house.outside.get("/log/replica", headers=signed(b"x")), 401, "access.peer_invalid")
        reply = await house.outside.get("/log/replica", headers=signed(b"x"))
        check_problem(reply, 429, "access.too_many_failures")
        check_problem(
            await house.outside.get("/log/replica", headers=signed(b"s" * 32)), 429, "access.too_many_failures"
        )
        async with as_node(house, "hv3") as other:
            check_problem(await other.get("/log/replica", headers=signed(b"s" * 32)), 429, "access.too_many_failures")
        async with as_node(house, "hv2") as node:
            assert (await node.get("/log/replica", headers=signed(b"s" * 32))).status_code == 200


async def test_a_node_may_ask_before_there_is_a_cluster_or_a_fold(tmp_path: Path) -> None:
    async with a_house(tmp_path, initialised=False, peers=PeerParts(secret=await a_secret())) as house:
        house.services.world._caught_up.clear()
        async with as_node(house, "hv2") as node:
            reply = await node.get("/log/replica", headers=signed(b"s" * 32))
        assert reply.json() == {"position": 0, "hash": "", "root": "", "newest": 0, "incarnation": ""}


@pytest.mark.parametrize("value", [b"", None])
async def test_where_there_is_no_secret_nobody_is_a_node(tmp_path: Path, value: bytes | None) -> None:
    secret = None if value is None else PeerSecret(lambda: asyncio.sleep(0, b""), SystemClock())
    async with a_house(tmp_path, peers=PeerParts(secret=secret)) as house:
        check_problem(await house.outside.get("/log/replica", headers=signed(b"")), 401, "access.peer_invalid")


@pytest.mark.parametrize("segment", ["x", "2-1", "0-5", "1", "..%2Fsnapshot", "1-" + "9" * 30])
async def test_a_segment_that_is_none_is_told(tmp_path: Path, segment: str) -> None:
    async with a_house(tmp_path) as house:
        reply = await house.root.get(f"/log/segments/{segment}")
        assert reply.json()["code"] in ("input.invalid", "http.no_such_route")
        assert reply.status_code in (404, 422)
