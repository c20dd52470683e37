"""What the primary does with the reports in the inbox, and what a node that is no longer the primary cannot do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from pvc.commands.facts import Ending, ReportEnded, ReportRunning
from pvc.errors import Unavailable
from pvc.events.record import Entry, Head
from pvc.log.inbox import Forwarded
from pvc.runtime.drainer import TERM_S
from tests.support.virtual import virtual
from tests.support.writers_house import NOTE, Note, Writer, WritersHouse, notes_forwardable

LOOKED_S = 2.0
"""By now whoever takes something in has done so."""


@contextlib.asynccontextmanager
async def a_house(nodes: int = 3, **options: Any) -> AsyncIterator[WritersHouse]:
    """Reports are laid in by hand, so that none is taken back."""
    house = WritersHouse(nodes, **options)
    for writer in house.writers.values():
        writer.reconciles = False
    with notes_forwardable():
        await house.open()
        yield house
        await house.close()


def a_note(number: int, node: str = "n2", **changes: Any) -> Forwarded:
    return forwarded(Note(node=node, number=number), NOTE, number, node=node, **changes)


def forwarded(given: msgspec.Struct, kind: str, number: int, /, **changes: Any) -> Forwarded:
    fields: dict[str, Any] = {
        "id": f"01J{number:023d}",
        "node": "n2",
        "name": kind,
        "report": msgspec.Raw(msgspec.json.encode(given)),
        "actor": {"principal": f"node/{changes.get('node', 'n2')}", "method": "node"},
        "cause": "C",
        "seen": 0,
    }
    return msgspec.convert(fields | changes, Forwarded)


async def reports_of_vm(house: WritersHouse, writer: Writer, vm: str = "n2-0") -> tuple[str, int]:
    """Id of a VM that is starting, and how far its node has folded."""
    await house.admin("vm.start", by="n2", vm=vm)
    await asyncio.sleep(0.1)
    return writer.world.state.vm_names[vm], writer.world.position


@virtual
async def test_all_that_lies_there_is_one_append_in_its_order() -> None:
    async with a_house() as house:
        primary, appends = house.writers["n1"], count_appends(house)
        epoch, primary.epoch = primary.epoch, None
        await house.inbox.put([a_note(2), a_note(0, "n3"), a_note(1)])
        primary.epoch = epoch
        await asyncio.sleep(LOOKED_S)
        assert await house.noted() == [("n2", 2), ("n3", 0), ("n2", 1)]
        assert appends == [3] and await house.inbox.keys() == []


@virtual
async def test_the_reports_of_others_and_its_own_go_along_in_one_append() -> None:
    async with a_house() as house:
        primary, appends = house.writers["n1"], count_appends(house)
        own = asyncio.create_task(primary.report_note())
        await primary.drainer.drain(primary.epoch or 0)
        drain = asyncio.create_task(primary.drainer.drain(primary.epoch or 0))
        await house.inbox.put([a_note(0), a_note(1)])
        await asyncio.gather(own, drain)
        await asyncio.sleep(LOOKED_S)
        assert len(await house.noted()) == 3 and sum(appends) == 3


@virtual
async def test_who_is_not_the_primary_takes_nothing() -> None:
    async with a_house() as house:
        house.writers["n1"].epoch = None
        await house.inbox.put([a_note(0)])
        await asyncio.sleep(10 * TERM_S)
        assert (await house.inbox.keys(), await house.noted()) == ([a_note(0).key], [])


@virtual
async def test_a_deposed_primary_that_does_not_know_it_commits_nothing() -> None:
    async with a_house() as house:
        deposed, elected = house.writers["n1"], house.writers["n3"]
        await elected.be_elected()
        epoch, elected.epoch = elected.epoch, None
        assert deposed.epoch == 1 and epoch == 2
        await house.inbox.put([a_note(0)])
        await asyncio.sleep(LOOKED_S)
        assert (await house.inbox.keys(), await house.noted()) == ([a_note(0).key], [])
        elected.epoch = epoch
        await asyncio.sleep(LOOKED_S)
        assert (await house.inbox.keys(), await house.noted()) == ([], [("n2", 0)])


@virtual
async def test_nor_does_one_that_is_deposed_between_its_decision_and_its_append() -> None:
    async with a_house() as house:
        deposed, elected = house.writers["n1"], house.writers["n3"]
        append, tries = house.inbox.append, 0

        async def append_late(entries: Sequence[Entry], *, after: Head, taking: Sequence[Forwarded]) -> Head:
            nonlocal tries
            tries += 1
            if tries == 1:
                await elected.be_elected()
                elected.epoch = None
            return await append(entries, after=after, taking=taking)

        house.inbox.append = append_late  # type: ignore[method-assign]
        await house.inbox.put([a_note(0)])
        await asyncio.sleep(LOOKED_S)
        assert tries == 1 and deposed.epoch == 1
        assert (await house.inbox.keys(), await house.noted()) == ([a_note(0).key], [])


@virtual
async def test_a_primary_of_an_earlier_term_of_its_own_takes_nothing_either() -> None:
    async with a_house() as house:
        primary = house.writers["n1"]
        await primary.be_elected()
        assert primary.epoch == 2
        primary.epoch = 1
        await house.inbox.put([a_note(0)])
        await asyncio.sleep(LOOKED_S)
        assert await house.noted() == []


@virtual
async def test_what_was_taken_back_in_the_last_moment_holds_up_nobody_else() -> None:
    async with a_house() as house:
        append = house.inbox.append
        tries: list[int] = []

        async def append_too_late(entries: Sequence[Entry], *, after: Head, taking: Sequence[Forwarded]) -> Head:
            tries.append(len(taking))
            await house.inbox.remove([a_note(1).key])
            return await append(entries, after=after, taking=taking)

        house.inbox.append = append_too_late  # type: ignore[method-assign]
        await house.inbox.put([a_note(0), a_note(1), a_note(2)])
        await asyncio.sleep(LOOKED_S)
        assert (await house.noted(), await house.inbox.keys()) == ([("n2", 0), ("n2", 2)], [])
        assert tries == [3, 2]


@virtual
async def test_a_report_that_came_into_the_log_by_another_way_is_only_taken_out() -> None:
    async with a_house() as house:
        await house.inbox.put([a_note(0)])
        await asyncio.sleep(LOOKED_S)
        await house.inbox.put([a_note(0)])  # the first request, come late
        await asyncio.sleep(LOOKED_S)
        assert (await house.noted(), await house.inbox.keys()) == ([("n2", 0)], [])


@virtual
async def test_an_append_whose_reply_was_lost_is_not_made_again() -> None:
    async with a_house() as house:
        primary = house.writers["n1"]
        primary.link.rng = Unheard(primary.link.rng)
        primary.link.faults = 1.0
        await house.inbox.put([a_note(0)])
        await asyncio.sleep(5.0)
        primary.link.faults = 0.0
        await asyncio.sleep(5.0)
        assert (await house.noted(), await house.inbox.keys()) == ([("n2", 0)], [])


@virtual
async def test_what_comes_to_nothing_is_taken_out() -> None:
    async with a_house() as house:
        vm, seen = await reports_of_vm(house, house.writers["n2"])
        running = ReportRunning(vm=vm, node="n2", epoch=1)
        stale = ReportRunning(vm=vm, node="n2", epoch=7)
        elsewhere = ReportRunning(vm=vm, node="n3", epoch=1)
        name = "vm.report_running"
        await house.inbox.put(
            [
                forwarded(report, name, number, seen=seen, node=report.node)
                for number, report in enumerate((stale, elsewhere, running, running))
            ]
        )
        await asyncio.sleep(LOOKED_S)
        assert await house.facts() == [("n2", "vm.started", "n2-0", 1)]
        assert await house.inbox.keys() == []


@virtual
async def test_a_report_about_a_vm_that_has_changed_since_its_sender_looked_is_left_to_the_sender() -> None:
    async with a_house() as house:
        vm, seen = await reports_of_vm(house, house.writers["n2"])
        await house.writers["n2"].report(ReportRunning(vm=vm, node="n2", epoch=1))
        # True when it was made: the guest had gone to another node. It came back in the same run, and runs.
        ended = ReportEnded(vm=vm, node="n2", epoch=1, ending=Ending.MIGRATED)
        before = await house.log.head()
        await house.inbox.put([forwarded(ended, "vm.report_ended", 1, seen=seen)])
        await asyncio.sleep(LOOKED_S)
        assert (await house.log.head(), await house.inbox.keys()) == (before, [])
        # The same, said by who knows how it is now, would count.
        seen = house.writers["n2"].world.position
        await house.inbox.put([forwarded(ended, "vm.report_ended", 2, seen=seen)])
        await asyncio.sleep(LOOKED_S)
        assert (await house.log.head()).position == before.position + 1


@virtual
async def test_a_report_is_decided_on_no_less_than_its_sender_knew() -> None:
    async with a_house() as house:
        primary = house.writers["n1"]
        primary.link.fold_stands = True
        vm, seen = await reports_of_vm(house, house.writers["n2"])
        assert primary.world.position < seen
        await house.inbox.put([forwarded(ReportRunning(vm=vm, node="n2", epoch=1), "vm.report_running", 1, seen=seen)])
        await asyncio.sleep(1.0)
        assert len(await house.inbox.keys()) == 1
        primary.link.fold_stands = False
        await asyncio.sleep(LOOKED_S)
        assert await house.facts() == [("n2", "vm.started", "n2-0", 1)]
        assert await house.inbox.keys() == []


@virtual
async def test_what_cannot_be_read_is_taken_out_and_harms_nobody() -> None:
    async with a_house() as house:
        key = "n2-01J00000000000000000000JUNK"
        house.inbox._reports[key] = b"no json"
        await house.inbox.put(
            [
                a_note(1, name="vm.report_of_a_later_version"),
                a_note(2, report=msgspec.Raw(b'{"node": 7}')),
                a_note(3, name="cluster.report_primary"),
                a_note(4, seen=1_000_000),
                a_note(5),
            ]
        )
        await asyncio.sleep(LOOKED_S * 2)
        assert (await house.noted(), await house.inbox.keys()) == ([("n2", 5)], [])


@virtual
async def test_while_the_log_does_not_answer_reports_stay_where_they_are() -> None:
    async with a_house() as house:
        append = house.inbox.append

        async def unavailable(entries: Sequence[Entry], *, after: Head, taking: Sequence[Forwarded]) -> Head:
            raise Unavailable("the log does not answer")

        house.inbox.append = unavailable  # type: ignore[method-assign]
        await house.inbox.put([a_note(0)])
        await asyncio.sleep(LOOKED_S)
        assert (await house.noted(), await house.inbox.keys()) == ([], [a_note(0).key])
        house.inbox.append = append  # type: ignore[method-assign]
        await asyncio.sleep(LOOKED_S)
        assert (await house.noted(), await house.inbox.keys()) == ([("n2", 0)], [])


def count_appends(house: WritersHouse) -> list[int]:
    """How many entries each append has from now on."""
    counts: list[int] = []
    append = house.log.append

    async def counted(entries: Sequence[Entry], *, after: Head) -> Head:
        head = await append(entries, after=after)
        counts.append(len(entries))
        return head

    house.log.append = counted  # type: ignore[method-assign]
    return counts


class Unheard:
    """Randomness by which every reply is lost."""

    def __init__(self, rng: Any) -> None:
        self._rng = rng

    def choice(self, options: Any) -> str:
        return "unheard"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rng, name)
