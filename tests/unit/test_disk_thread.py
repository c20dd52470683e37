"""The thread of a file: one thing after the other, an end to the waiting, and errors that are told apart."""

from __future__ import annotations

import asyncio
import threading

import pytest

from pvc.disk_thread import DiskSlow, DiskThread


async def test_what_nobody_waits_for_any_more_is_done_before_the_next() -> None:
    thread, thaw, done = DiskThread("slow"), threading.Event(), list[str]()

    def slow() -> None:
        thaw.wait(5)
        done.append("slow")

    with pytest.raises(DiskSlow, match=r"did not answer within 0\.01 s"):
        await thread.run(slow, deadline_s=0.01)
    assert not done
    thaw.set()
    await thread.run(lambda: done.append("next"))
    assert done == ["slow", "next"]
    thread.end()


async def test_a_time_out_of_the_work_itself_is_not_taken_for_a_slow_disk() -> None:
    thread = DiskThread("network disk")

    def stale() -> None:
        raise TimeoutError("stale handle")

    with pytest.raises(TimeoutError, match="stale handle") as failure:
        await thread.run(stale)
    assert not isinstance(failure.value, DiskSlow)
    thread.end()


async def test_who_gives_up_waiting_is_not_told_that_the_disk_was_slow() -> None:
    thread, thaw = DiskThread("slow"), threading.Event()
    with pytest.raises(TimeoutError) as failure:
        async with asyncio.timeout(0.01):
            await thread.run(lambda: thaw.wait(5))
    assert not isinstance(failure.value, DiskSlow)
    thaw.set()
    thread.end()
