"""How the log grows: the same figures at 10,000 records and at ever more, and what each record takes, and where.

A second, short log on a server of its own takes turns with the long one where time is measured. A third one is never
trimmed; it shows what ZooKeeper would need.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec

from tests.bench.group import CLIENTS, commands
from tests.bench.grown import Footprint, GrownLog, Window, a_server, grown, why_not
from tests.bench.history import NEWEST, newest
from tests.bench.measure import Bench, Row, Side, at_least, at_most, compare, figure, skipped, take_turns

SHORT = 10_000
UNTRIMMED_MAX = 150_000
"""As far as 256 MiB of heap carry a log that is never trimmed: with the last 500 requests, which are large then,
180,000 records take 227 MiB."""
QUICK = 6_000, 12_000, 24_000
"""With smaller segments: the shortest log is a full window already."""
SINGLES = 60
EACH = 30
WARM_UP = 2_400
"""As `tests.bench.append`: a server that was just started is slow."""
REPLAYS = 3
MIB, KIB = 1024 * 1024, 1024


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How far to go."""

    records: tuple[int, ...]
    untrimmed: tuple[int, ...]
    window: Window


def sizes_of(bench: Bench) -> Sizes:
    """A short and two longer logs, the first of these about as long as the window; and the same for one without."""
    if bench.quick:
        window = Window(segment_records=256, pause_s=0.5)
        return Sizes(records=QUICK, untrimmed=QUICK, window=window)
    last = 1_000_000 if bench.full else 200_000
    return Sizes(records=(SHORT, 100_000, last), untrimmed=(SHORT, 100_000, UNTRIMMED_MAX), window=Window())


async def measure(bench: Bench) -> list[Row]:
    if why := why_not():
        return [skipped("how the log grows", why)]
    sizes = sizes_of(bench)
    untrimmed = await _untrimmed(bench, sizes)
    speeds: list[Row] = []
    trimmed: list[Footprint] = []
    async with _log(bench.home / "long", sizes.window) as long, _log(bench.home / "short", sizes.window) as short:
        await short.grow(sizes.records[0])
        for records in sizes.records:
            await long.grow(records)
            trimmed.append(await long.footprint())
            if records > sizes.records[0]:
                speeds += await _speeds(bench, long, short)
        empty_heap = long.empty_heap
    return [*speeds, *footprint_rows(trimmed, untrimmed, empty_heap)]


@contextlib.asynccontextmanager
async def _log(home: Path, window: Window) -> AsyncIterator[GrownLog]:
    with a_server(home) as server:
        async with grown(home, window, server) as log:
            yield log


async def _untrimmed(bench: Bench, sizes: Sizes) -> list[Footprint]:
    window = msgspec.structs.replace(sizes.window, trimmed=False)
    found = []
    async with _log(bench.home / "untrimmed", window) as log:
        for records in sizes.untrimmed:
            await log.grow(records)
            found.append(await log.footprint())
    return found


async def _speeds(bench: Bench, long: GrownLog, short: GrownLog) -> list[Row]:
    rounds = min(bench.rounds, 9)
    records, against = f"at {long.world.position:,} records", f"at {short.world.position:,}"
    await short.restart_server()  # as the other was just now
    for log in (long, short):
        await log.append_singly(bench.size(600, WARM_UP))
    slow, fast = await take_turns(rounds, *(_singly(log) for log in (long, short)))
    append = compare(f"append, one client, {records}", "ms", slow, fast, against, at_most(1.2), "the round's p50")
    ours, theirs = await take_turns(min(rounds, 7), *(_together(log) for log in (long, short)))
    group = compare(f"{CLIENTS} clients through the appender, {records}", "/s", ours, theirs, against, at_least(0.8))
    slow, fast = await take_turns(rounds, newest(long.history), newest(short.history))
    history = compare(f"history of one VM, newest {NEWEST}, {records}", "ms", slow, fast, against, at_most(2))
    ours, theirs = await take_turns(REPLAYS, long.replay, short.replay, warm_up=0)
    replay = compare(f"replay from the replica, {records}", "/s", ours, theirs, against, at_least(0.8), "of processor")
    return [append, group, history, replay]


