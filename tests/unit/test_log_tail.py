"""The place where followers sleep."""

from __future__ import annotations

import asyncio

import pytest

from pvc.errors import LogDamaged, Unavailable
from pvc.log.base import closed
from pvc.log.tail import Tail


async def test_who_is_behind_does_not_sleep() -> None:
    tail = Tail()
    tail.advance(3)
    assert await tail.beyond(2) == 3


async def test_growth_wakes_only_those_whom_it_concerns() -> None:
    tail = Tail()
    near, far = (asyncio.create_task(tail.beyond(position)) for position in (1, 5))
    await asyncio.sleep(0)
    assert tail.awaited
    tail.advance(2)
    assert await near == 2
    await asyncio.sleep(0)
    assert not far.done()
    tail.advance(6)
    assert await far == 6
    assert not tail.awaited


async def test_the_tail_never_shrinks() -> None:
    tail = Tail()
    tail.advance(4)
    tail.advance(2)
    assert tail.position == 4


async def test_the_first_failure_stays_and_meets_sleepers_and_latecomers() -> None:
    tail = Tail()
    sleeper = asyncio.create_task(tail.beyond(0))
    await asyncio.sleep(0)
    tail.fail(LogDamaged("broken"))
    tail.fail(closed())
    with pytest.raises(LogDamaged):
        await sleeper
    with pytest.raises(LogDamaged):
        await tail.beyond(0)


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    tail = Tail()
    sleeper = asyncio.create_task(tail.beyond(0))
    await asyncio.sleep(0)
    sleeper.cancel()
    await asyncio.wait([sleeper])
    assert not tail.awaited
    tail.fail(closed())
    with pytest.raises(Unavailable):
        await tail.beyond(0)
