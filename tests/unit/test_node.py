"""A node from its first moment: what it announces, and of whose doing."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from pvc.commands.base import Decision
from pvc.commands.registry import BY_NAME
from pvc.drivers.simulated import SimulatedHypervisor
from pvc.drivers.watchdog import SimulatedWatchdog
from pvc.errors import DriverError, PvcError
from pvc.events.node import NodeDiverged
from pvc.events.record import Record, unseal
from pvc.log.memory import MemoryLog
from pvc.node.node import Node, Services
from pvc.presence.alone import AlonePresence
from pvc.runtime.appender import Appender, Outcome, Request
from pvc.runtime.snapshots import SnapshotFile, store_snapshot
from pvc.runtime.world import World
from pvc.sim.loop import VirtualClock, run_virtual
from tests.support.core import ADMIN, command


class MutePresence(AlonePresence):
    """Has not heard for long whether its session still lives."""

    mute = True

    def lease_left_s(self) -> float:
        return 0.0 if self.mute else super().lease_left_s()


class LongLog(MemoryLog):
    """Takes an hour to be read, until it is made short."""

    long = True

    async def read(self, first: int, limit: int) -> list[bytes]:
        if self.long:
            await asyncio.sleep(3600)
        return await super().read(first, limit)


class TakenWatchdog(SimulatedWatchdog):
    """Somebody else has it, until it is given back."""

    taken = False

    def arm(self, timeout_s: int) -> None:
        if self.taken:
            raise DriverError("somebody else holds it", code="watchdog.unavailable")
        super().arm(timeout_s)


class House:
    """A running node, its log and its machine."""

    def __init__(
        self,
        presence: AlonePresence | None = None,
        log: MemoryLog | None = None,
        snapshots: SnapshotFile | None = None,
        watchdog: SimulatedWatchdog | None = None,
    ) -> None:
        self.log = log or MemoryLog()
        self.world = World()
        self.machine = SimulatedHypervisor()
        clock, rng = VirtualClock(), random.Random(1)
        self.appender = Appender(self.world, self.log, origin="hv1", clock=clock, rng=rng)
        self.node = Node(
            Services(
                name="hv1",
                boot="boot-1",
                world=self.world,
                log=self.log,
                appender=self.appender,
                hypervisor=self.machine,
                clock=clock,
                rng=rng,
                presence=presence or AlonePresence(),
                snapshots=snapshots,
                watchdog=watchdog,
            )
        )

    async def initialise(self) -> Outcome:
        init = Request(
            name="cluster.init",
            command=command("cluster.init", name="main"),
            decide=BY_NAME["cluster.init"].decide,
            actor=ADMIN,
            audit_refusal=True,
        )
        return await self.appender.submit(init)

    async def records(self) -> list[Record]:
        return [unseal(data).record for data in await self.log.read(1, 1_000)]


@contextlib.asynccontextmanager
async def a_house(
    presence: AlonePresence | None = None,
    log: MemoryLog | None = None,
    snapshots: SnapshotFile | None = None,
    watchdog: SimulatedWatchdog | None = None,
) -> AsyncIterator[House]:
    house = House(presence, log, snapshots, watchdog)
    running = asyncio.create_task(house.node.run())
    await asyncio.sleep(0.1)
    yield house
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def in_a_house(life: Callable[[House], Awaitable[None]], presence: AlonePresence | None = None) -> None:
    async def live() -> None:
        async with a_house(presence) as house:
            await life(house)

    run_virtual(live())


def test_the_readiness_names_the_record_that_made_the_cluster_as_its_cause() -> None:
    async def life(house: House) -> None:
        first, second = await asyncio.gather(house.initialise(), house.initialise(), return_exceptions=True)
        assert isinstance(first, Outcome) and isinstance(second, PvcError), "the second is refused"
        await asyncio.sleep(1)
        made, refused, ready = await house.records()
        assert [raw.type for raw in refused.events] == ["command.rejected"]
        assert "node.ready" in [raw.type for raw in ready.events]
        assert ready.cause == made.id

    in_a_house(life)


def test_a_node_that_does_not_know_whether_its_session_lives_says_nothing_of_being_ready() -> None:
    presence = MutePresence()

    async def life(house: House) -> None:
        await house.initialise()
        await asyncio.sleep(60)
        assert "node.ready" not in [raw.type for record in await house.records() for raw in record.events]
        presence.mute = False
        await asyncio.sleep(5)
        assert "node.ready" in [raw.type for record in await house.records() for raw in record.events]

    in_a_house(life, presence)


def test_a_node_that_folded_to_another_state_folds_anew_when_it_starts_again(tmp_path: Path) -> None:
    async def live() -> None:
        snapshots = SnapshotFile(tmp_path / "snapshot")
        async with a_house(snapshots=snapshots) as house:
            await house.initialise()
            await asyncio.sleep(5)
            await store_snapshot(house.world, snapshots)
            assert snapshots.load() is not None
            found = NodeDiverged(node="hv1", position=house.world.position, state_hash="1" * 32, expected="2" * 32)
            report = Request(
                name="test.diverged",
                command=found,
                decide=lambda state, command, context: Decision(events=(found,)),
                actor=ADMIN,
            )
            await house.appender.submit(report)
            assert "node.diverged/hv1" in house.world.state.faults
            await store_snapshot(house.world, snapshots)
        assert snapshots.load() is None

    run_virtual(live())


def test_a_node_is_among_the_others_while_it_still_folds_a_long_log() -> None:
    async def live() -> None:
        log, presence = LongLog(), AlonePresence()
        log.long = False
        async with a_house(log=log) as earlier:
            await earlier.initialise()
            await asyncio.sleep(5)
            before = len(await earlier.records())
        log.long = True
        async with a_house(presence, log) as house:
            await asyncio.sleep(30)
            assert house.world.position == 0
            assert list(await presence.members()) == ["hv1"] and presence.lease_left_s() > 0
            assert not house.node.standing.may_start(), "it does not know yet what it has"
            await asyncio.sleep(3600)
            log.long = False
            await asyncio.sleep(5)
            assert house.world.position >= before and house.node.standing.may_start()

    run_virtual(live())


def test_a_node_takes_its_promise_back_when_it_cannot_arm_its_watchdog_any_more() -> None:
    async def live() -> None:
        log, watchdog = MemoryLog(), TakenWatchdog(lambda: None)
        async with a_house(log=log, watchdog=watchdog) as earlier:
            await earlier.initialise()
            await asyncio.sleep(5)
            assert earlier.world.state.nodes["hv1"].self_fence_s == 22
        watchdog.disarm()
        watchdog.taken = True
        async with a_house(log=log, watchdog=watchdog) as house:
            await asyncio.sleep(5)
            own = house.world.state.nodes["hv1"]
            assert (own.state.value, own.self_fence_s) == ("ready", 0)
            watchdog.taken = False
            await asyncio.sleep(10)
            assert house.world.state.nodes["hv1"].self_fence_s == 22, "and gives it again"
            told = len(await house.records())
            await asyncio.sleep(600)
            assert len(await house.records()) == told
        watchdog.disarm()

    run_virtual(live())
