"""One request to real receivers that fail in every way there is, over real sockets: bounded, never led elsewhere."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from pvc.webhooks.course import Answer
from pvc.webhooks.guard import Guard, Own
from pvc.webhooks.post import HttpPost, Outgoing
from tests.support.certificates import a_certificate
from tests.support.receiver import Receiver, a_receiver

BODY = b'{"id":"c-1-0","type":"vm.started"}'


def a_guard(*addresses: str, own: Sequence[Own] = ()) -> Guard:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses or [host]

    return Guard(lambda: own, resolve=resolve)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with a_receiver() as receiver:
        yield receiver


@pytest.fixture
async def post() -> AsyncIterator[HttpPost]:
    post = HttpPost(a_guard(), deadline_s=1.0)
    yield post
    await post.close()


def to(receiver: Receiver, **changes: object) -> Outgoing:
    given: dict[str, object] = {
        "hook": "h1",
        "url": receiver.url,
        "allow_private": tuple(receiver.allowed),
        "headers": {"Content-Type": "application/json", "webhook-id": "c-1-0"},
        "body": BODY,
    }
    return Outgoing(**{**given, **changes})  # type: ignore[arg-type]


async def test_what_is_sent_arrives_byte_by_byte_and_connections_are_used_again(
    post: HttpPost, receiver: Receiver
) -> None:
    for _ in range(3):
        answer = await post(to(receiver))
        assert (answer.status, answer.good, answer.body) == (200, True, "thanks")
    assert [one.body for one in receiver.received] == [BODY] * 3
    headers = receiver.received[0].headers
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert headers["user-agent"].startswith("pvc/")
    assert "cookie" not in headers and "authorization" not in headers


@pytest.mark.parametrize(
    ("mood", "status", "words"),
    [
        ("fail", 500, "it answered 500"),
        ("gone", 410, "it answered 410"),
        ("busy", 503, "it answered 503"),
        ("hang", 0, "no answer within 1 s"),
        ("drip", 0, "no answer within 1 s"),
        ("reset", 0, ""),
        ("garbage", 0, ""),
        ("lie", 500, "it answered 500"),
        ("redirect", 307, "which is not followed"),
    ],
)
async def test_a_receiver_that_fails_is_told_apart_and_takes_no_longer_than_it_may(
    post: HttpPost, receiver: Receiver, mood: str, status: int, words: str
) -> None:
    receiver.mood = mood
    async with asyncio.timeout(10):
        answer = await post(to(receiver))
    assert not answer.good
    assert answer.status == status
    assert words in answer.words and answer.words
    assert answer.retry_after_s == (3600 if mood == "busy" else 0)
    receiver.mood = "ok"
    assert (await post(to(receiver))).good, "and the next one is not hurt by it"
    assert receiver.hits == 0, "nothing was led elsewhere"


async def test_nobody_listening_is_an_answer_too(post: HttpPost, receiver: Receiver) -> None:
    receiver.close()
    answer = await post(to(receiver))
    assert (answer.status, answer.good) == (0, False) and answer.error


async def test_a_large_answer_is_read_only_at_its_beginning(post: HttpPost) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url, allowed = f"http://127.0.0.1:{port}/", (f"127.0.0.1/32:{port}",)
    answer = await post(Outgoing(hook="h1", url=url, allow_private=allowed, headers={}, body=b"{}"))
    server.close()
    assert answer.good and len(answer.body) == 8192


async def test_endless_headers_are_an_error(post: HttpPost) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        try:
            while True:
                writer.write(b"X-More: " + b"y" * 4096 + b"\r\n")
                await writer.drain()
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url, allowed = f"http://127.0.0.1:{port}/", (f"127.0.0.1/32:{port}",)
    answer = await post(Outgoing(hook="h1", url=url, allow_private=allowed, headers={}, body=b"{}"))
    server.close()
    assert not answer.good and answer.error


async def test_an_address_that_is_not_allowed_is_never_connected_to(receiver: Receiver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        port = listener.getsockname()[1]
        post = HttpPost(a_guard(own=[Own("127.0.0.1", port, "ZooKeeper")]), deadline_s=1.0)
        for url, allowed in (
            (f"http://127.0.0.1:{port}/", (f"127.0.0.1/32:{port}",)),
            (f"https://127.0.0.1:{port}/", ()),
            (f"http://127.0.0.1:{port}/", (f"127.0.0.1/32:{receiver.port}",)),
        ):
            answer = await post(to(receiver, url=url, allow_private=allowed))
            assert "may not be connected to" in answer.error
        with pytest.raises(TimeoutError):
            listener.accept()
        await post.close()


async def test_a_name_that_changes_its_mind_is_connected_to_as_it_was_checked(receiver: Receiver) -> None:
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    post = HttpPost(Guard(list, resolve=resolve), deadline_s=1.0)
    url = f"http://rebinding.example.com:{receiver.port}/hook"
    assert (await post(to(receiver, url=url))).good
    assert asked == ["rebinding.example.com"], "resolved once for a connection"
    assert receiver.received[0].headers["host"] == f"rebinding.example.com:{receiver.port}"
    await post.forget("h1")
    assert "169.254.169.254" in (await post(to(receiver, url=url))).error
    await post.close()


async def test_tls_is_verified_against_the_name_in_the_url_though_the_address_is_connected_to(tmp_path: Path) -> None:
    certificate = a_certificate(tmp_path, "hooks.example.com")
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(certificate.cert, certificate.key)
    names: list[str | None] = []
    theirs.sni_callback = lambda sock, name, context: names.append(name)
    ours = ssl.create_default_context(cafile=str(certificate.cert))
    ours.hostname_checks_common_name = True
    with a_receiver(context=theirs) as receiver:
        for host, good in (("hooks.example.com", True), ("other.example.com", False)):
            post = HttpPost(a_guard("127.0.0.1"), context=ours, deadline_s=2.0)
            url = f"https://{host}:{receiver.port}/hook"
            answer = await post(to(receiver, url=url))
            assert answer.good is good, answer
            await post.close()
        stranger = HttpPost(a_guard("127.0.0.1"), deadline_s=2.0)
        answer = await stranger(to(receiver, url=f"https://hooks.example.com:{receiver.port}/hook"))
        assert "certificate" in answer.error.lower()
        await stranger.close()
    assert names == ["hooks.example.com", "other.example.com", "hooks.example.com"]
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("120", 120, 120),
        ("", 0, 0),
        ("soon", 0, 0),
        ("-5", 0, 0),
        ("9" * 40, 1e8, 1e9),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 1e9, 9e9),
    ],
)
async def test_retry_after_is_seconds_or_a_date_or_nothing(text: str, least: float, most: float) -> None:
    from pvc.webhooks.post import _retry_after_s

    assert least <= _retry_after_s(text) <= most
    assert Answer(retry_after_s=_retry_after_s(text)).good is False
