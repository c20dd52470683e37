"""Presence with three real servers: another leader, another follower, and a follower that is stopped in mid-step."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.clock import BootClock
from pvc.presence.zookeeper import ZookeeperPresence
from tests.integration.zookeeper_ensemble import Ensemble
from tests.integration.zookeeper_server import require_zookeeper

pytestmark = pytest.mark.zookeeper

TIMEOUT_S = 5.0
"""Ten ticks: longer than an election takes on a busy machine."""

PATIENCE_S = 60.0
SAMPLE_S = 0.005


@pytest.fixture
def ensemble(tmp_path: Path) -> Iterator[Ensemble]:
    require_zookeeper()
    ensemble = Ensemble(tmp_path)
    try:
        ensemble.start()
        yield ensemble
    finally:
        ensemble.kill()


async def opened(hosts: str, machine: str) -> ZookeeperPresence:
    return await ZookeeperPresence.open(hosts, "main", machine=machine, session_timeout_s=TIMEOUT_S)


async def test_another_leader_costs_nobody_his_place(ensemble: Ensemble) -> None:
    old_leader, everyone = ensemble.leader(), ensemble.hosts(1, 2, 3)
    a, b = await opened(everyone, "a"), await opened(everyone, "b")
    await a.join("a", b"")
    await b.join("b", b"")
    before = await b.members()
    ensemble.send(old_leader, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_S):
        while old_leader in (modes := ensemble.modes()) or "leader" not in modes.values():
            await asyncio.sleep(0.1)
        while min(a.lease_left_s(), b.lease_left_s()) < TIMEOUT_S / 2 or await b.members() != before:
            await asyncio.sleep(0.1)
    assert a.joined and b.joined
    await a.close(expire=False)
    await b.close(expire=False)


async def test_who_is_at_a_follower_that_stops_has_no_lease_when_others_see_it_gone(ensemble: Ensemble) -> None:
    clock = BootClock()
    mine, others = ensemble.followers()[0], ensemble.leader()
    a, b = await opened(ensemble.hosts(mine), "a"), await opened(ensemble.hosts(others), "b")
    await a.join("a", b"")
    ends: list[float] = []
    gone = 0.0

    async def sample() -> None:
        while not gone:
            now = clock.monotonic()
            if (left_s := a.lease_left_s()) > 0:
                ends.append(now + left_s)
            await asyncio.sleep(SAMPLE_S)

    sampling = asyncio.create_task(sample())
    await asyncio.sleep(TIMEOUT_S)
    ensemble.send(mine, signal.SIGSTOP)
    async with asyncio.timeout(PATIENCE_S):
        while "a" in await b.members():
            await asyncio.sleep(SAMPLE_S)
    gone = clock.monotonic()
    await sampling
    assert max(ends) < gone
    ensemble.send(mine, signal.SIGCONT)
    await a.close(expire=False)
    await b.close(expire=False)


async def test_a_client_goes_on_at_another_follower_when_its_own_stops(ensemble: Ensemble) -> None:
    mine, other = ensemble.followers()
    a, b = await opened(ensemble.hosts(mine), "a"), await opened(ensemble.hosts(ensemble.leader()), "b")
    await a.join("a", b"")
    before = await b.members()
    assert a._bridge._client is not None
    a._bridge._client.set_hosts(ensemble.hosts(other))
    ensemble.send(mine, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_S):
        connection = a._bridge._connection
        while a._bridge._connection == connection or a.lease_left_s() < TIMEOUT_S / 2:
            assert await b.members() == before
            await asyncio.sleep(0.05)
    assert a.joined and await b.members() == before
    await a.close(expire=False)
    await b.close(expire=False)
