"""Checkpoints in a running node: when they are signed, who notices a false one, and how they get outside."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from pvc.clock import SystemClock, SystemRng
from pvc.commands.facts import REPORTS, ReportNodeReady
from pvc.commands.facts_log import ReportCheckpoint, ReportSigningKey
from pvc.commands.registry import BY_NAME
from pvc.drivers.anchors import Anchor
from pvc.errors import DriverError
from pvc.events.record import Actor
from pvc.log.history import HistoryIndex
from pvc.log.memory import MemoryLog
from pvc.node import anchoring, vouching
from pvc.node.anchoring import Anchoring
from pvc.node.signing import KeyFiles
from pvc.node.vouching import Vouching, VouchingParts
from pvc.projections.log_state import LogTrust
from pvc.proof.note import check_signature, origin_of, parse_checkpoint, parse_key
from pvc.runtime.appender import Appender, Request
from pvc.runtime.world import World, follow
from tests.support.keys import TestKey

ADMIN = Actor(principal="root", method="socket")
PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute of the real thing in a moment."""
    monkeypatch.setattr(vouching, "EVERY_S", 0.2)
    monkeypatch.setattr(vouching, "TICK_S", 0.02)
    monkeypatch.setattr(anchoring, "TICK_S", 0.02)
    monkeypatch.setattr(anchoring, "PAUSE_S", 0.02)
    monkeypatch.setattr(anchoring, "PATIENCE_S", 0.1)


