"""A gateway against issuers that lie, break off, drip and redirect: nobody comes in, and it stays up."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from pvc.clock import SystemClock
from pvc.events.access import AccessRefused, LoginRefused
from pvc.gateway.app import create_app
from pvc.gateway.login_parts import LoginParts
from pvc.gateway.records import decode_record
from pvc.oidc.issuer import Issuer
from pvc.oidc.people import GroupRole
from pvc.oidc.web import Web
from tests.integration.issuers import LyingIssuer, lying_issuer, unsigned
from tests.unit.gateway_house import House, a_house

REDIRECT = "http://127.0.0.1:49152/callback"


class Door:
    """A gateway, its issuer, and somebody outside."""

    def __init__(self, house: House, issuer: LyingIssuer) -> None:
        self.house = house
        self.issuer = issuer
        self.client = house.outside

    async def begin(self) -> tuple[dict[str, Any], str]:
        reply = await self.client.post("/login/start", json={"flow": "browser", "redirect": REDIRECT})
        assert reply.status_code == 200, reply.text
        begun = reply.json()
        code, state = self.issuer.authorize(begun["url"])
        assert state == begun["state"]
        return begun, code

    async def log_in(self) -> httpx.Response:
        begun, code = await self.begin()
        return await self.client.post("/login/finish", json={"login": begun["login"], "code": code})

    async def events(self, kind: str) -> list[dict[str, Any]]:
        await self.house.settle()
        found = [decode_record(data) for data in await self.house.log.read(1, 100_000)]
        return [json.loads(_json(one.data)) for record in found for one in record.events if one.type == kind]


def _json(raw: Any) -> bytes:
    import msgspec

    return msgspec.json.encode(msgspec.msgpack.decode(raw))


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    with lying_issuer() as issuer:
        async with a_house(tmp_path) as house:
            clock = SystemClock()
            parts = LoginParts(
                issuer=Issuer(
                    issuer.url,
                    "pvc",
                    client_secret="",
                    scopes=("openid",),
                    needed=("preferred_username", "groups"),
                    web=Web(deadline_s=1.0),
                    clock=clock,
                ),
                name_claim="preferred_username",
                groups_claim="groups",
                roles=(GroupRole(group="shop", grant="operator,tag=shop"),),
                lifetime_s=3600,
                device=True,
                clock=clock,
            )
            object.__setattr__(house.services, "login", parts)
            house.app = create_app(house.services)
            yield Door(house, issuer)


async def test_a_true_issuer_lets_in(door: Door) -> None:
    reply = await door.log_in()
    assert reply.status_code == 200, reply.text
    assert reply.json()["principal"] == "anna" and reply.json()["refresh"] == "r-1"
    async with door.house.outside_with(reply.json()["token"]) as anna:
        me = (await anna.get("/whoami")).json()
    assert me["principal"] == "anna" and me["grants"] == [{"role": "operator", "tag": "shop"}]
    assert reply.json()["token"].split("_")[2].encode() not in await door.house.log_bytes()
    assert b"anna" not in await door.house.log_bytes() and b"u-1" not in await door.house.log_bytes()
    redeemed = next(form for path, form in door.issuer.asked if path == "/token")
    assert len(redeemed["code_verifier"]) == 43 and redeemed["redirect_uri"] == REDIRECT


NOW = int(time.time())
LIES = {
    "another issuer": {"iss": "https://id.evil.example"},
    "another audience": {"aud": "somebody-else"},
    "several audiences and no party": {"aud": ["pvc", "other"]},
    "another party": {"aud": ["pvc", "other"], "azp": "other"},
    "expired": {"exp": NOW - 300, "iat": NOW - 400},
    "no expiry": {"exp": None},
    "not yet": {"nbf": NOW + 3600},
    "from the future": {"iat": NOW + 3600},
    "issued long ago": {"iat": NOW - 7200},
    "another login's nonce": {"nonce": "x" * 43},
    "no nonce": {"nonce": None},
    "nobody": {"sub": None},
    "an empty subject": {"sub": ""},
    "a subject that is no text": {"sub": 7},
}


@pytest.mark.parametrize("claims", LIES.values(), ids=LIES)
async def test_a_token_that_is_not_ours_of_now_lets_nobody_in(door: Door, claims: dict[str, Any]) -> None:
    door.issuer.claims = claims
    reply = await door.log_in()
    assert reply.status_code == 401 and reply.json()["code"] == "access.login_invalid", reply.text
    assert [one["code"] for one in await door.events(LoginRefused.TYPE)] == ["access.login_invalid"]
    assert len(door.house.state.principals) == 1, "only the first admin"


def _hmac_by_public_key(issuer: LyingIssuer) -> Callable[[dict[str, Any]], str]:
    """The classic: the public key taken for the secret of an HMAC."""
    from hashlib import sha256
    from hmac import digest

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = issuer.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def make(claims: dict[str, Any]) -> str:
        head = {"alg": "HS256", "typ": "JWT", "kid": issuer.kid}
        parts = [base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=") for one in (head, claims)]
        signature = base64.urlsafe_b64encode(digest(public, b".".join(parts), sha256)).rstrip(b"=")
        return b".".join([*parts, signature]).decode()

    return make


async def test_an_algorithm_that_is_not_allowed_lets_nobody_in(door: Door) -> None:
    for make in (unsigned, _hmac_by_public_key(door.issuer)):
        door.issuer.make_token = make
        reply = await door.log_in()
        assert reply.status_code == 401 and "not allowed" in reply.json()["detail"], reply.text
    door.issuer.make_token = lambda claims: door.issuer.signed(claims)[:-6] + "AAAAAA"
    assert (await door.log_in()).status_code == 401
    stranger = LyingIssuer()
    door.issuer.make_token = lambda claims: door.issuer.signed(claims, key=stranger.key)
    assert (await door.log_in()).status_code == 401
    door.issuer.make_token = lambda claims: "not.a.token"
    assert (await door.log_in()).status_code == 401


async def test_a_key_that_is_too_short_lets_nobody_in(door: Door) -> None:
    door.issuer.key = rsa.generate_private_key(public_exponent=65_537, key_size=1024)
    reply = await door.log_in()
    assert reply.status_code == 401 and "1024 bits" in reply.json()["detail"], reply.text


async def test_another_key_is_learnt_but_not_read_for_each_stranger(door: Door) -> None:
    assert (await door.log_in()).status_code == 200
    door.issuer.rotate()
    services = door.house.services
    assert services.login is not None
    services.login.issuer._keys = (services.login.issuer._keys[0], -100.0)  # read a while ago
    assert (await door.log_in()).status_code == 200
    read = sum(path == "/jwks" for path, _ in door.issuer.asked)
    door.issuer.make_token = lambda claims: jwt.encode(
        claims, door.issuer.key, algorithm="RS256", headers={"kid": "unheard-of"}
    )
    for _ in range(3):
        assert (await door.log_in()).status_code == 401
    assert sum(path == "/jwks" for path, _ in door.issuer.asked) == read


async def test_a_login_is_finished_once_with_its_own_code_at_its_own_gateway(door: Door) -> None:
    begun, code = await door.begin()
    finish = {"login": begun["login"], "code": code}
    both = await asyncio.gather(*[door.client.post("/login/finish", json=finish) for _ in range(2)])
    assert sorted(one.status_code for one in both) == [200, 401], "of two at once, one"
    again = await door.client.post("/login/finish", json=finish)
    assert again.status_code == 401 and again.json()["code"] == "access.login_over"
    for forged in (begun["login"][:-8] + "AAAAAAA=", "x", "gAAAAAB"):
        reply = await door.client.post("/login/finish", json={"login": forged, "code": code})
        assert reply.status_code == 401 and reply.json()["code"] == "access.login_over"


@pytest.mark.parametrize(
    "redirect",
    ["https://evil.example/", "http://127.0.0.1.evil.example:1/", "http://127.0.0.1/x", "http://a@127.0.0.1:1/", ""],
)
async def test_a_code_is_brought_to_ones_own_machine_alone(door: Door, redirect: str) -> None:
    reply = await door.client.post("/login/start", json={"flow": "browser", "redirect": redirect})
    assert reply.status_code == 422, reply.text


async def test_a_device_is_waited_for(door: Door) -> None:
    door.issuer.pending = 2
    begun = (await door.client.post("/login/start", json={"flow": "device"})).json()
    assert begun["user_code"] == "WDJB-MJHT" and begun["interval_s"] == 1
    replies = [(await door.client.post("/login/finish", json={"login": begun["login"]})).json() for _ in range(3)]
    assert [one["pending"] for one in replies] == [True, True, False]
    assert replies[2]["token"].startswith("pvc_")
    over = await door.client.post("/login/finish", json={"login": begun["login"]})
    assert over.json()["code"] == "access.login_over"


async def test_who_loses_the_last_role_loses_the_tokens_with_the_next_try(door: Door) -> None:
    token = (await door.log_in()).json()["token"]
    door.issuer.claims = {"groups": ["nobodies"]}
    renewed = await door.client.post("/login/renew", json={"refresh": "r-1"})
    assert renewed.status_code == 403 and renewed.json()["code"] == "access.login_no_role", renewed.text
    async with door.house.outside_with(token) as anna:
        assert (await anna.get("/whoami")).status_code == 401
    refused = await door.events(AccessRefused.TYPE)
    assert [one["code"] for one in refused] == ["access.login_no_role"]


async def test_claims_that_are_not_in_the_token_are_looked_up_and_must_be_of_the_same_person(door: Door) -> None:
    door.issuer.discovery = {"userinfo_endpoint": f"{door.issuer.url}/userinfo"}
    door.issuer.claims = {"groups": None}
    door.issuer.userinfo = {"sub": "u-1", "groups": ["shop"], "preferred_username": "mallory"}
    reply = await door.log_in()
    assert reply.status_code == 200 and reply.json()["principal"] == "anna", "what is signed counts first"
    door.issuer.userinfo = {"sub": "u-2", "groups": ["shop"]}
    reply = await door.log_in()
    assert reply.status_code == 502 and reply.json()["code"] == "oidc.bad_answer", reply.text
    door.issuer.id_token_again = False
    door.issuer.userinfo = {"sub": "u-1", "groups": ["shop"], "preferred_username": "anna"}
    renewed = await door.client.post("/login/renew", json={"refresh": "r-1"})
    assert renewed.status_code == 200 and renewed.json()["principal"] == "anna", renewed.text
    door.issuer.userinfo = {"groups": ["shop"], "preferred_username": "anna"}
    nobody = await door.client.post("/login/renew", json={"refresh": "r-1"})
    assert nobody.status_code == 502


async def test_somebody_else_with_the_same_name_is_refused(door: Door) -> None:
    assert (await door.log_in()).status_code == 200
    door.issuer.claims = {"sub": "u-999"}
    reply = await door.log_in()
    assert reply.status_code == 403 and reply.json()["code"] == "access.name_taken", reply.text
    assert reply.json()["detail"] == "the name anna is somebody else's here"
    assert b"anna" not in await door.house.log_bytes()


async def test_a_sealed_name_is_not_opened_where_a_login_begins(door: Door) -> None:
    assert (await door.log_in()).status_code == 200
    sealed = await door.house.services.people.find("anna")
    wanted = {"flow": "browser", "redirect": f"http://127.0.0.1:49152/{sealed}"}
    reply = await door.client.post("/login/start", json=wanted)
    assert reply.status_code == 200 and sealed in reply.json()["url"], reply.text


async def test_who_was_erased_comes_in_again_as_somebody_new(door: Door) -> None:
    token = (await door.log_in()).json()["token"]
    erased = await door.house.root.post("/audit/erase", json={"principal": "anna"})
    assert erased.status_code == 200, erased.text
    again = await door.log_in()
    assert again.status_code == 200 and again.json()["principal"] == "anna", again.text
    rows = (await door.house.root.get("/access")).json()["items"]
    assert sorted(row["name"][:7] for row in rows if row["login"]) == ["anna", "erased-"]
    identities = {one.identity for one in door.house.state.principals.values() if one.identity}
    assert len(identities) == 2, "nothing that is left says that they are one"
    async with door.house.outside_with(token) as before:
        assert (await before.get("/whoami")).json()["principal"].startswith("erased-")


@pytest.mark.parametrize("name", ["root", "erased-3f2a91c0", "a b", "node/hv1", "", None, ["anna"], "x" * 64, "änna"])
async def test_a_name_that_cannot_be_one_is_refused(door: Door, name: Any) -> None:
    door.issuer.claims = {"preferred_username": name}
    reply = await door.log_in()
    assert reply.status_code == 403 and reply.json()["code"] == "access.login_no_name", reply.text


def _redirect(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(302)
    handler.send_header("Location", "http://127.0.0.1:1/")
    handler.end_headers()


def _huge(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b" " * 1_000_000)


def _drip(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(40):
        handler.wfile.write(b" ")
        time.sleep(0.2)


def _drip_head(handler: BaseHTTPRequestHandler) -> None:
    for letter in b"HTTP/1.1 200 OK" + b" " * 40:
        handler.wfile.write(bytes([letter]))
        time.sleep(0.2)


def _cut(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"{")


def _nonsense(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b"[" * 5_000)


@pytest.mark.parametrize("answer", [_redirect, _huge, _drip, _drip_head, _cut, _nonsense])
@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/token", "/jwks"])
async def test_an_issuer_that_misbehaves_is_given_up_in_time(
    door: Door, path: str, answer: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    door.issuer.answers[path] = answer
    start = await door.client.post("/login/start", json={"flow": "browser", "redirect": REDIRECT})
    if start.status_code == 200:
        code, _ = door.issuer.authorize(start.json()["url"])
        start = await door.client.post("/login/finish", json={"login": start.json()["login"], "code": code})
    assert start.status_code in (502, 503) and start.json()["code"].startswith("oidc."), start.text
    assert (await door.house.root.get("/whoami")).status_code == 200


@pytest.mark.parametrize(
    "said",
    [
        {"issuer": "https://id.evil.example"},
        {"token_endpoint": "http://id.evil.example/token"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "https://user@id.example.org/jwks"},
    ],
    ids=["another issuer", "no TLS", "a file", "a user"],
)
async def test_a_discovery_that_points_elsewhere_is_not_followed(door: Door, said: dict[str, str]) -> None:
    door.issuer.discovery = said
    reply = await door.client.post("/login/start", json={"flow": "browser", "redirect": REDIRECT})
    assert reply.status_code == 502 and reply.json()["code"] == "oidc.bad_answer", reply.text


async def test_a_flood_of_logins_from_a_network_locks_out_nobody_with_a_token(door: Door) -> None:
    token = (await door.log_in()).json()["token"]
    codes = [
        (await door.client.post("/login/start", json={"flow": "browser", "redirect": REDIRECT})).status_code
        for _ in range(80)
    ]
    assert 429 in codes
    async with door.house.outside_with(token) as anna:
        assert (await anna.get("/whoami")).status_code == 200
    elsewhere = door.house.outside_with("", address="198.51.100.9")
    elsewhere.headers.pop("Authorization")
    async with elsewhere:
        reply = await elsewhere.post("/login/start", json={"flow": "browser", "redirect": REDIRECT})
        assert reply.status_code == 200, "from another network"


async def test_without_an_issuer_there_is_nothing_to_log_in_at(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        assert (await house.outside.get("/login")).json()["issuer"] == ""
        reply = await house.outside.post("/login/start", json={"redirect": REDIRECT})
        assert reply.status_code == 404 and reply.json()["code"] == "oidc.not_configured"


async def test_who_waits_behind_one_that_found_no_issuer_does_not_wait_as_long_again(door: Door) -> None:
    asked, let_go = list[str](), threading.Event()

    def hang(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        let_go.wait(30)

    door.issuer.answers["/.well-known/openid-configuration"] = hang
    begin = {"flow": "browser", "redirect": REDIRECT}
    try:
        replies = await asyncio.gather(*(door.client.post("/login/start", json=begin) for _ in range(5)))
    finally:
        let_go.set()
    assert [reply.json()["code"] for reply in replies] == ["oidc.unreachable"] * 5
    assert len(asked) == 1, "one deadline for all who came meanwhile"
    del door.issuer.answers["/.well-known/openid-configuration"]
    assert (await door.client.post("/login/start", json=begin)).status_code == 200
