"""How a node's reports get into the log when many nodes write, whatever becomes of the one who takes them in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pvc.commands.facts import FORWARDABLE, REPORTS, Ending, ReportEnded, ReportRunning, ReportStartFailed
from pvc.commands.facts_cluster import ReportNodeLost, ReportPrimary
from pvc.errors import OutcomeUnknown
from pvc.events import vm as e
from pvc.log.inbox import MAX_REPORT_BYTES
from pvc.projections.state import NodeState
from pvc.runtime.forwarder import DISTRUST_S, LOOK_S, MAX_OUTSTANDING, PATIENCE_S
from pvc.runtime.writers import CROWD
from tests.support.core import node_ready
from tests.support.virtual import virtual
from tests.support.writers_house import WritersHouse, notes_forwardable


@contextlib.asynccontextmanager
async def a_house(nodes: int = 3, **options: Any) -> AsyncIterator[WritersHouse]:
    house = WritersHouse(nodes, **options)
    for writer in house.writers.values():
        writer.reconciles = False
    with notes_forwardable():
        await house.open()
        yield house
        await house.close()


def running(house: WritersHouse, vm: str) -> ReportRunning:
    state = house.writers["n1"].world.state
    found = state.vms[state.vm_names[vm]]
    return ReportRunning(vm=found.id, node=found.node, epoch=found.epoch)


async def start(house: WritersHouse, vm: str) -> None:
    """Have it asked for, and every node know it."""
    await house.admin("vm.start", vm=vm)
    await asyncio.sleep(0.1)


def now_s() -> float:
    return asyncio.get_running_loop().time()


# -- Which way --------------------------------------------------------------------------------------------------------


@virtual
async def test_in_a_crowd_a_report_goes_through_the_inbox_and_comes_back_as_its_record() -> None:
    async with a_house() as house:
        await start(house, "n2-0")
        outcome = await house.writers["n2"].report(running(house, "n2-0"))
        assert outcome.entry is not None
        record, (laid_in,) = outcome.entry.record, house.inbox.laid_in
        assert (record.origin, record.actor.principal, record.cause) == ("n2", "node/n2", "C")
        assert (record.command.id, record.command.name) == (laid_in.id, "vm.report_running")
        assert outcome.decision.events == (e.VmStarted(vm=running(house, "n2-0").vm, node="n2", epoch=1),)
        assert outcome.position == record.position == house.writers["n2"].world.position
        assert await house.inbox.keys() == []


@virtual
async def test_few_writers_append_by_themselves() -> None:
    async with a_house(CROWD - 1, crowd=CROWD) as house:
        for writer in house.writers.values():
            await writer.report_note()
        await house.writers["n2"].report_note()
        assert len(await house.noted()) == CROWD and house.inbox.laid_in == []


@virtual
async def test_when_they_are_more_reports_are_forwarded() -> None:
    async with a_house(CROWD, crowd=CROWD) as house:
        for writer in house.writers.values():
            await writer.report_note()
        assert house.inbox.laid_in == []
        await asyncio.sleep(0.1)
        await house.writers["n2"].report_note()
        assert [report.node for report in house.inbox.laid_in] == ["n2"]


@virtual
async def test_the_primary_appends_its_own_reports_by_itself() -> None:
    async with a_house() as house:
        await house.writers["n1"].report_note()
        assert (await house.noted(), house.inbox.laid_in) == ([("n1", 0)], [])


@virtual
async def test_what_is_needed_to_have_a_primary_is_never_forwarded() -> None:
    async with a_house() as house:
        await house.writers["n2"].report(node_ready("n2"))
        await house.writers["n3"].report(ReportPrimary(node="n3"))
        assert house.inbox.laid_in == []


def test_only_what_nodes_learn_of_vms_may_be_forwarded() -> None:
    assert all(name.startswith("vm.report_") for name in FORWARDABLE)
    assert set(FORWARDABLE) == {name for name, _ in REPORTS.values() if name.startswith("vm.")}


@virtual
async def test_to_a_primary_of_another_version_nothing_is_forwarded() -> None:
    async with a_house() as house:
        await house.writers["n1"].report(node_ready("n1", version="0.0.1"))
        await asyncio.sleep(0.1)
        await house.writers["n2"].report_note()
        assert (await house.noted(), house.inbox.laid_in) == ([("n2", 0)], [])


@virtual
async def test_while_the_primary_is_lost_nothing_is_forwarded() -> None:
    async with a_house() as house:
        second = house.writers["n2"]
        await second.be_elected()
        ready_at = second.world.state.nodes["n1"].ready_at
        lost = ReportNodeLost(primary="n2", epoch=second.epoch or 0, node="n1", reason="gone", ready_at=ready_at)
        await second.report(lost)
        assert second.world.state.nodes["n1"].state is NodeState.LOST
        await house.writers["n1"].be_elected()
        await asyncio.sleep(0.1)
        await house.writers["n3"].report_note()
        assert (await house.noted(), house.inbox.laid_in) == ([("n3", 0)], [])


@virtual
async def test_a_report_too_large_for_the_inbox_is_appended_directly() -> None:
    async with a_house() as house:
        writer = house.writers["n2"]
        await start(house, "n2-0")
        run = running(house, "n2-0")
        failed = ReportStartFailed(
            vm=run.vm, node="n2", epoch=run.epoch, code="driver.failed", message="x" * MAX_REPORT_BYTES
        )
        outcome = await writer.report(failed)
        assert outcome.entry is not None and house.inbox.laid_in == []


@virtual
async def test_no_more_than_so_many_reports_of_a_node_are_in_the_inbox() -> None:
    async with a_house() as house:
        house.writers["n1"].epoch = None  # nobody takes anything
        writer = house.writers["n2"]
        reports = [asyncio.create_task(writer.report_note()) for _ in range(MAX_OUTSTANDING + 5)]
        await asyncio.sleep(1.0)
        assert len(await house.inbox.keys()) == MAX_OUTSTANDING
        assert len(await house.noted()) == 5
        await asyncio.gather(*reports)
        assert len(await house.noted()) == MAX_OUTSTANDING + 5


# -- What can become of it --------------------------------------------------------------------------------------------


@virtual
async def test_what_is_no_news_is_told_as_such() -> None:
    async with a_house() as house:
        await start(house, "n2-0")
        writer, report = house.writers["n2"], running(house, "n2-0")
        assert (await writer.report(report)).entry is not None
        begun = now_s()
        outcome = await writer.report(report)
        assert outcome.entry is None and outcome.decision.events == ()
        assert len(house.inbox.laid_in) == 2 and await house.inbox.keys() == []
        assert now_s() - begun < 4 * LOOK_S


@virtual
async def test_what_nobody_takes_is_taken_back_and_appended() -> None:
    async with a_house() as house:
        await house.writers["n1"].kill()
        begun = now_s()
        await house.writers["n2"].report_note()
        assert PATIENCE_S < now_s() - begun < PATIENCE_S + 1.0
        assert (await house.noted(), await house.inbox.keys()) == ([("n2", 0)], [])


@virtual
async def test_after_that_nothing_is_forwarded_until_there_is_another_primary() -> None:
    async with a_house() as house:
        await house.writers["n1"].kill()
        writer = house.writers["n2"]
        await writer.report_note()
        await writer.report_note()
        assert len(house.inbox.laid_in) == 1
        await house.writers["n3"].be_elected()
        await asyncio.sleep(0.1)
        await writer.report_note()
        assert len(house.inbox.laid_in) == 2
        assert await house.noted() == [("n2", 0), ("n2", 1), ("n2", 2)]


@virtual
async def test_or_until_a_while_has_passed() -> None:
    async with a_house() as house:
        await house.writers["n1"].kill()
        writer = house.writers["n2"]
        await writer.report_note()
        await asyncio.sleep(DISTRUST_S)
        await writer.report_note()
        assert len(house.inbox.laid_in) == 2
        assert await house.noted() == [("n2", 0), ("n2", 1)]


@virtual
async def test_when_one_lies_too_long_all_are_taken_back_at_once() -> None:
    async with a_house() as house:
        await house.writers["n1"].kill()
        writer = house.writers["n2"]
        first = asyncio.create_task(writer.report_note())
        await asyncio.sleep(PATIENCE_S - 0.5)
        begun = now_s()
        await writer.report_note()
        assert now_s() - begun < 1.5 and await first
        assert sorted(await house.noted()) == [("n2", 0), ("n2", 1)]


@virtual
async def test_patience_begins_anew_while_others_of_ours_are_taken() -> None:
    async with a_house() as house:
        writer = house.writers["n2"]
        house.inbox.held_back = {0}
        slow = asyncio.create_task(writer.report_note())
        for _ in range(8):
            await asyncio.sleep(1.0)
            await writer.report_note()
        assert not slow.done()
        house.inbox.held_back = set()
        await slow
        assert len(house.inbox.laid_in) == 9 and len(await house.noted()) == 9


@virtual
async def test_a_report_whose_sender_gave_up_does_not_lie_for_ever() -> None:
    async with a_house() as house:
        house.writers["n1"].epoch = None
        writer = house.writers["n2"]
        report = asyncio.create_task(writer.report_note())
        await asyncio.sleep(0.5)
        report.cancel()
        await asyncio.gather(report, return_exceptions=True)
        assert len(await house.inbox.keys()) == 1
        await asyncio.sleep(PATIENCE_S + 1.0)
        assert (await house.inbox.keys(), await house.noted()) == ([], [])


@virtual
async def test_a_put_that_was_not_heard_of_is_looked_after_like_any_other() -> None:
    async with a_house() as house:
        writer = house.writers["n2"]
        writer.link.rng = Scripted(writer.link.rng, "unheard")
        writer.link.faults = 1.0
        report = asyncio.create_task(writer.report_note())
        await asyncio.sleep(0.1)
        writer.link.faults = 0.0
        assert (await report).entry is not None
        assert await house.noted() == [("n2", 0)]


@virtual
async def test_a_put_that_never_arrived_is_appended_directly() -> None:
    async with a_house() as house:
        writer = house.writers["n2"]
        writer.link.rng = Scripted(writer.link.rng, "refused")
        writer.link.faults = 1.0
        report = asyncio.create_task(writer.report_note())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        writer.link.faults = 0.0
        assert (await report).entry is not None
        assert (await house.noted(), house.inbox.laid_in) == ([("n2", 0)], [])


@virtual
async def test_without_a_connection_the_outcome_is_told_as_unknown_and_the_report_is_seen_to_later() -> None:
    async with a_house() as house:
        house.writers["n1"].epoch = None
        writer = house.writers["n2"]
        report = asyncio.create_task(writer.report_note())
        await asyncio.sleep(0.1)
        writer.link.cut = True
        with pytest.raises(OutcomeUnknown):
            await report
        assert len(await house.inbox.keys()) == 1
        writer.link.cut = False
        await asyncio.sleep(PATIENCE_S + 3.0)
        assert (await house.inbox.keys(), await house.noted()) == ([], [])


@virtual
async def test_a_node_that_stops_tells_those_who_wait() -> None:
    async with a_house() as house:
        house.writers["n1"].epoch = None
        report = asyncio.create_task(house.writers["n2"].report_note())
        await asyncio.sleep(0.1)
        await house.writers["n2"].kill()
        with pytest.raises(OutcomeUnknown):
            await report


# -- The dead ---------------------------------------------------------------------------------------------------------


@virtual
async def test_what_an_earlier_life_left_is_taken_back_before_the_new_one_begins() -> None:
    async with a_house() as house:
        house.writers["n1"].epoch = None
        await start(house, "n2-0")
        ended = running(house, "n2-0")
        for name in ("n2", "n3"):
            left = ReportEnded(vm=ended.vm, node=name, epoch=ended.epoch, ending=Ending.CRASHED)
            report = asyncio.create_task(house.writers[name].report(left))
            await asyncio.sleep(0.1)
            await house.writers[name].kill()
            await asyncio.gather(report, return_exceptions=True)
        assert len(await house.inbox.keys()) == 2
        house.writers["n2"].start()
        await asyncio.sleep(1.0)
        assert [key.partition("-")[0] for key in await house.inbox.keys()] == ["n3"]


@virtual
async def test_what_the_dead_have_left_is_still_recorded_if_it_is_still_so() -> None:
    async with a_house() as house:
        primary, writer = house.writers["n1"], house.writers["n2"]
        epoch, primary.epoch = primary.epoch, None
        await start(house, "n2-0")
        report = asyncio.create_task(writer.report(running(house, "n2-0")))
        await asyncio.sleep(0.1)
        await writer.kill()
        await asyncio.gather(report, return_exceptions=True)
        primary.epoch = epoch
        await asyncio.sleep(2.0)
        assert await house.facts() == [("n2", "vm.started", "n2-0", 1)]
        assert await house.inbox.keys() == []


class Scripted:
    """Randomness whose next choice is made."""

    def __init__(self, rng: Any, choice: str) -> None:
        self._rng = rng
        self._choice = choice

    def choice(self, options: Any) -> str:
        return self._choice

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rng, name)
