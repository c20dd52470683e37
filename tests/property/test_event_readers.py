"""The event stream's promise: a reader that resumes has seen exactly the log that it asked for, once, in order.

Whatever comes in whichever order: appends, readers that connect, that are cut in the middle, that come back where they
were; queues so short that they overflow all the time; a hub that rests and wakes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pvc.clock import SystemClock, SystemRng
from pvc.events import vm as e
from pvc.events.node import NodeJoined
from pvc.events.record import EMPTY, Actor, CommandRef, Entry, RawEvent, Record, seal
from pvc.events.registry import Event, decode_event, encode_event, subject_of
from pvc.gateway import event_hub
from pvc.gateway.event_hub import EventHub
from pvc.keyring.memory import MemoryKeyring
from pvc.log.history import HistoryIndex
from pvc.log.history_keys import EventFilter
from pvc.runtime.people import People
from pvc.runtime.world import World
from tests.support.waiting import until

VMS = ("id-0", "id-1", "id-2")
NAMES = ("web", "db")
TAGS = ("red", "blue")
PATIENCE_S = float(os.environ.get("PVC_TEST_PATIENCE_S", "10"))
"""For records to arrive; shorter for who looks for a defect."""
SPEC = e.VmSpec(memory_mib=64, vcpus=1)
NONE: set[str] = set()

kinds = st.sampled_from(["started", "renamed", "tagged", "untagged", "removed", "defined", "joined", "moon", "two"])
appends = st.tuples(st.just("append"), st.lists(st.tuples(kinds, st.integers(0, 999)), min_size=1, max_size=8))
filters = st.builds(
    EventFilter,
    types=st.sampled_from([(), (), ("vm.started",), ("vm.*",), ("vm.tag_added", "node.joined"), ("moon.*",)]),
    subject=st.sampled_from(["", "", "vm/id-1", "vm/web", "vm/db", "node/hv1", "moon", "vm/nobody"]),
    actor=st.sampled_from(["", "", "root", "node/hv1", "nobody"]),
    tag=st.sampled_from(["", "", "red", "blue", "none"]),
    correlation=st.sampled_from(["", "", "", "R0001", "R0004", "R0009"]),
)
connects = st.tuples(st.just("connect"), filters)
steps = st.one_of(
    appends,
    appends,
    connects,
    st.tuples(st.just("cut"), st.integers(0, 99)),
    st.tuples(st.just("resume"), st.integers(0, 99)),
    st.tuples(st.just("pause"), st.integers(0, 4)),
)


class Consumer:
    """A client: what it has seen outlives its connections."""

    def __init__(self, hub: EventHub, wanted: EventFilter) -> None:
        self.wanted = wanted
        self.seen: list[int] = []
        self.considered = 0
        self._hub = hub
        self.task: asyncio.Task[None] | None = None

    def connect(self) -> None:
        if self.task is None:
            self.task = asyncio.create_task(self._run())

    async def cut(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            self.task = None

    async def _run(self) -> None:
        async with self._hub.reading(self.wanted, self.considered) as reader:
            while True:
                frames = await reader.take()
                self.seen += [frame.position for frame in frames]
                self.considered = frames[-1].position if frames else reader.cursor
                if not frames:
                    await reader.sleep()


# No shrinking: an example that fails waits for what does not come, and would do so hundreds of times.
@settings(phases=(Phase.explicit, Phase.generate))
@given(st.lists(steps, min_size=5, max_size=40))
def test_a_reader_that_resumes_has_seen_exactly_what_it_asked_for_once_in_order(
    story: list[tuple[str, object]],
) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(event_hub, "MAX_QUEUED", 5)
        patch.setattr(event_hub, "MAX_BATCH", 2)
        asyncio.run(live(story, Path(folder)))


async def live(story: list[tuple[str, object]], folder: Path) -> None:
    index = await HistoryIndex.open(folder / "history.db")
    clock = SystemClock()
    people = People(MemoryKeyring(), World(), clock, SystemRng())
    hub = EventHub(index, people, clock, asyncio.Event(), tick_s=0.001)
    entries: list[Entry] = []
    consumers = [Consumer(hub, EventFilter())]
    for step, value in story:
        match step, value:
            case "append", list():
                new = [an_entry(entries, kind, number) for kind, number in value]
                await index.index(new)
            case "connect", EventFilter():
                chains = {entry.record.id for entry in entries}
                if value.correlation and value.correlation not in chains:
                    continue  # the gateway refuses it
                root = await index.correlation(value.correlation)
                value = msgspec.structs.replace(value, correlation=root)
                consumers.append(Consumer(hub, value))
                consumers[-1].connect()
            case "cut", int():
                await consumers[value % len(consumers)].cut()
            case "resume", int():
                consumers[value % len(consumers)].connect()
            case "pause", int():
                await asyncio.sleep(value / 1_000)
        await asyncio.sleep(0)
    for consumer in consumers:
        consumer.connect()
    # One more record wakes whoever waits for something rare, so that all can be seen to have arrived.
    await index.index([an_entry(entries, "started", 0)])
    try:
        for consumer in consumers:
            expected = by_walking(entries, consumer.wanted)
            with contextlib.suppress(TimeoutError):  # what is missing is told below
                await until(lambda c=consumer, all_of=expected: len(c.seen) >= len(all_of), PATIENCE_S)  # type: ignore[misc]
        await asyncio.sleep(0.005)  # for what should not come
        for consumer in consumers:
            assert consumer.seen == by_walking(entries, consumer.wanted), consumer.wanted
    finally:
        for consumer in consumers:
            await consumer.cut()
        await index.close()
    assert hub._channels == {}


def an_entry(entries: list[Entry], kind: str, number: int) -> Entry:
    """The next record, appended to `entries`."""
    rng = random.Random(number)
    vm, tag, name = rng.choice(VMS), rng.choice(TAGS), rng.choice(NAMES)
    events: dict[str, tuple[Event | RawEvent, ...]] = {
        "started": (e.VmStarted(vm=vm, node="hv1", epoch=1),),
        "renamed": (e.VmRenamed(vm=vm, name=name, old_name="x"),),
        "tagged": (e.VmTagAdded(vm=vm, tag=tag),),
        "untagged": (e.VmTagRemoved(vm=vm, tag=tag),),
        "removed": (e.VmRemoved(vm=vm, name=name),),
        "defined": (e.VmDefined(vm=vm, name=name, spec=SPEC, node="hv1", tags=(tag,)),),
        "joined": (NodeJoined(node="hv1"),),
        "moon": (RawEvent(type="moon.risen", data=msgspec.Raw(b"\x80")),),
        "two": (e.VmDisabled(vm=vm), e.VmTagAdded(vm="id-0", tag=tag)),
    }
    head = entries[-1].head if entries else EMPTY
    cause = rng.choice(entries).record.id if entries and rng.random() < 0.5 else ""
    entry = seal(
        Record(
            position=head.position + 1,
            prev=head.hash,
            id=f"R{head.position + 1:04d}",
            time_us=1,
            actor=Actor(principal=rng.choice(["root", "node/hv1"]), method="node"),
            origin="hv1",
            command=CommandRef(id=f"C{head.position + 1}", name="test.write"),
            cause=cause,
            events=tuple(one if isinstance(one, RawEvent) else encode_event(one) for one in events[kind]),
        )
    )
    entries.append(entry)
    return entry


def by_walking(entries: list[Entry], wanted: EventFilter) -> list[int]:
    """The plainest statement of what a filter means."""
    roots: dict[str, str] = {}
    for entry in entries:
        roots[entry.record.id] = roots[entry.record.cause] if entry.record.cause else entry.record.id
    names: dict[str, set[str]] = {}
    tags: dict[str, set[str]] = {}
    found: list[int] = []
    for entry in entries:
        record = entry.record
        told = [None if raw.type == "moon.risen" else decode_event(raw) for raw in record.events]
        # A record is one moment: what it gives and what it takes away both count for all of it.
        then = {subject: set(tags_) for subject, tags_ in tags.items()}
        for event in told:
            if event is None:
                continue
            subject = str(subject_of(event))
            mine = tags.setdefault(subject, set())
            match event:
                case e.VmDefined():
                    mine |= set(event.tags)
                case e.VmTagAdded():
                    mine.add(event.tag)
                case e.VmTagRemoved():
                    mine.discard(event.tag)
                case e.VmRemoved():
                    mine.clear()
            then.setdefault(subject, set()).update(mine)
            if isinstance(event, e.VmDefined | e.VmRenamed):
                names.setdefault(subject, set()).add(f"vm/{event.name}")
        fits = [
            ("moon.risen", "moon", NONE, NONE)
            if event is None
            else (
                event.TYPE,
                str(subject_of(event)),
                names.get(str(subject_of(event)), NONE),
                then[str(subject_of(event))],
            )
            for event in told
        ]
        if wanted.actor and record.actor.principal != wanted.actor:
            continue
        if wanted.correlation and roots[record.id] != roots.get(wanted.correlation):
            continue
        if any(
            (not wanted.types or any(type_fits(one, type_) for one in wanted.types))
            and (not wanted.subject or wanted.subject in {subject, *named})
            and (not wanted.tag or wanted.tag in tagged)
            for type_, subject, named, tagged in fits
        ):
            found.append(record.position)
    return found


def type_fits(asked: str, type_: str) -> bool:
    return type_.startswith(asked[:-1]) if asked.endswith("*") else type_ == asked
