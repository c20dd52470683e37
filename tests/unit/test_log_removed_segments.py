"""Appends to a segment that others have sealed, archived and removed meanwhile: the simulator found what is here."""

from __future__ import annotations

import asyncio
import random

import pytest

from pvc.errors import Conflict, LogDamaged
from pvc.events.record import EMPTY, Entry, Head
from pvc.log.inbox import Overtaken
from pvc.log.inbox_zookeeper import ZookeeperInbox
from pvc.log.zookeeper import ZookeeperLog
from pvc.log.zookeeper_layout import SegmentLimits
from pvc.sim.log_archive import SimArchive
from pvc.sim.zookeeper_ensemble import Ensemble
from tests.contract.inbox_contract import a_report
from tests.contract.log_records import a_chain
from tests.support.virtual import virtual

SMALL = SegmentLimits(records=3)


class Cluster:
    """Logs over one ensemble, and the archive that they share."""

    def __init__(self) -> None:
        self.ensemble = Ensemble(random.Random(1), ["s1", "s2", "s3"])
        self.archive = SimArchive(lambda what: None)

    async def log(self, name: str) -> ZookeeperLog:
        bridge = self.ensemble.client(name)
        return await ZookeeperLog.open("simulated", "test", source=self.archive, limits=SMALL, bridge=bridge)

    async def fill_and_remove(self, log: ZookeeperLog, before: list[Entry], count: int) -> list[Entry]:
        """Append so many records one by one, then archive what is sealed and take it out of ZooKeeper."""
        entries = list(before)
        for _ in range(count):
            [entry] = a_chain(entries[-1].head if entries else EMPTY, 1)
            await log.append([entry], after=entries[-1].head if entries else EMPTY)
            entries.append(entry)
        await self.archive.take_over(log, entries, "test")
        assert [sealed.first for sealed in await log.segments.sealed()] > [1], "the first segment was to be removed"
        return entries


@virtual
async def test_who_appends_to_a_segment_that_was_removed_meanwhile_has_lost_a_race_and_no_log() -> None:
    cluster = Cluster()
    quick, slow = await cluster.log("quick"), await cluster.log("slow")
    [first] = a_chain(EMPTY, 1)
    await slow.append([first], after=EMPTY)
    entries = await cluster.fill_and_remove(quick, [first], 11)
    with pytest.raises(Conflict):
        await slow.append(a_chain(first.head, 1), after=first.head)
    [last] = a_chain(entries[-1].head, 1)
    assert await slow.append([last], after=entries[-1].head) == last.head


@virtual
async def test_who_takes_a_report_along_there_learns_at_the_second_try_that_it_was_the_race() -> None:
    cluster = Cluster()
    quick, slow = await cluster.log("quick"), await cluster.log("slow")
    [first] = a_chain(EMPTY, 1)
    await slow.append([first], after=EMPTY)
    inbox = await ZookeeperInbox.open("simulated", "test", slow, bridge=cluster.ensemble.client("slow"))
    report = a_report(1)
    await inbox.put([report])
    await cluster.fill_and_remove(quick, [first], 11)
    with pytest.raises(Overtaken):
        await inbox.append(a_chain(first.head, 1), after=first.head, taking=[report])
    assert await inbox.left([report.key]) == [True]
    with pytest.raises(Conflict) as refusal:
        await inbox.append(a_chain(first.head, 1), after=first.head, taking=[report])
    assert not isinstance(refusal.value, Overtaken)
    head = await slow.head()
    await inbox.append(a_chain(head, 1), after=head, taking=[report])
    assert await inbox.left([report.key]) == [False]


@virtual
async def test_who_would_seal_a_segment_that_was_removed_meanwhile_has_lost_a_race_and_no_log() -> None:
    cluster = Cluster()
    quick, slow = await cluster.log("quick"), await cluster.log("slow")
    three = a_chain(EMPTY, 3)
    await slow.append(three, after=EMPTY)
    await cluster.fill_and_remove(quick, three, 9)
    with pytest.raises(Conflict):
        await slow.append(a_chain(three[-1].head, 1), after=three[-1].head)


@virtual
async def test_an_append_whose_reply_was_lost_is_recognised_in_the_archive() -> None:
    cluster = Cluster()
    quick, slow = await cluster.log("quick"), await cluster.log("slow")
    await slow.head()
    mine = a_chain(EMPTY, 2)
    cluster.ensemble.swallow("slow", "replies")
    appending = asyncio.ensure_future(slow.append(mine, after=EMPTY))
    await asyncio.sleep(0.5)
    assert await quick.head() == mine[-1].head
    await cluster.fill_and_remove(quick, mine, 10)
    cluster.ensemble.restore("slow")
    assert await appending == mine[-1].head


@virtual
async def test_a_log_that_is_gone_altogether_is_still_found_out_by_an_append() -> None:
    cluster = Cluster()
    log = await cluster.log("a")
    entries = a_chain(EMPTY, 2)
    head: Head = await log.append(entries[:1], after=EMPTY)
    for server in cluster.ensemble.servers.values():
        for path in sorted(server.tree.nodes, reverse=True):
            if "/log" in path:
                server.tree.apply(path, None)
        if server.reign is not None and server.reign.server is server:
            server.reign._tree = server.tree.copy()
    with pytest.raises(LogDamaged) as damage:
        await log.append(entries[1:], after=head)
    assert damage.value.code == "log.gone"
