"""The client's patience in virtual time: pauses with full jitter, what a gateway asks for, the deadline over all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest

from pvc.client import core as module
from pvc.client.connections import Connection
from pvc.client.core import Core, Patience
from pvc.client.errors import ClientError, TooManyRequests, Unavailable, Unreachable
from pvc.client.ports import Line, finish
from pvc.client.transport import Answer

T = TypeVar("T")

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
LOST = b""


def refused(status: int, **headers: str) -> bytes:
    body = b'{"detail": "no", "code": "test.no"}'
    lines = [f"HTTP/1.1 {status} No", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class FakeIo:
    """A network where each request is answered by the next of some texts, and time passes by sleeping alone."""

    def __init__(self, *answers: bytes | float) -> None:
        self.answers = list(answers)
        self.time_s = 1000.0
        self.slept: list[float] = []
        self.requests: list[bytes] = []
        self.urls: list[str] = []

    async def connect(self, connection: Connection, timeout_s: float) -> Line:
        self.urls.append(connection.url)
        return FakeLine(self)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time_s += seconds

    def now(self) -> float:
        return self.time_s


class FakeLine:
    """A number is a silence of so many seconds."""

    def __init__(self, io: FakeIo) -> None:
        self.io = io
        self.text: bytes | float = LOST

    async def send(self, data: bytes, timeout_s: float) -> None:
        self.io.requests.append(data)
        self.text = self.io.answers.pop(0) if len(self.io.answers) > 1 else self.io.answers[0]

    async def receive(self, timeout_s: float | None) -> bytes:
        if isinstance(self.text, float):
            assert timeout_s is not None
            self.io.time_s += min(self.text, timeout_s)
            raise TimeoutError
        given, self.text = self.text, LOST
        return given

    def close(self) -> None:
        return


def ask(io: FakeIo, *, others: tuple[str, ...] = (), **patience: Any) -> Answer:
    core = Core(io, Connection("test", "http://one:7370", others=others), patience=Patience(**patience))
    return finish(core.call("POST", "/vms/web01/start", {}, key="key"))


@pytest.fixture
def longest(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[float, float]]]:
    """Each pause as long as it can be; the bounds between which each was drawn."""
    drawn: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return high

    monkeypatch.setattr(module.random, "uniform", uniform)
    yield drawn


def test_pauses_are_drawn_anywhere_below_a_bound_that_doubles_up_to_a_limit(longest: list[tuple[float, float]]) -> None:
    with pytest.raises(Unavailable):
        ask(FakeIo(refused(503)), tries=9)
    assert longest == [(0, high) for high in (0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0)]


def test_the_pause_is_never_shorter_than_the_gateway_asks_for(longest: list[tuple[float, float]]) -> None:
    io = FakeIo(refused(503, Retry_After="7"), refused(429, Retry_After="3"), OK)
    assert ask(io).status == 200
    assert io.slept == [7.25, 3.5]


def test_a_pause_that_would_outlast_the_deadline_is_not_begun() -> None:
    io = FakeIo(refused(503, Retry_After="7"), refused(429, Retry_After="110"), OK)
    with pytest.raises(TooManyRequests):
        ask(io, deadline_s=110.0)
    assert len(io.slept) == 1


@pytest.mark.parametrize("answers", [(LOST,), (50.0,), (refused(503),), (LOST, 50.0, refused(503))])
def test_no_call_outlives_its_deadline(answers: tuple[bytes | float, ...]) -> None:
    io = FakeIo(*answers)
    with pytest.raises(ClientError):
        ask(io, tries=1000, timeout_s=65.0, deadline_s=100.0)
    assert io.time_s <= 1000 + 100 + 1e-6


def test_every_gateway_is_asked_once_before_anybody_waits() -> None:
    io = FakeIo(LOST, LOST, refused(503), OK)
    ask(io, others=("http://two:7370", "http://three:7370"))
    assert io.urls == ["http://one:7370", "http://two:7370", "http://three:7370", "http://one:7370"]
    assert len(io.slept) == 1
    assert all(b"Idempotency-Key: key\r\n" in request for request in io.requests)


def test_half_a_reply_is_none() -> None:
    io = FakeIo(OK[:-1], OK)
    assert ask(io).body == b"{}"
    assert len(io.requests) == 2


def test_what_speaks_no_http_is_unreachable() -> None:
    with pytest.raises(Unreachable):
        ask(FakeIo(b"SSH-2.0-OpenSSH_9.2\r\n"), tries=2)


def test_the_token_goes_in_the_header_alone() -> None:
    io = FakeIo(OK)
    connection = Connection("test", "http://one:7370/below", token="pvc_a_b")
    finish(Core(io, connection, patience=Patience()).query("/vms", {"name": "web*", "tag": "", "limit": 3}))
    head, _, rest = io.requests[0].partition(b"\r\n")
    assert head == b"GET /below/api/v1/vms?name=web%2A&limit=3 HTTP/1.1"
    assert b"Authorization: Bearer pvc_a_b\r\n" in rest


def test_the_position_does_not_go_back_where_two_threads_are_told_at_once() -> None:
    core = Core(FakeIo(OK), Connection("test", "http://one:7370"), patience=Patience())
    other = threading.Thread(target=lambda: core.saw(10))

    class Interrupted(int):
        """While it is compared, another thread is told of a higher one."""

        def __gt__(self, position: int) -> bool:
            other.start()
            other.join(0.2)
            return int(self) > position

    core.saw(Interrupted(5))
    other.join()
    assert core.position == 10


def test_a_port_that_suspends_is_no_port_for_a_blocking_program() -> None:
    async def suspends() -> None:
        await asyncio.sleep(0)

    with pytest.raises(AssertionError):
        finish(suspends())


def test_calls_under_way_at_once_have_connections_of_their_own() -> None:
    class Slow(FakeIo):
        open = 0
        most = 0

        async def connect(self, connection: Connection, timeout_s: float) -> Line:
            self.open += 1
            self.most = max(self.most, self.open)
            await asyncio.sleep(0.01)
            return await super().connect(connection, timeout_s)

    io = Slow(OK)
    core = Core(io, Connection("test", "http://one:7370"), patience=Patience())
    asyncio.run(together(lambda: core.query("/whoami", {}), 5))
    assert io.most == 5
    asyncio.run(together(lambda: core.query("/whoami", {}), 5))
    assert io.most == 5, "they are kept for the next ones"


async def together(call: Callable[[], Awaitable[T]], times: int) -> list[T]:
    return list(await asyncio.gather(*(call() for _ in range(times))))
