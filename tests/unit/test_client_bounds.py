"""A server that lies in a gateway's place: what it says without an end is not read without an end."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from pvc.client import following, transport
from pvc.client.connections import Connection
from pvc.client.core import Core, Patience
from pvc.client.errors import ClientError, ReplyTooLarge, Unreachable
from pvc.client.following import Following
from pvc.client.ports import Line, finish

CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + CHUNKED
REFUSED = b"HTTP/1.1 409 No\r\nContent-Type: application/problem+json\r\n" + CHUNKED
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n" + CHUNKED
INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n"
PIECE = b"x" * 65536


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Liar:
    """A network with a server that says this, and the last of it again and again. Each piece takes a moment."""

    def __init__(self, *says: bytes, takes_s: float = 0.0) -> None:
        self.says = says
        self.takes_s = takes_s
        self.time_s = 0.0
        self.told = 0
        self.calls = 0

    async def connect(self, connection: Connection, timeout_s: float) -> Line:
        self.calls += 1
        return LyingLine(self)

    async def sleep(self, seconds: float) -> None:
        self.time_s += seconds

    def now(self) -> float:
        return self.time_s


class LyingLine:
    def __init__(self, io: Liar) -> None:
        self.io = io
        self.says: Iterator[bytes] = itertools.chain(io.says, itertools.repeat(io.says[-1]))

    async def send(self, data: bytes, timeout_s: float) -> None:
        return

    async def receive(self, timeout_s: float | None) -> bytes:
        self.io.time_s += self.io.takes_s
        data = next(self.says)
        self.io.told += len(data)
        return data

    def close(self) -> None:
        return


def core_on(io: Liar, **patience: Any) -> Core:
    return Core(io, Connection("test", "http://one:7370"), patience=Patience(**patience))


def test_the_bounds_leave_room_for_what_gateways_say_in_earnest() -> None:
    assert transport.MAX_REPLY_BYTES == 64 << 20
    assert following.MAX_LINE_BYTES == 4 << 20


@pytest.mark.parametrize("head", [JSON, REFUSED])
def test_a_reply_without_an_end_is_read_up_to_a_bound_and_asked_for_once(
    head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_REPLY_BYTES", 1 << 20)
    io = Liar(head, chunk(PIECE))
    with pytest.raises(ReplyTooLarge, match="the reply of http://one:7370 has more than 1 MiB") as caught:
        finish(core_on(io).query("/vms", {}))
    assert caught.value.code == "client.reply_too_large"
    assert io.told < 1.2 * (1 << 20) and io.calls == 1


def test_a_refusal_of_a_stream_is_bounded_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_REPLY_BYTES", 1 << 20)
    io = Liar(REFUSED, chunk(PIECE))
    with pytest.raises(ReplyTooLarge):
        finish(core_on(io).open("/vms/web01/log"))
    assert io.told < 1.2 * (1 << 20)


def test_what_drips_on_is_given_up_when_the_time_is_over() -> None:
    io = Liar(JSON, chunk(b" "), takes_s=1.0)
    with pytest.raises(Unreachable, match="no end of the answer in time"):
        finish(core_on(io, tries=1, timeout_s=20.0).query("/vms", {}))
    assert io.time_s < 25


def test_announcements_without_an_end_are_given_up_when_the_time_is_over() -> None:
    io = Liar(INTERIM, takes_s=1.0)
    with pytest.raises(Unreachable, match="no answer in time"):
        finish(core_on(io, tries=1, timeout_s=20.0).query("/vms", {}))
    assert io.time_s < 25


def test_a_line_of_events_without_an_end_is_read_up_to_a_bound() -> None:
    io = Liar(STREAM, chunk(b'{"position": 1}\n'), chunk(PIECE))
    reading = Following(core_on(io), {}, after=0)
    with pytest.raises(ReplyTooLarge, match="a line of the events of http://one:7370 has more than 4 MiB"):
        for _ in range(2):
            finish(reading.next())
    assert io.told < 1.2 * following.MAX_LINE_BYTES


@pytest.mark.parametrize("line", [b"[" * 100_000, b"nonsense", b"[1]"])
def test_a_stream_of_something_else_is_recognised(line: bytes) -> None:
    with pytest.raises(ClientError) as caught:
        finish(Following(core_on(Liar(STREAM, chunk(line + b"\n"))), {}, after=0, patience_s=0).next())
    assert caught.value.code == "client.not_a_gateway"


def test_brackets_without_an_end_are_no_reply() -> None:
    io = Liar(JSON, chunk(b"[" * 100_000) + b"0\r\n\r\n")
    core = core_on(io)
    with pytest.raises(Unreachable) as caught:
        core.document(finish(core.query("/vms", {})))
    assert caught.value.code == "client.not_a_gateway"
