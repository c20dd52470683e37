"""The gateway behind a real server and real sockets: consoles, streams, clients that hang up, bodies that never end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import uvicorn
import websockets

from pvc.daemon.patience import PatientProtocol
from pvc.events.types import Role
from pvc.gateway import events
from pvc.gateway.app import local_app
from pvc.gateway.event_stream import Pace
from tests.unit.gateway_house import House, a_house


class Served:
    """A house with its gateway on a TCP port and on a Unix socket."""

    def __init__(self, house: House, port: int, path: Path) -> None:
        self.house = house
        self.port = port
        self.path = path
        self.url = f"http://127.0.0.1:{port}/api/v1"
        self.ws = f"ws://127.0.0.1:{port}/api/v1"

    def root(self) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(uds=str(self.path))
        return httpx.AsyncClient(transport=transport, base_url="http://pvc/api/v1", timeout=20)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with a_house(tmp_path) as house, contextlib.AsyncExitStack() as stack:
        tcp = socket.create_server(("127.0.0.1", 0))
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(str(tmp_path / "pvc.sock"))
        for app, listener in ((house.app, tcp), (local_app(house.app), unix)):
            await stack.enter_async_context(serving(app, listener))
        yield Served(house, tcp.getsockname()[1], tmp_path / "pvc.sock")


@contextlib.asynccontextmanager
async def serving(app: object, listener: socket.socket) -> AsyncIterator[None]:
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        lifespan="off",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=1,
        http=PatientProtocol,
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.wait_for(running, 10)


async def a_running_vm(house: House) -> str:
    """web01 runs in the log and on the simulated hypervisor; returns its id."""
    await house.define()
    await house.start()
    vm = house.state.vms[house.state.vm_names["web01"]]
    await house.hypervisor.define(vm.id, vm.name, vm.spec, epoch=vm.epoch)
    await house.hypervisor.start(vm.id)
    return vm.id


async def test_what_is_typed_reaches_the_guest_and_what_it_writes_comes_back(served: Served) -> None:
    await a_running_vm(served.house)
    headers = {"Authorization": f"Bearer {await served.house.token(Role.OPERATOR)}"}
    async with websockets.connect(f"{served.ws}/vms/web01/console", additional_headers=headers) as console:
        await console.send(b"hello")
        assert await asyncio.wait_for(console.recv(), 5) == b"hello"
        await console.send("text too\n")
        seen = b""
        while b"heartbeat" not in seen:
            message = await asyncio.wait_for(console.recv(), 5)
            assert isinstance(message, bytes)
            seen += message
        assert b"text too" in seen


async def test_whoever_was_at_a_console_stands_in_the_nodes_log(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pvc.gateway.access")
    await a_running_vm(served.house)
    headers = {"Authorization": f"Bearer {await served.house.token(Role.OPERATOR)}"}
    async with websockets.connect(f"{served.ws}/vms/web01/console", additional_headers=headers) as console:
        await console.send(b"secret\n")
    async with asyncio.timeout(5):
        while not (lines := [line for line in caplog.messages if line.startswith("command=vm.console")]):
            await asyncio.sleep(0.01)
    assert "about=web01 principal=operator method=token address=127.0.0.1" in lines[0]
    assert "result=ok" in lines[0]
    assert "secret" not in caplog.text


async def test_a_console_ends_when_the_guest_does(served: Served) -> None:
    await a_running_vm(served.house)
    headers = {"Authorization": f"Bearer {await served.house.token(Role.ADMIN)}"}
    async with websockets.connect(f"{served.ws}/vms/web01/console", additional_headers=headers) as console:
        await console.send(b"poweroff\n")
        with pytest.raises(websockets.ConnectionClosed) as ended:
            async with asyncio.timeout(5):
                while True:
                    await console.recv()
    assert ended.value.rcvd is not None and ended.value.rcvd.code == 1000


async def test_a_console_ends_soon_after_its_token_was_revoked_or_its_vm_has_left_the_scope(served: Served) -> None:
    await a_running_vm(served.house)
    for end in ("revoke", "untag"):
        await served.house.root.post("/vms/web01/tags", json={"tag": "shop"})
        token = await served.house.member(end, {"role": "operator", "tag": "shop"})
        headers = {"Authorization": f"Bearer {token}"}
        async with websockets.connect(f"{served.ws}/vms/web01/console", additional_headers=headers) as console:
            await console.send(b"hello")
            assert await asyncio.wait_for(console.recv(), 5) == b"hello"
            path = f"/tokens/{token.split('_')[1]}" if end == "revoke" else "/vms/web01/tags/shop"
            assert (await served.house.root.delete(path)).status_code == 200
            with pytest.raises(websockets.ConnectionClosed):
                async with asyncio.timeout(10):
                    while True:
                        await console.recv()


async def test_a_refused_console_is_a_record(served: Served) -> None:
    await a_running_vm(served.house)
    for grant, code in (
        ({"role": "operator", "tag": "shop"}, "access.out_of_scope"),
        ({"role": "auditor"}, "access.forbidden"),
    ):
        headers = {"Authorization": f"Bearer {await served.house.member(grant['role'], grant)}"}
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(f"{served.ws}/vms/web01/console", additional_headers=headers)
        assert refused.value.response.status_code == 403
        newest = (await served.house.root.get("/history?type=access.refused")).json()["records"][0]
        assert (newest["command"]["name"], newest["events"][0]["data"]["code"]) == ("vm.console", code)
        assert newest["events"][0]["subject"].startswith("vm/")


async def test_a_client_that_hangs_up_leaves_no_console_open(served: Served) -> None:
    vm = await a_running_vm(served.house)
    headers = {"Authorization": f"Bearer {await served.house.token(Role.ADMIN)}"}
    async with websockets.connect(f"{served.ws}/vms/web01/console", additional_headers=headers) as console:
        await console.send(b"x")
        await console.recv()
        guest = served.house.hypervisor._guests[vm]
        assert len(guest._consoles) == 1
    async with asyncio.timeout(5):
        while guest._consoles:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("role", "vm", "status", "code"),
    [
        (None, "web01", 401, "access.unauthenticated"),
        (Role.VIEWER, "web01", 403, "access.forbidden"),
        (Role.OPERATOR, "nothere", 404, "vm.not_found"),
        (Role.OPERATOR, "web02", 409, "vm.is_stopped"),
        (Role.OPERATOR, "web03", 409, "vm.no_console"),  # the guest has ended, and the log does not know yet
    ],
)
async def test_a_console_that_may_not_be_is_refused_with_a_problem(
    served: Served, role: Role | None, vm: str, status: int, code: str
) -> None:
    await a_running_vm(served.house)
    await served.house.define(name="web02")
    await served.house.define(name="web03")
    await served.house.start("web03")
    headers = {"Authorization": f"Bearer {await served.house.token(role)}"} if role else {}
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with websockets.connect(f"{served.ws}/vms/{vm}/console", additional_headers=headers):
            pass
    response = refused.value.response
    problem = json.loads(response.body or b"")
    assert (response.status_code, problem["code"]) == (status, code)
    assert response.headers["Content-Type"] == "application/problem+json"


async def test_a_followed_log_streams_what_the_guest_writes_until_the_client_hangs_up(served: Served) -> None:
    await a_running_vm(served.house)
    seen = ""
    async with served.root() as client, client.stream("GET", "/vms/web01/log?follow=true") as stream:
        assert stream.headers["PVC-Position"]
        async with asyncio.timeout(10):
            async for text in stream.aiter_text():
                seen += text
                if seen.count("heartbeat") >= 2:
                    break
    assert seen.count("heartbeat") >= 2


async def test_the_unix_socket_is_root_and_tcp_is_nobody(served: Served) -> None:
    async with served.root() as client:
        assert (await client.get("/whoami")).json()["principal"] == "root"
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{served.url}/whoami")).status_code == 401
        assert (await client.get(f"http://127.0.0.1:{served.port}/health")).json()["status"] == "ok"


async def test_an_endless_body_is_cut_off_early(served: Served) -> None:
    reader, writer = await asyncio.open_unix_connection(str(served.path))
    writer.write(
        b"POST /api/v1/vms HTTP/1.1\r\nHost: pvc\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with contextlib.suppress(ConnectionError):
        for _ in range(40):
            writer.write(chunk)
            await writer.drain()
    status = await asyncio.wait_for(reader.readline(), 10)
    assert b" 413 " in status
    writer.close()


async def test_requests_at_once_are_all_answered_and_each_is_done_once(served: Served) -> None:
    async with served.root() as client:
        replies = await asyncio.gather(
            *(
                client.post(
                    "/vms",
                    json={"name": f"vm{number % 50}", "memory_mib": 64},
                    headers={"Idempotency-Key": f"key-{number % 50}"},
                )
                for number in range(100)
            )
        )
    assert {reply.status_code for reply in replies} == {200}
    assert len(served.house.state.vms) == 50
    positions = [reply.json()["position"] for reply in replies]
    assert len(set(positions)) == 50 and sum(reply.json()["repeated"] for reply in replies) == 50


async def test_a_reader_of_events_that_takes_nothing_is_cut_and_leaves_nothing_behind(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PACE", Pace(stuck_s=0.3))
    monkeypatch.setattr(served.house.services.events, "_tick_s", 0.05)
    reader, writer = await asyncio.open_unix_connection(str(served.path), limit=1024)
    writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: pvc\r\nAccept: text/event-stream\r\n\r\n")
    await reader.readline()
    hub = served.house.services.events
    async with asyncio.timeout(30):
        number = 0
        while hub.streams:
            # Long enough that a few hundred of them fill what lies between the two.
            await served.house.define(name=f"vm{number}", description="x" * 400)
            number += 1
        while len(asyncio.all_tasks()) > 30:
            await asyncio.sleep(0.01)
    with contextlib.suppress(ConnectionResetError):
        rest = await asyncio.wait_for(reader.read(-1), 10)
        assert not rest.endswith(b"0\r\n\r\n"), "it was cut, and not ended"
    writer.close()
    assert (await served.root().get("/events?wait_s=0&limit=1")).status_code == 200
