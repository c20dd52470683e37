"""What every inbox must do. A backend's test inherits this and gives `place`: a log, its inbox, and clients of both."""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec
import pytest

from pvc.errors import Conflict, Unavailable
from pvc.events.record import EMPTY, Actor, Entry, unseal
from pvc.log.base import Log
from pvc.log.inbox import MAX_PUT, MAX_REPORT_BYTES, MAX_WAITING, Forwarded, Inbox, Overtaken, encode
from tests.contract.log_records import a_chain, an_entry

PATIENCE_S = 20


class Place(Protocol):
    """A cluster's log and inbox."""

    async def client(self) -> tuple[Log, Inbox]:
        """A new client of each."""
        ...


def a_report(number: int, node: str = "hv1", size: int = 0) -> Forwarded:
    """Ids as ULIDs are: the later one is the greater one."""
    fields = {"vm": f"vm-{number}", "filling": "x" * size}
    return Forwarded(
        id=f"01J{number:023d}",
        node=node,
        name="vm.report_running",
        report=msgspec.Raw(msgspec.json.encode(fields)),
        actor=Actor(principal=f"node/{node}", method="node"),
        cause="CAUSE",
        seen=number,
    )


class InboxContract:
    """The shared suite."""

    @pytest.fixture
    def place(self) -> Place:
        raise NotImplementedError

    async def test_what_was_laid_in_is_found_as_it_was_by_every_client(self, place: Place) -> None:
        (_, one), (_, other) = await place.client(), await place.client()
        reports = [a_report(1), a_report(2, "hv2-a")]
        await one.put(reports)
        found = await other.waiting()
        assert [at.key for at in found] == [f"hv1-{reports[0].id}", f"hv2-a-{reports[1].id}"]
        assert [encode(at.report) for at in found if at.report is not None] == [encode(report) for report in reports]
        assert sorted(await other.keys()) == sorted(at.key for at in found)

    async def test_the_oldest_comes_first_whatever_its_name(self, place: Place) -> None:
        _, inbox = await place.client()
        for number, node in ((3, "hv3"), (1, "hv9"), (2, "hv1")):
            await inbox.put([a_report(number, node)])
        assert [at.report.node for at in await inbox.waiting() if at.report] == ["hv3", "hv9", "hv1"]

    async def test_what_is_laid_in_twice_is_there_once_and_unchanged(self, place: Place) -> None:
        (_, one), (_, other) = await place.client(), await place.client()
        await one.put([a_report(1)])
        await one.put([a_report(1, size=5), a_report(2)])
        found = await other.waiting()
        assert [at.report.id for at in found if at.report] == [a_report(1).id, a_report(2).id]
        assert encode(found[0].report or a_report(9)) == encode(a_report(1))

    async def test_as_many_of_the_largest_as_are_allowed_are_laid_in_together(self, place: Place) -> None:
        _, inbox = await place.client()
        room = MAX_REPORT_BYTES - len(encode(a_report(0)))
        await inbox.put([a_report(number, size=room) for number in range(MAX_PUT)])
        assert len(await inbox.waiting()) == MAX_PUT

    async def test_of_too_many_the_oldest_are_found_first(self, place: Place) -> None:
        _, inbox = await place.client()
        numbers = list(range(MAX_WAITING + MAX_PUT))
        for start in range(0, len(numbers), MAX_PUT):
            await inbox.put([a_report(number) for number in numbers[start : start + MAX_PUT]])
        found = await inbox.waiting()
        assert [at.report.seen for at in found if at.report] == numbers[:MAX_WAITING]

    async def test_what_was_taken_out_is_gone_and_taking_it_out_again_is_no_harm(self, place: Place) -> None:
        (_, one), (_, other) = await place.client(), await place.client()
        reports = [a_report(number) for number in range(3)]
        await one.put(reports)
        first, second, third = (report.key for report in reports)
        await asyncio.gather(one.remove([first, third]), other.remove([first, "never-there"]))
        assert await other.left([first, second, third]) == [False, True, False]
        await one.remove([])
        assert await one.keys() == [second]

    async def test_a_record_and_its_report_change_places_in_one_step(self, place: Place) -> None:
        log, inbox = await place.client()
        reports = [a_report(number) for number in range(3)]
        await inbox.put(reports)
        entries = a_chain(EMPTY, 3)
        head = await inbox.append(entries, after=EMPTY, taking=reports[:2])
        assert head == entries[-1].head == await log.head()
        assert await inbox.keys() == [reports[2].key]

    async def test_the_largest_append_takes_its_reports_along(self, place: Place) -> None:
        log, inbox = await place.client()
        node = "n" * 63
        reports = [a_report(number, node) for number in range(MAX_WAITING)]
        for start in range(0, MAX_WAITING, MAX_PUT):
            await inbox.put(reports[start : start + MAX_PUT])
        # As large as the largest batch, which is 768 KiB.
        entries = a_chain(EMPTY, MAX_WAITING, size=3_500)
        assert sum(len(entry.data) for entry in entries) > 700_000
        await inbox.append(entries, after=EMPTY, taking=reports)
        assert (await log.head(), await inbox.keys()) == (entries[-1].head, [])

    async def test_a_report_that_is_gone_refuses_the_whole_append(self, place: Place) -> None:
        log, inbox = await place.client()
        reports = [a_report(1), a_report(2)]
        await inbox.put(reports)
        await inbox.remove([reports[1].key])
        with pytest.raises(Overtaken):
            await inbox.append(a_chain(EMPTY, 2), after=EMPTY, taking=reports)
        assert (await log.head(), await inbox.keys()) == (EMPTY, [reports[0].key])
        first = an_entry(EMPTY)
        assert await inbox.append([first], after=EMPTY, taking=reports[:1]) == first.head

    async def test_an_append_against_an_old_head_leaves_log_and_inbox_alone(self, place: Place) -> None:
        log, inbox = await place.client()
        await inbox.put([a_report(1)])
        first = an_entry(EMPTY)
        await log.append([first], after=EMPTY)
        with pytest.raises(Conflict) as refusal:
            await inbox.append([an_entry(EMPTY)], after=EMPTY, taking=[a_report(1)])
        assert not isinstance(refusal.value, Overtaken)
        assert (await log.head(), await inbox.keys()) == (first.head, [a_report(1).key])

    async def test_of_two_who_take_the_same_report_one_commits_it(self, place: Place) -> None:
        (log, one), (_, other) = await place.client(), await place.client()
        await one.put([a_report(1)])
        mine, theirs = an_entry(EMPTY), an_entry(EMPTY)

        async def take(inbox: Inbox, entry: Entry) -> object:
            return await inbox.append([entry], after=EMPTY, taking=[a_report(1)])

        outcomes = await asyncio.gather(take(one, mine), take(other, theirs), return_exceptions=True)
        assert [isinstance(outcome, Conflict) for outcome in outcomes].count(True) == 1
        # Nor does it help to decide again at the new head.
        head = await log.head()
        with pytest.raises(Overtaken):
            await other.append([an_entry(head)], after=head, taking=[a_report(1)])
        assert [unseal(data).head for data in await log.read(1, 10)] == [head]

    async def test_who_waits_for_a_change_is_told_of_the_next_report(self, place: Place) -> None:
        (_, one), (_, other) = await place.client(), await place.client()
        assert await one.waiting() == []
        waiting = asyncio.create_task(one.changed(PATIENCE_S * 10))
        await other.put([a_report(1)])
        async with asyncio.timeout(PATIENCE_S):
            await waiting
        assert len(await one.waiting()) == 1

    async def test_a_wait_for_a_change_ends_without_one(self, place: Place) -> None:
        _, inbox = await place.client()
        assert await inbox.waiting() == []
        await inbox.changed(0.05)
        assert await inbox.waiting() == []

    async def test_after_close_every_call_says_so(self, place: Place) -> None:
        _, inbox = await place.client()
        await inbox.close()
        for call in (inbox.put([a_report(1)]), inbox.left(["a"]), inbox.remove(["a"]), inbox.keys(), inbox.waiting()):
            with pytest.raises(Unavailable) as refusal:
                await call
            assert refusal.value.code == "log.closed"