def _singly(log: GrownLog) -> Side:
    async def round_() -> float:
        return await log.append_singly(SINGLES)

    return round_


def _together(log: GrownLog) -> Side:
    side = commands(log.appender, EACH)

    async def round_() -> float:
        rate = await side()
        await log.fill_replica()
        return rate

    return round_


def footprint_rows(trimmed: Sequence[Footprint], untrimmed: Sequence[Footprint], empty_heap: int) -> list[Row]:
    """What the longest log takes: beside one whose window in ZooKeeper was just full, and per record beside the
    shortest. `trimmed` and `untrimmed` have three sizes each, ascending."""
    first, full, last = trimmed
    least, half, most = untrimmed

    def flat(
        what: str, value: Callable[[Footprint], float], unit: str, note: str = "", bound: float | None = 1.1
    ) -> Row:
        against = f"{full.records:,} records: {figure(value(full), unit)}"
        measured = f"{last.records:,} records: {figure(value(last), unit)}"
        ratio = value(last) / value(full)
        also = f"{first.records:,} records: {figure(value(first), unit)}"
        note = f"{also}; {note}" if note else also
        return Row(
            what=what,
            measured=measured,
            reference=against,
            ratio=ratio,
            target=at_most(bound) if bound else None,
            note=note,
        )

    def untrimmed_row(what: str, value: Callable[[Footprint], float], unit: str) -> Row:
        return Row(
            what=f"{what}, never trimmed",
            measured=f"{most.records:,} records: {figure(value(most), unit)}",
            reference=f"{half.records:,} records: {figure(value(half), unit)}",
            ratio=value(most) / value(half),
            note=f"{least.records:,} records: {figure(value(least), unit)}",
        )

    def each(what: str, value: Callable[[Footprint], float], against: Footprint = first, note: str = "") -> Row:
        return Row(
            what=f"bytes per record: {what}",
            measured=f"{last.records:,} records: {figure(value(last), 'B')}",
            reference=f"{against.records:,} records: {figure(value(against), 'B')}",
            ratio=value(last) / value(against),
            target=at_most(1.1),
            note=note,
        )

    hot = f"{full.hot_records:,} and {last.hot_records:,} of the records are in ZooKeeper"
    further = (most.heap - least.heap) / (most.hot_records - least.hot_records)
    busy = f"right after large requests {full.heap_busy / MIB:.0f} and {last.heap_busy / MIB:.0f} MiB"
    return [
        flat("ZooKeeper's live heap", lambda at: at.heap / MIB, "MiB", f"{hot}; {busy}"),
        untrimmed_row("ZooKeeper's live heap", lambda at: at.heap / MIB, "MiB"),
        flat("ZooKeeper's snapshot", lambda at: at.server_snapshot / MIB, "MiB"),
        untrimmed_row("ZooKeeper's snapshot", lambda at: at.server_snapshot / MIB, "MiB"),
        flat("ZooKeeper's znodes", lambda at: at.znodes, ""),
        flat("ZooKeeper stopped and serving again", lambda at: at.server_start_s, "s", bound=None),
        untrimmed_row("ZooKeeper stopped and serving again", lambda at: at.server_start_s, "s"),
        flat(
            "a node's stored state", lambda at: at.state / KIB, "KiB", "with the ids of 10,000 to 12,500 commands", 1.3
        ),
        each(
            "hot, ZooKeeper's heap",
            lambda at: (at.heap - empty_heap) / at.hot_records,
            full,
            f"{further:.0f} B for each further one",
        ),
        each("hot, ZooKeeper's snapshot", lambda at: at.server_snapshot / at.hot_records),
        each("sealed, in the archive", lambda at: at.sealed / at.sealed_records),
        each("replica", lambda at: at.replica / at.records),
        each("manifests, in ZooKeeper for ever", lambda at: at.manifests / at.sealed_records),
        Row(
            what="past states, stored beside the replica",
            measured=f"{last.records:,} records: {figure(last.past_states / MIB, 'MiB')}",
            reference=f"{full.records:,} records: {figure(full.past_states / MIB, 'MiB')}",
            ratio=last.past_states / full.past_states,
            note="they are thinned at 256 MiB",
        ),
    ]
