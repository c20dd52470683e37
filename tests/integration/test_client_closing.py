"""Streams that are closed while somebody waits for what comes next: by another thread, or another task."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pvc.client import AsyncClient, Client
from tests.integration.fake_gateway import FakeGateway, Stay
from tests.integration.test_client_typed import record
from tests.support.waiting import wait_until

WITHIN_S = 10.0


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[FakeGateway]:
    """Says one thing, and then nothing for ever."""
    with FakeGateway(tmp_path, lambda _: Stay((record(1),))) as gateway:
        yield gateway


def log_of(client: Any) -> Any:
    return client.vms.log("web01", follow=True)


def events_of(client: Any) -> Any:
    return client.events(after=0)


STREAMS = pytest.mark.parametrize("stream_of", [log_of, events_of])


@STREAMS
def test_a_stream_that_another_thread_closes_ends_and_its_connection_too(
    quiet: FakeGateway, stream_of: Callable[[Any], Any]
) -> None:
    got: list[Any] = []

    def read() -> None:
        try:
            got.append(next(stream, "the end"))
        except Exception as error:
            got.append(error)

    with Client(f"unix://{quiet.socket}") as client:
        stream = stream_of(client)
        next(stream)
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        wait_until(lambda: _waits_in(reader, "receive"), "the reader waits for the gateway")
        stream.close()
        reader.join(WITHIN_S)
    assert got == ["the end"]
    assert quiet.left.wait(WITHIN_S), "the gateway is told"
    assert len(quiet.asked) == 1


@STREAMS
def test_a_stream_that_another_task_closes_ends_and_its_connection_too(
    quiet: FakeGateway, stream_of: Callable[[Any], Any]
) -> None:
    async def run() -> Any:
        async with AsyncClient(f"unix://{quiet.socket}") as client:
            stream = stream_of(client)
            await anext(stream)
            reader = asyncio.ensure_future(anext(stream, "the end"))
            await asyncio.sleep(0.05)
            stream.close()
            async with asyncio.timeout(WITHIN_S):
                return await reader

    assert asyncio.run(run()) == "the end"
    assert quiet.left.wait(WITHIN_S), "the gateway is told"
    assert len(quiet.asked) == 1


@STREAMS
def test_a_stream_that_was_closed_has_no_next(quiet: FakeGateway, stream_of: Callable[[Any], Any]) -> None:
    with Client(f"unix://{quiet.socket}") as client:
        stream = stream_of(client)
        next(stream)
        stream.close()
        stream.close()
        assert list(stream) == []
    assert len(quiet.asked) == 1


def _waits_in(thread: threading.Thread, function: str) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_name == function
