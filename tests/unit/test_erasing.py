"""The node's part of an erasure: whatever step a crash comes after, the key is destroyed, and that is said once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from pvc.commands.audit import ErasePerson, erase_person
from pvc.commands.cluster import init_cluster
from pvc.commands.facts import REPORTS
from pvc.errors import Unavailable
from pvc.events.access import ErasureRequested, PersonErased
from pvc.events.record import Actor, unseal
from pvc.events.registry import decode_event
from pvc.events.sealed import parse_sealed
from pvc.keyring.memory import MemoryKeyring
from pvc.log.memory import MemoryLog
from pvc.node.erasing import SWEEP_S, TICK_S, Erasing
from pvc.projections.snapshot import restore, snapshot
from pvc.runtime.appender import Appender, Outcome, Request
from pvc.runtime.people import People
from pvc.runtime.world import World, catch_up
from pvc.sim.loop import VirtualClock
from tests.support.core import ADMIN, command
from tests.support.virtual import virtual

NODE = Actor(principal="node/hv1", method="node")
SEEDS = itertools.count(1)


class Keys(MemoryKeyring):
    """A keyring that can die on the way, before or after it has destroyed."""

    def __init__(self, shared: MemoryKeyring | None = None) -> None:
        super().__init__(shared)
        self.fails = 0
        self.hangs = False
        self.destroyed: list[str] = []

    async def destroy(self, key_id: str) -> None:
        if self.hangs:
            await asyncio.sleep(1e9)
        if self.fails:
            self.fails -= 1
            raise Unavailable("the keyring is away", code="keyring.unreachable")
        await super().destroy(key_id)
        self.destroyed.append(key_id)


class House:
    """What outlives a daemon: the log and the keyring; `daemon` is one on them."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.keys = Keys()

    @contextlib.asynccontextmanager
    async def daemon(
        self, *, epoch: Callable[[], int | None] = lambda: 0, stored: bytes = b"", deaf: bool = False
    ) -> AsyncIterator[Daemon]:
        world = World(restore(stored)) if stored else World()
        await catch_up(world, self.log)
        daemon = Daemon(self, world, epoch, deaf)
        tasks = [asyncio.create_task(daemon.appender.run()), asyncio.create_task(daemon.erasing.run())]
        try:
            yield daemon
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def told(self) -> list[str]:
        records = [unseal(data).record for data in await self.log.read(1, 1_000)]
        events = [decode_event(raw) for record in records for raw in record.events]
        return [event.TYPE for event in events if isinstance(event, ErasureRequested | PersonErased)]


class Daemon:
    def __init__(self, house: House, world: World, epoch: Callable[[], int | None], deaf: bool) -> None:
        self.world = world
        self.deaf = deaf
        clock, rng = VirtualClock(), random.Random(next(SEEDS))
        self.appender = Appender(world, house.log, origin="hv1", clock=clock, rng=rng)
        self.people = People(house.keys, world, clock, rng)
        self.erasing = Erasing("hv1", world, self.people, self.submit, epoch)

    async def submit(self, report: Any, cause: str = "") -> Outcome:
        if self.deaf:
            await asyncio.sleep(1e9)  # dies before its report is in the log
        name, decide = REPORTS[type(report)]
        return await self.appender.submit(Request(name=name, command=report, decide=decide, actor=NODE, cause=cause))

    async def begin(self) -> str:
        """A cluster with a person; returns the key's id."""
        init = command("cluster.init", name="main")
        await self.appender.submit(Request(name="cluster.init", command=init, decide=init_cluster, actor=ADMIN))
        sealed = parse_sealed(await self.people.seal("anna"))
        assert sealed is not None
        return sealed.key

    async def request(self) -> None:
        sealed = await self.people.find("anna")
        given = msgspec.structs.replace(ErasePerson(principal="anna"), principal=sealed)
        await self.appender.submit(Request(name="audit.erase", command=given, decide=erase_person, actor=ADMIN))


BOTH = [ErasureRequested.TYPE, PersonErased.TYPE]


@virtual
async def test_a_requested_erasure_is_carried_out_and_told_once() -> None:
    house = House()
    async with house.daemon() as daemon:
        key = await daemon.begin()
        await daemon.request()
        await asyncio.sleep(5 * TICK_S)
        assert daemon.world.state.erasures[key].erased_us
        assert daemon.people._keys == {}
    assert house.keys.destroyed == [key] and await house.keys.ids() == []
    assert await house.told() == BOTH


@virtual
async def test_killed_between_the_request_and_the_destruction_the_next_start_destroys() -> None:
    house = House()
    async with house.daemon() as daemon:
        key = await daemon.begin()
        house.keys.hangs = True
        await daemon.request()
        await asyncio.sleep(TICK_S)
        stored = snapshot(daemon.world.state)
    assert await house.keys.ids() == [key] and await house.told() == BOTH[:1]
    house.keys.hangs = False
    async with house.daemon(stored=stored) as daemon:
        assert await daemon.people.readable(f'"person~{key}~{"A" * 64}"'.encode()) == f'"erased-{key}"'.encode()
        await asyncio.sleep(TICK_S)
    assert await house.keys.ids() == [] and await house.told() == BOTH


@virtual
async def test_killed_between_the_destruction_and_its_report_the_next_start_reports() -> None:
    house = House()
    async with house.daemon(deaf=True) as daemon:
        key = await daemon.begin()
        await daemon.request()
        await asyncio.sleep(TICK_S)
    assert house.keys.destroyed == [key] and await house.told() == BOTH[:1]
    async with house.daemon():
        await asyncio.sleep(TICK_S)
    assert await house.told() == BOTH


@virtual
async def test_a_keyring_that_is_away_is_tried_again() -> None:
    house = House()
    house.keys.fails = 3
    async with house.daemon() as daemon:
        await daemon.begin()
        await daemon.request()
        await asyncio.sleep(TICK_S)
        assert await house.told() == BOTH[:1]
        await asyncio.sleep(5 * TICK_S)
    assert await house.told() == BOTH


@virtual
async def test_only_who_acts_for_the_cluster_destroys_and_all_forget() -> None:
    house = House()
    acting: list[int | None] = [None]
    async with house.daemon(epoch=lambda: acting[0]) as daemon:
        key = await daemon.begin()
        assert key in daemon.people._keys
        await daemon.request()
        await asyncio.sleep(5 * TICK_S)
        assert daemon.people._keys == {} and house.keys.destroyed == []
        acting[0] = 7
        await asyncio.sleep(2 * TICK_S)
    assert house.keys.destroyed == [key]


@virtual
async def test_a_key_that_comes_back_from_a_copy_is_destroyed_again() -> None:
    house = House()
    async with house.daemon() as daemon:
        await daemon.begin()
        copy = await house.keys.find("anna")
        assert copy is not None
        await daemon.request()
        await asyncio.sleep(2 * TICK_S)
        await house.keys.make(copy)
        await asyncio.sleep(SWEEP_S + 2 * TICK_S)
        assert await house.keys.ids() == []
    await house.keys.make(copy)
    async with house.daemon():
        await asyncio.sleep(TICK_S)
    assert await house.keys.ids() == []
    assert await house.told() == BOTH
