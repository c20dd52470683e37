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


async def test_what_was_given_up_before_its_turn_is_left_out_except_what_is_to_be_done_surely() -> None:
    thread, thaw, done = DiskThread("hangs"), threading.Event(), list[str]()
    with pytest.raises(DiskSlow):
        await thread.run(lambda: thaw.wait(5), deadline_s=0.01)
    for number in range(3):
        with pytest.raises(DiskSlow):
            await thread.run(lambda number=number: done.append(f"read {number}"), deadline_s=0.01)  # type: ignore[misc]
    with pytest.raises(DiskSlow):
        await thread.run(lambda: done.append("close"), deadline_s=0.01, surely=True)
    leaving = asyncio.create_task(thread.run(lambda: done.append("close another"), surely=True))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert not done
    thaw.set()
    await thread.run(lambda: done.append("next"))
    assert done == ["close", "close another", "next"]
    thread.end()


async def test_what_is_done_surely_gives_back_its_result_or_its_error() -> None:
    thread = DiskThread("closing")

    def broken() -> None:
        raise OSError(5, "Input/output error")

    assert await thread.run(lambda: 7, surely=True) == 7
    with pytest.raises(OSError, match="Input/output") as failure:
        await thread.run(broken, surely=True)
    assert not isinstance(failure.value, DiskSlow)
    thread.end()
