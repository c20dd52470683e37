"""A gateway in this process that is asked any requests, and what must hold of each of its replies."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote

import msgspec

from pvc.events.types import Role
from pvc.gateway import app as gateway_app
from pvc.gateway import moments, warden
from pvc.gateway.problems import Problem
from tests.fuzz.any_request import CALLERS, AnyRequest
from tests.unit.gateway_house import House, a_house
from tests.unit.test_error_codes import matches, rows

UNAVAILABLE = frozenset({503, 504})
"""What may be answered of the kind 5xx, with a code that says what is away."""

PATIENCE_S = 30.0


class Asked:
    """Lives in an event loop of its own, so that a test of hypothesis can ask from outside of any."""

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._made = a_house(folder)
        self._patches = [
            patch.object(gateway_app, "REACH_DEADLINE_S", 0.02),
            patch.object(moments, "LAG_S", 0.02),
            patch.object(warden, "REQUESTS_AT_ONCE", 1 << 40),
            patch.object(warden, "COMMANDS_AT_ONCE", 1 << 40),
        ]
        for one in self._patches:
            one.start()
        self.house: House = self._loop.run_until_complete(self._made.__aenter__())
        self.tokens = dict[str, str]()
        self._loop.run_until_complete(self._settle_in())
        self.seen = Counter[int]()
        self.codes = Counter[str]()
        self._documented = [row.code for row in rows()]

    def close(self) -> None:
        """End it."""
        self._loop.run_until_complete(self._made.__aexit__(None, None, None))
        self._loop.close()
        for one in self._patches:
            one.stop()

    def ask(self, request: AnyRequest) -> tuple[int, bytes]:
        """Send it, and look whether the reply is one that may be; its status and body."""
        status, headers, body = self._loop.run_until_complete(asyncio.wait_for(self._ask(request), PATIENCE_S))
        if status == 401 and request.caller in self.tokens:
            self._loop.run_until_complete(self._new_tokens())  # some request has taken them away
        self.seen[status] += 1
        if status >= 400 and request.method != "HEAD":
            assert headers.get(b"content-type") == b"application/problem+json", (status, headers)
            problem = msgspec.json.decode(body, type=Problem)
            assert problem.status == status and problem.detail and problem.title
            assert any(matches(problem.code, code) for code in self._documented), problem.code
            self.codes[problem.code] += 1
        elif headers.get(b"content-type") == b"application/json" and request.method != "HEAD":
            json.loads(body)
        assert status < 500 or status in UNAVAILABLE, (status, body[:300])
        assert all(b"\r" not in value and b"\n" not in value for value in headers.values())
        return status, body

    def still_well(self) -> None:
        """The log's chain is whole, and a command still does what it says."""
        self._loop.run_until_complete(self._still_well())

    async def _settle_in(self) -> None:
        house = self.house
        house.services.stopping.set()  # nothing waits for what does not come, and no stream goes on
        await house.define()
        await house.define(name="web02", tags=["shop"])
        await house.second_node()
        await self._new_tokens()

    async def _new_tokens(self) -> None:
        name = f"limited{len(self.house.state.principals)}-{self.house.services.world.position}"
        self.tokens = {str(role): await self.house.token(role) for role in Role}
        self.tokens["limited"] = await self.house.member(name, {"role": "operator", "tag": "shop"})

    async def _ask(self, request: AnyRequest) -> tuple[int, dict[bytes, bytes], bytes]:
        headers = [(b"host", b"pvc"), *request.headers]
        token = self.tokens.get(request.caller, "pvc_00000000_" + "x" * 64 if request.caller == "forged" else "")
        if token:
            headers.append((b"authorization", f"Bearer {token}".encode()))
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "root_path": "",
            "path": unquote(request.raw_path),
            "raw_path": request.raw_path.encode(),
            "query_string": request.query,
            "headers": headers,
            "client": (f"192.0.2.{CALLERS.index(request.caller)}", 1),
            "server": ("127.0.0.1", 7370),
            gateway_app.LOCAL: request.caller == "root",
        }
        given = iter([{"type": "http.request", "body": request.body, "more_body": False}])
        never = asyncio.Event()
        told: list[Any] = []

        async def receive() -> Any:
            for one in given:
                return one
            await never.wait()
            return None

        async def send(message: Any) -> None:
            told.append(message)

        await self.house.app(scope, receive, send)
        assert told and told[0]["type"] == "http.response.start", told
        body = b"".join(one.get("body", b"") for one in told[1:])
        return told[0]["status"], {name.lower(): value for name, value in told[0]["headers"]}, body

    async def _still_well(self) -> None:
        house = self.house
        await house.settle()
        first = 1
        while True:
            reply = await house.root.get("/log/verify", params={"first": first})
            portion = reply.json()
            assert reply.status_code == 200 and portion["findings"] == [], portion
            if portion["last"] < portion["first"]:
                break
            first = portion["last"] + 1
        name = f"well{house.services.world.position}"
        await house.define(name=name, memory_mib=16)
        assert (await house.root.delete(f"/vms/{name}")).status_code == 200
