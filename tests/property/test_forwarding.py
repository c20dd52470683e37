"""Forwarded reports under seeded faults: nodes die at any step, drainers are deposed, requests arrive late or never.

Whatever happens, each fact is in the log exactly once, from its own node, and nothing stays in the inbox for good.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest
from msgspec.structs import replace

from pvc.commands.base import Decision
from pvc.errors import PvcError
from pvc.events import vm as e
from pvc.events.record import EMPTY, Entry, Head, check_follows
from pvc.events.registry import decode_event
from pvc.log.inbox import Found
from pvc.projections.vm_machine import VmState
from pvc.runtime import drainer
from pvc.runtime.appender import Appender, Outcome, Request
from pvc.runtime.forwarder import Forwarder
from pvc.sim.loop import run_virtual
from tests.support.core import replayed
from tests.support.writers_house import WritersHouse, notes_forwardable

SEEDS = int(os.environ.get("PVC_FORWARDING_SEEDS", "40"))
BLOCKS = 20
MUTANT_SEEDS = 60
"""Within so many seeds every mutant below must have been caught."""

NODES = 4
RUNS = 12
"""Of each VM, each with a beginning and an end."""

TROUBLE_S = 40.0
"""For so long things go wrong."""

HEALED_S = 300.0
"""By then all must be as it should; it takes some ten seconds."""

many_seeds = pytest.mark.many_seeds
"""What runs in these tests runs in the first block as well."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("block", [0, *(pytest.param(block, marks=many_seeds) for block in range(1, BLOCKS))])
def test_whoever_dies_each_fact_is_in_the_log_once(block: int) -> None:
    per_block = max(1, SEEDS // BLOCKS)
    forwarded = sum(run(seed) for seed in range(block * per_block, (block + 1) * per_block))
    assert forwarded > per_block * NODES, "hardly anything was forwarded"


@many_seeds
def test_the_same_seed_gives_the_same_run() -> None:
    assert run_virtual(one_run(3)) == run_virtual(one_run(3))


def run(seed: int) -> int:
    try:
        return len(run_virtual(one_run(seed)))
    except (AssertionError, TimeoutError) as error:
        pytest.fail(f"seed {seed}: {error!r}")


async def one_run(seed: int) -> list[str]:
    """Trouble, then peace; returns the ids of what was laid in."""
    with notes_forwardable():
        return await _one_run(seed)


async def _one_run(seed: int) -> list[str]:
    rng = random.Random(seed)
    house = WritersHouse(NODES, crowd=0, seed=seed, ending=0.5, notes_s=0.5)
    wrong = watch(house)
    await house.open()
    trouble = asyncio.create_task(make_trouble(house, rng))
    admin = asyncio.create_task(start_again_and_again(house))
    await asyncio.sleep(TROUBLE_S)
    trouble.cancel()
    await asyncio.gather(trouble, return_exceptions=True)
    async with asyncio.timeout(HEALED_S):
        await heal(house)
        await admin
        house.notes_s = 1e9
        while await house.inbox.keys():
            await asyncio.sleep(0.1)
    await house.close()
    assert wrong == []
    await check(house)
    return [report.id for report in house.inbox.laid_in]


def watch(house: WritersHouse) -> list[str]:
    """Look at each record as it is committed: what it says must be so on the machine at that moment."""
    wrong: list[str] = []
    append = house.log.append

    async def watched(entries: Sequence[Entry], *, after: Head) -> Head:
        head = await append(entries, after=after)
        for entry in entries:
            for event in map(decode_event, entry.record.events):
                if isinstance(event, e.VmStopped) and house.writers[event.node].domains.get(event.vm) == event.epoch:
                    wrong.append(f"record {entry.position} has run {event.epoch} of {event.vm} ended, and it is up")
        return head

    house.log.append = watched  # type: ignore[method-assign]
    return wrong


async def make_trouble(house: WritersHouse, rng: random.Random) -> None:
    """Kill, start, depose, cut off, one after the other; and all the while requests go astray."""
    writers = list(house.writers.values())
    for writer in writers:
        writer.link.faults = rng.choice((0.0, 0.02, 0.1))
    while True:
        await asyncio.sleep(rng.random() * 2.0)
        writer = rng.choice(writers)
        match rng.choice(("kill", "kill primary", "elect", "cut", "start", "start")):
            case "kill" if writer.alive:
                await writer.kill()
            case "kill primary":
                for other in writers:
                    if other.alive and other.epoch:
                        await other.kill()
            case "elect" if writer.alive:  # the one before goes on believing that it is
                with contextlib.suppress(PvcError):
                    async with asyncio.timeout(2.0):
                        await writer.be_elected()
            case "cut":
                writer.link.cut = not writer.link.cut
            case "start":
                for other in writers:
                    if not other.alive:
                        other.start()


async def heal(house: WritersHouse) -> None:
    for writer in house.writers.values():
        writer.link.cut, writer.link.faults = False, 0.0
        if not writer.alive:
            writer.start()
    await asyncio.sleep(5.0)
    await house.writers["n2"].be_elected()


async def start_again_and_again(house: WritersHouse) -> None:
    """Every VM that is off is started, until it has run often enough."""
    while True:
        state = replayed(await house.records())
        off = [vm for vm in state.vms.values() if vm.state in (VmState.STOPPED, VmState.FAILED)]
        if len(off) == len(state.vms) and all(vm.epoch >= RUNS for vm in off):
            return
        for vm in off:
            if vm.epoch < RUNS:
                with contextlib.suppress(PvcError):
                    await house.admin("vm.start", vm=vm.name)
        await asyncio.sleep(0.5)


async def check(house: WritersHouse) -> None:
    records = await house.records()
    head = EMPTY
    for entry in records:
        check_follows(entry, head)
        head = entry.head
    ids = [entry.record.command.id for entry in records]
    assert len(ids) == len(set(ids)), "a command is in the log twice"
    facts = await house.facts()
    runs = {(vm.name, run) for vm in house.cluster.state.vms.values() for run in range(1, RUNS + 1)}
    for kind in ("vm.started", "vm.stopped"):
        told = sorted((name, run) for _, type_, name, run in facts if type_ == kind)
        assert told == sorted(runs), f"{kind} is not there once for each run"
    assert all(name.startswith(f"{origin}-") for origin, _, name, _ in facts), "a fact of another node than its own"
    noted = await house.noted()
    assert len(noted) == len(set(noted)), "a note is in the log twice"
    for writer in house.writers.values():
        lost = {number for number, told in writer.notes.items() if told and (writer.name, number) not in noted}
        assert not lost, f"{writer.name} was told that these are in the log, and they are not: {lost}"


# -- Known bugs would be seen ------------------------------------------------------------------------------------------


def sends_it_by_the_other_way_as_another_report(monkeypatch: pytest.MonkeyPatch) -> None:
    submit = Appender.submit

    async def submit_anew(self: Appender, request: Request) -> Outcome:
        anew = request if request.taken is not None else replace(request, command_id="")
        return await submit(self, anew)

    monkeypatch.setattr(Appender, "submit", submit_anew)


def takes_it_in_as_another_report(monkeypatch: pytest.MonkeyPatch) -> None:
    request_of = drainer._request

    def request_without_id(found: Found, epoch: int, folded: int) -> Request | None:
        request = request_of(found, epoch, folded)
        return replace(request, command_id="") if request is not None else None

    monkeypatch.setattr(drainer, "_request", request_without_id)


def takes_what_has_left_the_inbox_for_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    def believe(self: Forwarder, batch: list[Any]) -> None:
        for sent in batch:
            self._outstanding.pop(sent.report.id, None)
            if not sent.future.done():
                sent.future.set_result(
                    Outcome(entry=cast("Entry", "a record"), decision=Decision(events=()), position=0)
                )

    monkeypatch.setattr(Forwarder, "_give_back", believe)


@many_seeds
@pytest.mark.parametrize(
    "mutate",
    [
        sends_it_by_the_other_way_as_another_report,
        takes_it_in_as_another_report,
        takes_what_has_left_the_inbox_for_recorded,
    ],
)
def test_a_known_bug_is_seen(mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    for seed in range(MUTANT_SEEDS):
        try:
            run_virtual(one_run(seed))
        except (AssertionError, TimeoutError):
            return
    pytest.fail(f"{mutate.__name__} was not seen in {MUTANT_SEEDS} runs")