class Place:
    """An anchor that fails when told so."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.broken = ""
        self.hangs = False
        self.notes: list[str] = []

    async def deliver(self, note: str) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.broken:
            raise DriverError(self.broken)
        self.notes.append(note)

    @property
    def sizes(self) -> list[int]:
        return [parse_checkpoint(note).checkpoint.size for note in self.notes]


class House:
    """The log, the fold, the replica and the appender of a node; parts that vouch are started one by one."""

    def __init__(self, folder: Path, history: HistoryIndex) -> None:
        self.folder = folder
        self.log = MemoryLog()
        self.world = World()
        self.history = history
        self.appender = Appender(self.world, self.log, origin="hv1", clock=SystemClock(), rng=SystemRng())
        self.epoch: int | None = 0

    async def do(self, name: str, /, **fields: Any) -> None:
        spec = BY_NAME[name]
        request = Request(name=name, command=spec.struct(**fields), decide=spec.decide, actor=ADMIN)
        await self.appender.submit(request)

    async def submit(self, report: Any, cause: str = "") -> Any:
        name, decide = REPORTS[type(report)]
        return await self.appender.submit(Request(name=name, command=report, decide=decide, actor=ADMIN, cause=cause))

    async def begin(self) -> None:
        await self.do("cluster.init", name="main", coordinators=("hv1",))
        description: dict[str, Any] = {"memory_mib": 1, "vcpus": 1, "accelerator": "", "hypervisor": ""}
        await self.submit(ReportNodeReady(node="hv1", version="0", boot="b", **description))

    def anchoring(self, *places: Anchor) -> Anchoring:
        return Anchoring(
            "hv1",
            self.world,
            self.history,
            places,
            self.submit,
            SystemClock(),
            SystemRng(),
            epoch=lambda: self.epoch,
        )

    def vouching(self, node: str = "hv1", outside: Anchoring | None = None) -> Vouching:
        parts = VouchingParts(history=self.history, keys=KeyFiles(self.folder / f"{node}.key"))
        delivered = outside.delivered if outside is not None else dict
        return Vouching(
            node,
            self.world,
            parts,
            self.submit,
            SystemClock(),
            epoch=lambda: self.epoch,
            may_speak=lambda: True,
            anchored=delivered,
        )

    @property
    def trust(self) -> LogTrust:
        assert self.world.state.cluster is not None
        return self.world.state.cluster.log

    @property
    def newest(self) -> int:
        return self.trust.checkpoint.size if self.trust.checkpoint is not None else 0

    async def more(self) -> int:
        """Let something happen, wait until it is vouched for, and return the size."""
        position = self.world.position
        await self.do("cluster.set_maintenance", maintenance=not self.world.state.cluster.maintenance)  # type: ignore[union-attr]
        await until(lambda: self.newest > position)
        return self.newest


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    history = await HistoryIndex.open(tmp_path / "history.db")
    house = House(tmp_path, history)
    async with running(house.appender.run(), history.run(house.log), follow(house.world, house.log)):
        await house.begin()
        yield house
    await history.close()


@contextlib.asynccontextmanager
async def running(*parts: Any) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in done), done


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.01)


async def test_what_happened_is_vouched_for_within_the_time_and_an_idle_log_does_not_grow(house: House) -> None:
    async with running(house.vouching().run()):
        await until(lambda: house.newest)
        size = await house.more()
        key = house.trust.key_of("hv1")
        checkpoint = house.trust.checkpoint
        assert key is not None and checkpoint is not None
        signed = parse_checkpoint(checkpoint.note)
        assert check_signature(signed, [parse_key(key.key)]).id == key.id
        assert signed.checkpoint.root == await house.history.root(size)
        assert house.world.position == size + 1
        await asyncio.sleep(1.0)  # five times the interval
        assert house.world.position == size + 1


async def test_many_records_are_vouched_for_without_waiting(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vouching, "EVERY_S", 3_600.0)
    async with running(house.vouching().run()):
        await until(lambda: house.trust.keys)
        for number in range(vouching.EVERY_RECORDS):
            await house.do("cluster.set_maintenance", maintenance=number % 2 == 0)
        await until(lambda: house.newest >= vouching.EVERY_RECORDS - 1)


async def test_who_does_not_act_for_the_cluster_signs_nothing_but_has_a_key(house: House) -> None:
    house.epoch = None
    async with running(house.vouching().run()):
        await until(lambda: house.trust.keys)
        await asyncio.sleep(0.6)
        assert house.newest == 0
        house.epoch = 0
        await until(lambda: house.newest)


async def test_a_node_whose_records_are_others_says_so(house: House) -> None:
    assert house.world.state.cluster is not None
    key = TestKey("rogue", origin_of(house.world.state.cluster.id))
    await house.submit(ReportSigningKey(node="hv1", key=str(key.public)))
    true = key.sign(1, await house.history.root(1))
    await house.submit(ReportCheckpoint(primary="hv1", epoch=0, note=true))
    await house.do("node.add", node="hv2")
    async with running(house.vouching("hv2").run()):
        await asyncio.sleep(0.3)
        assert house.world.state.faults == {}
        await house.submit(ReportCheckpoint(primary="hv1", epoch=0, note=key.sign(3, bytes(32))))
        await until(lambda: "node.log_differs/hv2" in house.world.state.faults)
    message = house.world.state.faults["node.log_differs/hv2"].message
    assert "records 2 to 3" in message
    assert "checkpoint of size 3" in message


async def test_every_checkpoint_reaches_every_place_and_one_that_fails_holds_up_nobody(house: House) -> None:
    good, bad = Place("file"), Place("webhook")
    outside = house.anchoring(good, bad)
    async with running(outside.run(), house.vouching(outside=outside).run()):
        await until(lambda: good.sizes and bad.sizes)
        bad.broken = "no answer"
        sizes = [await house.more() for _ in range(3)]
        await until(lambda: good.sizes[-1] >= sizes[-1])
        assert set(sizes) <= set(good.sizes)
        await until(lambda: "log.anchor_failing/webhook" in house.world.state.faults)
        assert "no answer" in house.world.state.faults["log.anchor_failing/webhook"].message
        bad.broken = ""
        await until(lambda: set(sizes) <= set(bad.sizes))
        await until(lambda: house.world.state.faults == {})
        assert bad.sizes == sorted(set(bad.sizes)), "in order, and none twice without need"


async def test_the_next_primary_goes_on_where_the_last_one_was(house: House) -> None:
    first, slow = Place("file"), Place("webhook")
    outside = house.anchoring(first, slow)
    async with running(outside.run(), house.vouching(outside=outside).run()):
        await until(lambda: slow.sizes)
        known = slow.sizes[-1]
        await until(lambda: house.trust.checkpoint is not None and house.newest >= known)
        await house.more()
        slow.hangs = True
        sizes = [await house.more() for _ in range(2)]
    after = Place("webhook")
    async with running(house.anchoring(Place("file"), after).run()):
        await until(lambda: after.sizes and after.sizes[-1] == sizes[-1])
    assert set(sizes) <= set(slow.sizes) | set(after.sizes), "each was delivered by one of the two"


async def test_a_place_that_is_no_longer_wanted_is_no_longer_a_fault(house: House) -> None:
    bad = Place("syslog")
    bad.broken = "gone"
    outside = house.anchoring(bad)
    async with running(outside.run(), house.vouching(outside=outside).run()):
        await until(lambda: house.world.state.faults)
    async with running(house.anchoring().run()):
        await until(lambda: house.world.state.faults == {})


async def test_a_checkpoint_that_the_replica_has_damaged_is_delivered_once_it_is_filled_anew(house: House) -> None:
    place = Place("file")
    outside = house.anchoring(place)
    async with running(outside.run(), house.vouching(outside=outside).run()):
        await until(lambda: place.sizes)
        place.broken = "no answer"
        sizes = [await house.more() for _ in range(3)]
        with contextlib.closing(sqlite3.connect(house.folder / "history.db")) as db:
            db.execute("UPDATE record SET data = x'c1' WHERE position > ?", (sizes[0],))
            db.commit()
        place.broken = ""
        await until(lambda: set(sizes) <= set(place.sizes))
