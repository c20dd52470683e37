"""Replay: the fold of a log with every hash checked, against the same without, and against another library's way."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pvc.events.record import Record
from pvc.events.registry import BY_TYPE
from pvc.log.base import Log
from pvc.log.memory import MemoryLog
from pvc.log.sqlite import SqliteLog
from pvc.projections.fold import EVOLVE
from pvc.projections.state import ClusterState
from pvc.runtime.world import World, catch_up
from tests.bench.measure import Bench, Row, Side, at_least, compare, cpu_stopwatch, skipped, take_turns
from tests.bench.records import Chain, a_cluster, daily_life
from tests.bench.running import fill

VMS = 500


async def measure(bench: Bench) -> list[Row]:
    count = bench.size(6_000, 30_000)
    chain = Chain()
    entries = list(itertools.chain(a_cluster(chain, VMS), daily_life(chain, VMS, count)))
    data = [entry.data for entry in entries]
    memory, sqlite = MemoryLog(), await SqliteLog.open(bench.home / "log.db")
    try:
        await fill(memory, entries)
        await fill(sqlite, entries)
        del entries
        return [*await _plain(bench, memory, sqlite, data), *await _eventsourcing(bench, memory, sqlite, data)]
    finally:
        await sqlite.close()


async def _plain(bench: Bench, memory: Log, sqlite: Log, data: Sequence[bytes]) -> list[Row]:
    sides = _catch_up(memory, data), _catch_up(sqlite, data), _plain_fold(data), _bare_fold(data)
    from_list, from_sqlite, plain, bare = await take_turns(min(bench.rounds, 7), *sides)
    size = sum(map(len, data)) // len(data)
    note = f"per second of processor, records of {size} bytes; the reference does no hashes, chain or idempotency keys"
    against, target = "decode + fold, no checks", at_least(0.4)
    return [
        compare("replay, from a list of bytes", "/s", from_list, plain, against, target, note),
        compare("replay, from SQLite", "/s", from_sqlite, plain, against, target),
        compare("replay, from a list of bytes, bare dicts", "/s", from_list, bare, "decode, keep the last per VM"),
    ]


def _catch_up(log: Log, data: Sequence[bytes]) -> Side:
    async def round_() -> float:
        world = World()
        with cpu_stopwatch() as watch:
            await catch_up(world, log)
        assert world.position == len(data)
        return len(data) / watch.seconds

    return round_


def _plain_fold(data: Sequence[bytes]) -> Side:
    """The same decoding and the same fold of events, and nothing else."""
    envelope, decoders = _decoders()

    async def round_() -> float:
        state = ClusterState()
        with cpu_stopwatch() as watch:
            for stored in data:
                record = envelope(stored)
                for raw in record.events:
                    event = decoders[raw.type](raw.data)
                    EVOLVE[type(event)](state, event, record)
        assert len(state.vms) == VMS
        return len(data) / watch.seconds

    return round_


def _bare_fold(data: Sequence[bytes]) -> Side:
    """The least that could be called a fold: the last event of each thing, in a dict."""
    envelope, decoders = _decoders()

    async def round_() -> float:
        last: dict[str, object] = {}
        with cpu_stopwatch() as watch:
            for stored in data:
                for raw in envelope(stored).events:
                    event = decoders[raw.type](raw.data)
                    last[getattr(event, "vm", "")] = event
        assert len(last) == VMS + 1
        return len(data) / watch.seconds

    return round_


def _decoders() -> tuple[Callable[[bytes], Record], dict[str, Callable[[msgspec.Raw], Any]]]:
    envelope = msgspec.msgpack.Decoder(Record).decode
    return envelope, {name: msgspec.msgpack.Decoder(type_).decode for name, type_ in BY_TYPE.items()}


async def _eventsourcing(bench: Bench, memory: Log, sqlite: Log, data: Sequence[bytes]) -> list[Row]:
    what = "replay, against `eventsourcing`"
    try:
        from tests.bench import with_eventsourcing
    except ModuleNotFoundError as error:
        return [skipped(what, f"{error.name} is not installed (pip install '.[bench]')")]
    count = bench.size(6_000, 15_000)
    in_memory = with_eventsourcing.replay(VMS, count)
    in_sqlite = with_eventsourcing.replay(VMS, count, str(bench.home / "eventsourcing.db"))
    sides = _catch_up(memory, data), in_memory, _catch_up(sqlite, data), in_sqlite
    ours, theirs, ours_on_disk, theirs_on_disk = await take_turns(min(bench.rounds, 5), *sides)
    against = "its repository"
    return [
        compare(f"{what}, in memory", "events/s", ours, theirs, against, at_least(6)),
        compare(f"{what}, from SQLite", "events/s", ours_on_disk, theirs_on_disk, against, at_least(6)),
    ]
