"""What every log must do, whatever it is made of. A test class per backend inherits it and gives `open_log`.

`open_log()` returns a new client of one and the same log, so a backend with several clients is tested with several.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from pvc.errors import Conflict, TooLarge, Unavailable
from pvc.events.record import EMPTY, MAX_RECORD_BYTES, Entry, Head, check_follows, unseal
from pvc.log.base import MAX_BATCH_BYTES, MAX_BATCH_ENTRIES, Log
from tests.contract.log_records import a_chain, an_entry, bytes_of

OpenLog = Callable[[], Awaitable[Log]]

PATIENCE_S = 20
"""How long a test waits for something that takes milliseconds on an idle machine."""


class LogContract:
    """The shared suite."""

    @pytest.fixture
    async def log(self, open_log: OpenLog) -> Log:
        return await open_log()

    async def test_a_new_log_is_empty(self, log: Log) -> None:
        assert await log.head() == EMPTY
        assert await log.read(1, 10) == []

    async def test_what_was_appended_is_read_back_byte_by_byte(self, log: Log) -> None:
        entries = a_chain(EMPTY, 3, size=300)
        assert await log.append(entries[:1], after=EMPTY) == entries[0].head
        assert await log.append(entries[1:], after=entries[0].head) == entries[2].head
        assert await log.head() == entries[2].head
        assert await read_all(log) == bytes_of(entries)

    async def test_a_read_begins_and_ends_where_it_is_told(self, log: Log) -> None:
        entries = a_chain(EMPTY, 10)
        await log.append(entries, after=EMPTY)
        assert await log.read(4, 3) == bytes_of(entries[3:6])
        assert await log.read(10, 5) == bytes_of(entries[9:])
        assert await log.read(11, 5) == []
        assert await log.read(1_000_000, 1) == []

    async def test_a_long_log_is_read_in_steps_without_a_hole(self, log: Log) -> None:
        entries = a_chain(EMPTY, 3 * MAX_BATCH_ENTRIES)
        for start in range(0, len(entries), MAX_BATCH_ENTRIES):
            after = entries[start - 1].head if start else EMPTY
            await log.append(entries[start : start + MAX_BATCH_ENTRIES], after=after)
        assert await read_all(log) == bytes_of(entries)

    async def test_an_append_against_an_old_head_conflicts_and_leaves_nothing(self, log: Log) -> None:
        first = an_entry(EMPTY)
        await log.append([first], after=EMPTY)
        with pytest.raises(Conflict) as refusal:
            await log.append(a_chain(EMPTY, 3), after=EMPTY)
        assert refusal.value.code == "log.conflict"
        assert await log.head() == first.head
        assert await read_all(log) == [first.data]

    async def test_an_append_against_a_head_to_come_conflicts(self, log: Log) -> None:
        dream = a_chain(EMPTY, 2)
        with pytest.raises(Conflict):
            await log.append(dream[1:], after=dream[0].head)
        assert await log.head() == EMPTY

    async def test_an_append_against_the_right_position_but_another_record_conflicts(self, log: Log) -> None:
        mine, theirs = an_entry(EMPTY), an_entry(EMPTY)
        await log.append([theirs], after=EMPTY)
        with pytest.raises(Conflict):
            await log.append([an_entry(mine.head)], after=mine.head)
        assert await read_all(log) == [theirs.data]

    async def test_after_a_conflict_the_same_client_appends_at_the_new_head(self, open_log: OpenLog) -> None:
        one, other = await open_log(), await open_log()
        first = an_entry(EMPTY)
        await one.append([first], after=EMPTY)
        with pytest.raises(Conflict):
            await other.append([an_entry(EMPTY)], after=EMPTY)
        second = an_entry(await other.head())
        await other.append([second], after=first.head)
        assert await read_all(one) == bytes_of([first, second])

    async def test_entries_that_do_not_continue_the_head_are_refused(self, log: Log) -> None:
        first, second, third = a_chain(EMPTY, 3)
        stranger = an_entry(an_entry(EMPTY).head)
        for wrong in ([], [second], [first, third], [first, stranger], [first, first]):
            with pytest.raises(AssertionError):
                await log.append(wrong, after=EMPTY)
        assert await log.head() == EMPTY

    async def test_the_largest_batches_are_taken_whole(self, log: Log) -> None:
        many = a_chain(EMPTY, MAX_BATCH_ENTRIES)
        head = await log.append(many, after=EMPTY)
        large = a_largest_record(head)
        big = a_chain(large.head, 2, size=MAX_RECORD_BYTES - 1_000)
        await log.append([large, *big], after=head)
        assert await read_all(log) == bytes_of([*many, large, *big])

    async def test_too_much_at_once_is_refused_whole(self, log: Log) -> None:
        too_many = a_chain(EMPTY, MAX_BATCH_ENTRIES + 1)
        too_big = a_chain(EMPTY, 4, size=MAX_BATCH_BYTES // 4)
        data = bytes(MAX_RECORD_BYTES + 1)
        smuggled = Entry(record=an_entry(EMPTY).record, data=data, hash=bytes(32))
        for batch, code in (
            (too_many, "log.batch_too_large"),
            (too_big, "log.batch_too_large"),
            ([smuggled], "log.record_too_large"),
        ):
            with pytest.raises(TooLarge) as refusal:
                await log.append(batch, after=EMPTY)
            assert refusal.value.code == code
        assert await log.head() == EMPTY

    async def test_writers_that_collide_lose_nothing_and_write_nothing_twice(self, open_log: OpenLog) -> None:
        logs = [await open_log() for _ in range(4)]
        acknowledged = await asyncio.gather(*(write(log, 10) for log in logs))
        ids = [entry.record.id for entry in map(unseal, await read_all(logs[0]))]
        assert sorted(ids) == sorted(id for ids in acknowledged for id in ids)
        assert len(set(ids)) == 40

    async def test_a_follower_goes_from_the_past_into_the_present_without_gap_or_duplicate(
        self, open_log: OpenLog
    ) -> None:
        log, elsewhere = await open_log(), await open_log()
        await write(log, 5)
        writers = [asyncio.create_task(write(client, 15)) for client in (log, elsewhere)]
        followed = await take(log.follow(0), 35)
        await asyncio.gather(*writers)
        assert followed == await read_all(elsewhere)

    async def test_a_follower_begins_after_the_position_it_knows(self, log: Log) -> None:
        entries = a_chain(EMPTY, 5)
        await log.append(entries, after=EMPTY)
        assert await take(log.follow(3), 2) == bytes_of(entries[3:])

    async def test_a_follower_may_begin_ahead_of_the_log(self, log: Log) -> None:
        entries = a_chain(EMPTY, 3)
        waiting = asyncio.create_task(take(log.follow(2), 1))
        for entry, after in zip(entries, [EMPTY, *(entry.head for entry in entries)], strict=False):
            await log.append([entry], after=after)
        assert await waiting == [entries[2].data]

    async def test_several_followers_see_the_same(self, open_log: OpenLog) -> None:
        log, elsewhere = await open_log(), await open_log()
        followers = [asyncio.create_task(take(client.follow(0), 20)) for client in (log, log, elsewhere, elsewhere)]
        await write(log, 20)
        seen = await asyncio.gather(*followers)
        assert seen == [await read_all(log)] * 4

    async def test_an_idle_follower_learns_of_another_clients_append_soon(self, open_log: OpenLog) -> None:
        log, elsewhere = await open_log(), await open_log()
        waiting = asyncio.create_task(take(log.follow(0), 1))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        entry = an_entry(EMPTY)
        await elsewhere.append([entry], after=EMPTY)
        async with asyncio.timeout(2):
            assert await waiting == [entry.data]

    async def test_a_cancelled_follower_harms_no_other(self, log: Log) -> None:
        staying = asyncio.create_task(take(log.follow(0), 2))
        leaving = asyncio.create_task(take(log.follow(0), 2))
        first = an_entry(EMPTY)
        await log.append([first], after=EMPTY)
        await asyncio.sleep(0.1)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        second = an_entry(first.head)
        await log.append([second], after=first.head)
        assert await staying == bytes_of([first, second])

    async def test_a_cancelled_append_either_took_place_or_did_not(self, log: Log) -> None:
        head = EMPTY
        for delay in (0, 0.0005, 0.001, 0.002, 0.005):
            entries = a_chain(head, 3)
            append = asyncio.create_task(log.append(entries, after=head))
            await asyncio.sleep(delay)
            append.cancel()
            await asyncio.wait([append])
            await asyncio.sleep(0.2)
            found = await log.head()
            assert found in (head, entries[-1].head), "a part of a batch"
            head = found
        last = an_entry(head)
        assert await log.append([last], after=head) == last.head
        assert len(await read_all(log)) == last.position

    async def test_a_closed_log_says_so_and_ends_its_followers(self, log: Log) -> None:
        waiting = asyncio.create_task(take(log.follow(0), 1))
        await asyncio.sleep(0.05)
        await log.close()
        await log.close()
        for call in (waiting, log.head(), log.read(1, 1), log.append([an_entry(EMPTY)], after=EMPTY)):
            with pytest.raises(Unavailable) as refusal:
                await call
            assert refusal.value.code == "log.closed"


async def write(log: Log, count: int) -> list[str]:
    """Append `count` single records among others who do the same; returns the acknowledged ids."""
    ids: list[str] = []
    head = await log.head()
    while len(ids) < count:
        entry = an_entry(head)
        try:
            head = await log.append([entry], after=head)
            ids.append(entry.record.id)
        except Conflict:
            await asyncio.sleep(0)
            head = await log.head()
    return ids


async def read_all(log: Log) -> list[bytes]:
    """Every record from position 1 on; the chain is verified on the way."""
    found: list[bytes] = []
    head = EMPTY
    while batch := await log.read(len(found) + 1, 10_000):
        head = _verified(batch, head)
        found += batch
    return found


async def take(records: AsyncIterator[list[bytes]], count: int) -> list[bytes]:
    """The first `count` records of a follower; fails when they do not come."""
    taken: list[bytes] = []
    async with asyncio.timeout(PATIENCE_S):
        async for batch in records:
            assert batch, "a follower yields no empty batches"
            taken += batch
            if len(taken) >= count:
                return taken[:count]
    raise AssertionError("a follower never ends")


def a_largest_record(after: Head) -> Entry:
    """A record of exactly MAX_RECORD_BYTES."""
    overhead = len(an_entry(after, size=100_000).data) - 100_000
    entry = an_entry(after, size=MAX_RECORD_BYTES - overhead)
    return (
        entry
        if len(entry.data) == MAX_RECORD_BYTES
        else an_entry(after, size=2 * MAX_RECORD_BYTES - overhead - len(entry.data))
    )


def _verified(batch: list[bytes], head: Head) -> Head:
    for data in batch:
        entry = unseal(data)
        check_follows(entry, head)
        head = entry.head
    return head
