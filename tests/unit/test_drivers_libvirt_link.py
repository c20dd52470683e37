"""The threads beneath the libvirt driver: what nobody waits for any more is not begun."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from pvc.drivers.libvirt_link import LibvirtLink
from pvc.errors import Unavailable


@pytest.fixture
async def link() -> AsyncIterator[LibvirtLink]:
    opened = LibvirtLink("test:///default", changed=lambda vm: None, lost=lambda: None)
    yield opened
    await opened.close()


async def test_a_call_that_lost_its_caller_while_it_waited_for_a_thread_has_no_effect(link: LibvirtLink) -> None:
    thaw, done = threading.Event(), list[str]()
    frozen = [asyncio.create_task(link.in_thread(lambda: thaw.wait(10), "answer")) for _ in range(8)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as late:
        await link.in_thread(lambda: done.append("stale"), "destroy VM web01", timeout=0.05)
    assert late.value.code == "hypervisor.timeout"
    thaw.set()
    await asyncio.gather(*frozen)
    await link.in_thread(lambda: done.append("fresh"), "start VM web01")
    assert done == ["fresh"]


async def test_a_call_that_has_begun_runs_to_its_end(link: LibvirtLink) -> None:
    begun, thaw, done = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        thaw.wait(10)
        done.set()

    with pytest.raises(Unavailable):
        await link.in_thread(slow, "start VM web01", timeout=0.05)
    assert begun.is_set() and not done.is_set()
    thaw.set()
    assert await asyncio.to_thread(done.wait, 5)


async def test_a_caller_that_is_cancelled_is_cancelled(link: LibvirtLink) -> None:
    thaw = threading.Event()
    calling = asyncio.create_task(link.in_thread(lambda: thaw.wait(10), "answer"))
    await asyncio.sleep(0.01)
    calling.cancel()
    thaw.set()
    with pytest.raises(asyncio.CancelledError):
        await calling
