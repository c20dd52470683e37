"""What nodes say of themselves: published in time, read with care, and never more than a hint."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from pvc.drivers.simulated import SimulatedHypervisor
from pvc.drivers.simulated_guest import Behaviour
from pvc.drivers.simulated_network import SimulatedNetwork
from pvc.errors import Unavailable
from pvc.events.vm import VmSpec
from pvc.handlers.transfers import Transfers
from pvc.node.telemetry import PROGRESS_S, PUBLISH_S, Publisher
from pvc.presence.memory import MemoryPresence
from pvc.presence.memory_server import PresenceServer
from pvc.projections.state import Migration
from pvc.runtime.telemetry import FRESH_S, STALE_S, NodeFigures, Telemetry
from pvc.runtime.world import World
from pvc.sim.loop import VirtualClock, run_virtual
from tests.support.core import a_cluster

VM = "0b9f6d1e-8f0a-5b5e-9c55-0d7e9b1c2a3f"
MOVE = Migration(
    id="m1",
    source="hv1",
    target="hv2",
    live=True,
    fallback=False,
    permanent=False,
    max_downtime_ms=300,
    force_live=False,
    timeout_s=90,
    away="",
    reason="",
    why=(),
)


class House:
    """hv1 publishes, and a reader on another node."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.server = PresenceServer(self.clock)
        self.presence = MemoryPresence(self.server, "hv1")
        self.network = SimulatedNetwork(mib_per_s=16)
        self.machine = SimulatedHypervisor(network=self.network, address="10.0.0.1")
        self.machine.default_behaviour = Behaviour(heartbeat=False, cpu_load=0.5)
        SimulatedHypervisor(network=self.network, address="10.0.0.2")
        self.transfers = Transfers(self.machine, lambda vm: None)
        self.cluster = a_cluster("hv1", "hv2")
        self.world = World(self.cluster.state)
        self.publisher = Publisher(
            "hv1", self.world, self.presence, self.machine, self.transfers, self.clock, self._zookeeper
        )
        self.reader = MemoryPresence(self.server, "hv2")
        self.telemetry = Telemetry(self.reader, self.clock)

    async def _zookeeper(self) -> str:
        return "leader"

    async def run_a_vm(self) -> None:
        await self.machine.define(VM, "web01", VmSpec(memory_mib=512, vcpus=2), epoch=1)
        await self.machine.start(VM)

    async def heard(self) -> NodeFigures:
        return (await self.telemetry.read())["hv1"]

    def say(self, node: str, **figures: Any) -> None:
        told = NodeFigures(**{"node": node, "time_us": self.clock.wall_us()} | figures)
        self.server.telemetry[node] = msgspec.json.encode(told)


def live(story: Callable[[House], Awaitable[None]], *, publishing: bool = True) -> None:
    async def main() -> None:
        house = House()
        running = asyncio.create_task(house.publisher.run()) if publishing else None
        await story(house)
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        await house.transfers.close()
        await house.presence.close()
        await house.reader.close()

    run_virtual(main())


# Publishing.


def test_a_node_tells_what_it_and_its_guests_use() -> None:
    async def story(house: House) -> None:
        await house.presence.join("hv1", b"{}")
        await house.run_a_vm()
        await asyncio.sleep(4 * PUBLISH_S)
        figures = await house.heard()
        assert (figures.node, figures.vcpus, figures.zookeeper) == ("hv1", 8, "leader")
        assert figures.position == house.world.position and figures.version
        assert figures.guests[VM].cpu_per_cent == pytest.approx(100, abs=5), "half of two CPUs"
        assert figures.memory_free_mib > 0 and figures.transfers == {}

    live(story)


def test_nothing_is_published_before_there_is_a_place_and_it_begins_when_there_is() -> None:
    async def story(house: House) -> None:
        await asyncio.sleep(3 * PUBLISH_S)
        assert house.server.telemetry == {}
        await house.presence.join("hv1", b"{}")
        await asyncio.sleep(2 * PUBLISH_S)
        assert set(house.server.telemetry) == {"hv1"}

    live(story)


