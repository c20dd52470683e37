"""Presence in memory keeps the contract of all presences, on virtual time; and the law of the lease whatever fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from pvc.presence.alone import AlonePresence
from pvc.presence.base import Presence
from pvc.presence.memory import MemoryPresence
from pvc.presence.memory_server import PresenceServer
from pvc.sim.loop import VirtualClock, run_virtual
from tests.contract.presence_contract import PresenceContract
from tests.contract.virtual_policy import VirtualPolicy

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture:DeprecationWarning")

TIMEOUT_S = 10.0


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return VirtualPolicy()


class MemoryWorld:
    """A server and its faults."""

    timeout_s = TIMEOUT_S
    poll_s = TIMEOUT_S / 200

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.server = PresenceServer(self.clock, session_timeout_s=TIMEOUT_S)
        self.cut, self.lose_replies, self.restore = self.server.cut, self.server.lose_replies, self.server.restore
        self.clients: list[MemoryPresence] = []

    async def client(self, name: str, machine: str = "") -> Presence:
        self.clients.append(MemoryPresence(self.server, name, machine=machine))
        return self.clients[-1]


class TestMemoryPresence(PresenceContract):
    @pytest.fixture
    async def world(self) -> AsyncIterator[MemoryWorld]:
        world = MemoryWorld()
        yield world
        for client in world.clients:
            await client.close()


async def test_the_lease_of_a_frozen_node_is_over_before_anyone_sees_it_gone_and_stays_over_when_it_thaws() -> None:
    world = MemoryWorld()
    a, b = await world.client("a"), await world.client("b")
    await a.join("a", b"")
    await asyncio.sleep(TIMEOUT_S)
    world.server.freeze("a")
    end = world.clock.monotonic() + a.lease_left_s()
    while "a" in await b.members():
        await asyncio.sleep(world.poll_s)
    assert end < world.clock.monotonic()
    world.server.thaw("a")
    assert a.lease_left_s() == 0.0
    await asyncio.sleep(TIMEOUT_S)
    assert not a.joined
    await a.join("a", b"")
    assert a.lease_left_s() > 0
    for client in world.clients:
        await client.close()


async def test_when_the_servers_come_back_nobody_has_expired() -> None:
    world = MemoryWorld()
    a, b = await world.client("a"), await world.client("b")
    await a.join("a", b"")
    before = await b.members()
    world.server.go_down()
    await asyncio.sleep(3 * TIMEOUT_S)
    assert a.joined and a.lease_left_s() == 0.0
    world.server.come_up()
    await asyncio.sleep(TIMEOUT_S / 2)
    assert await b.members() == before
    assert a.joined and a.lease_left_s() > 0
    for client in world.clients:
        await client.close()


@pytest.mark.parametrize("seed", range(40))
def test_whoever_has_a_lease_is_a_member_whatever_happens_to_the_network(seed: int) -> None:
    run_virtual(_a_bad_day(random.Random(seed)))


async def _a_bad_day(rng: random.Random) -> None:
    clock = VirtualClock()
    server = PresenceServer(clock, session_timeout_s=TIMEOUT_S)
    clients = {name: MemoryPresence(server, name) for name in "abc"}
    held = 0
    faults = [server.cut, server.lose_replies, server.freeze, server.restore, server.restore, server.thaw, server.thaw]

    async def stay(name: str, client: MemoryPresence) -> None:
        async for _ in client.changes():
            while not client.joined:
                try:
                    await client.join(name, b"")
                except Exception:
                    await asyncio.sleep(0.1)

    tasks = [asyncio.create_task(stay(name, client)) for name, client in clients.items()]
    for _ in range(400):
        if rng.random() < 0.2:
            rng.choice(faults)(rng.choice("abc"))
        if rng.random() < 0.02:
            rng.choice([server.go_down, server.come_up])()
        if rng.random() < 0.05:
            server.come_up()
        await asyncio.sleep(rng.random())
        for name, client in clients.items():
            if client.lease_left_s() > 0:
                held += 1
                assert server.places[name].session is client._session, "a lease without a place"
    assert held > 50, "a day with hardly any lease proves nothing"
    for task in tasks:
        task.cancel()


async def test_who_is_alone_is_always_there() -> None:
    alone = AlonePresence()
    presence: Presence = alone
    assert not await presence.claim_primary("a")
    await presence.join("a", b"hello")
    assert await presence.claim_primary("a")
    assert presence.lease_left_s() > 0
    assert (list(await presence.members()), await presence.primary()) == (["a"], "a")
    await presence.publish(b"t")
    assert await presence.telemetry() == {"a": b"t"}
    await presence.leave()
    assert (await presence.members(), await presence.primary(), presence.lease_left_s()) == ({}, "", 0.0)
