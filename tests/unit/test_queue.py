"""The keyed queue: one key at a time, no wake-up lost, no key in another's way."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from pvc.about import RECORD
from pvc.errors import Unavailable
from pvc.handlers.queue import BACKOFF_S, MAX_BACKOFF_S, WORKERS, KeyedQueue
from pvc.meters import Meters
from pvc.sim.loop import VirtualClock, run_virtual


def now() -> float:
    return asyncio.get_running_loop().time()


def running(work: Any, test: Callable[[KeyedQueue], Coroutine[Any, Any, None]]) -> None:
    """Run `test` beside a queue that runs `work`, on virtual time."""

    async def both() -> None:
        queue = KeyedQueue(work, clock=VirtualClock(), rng=random.Random(1))
        task = asyncio.create_task(queue.run())
        await test(queue)
        assert not task.done(), "the queue goes on whatever happens"
        task.cancel()

    run_virtual(both())


def test_a_key_woken_while_it_is_worked_on_is_looked_at_once_more() -> None:
    looks: list[float] = []

    async def work(key: str) -> float | None:
        looks.append(now())
        await asyncio.sleep(1)
        return None

    async def test(queue: KeyedQueue) -> None:
        queue.wake("a")
        await asyncio.sleep(0.5)
        queue.wake("a")
        queue.wake("a")
        await asyncio.sleep(10)
        assert looks == [0.0, 1.0]
        assert queue.idle

    running(work, test)


def test_a_key_is_never_worked_on_twice_at_once_and_different_keys_are() -> None:
    busy: list[str] = []
    most: list[int] = []

    async def work(key: str) -> float | None:
        assert key not in busy
        busy.append(key)
        most.append(len(busy))
        await asyncio.sleep(1)
        busy.remove(key)
        return None

    async def test(queue: KeyedQueue) -> None:
        for key in range(3 * WORKERS):
            queue.wake(str(key))
            queue.wake(str(key))
        await asyncio.sleep(0.5)
        queue.wake("0")
        assert not queue.idle
        await asyncio.sleep(5)
        assert len(most) == 3 * WORKERS + 1
        assert max(most) == WORKERS

    running(work, test)


def test_the_earliest_of_several_wake_ups_counts() -> None:
    looks: list[float] = []

    async def work(key: str) -> float | None:
        looks.append(now())
        return None

    async def test(queue: KeyedQueue) -> None:
        queue.wake("a", 30)
        queue.wake("a", 5)
        queue.wake("a", 60)
        await asyncio.sleep(100)
        assert looks == [5.0]

    running(work, test)


def test_work_says_when_to_look_again() -> None:
    looks: list[float] = []

    async def work(key: str) -> float | None:
        looks.append(now())
        return 2.5 if len(looks) < 4 else None

    async def test(queue: KeyedQueue) -> None:
        queue.wake("a")
        await asyncio.sleep(100)
        assert looks == [0.0, 2.5, 5.0, 7.5]

    running(work, test)


@pytest.mark.parametrize("error", [Unavailable("no answer"), ZeroDivisionError()], ids=["foreseen", "defect"])
def test_a_poison_key_backs_off_and_harms_no_other(error: Exception) -> None:
    looks: dict[str, list[float]] = {"bad": [], "good": []}

    async def work(key: str) -> float | None:
        looks[key].append(now())
        if key == "bad":
            raise error
        return 1.0

    async def test(queue: KeyedQueue) -> None:
        queue.wake("bad")
        queue.wake("good")
        await asyncio.sleep(300)
        pauses = [later - sooner for sooner, later in zip(looks["bad"], looks["bad"][1:], strict=False)]
        assert BACKOFF_S <= pauses[0] <= 2 * BACKOFF_S
        assert MAX_BACKOFF_S / 2 <= pauses[-1] <= MAX_BACKOFF_S
        assert len(looks["good"]) == 300 or len(looks["good"]) == 301

    running(work, test)


def test_a_key_that_is_mended_starts_its_back_off_anew() -> None:
    looks: list[float] = []
    fails = {0, 1, 2, 3, 5}

    async def work(key: str) -> float | None:
        looks.append(now())
        if len(looks) - 1 in fails:
            raise Unavailable("no answer")
        return None

    async def test(queue: KeyedQueue) -> None:
        queue.wake("a")
        await asyncio.sleep(100)
        assert len(looks) == 5
        queue.wake("a")
        await asyncio.sleep(100)
        assert looks[6] - looks[5] <= 2 * BACKOFF_S

    running(work, test)


def test_what_is_under_way_ends_with_the_queue() -> None:
    cancelled: list[str] = []

    async def work(key: str) -> float | None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            cancelled.append(key)
            raise
        return None

    async def run() -> None:
        queue = KeyedQueue(work, clock=VirtualClock(), rng=random.Random(1))
        task = asyncio.create_task(queue.run())
        queue.wake("a")
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(run())
    assert cancelled == ["a"]


def test_what_is_counted_and_written_of_a_failure() -> None:
    meters, about = Meters(), list[str]()

    class Note(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            about.append(RECORD.get())

    async def work(key: str) -> float | None:
        RECORD.set(f"record of {key}")
        await asyncio.sleep(1)
        if key == "bad":
            raise Unavailable("libvirtd is away")
        return None

    async def both() -> None:
        queue = KeyedQueue(work, clock=VirtualClock(), rng=random.Random(1), meters=meters)
        task = asyncio.create_task(queue.run())
        queue.wake("good")
        queue.wake("bad")
        assert meters.reconcile_pending() == 2
        await asyncio.sleep(1.05)
        assert (meters.reconcile_pending(), meters.reconcile_failing()) == (0, 1)
        task.cancel()

    handler = Note()
    logging.getLogger("pvc.handlers.queue").addHandler(handler)
    try:
        run_virtual(both())
    finally:
        logging.getLogger("pvc.handlers.queue").removeHandler(handler)
    assert about == ["record of bad"], "and of no other key's"
    assert meters.reconcile_failures.total() == 1
    assert sum(meters.reconcile_seconds.values[()][0]) == 2