def test_figures_are_told_every_few_seconds_and_the_way_of_a_guest_every_second() -> None:
    async def story(house: House) -> None:
        await house.presence.join("hv1", b"{}")
        await house.run_a_vm()
        await asyncio.sleep(3 * PUBLISH_S)
        calm = await changes(house, 10 * PUBLISH_S)
        assert calm == pytest.approx(10, abs=1)
        house.transfers.begin(VM, 1, MOVE, "10.0.0.2")
        await asyncio.sleep(PUBLISH_S + PROGRESS_S)
        first = (await house.heard()).transfers[VM]
        assert await changes(house, 10 * PROGRESS_S) == pytest.approx(10, abs=1)
        second = (await house.heard()).transfers[VM]
        assert 0 < first.per_cent < second.per_cent and first.remaining_bytes > second.remaining_bytes
        await asyncio.sleep(60)
        assert (await house.heard()).transfers == {}

    live(story)


async def changes(house: House, seconds: float) -> int:
    """How often the figures were told anew."""
    seen = set()
    for _ in range(round(seconds * 10)):
        await asyncio.sleep(0.1)
        seen.add(msgspec.json.decode(house.server.telemetry["hv1"], type=NodeFigures).time_us)
    return len(seen)


def test_a_publisher_outlives_a_hypervisor_and_a_presence_that_are_away() -> None:
    async def story(house: House) -> None:
        await house.presence.join("hv1", b"{}")
        house.machine.lose_connection()
        house.server.cut("hv1")
        await asyncio.sleep(60)
        house.machine.regain_connection()
        house.server.restore("hv1")
        await asyncio.sleep(2)
        await house.presence.join("hv1", b"{}")
        await asyncio.sleep(2 * PUBLISH_S)
        assert (await house.heard()).node == "hv1"

    live(story)


# Reading.


def test_what_is_stale_is_not_shown_as_if_it_were_so_now() -> None:
    async def story(house: House) -> None:
        house.say("hv1", memory_free_mib=100)
        house.say("hv2", memory_free_mib=200)
        assert set(await house.telemetry.read()) == {"hv1", "hv2"}
        await asyncio.sleep(STALE_S - 1)
        house.say("hv2", memory_free_mib=300)
        await house.telemetry.read()
        await asyncio.sleep(2)
        assert {node: f.memory_free_mib for node, f in (await house.telemetry.read()).items()} == {"hv2": 300}
        house.say("hv1", memory_free_mib=100)
        assert set(await fresh(house)) == {"hv1", "hv2"}, "it is back"

    live(story, publishing=False)


def test_figures_go_by_when_they_were_heard_and_not_by_the_others_clock() -> None:
    async def story(house: House) -> None:
        house.say("hv1", time_us=1, memory_free_mib=100)
        assert (await house.heard()).memory_free_mib == 100

    live(story, publishing=False)


def test_readers_within_a_moment_share_one_reading() -> None:
    async def story(house: House) -> None:
        house.say("hv1", memory_free_mib=100)
        await house.telemetry.read()
        house.say("hv1", memory_free_mib=200)
        await asyncio.sleep(FRESH_S / 2)
        assert (await house.heard()).memory_free_mib == 100
        await asyncio.sleep(FRESH_S / 2)
        assert (await house.heard()).memory_free_mib == 200

    live(story, publishing=False)


def test_what_cannot_be_read_is_passed_over_and_what_is_gone_is_forgotten() -> None:
    async def story(house: House) -> None:
        house.say("hv1")
        house.server.telemetry["hv2"] = b"from the future"
        assert set(await house.telemetry.read()) == {"hv1"}
        del house.server.telemetry["hv1"]
        assert set(await fresh(house)) == set()

    live(story, publishing=False)


def test_where_nobody_answers_the_last_figures_stand_for_a_while() -> None:
    async def story(house: House) -> None:
        house.say("hv1", memory_free_mib=100)
        await house.telemetry.read()

        async def away() -> dict[str, bytes]:
            raise Unavailable("no majority")

        house.reader.telemetry = away  # type: ignore[method-assign]
        assert set(await fresh(house)) == {"hv1"}
        await asyncio.sleep(STALE_S)
        assert set(await fresh(house)) == set()

    live(story, publishing=False)


def test_a_placement_may_go_by_the_free_memory_and_the_load_of_each_cpu() -> None:
    async def story(house: House) -> None:
        house.say("hv1", memory_free_mib=100, load1=4.0, vcpus=8)
        await house.telemetry.read()
        usage = house.telemetry.usage()["hv1"]
        assert (usage.memory_free_mib, usage.load) == (100, 0.5)

    live(story, publishing=False)


async def fresh(house: House) -> dict[str, NodeFigures]:
    await asyncio.sleep(FRESH_S)
    return dict(await house.telemetry.read())
