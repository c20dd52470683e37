"""What two hypervisors must do to move a running guest. A test class per twin inherits it and gives the fixture `pair`.

The suite's guest counts on its console once a second; a count that goes on without a gap, and without a second
beginning, is one guest that never ran twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import Protocol

import pytest

from pvc.drivers.hypervisor import Domain, DomainState, Hypervisor, OffReason
from pvc.errors import DriverError, PvcError, Unavailable
from pvc.events.vm import VmSpec
from tests.contract.hypervisor_contract import PATIENCE_S, new_id, wait_for_text, wait_until

DOWNTIME_MS = 300


class Pair(Protocol):
    """Two machines that reach each other."""

    source: Hypervisor
    target: Hypervisor
    source_address: str
    target_address: str
    nobodys_address: str
    """Where no hypervisor is."""

    def spec(self, name: str) -> VmSpec:
        """A guest."""
        ...

    async def slow_down(self) -> None:
        """From now on a migration takes some seconds, so that something can come in between."""
        ...

    async def restart_source_daemon(self) -> None:
        """The source node's daemon was killed and is there again: a new connection to the same machine."""
        ...


class MigrationContract:
    """The shared suite."""

    async def test_a_guest_arrives_paused_and_runs_on_once_it_is_let(self, pair: Pair) -> None:
        vm = await running(pair, "mover", epoch=3)
        console = await pair.source.open_console(vm)
        await wait_for_text(console, b"mover heartbeat 1 ")
        await pair.source.reset(vm, mark="m1")
        await wait_for_text(console, b"mover heartbeat 2 ")
        await migrate(pair, vm, epoch=3)
        assert await pair.source.get_domain(vm) == Domain(
            vm=vm, name="mover", epoch=3, state=DomainState.OFF, reason=OffReason.MIGRATED, reset_mark="m1"
        )
        arrived = Domain(vm=vm, name="mover", epoch=3, state=DomainState.PAUSED, reset_mark="m1")
        assert await pair.target.get_domain(vm) == arrived
        assert arrived in await pair.target.list_domains()
        console = await pair.target.open_console(vm)
        await pair.target.start(vm)
        assert await pair.target.get_domain(vm) == Domain(
            vm=vm, name="mover", epoch=3, state=DomainState.RUNNING, reset_mark="m1"
        )
        counts = await beats(console, 3)
        assert counts == list(range(counts[0], counts[0] + len(counts)))
        assert 2 < counts[0] < 30, "it began anew, or its time was lost"

    async def test_a_guest_goes_to_and_fro(self, pair: Pair) -> None:
        vm = await running(pair, "commuter")
        await migrate(pair, vm)
        await pair.target.start(vm)
        # Also when the former copy was not forgotten yet.
        await pair.target.migrate(vm, epoch=1, target=pair.source_address, max_downtime_ms=DOWNTIME_MS, force=False)
        assert (await state_at(pair.target, vm)) == (DomainState.OFF, OffReason.MIGRATED)
        assert (await state_at(pair.source, vm)) == (DomainState.PAUSED, None)
        await pair.target.forget(vm)
        assert await pair.target.get_domain(vm) is None
        await pair.source.start(vm)
        await migrate(pair, vm)
        await pair.target.start(vm)
        assert (await state_at(pair.target, vm)) == (DomainState.RUNNING, None)

    async def test_a_guest_that_has_moved_ends_as_any_other(self, pair: Pair) -> None:
        vm = await running(pair, "mortal")
        await migrate(pair, vm)
        await pair.target.start(vm)
        await pair.source.forget(vm)
        assert await pair.source.get_domain(vm) is None
        assert (await state_at(pair.target, vm)) == (DomainState.RUNNING, None)
        await pair.target.destroy(vm)
        assert (await state_at(pair.target, vm)) == (DomainState.OFF, OffReason.DESTROYED)
        await pair.target.define(vm, "mortal", pair.spec("mortal"), epoch=2)
        assert (await state_at(pair.target, vm)) == (DomainState.OFF, OffReason.NEVER_RAN)
        await pair.target.start(vm)
        assert (await state_at(pair.target, vm)) == (DomainState.RUNNING, None)

    async def test_who_asks_again_for_a_migration_that_is_done_is_told_so(self, pair: Pair) -> None:
        vm = await running(pair, "gone")
        await migrate(pair, vm)
        await migrate(pair, vm)
        assert (await state_at(pair.target, vm)) == (DomainState.PAUSED, None)
        await pair.restart_source_daemon()
        await migrate(pair, vm)
        assert (await state_at(pair.source, vm)) == (DomainState.OFF, OffReason.MIGRATED)

    async def test_on_the_way_both_sides_say_so_and_nobody_can_harm_it(self, pair: Pair) -> None:
        await pair.slow_down()
        vm = await running(pair, "traveller")
        async with under_way(pair, vm) as moving:
            known = await pair.source.get_domain(vm)
            assert known is not None
            assert (known.state, known.migrating) == (DomainState.RUNNING, True)
            progress = await pair.source.transfer(vm)
            assert progress is not None
            assert 0 <= progress.remaining_bytes <= progress.total_bytes
            assert 0 <= progress.per_cent <= 100
            assert (await pair.target.list_domains())[0].state is DomainState.INCOMING
            assert await pair.target.transfer(vm) is None
            with pytest.raises(Unavailable):
                await pair.target.start(vm)
            await pair.target.forget(vm)
            await pair.target.define(vm, "other", pair.spec("other"), epoch=9)
            await pair.target.shutdown(vm)
            await pair.target.reset(vm, mark="m9")
            await pair.source.start(vm)
            await pair.source.forget(vm)
            assert (await state_at(pair.target, vm)) == (DomainState.INCOMING, None)
            await moving
        assert await pair.target.get_domain(vm) == Domain(
            vm=vm, name="traveller", epoch=1, state=DomainState.PAUSED, reset_mark=""
        )
        assert await pair.source.transfer(vm) is None

    async def test_a_cancelled_migration_leaves_the_guest_where_it_was(self, pair: Pair) -> None:
        await pair.slow_down()
        vm = await running(pair, "stayer")
        console = await pair.source.open_console(vm)
        await wait_for_text(console, b"stayer heartbeat 1 ")
        async with under_way(pair, vm) as moving:
            await pair.source.cancel_migration(vm)
            with pytest.raises(DriverError) as refusal:
                await moving
            assert refusal.value.code == "hypervisor.migration_cancelled"
        assert await pair.source.get_domain(vm) == Domain(vm=vm, name="stayer", epoch=1, state=DomainState.RUNNING)
        await wait_until_gone(pair.target, vm)
        counts = await beats(console, 2)
        assert counts == list(range(counts[0], counts[0] + len(counts)))
        await pair.source.cancel_migration(vm)

    async def test_a_target_that_destroys_what_arrives_ends_the_migration_only(self, pair: Pair) -> None:
        await pair.slow_down()
        vm = await running(pair, "unwanted")
        async with under_way(pair, vm) as moving:
            await pair.target.destroy(vm)
            with pytest.raises(DriverError) as refusal:
                await moving
            assert refusal.value.code == "hypervisor.migration_failed"
        assert (await state_at(pair.source, vm)) == (DomainState.RUNNING, None)
        await wait_until_gone(pair.target, vm)

    async def test_who_asks_while_it_is_under_way_waits_for_the_same_end(self, pair: Pair) -> None:
        await pair.slow_down()
        vm = await running(pair, "shared")
        async with under_way(pair, vm) as moving:
            await asyncio.gather(moving, *(migrate(pair, vm) for _ in range(2)))
        assert (await state_at(pair.source, vm)) == (DomainState.OFF, OffReason.MIGRATED)
        assert (await state_at(pair.target, vm)) == (DomainState.PAUSED, None)

    async def test_a_migration_goes_on_without_who_asked_for_it(self, pair: Pair) -> None:
        await pair.slow_down()
        vm = await running(pair, "orphan")
        async with under_way(pair, vm) as moving:
            moving.cancel()
            await asyncio.gather(moving, return_exceptions=True)
            known = await pair.source.get_domain(vm)
            assert known is not None
            assert (known.state, known.migrating) == (DomainState.RUNNING, True)
            await migrate(pair, vm)
        assert (await state_at(pair.source, vm)) == (DomainState.OFF, OffReason.MIGRATED)
        assert (await state_at(pair.target, vm)) == (DomainState.PAUSED, None)

    async def test_a_guest_destroyed_on_the_way_is_nowhere(self, pair: Pair) -> None:
        await pair.slow_down()
        vm = await running(pair, "victim")
        async with under_way(pair, vm) as moving:
            await pair.source.destroy(vm)
            with pytest.raises(PvcError):
                await moving
        assert (await state_at(pair.source, vm)) == (DomainState.OFF, OffReason.DESTROYED)
        await wait_until_gone(pair.target, vm)

    async def test_a_guest_that_powers_off_on_the_way_has_powered_off(self, pair: Pair) -> None:
        await pair.slow_down()
        vm = await running(pair, "quitter")
        console = await pair.source.open_console(vm)
        await wait_for_text(console, b"quitter heartbeat 2 ")
        async with under_way(pair, vm) as moving:
            await console.write(b"poweroff\n")
            with pytest.raises(PvcError):
                await moving
        assert (await state_at(pair.source, vm)) == (DomainState.OFF, OffReason.GUEST)
        await wait_until_gone(pair.target, vm)

    async def test_a_target_that_is_not_there_leaves_the_guest_alone(self, pair: Pair) -> None:
        vm = await running(pair, "stuck")
        with pytest.raises(DriverError) as refusal:
            await pair.source.migrate(
                vm, epoch=1, target=pair.nobodys_address, max_downtime_ms=DOWNTIME_MS, force=False
            )
        assert refusal.value.code == "hypervisor.migration_failed"
        assert "\n" not in refusal.value.message
        assert await pair.source.get_domain(vm) == Domain(vm=vm, name="stuck", epoch=1, state=DomainState.RUNNING)
        await migrate(pair, vm)
        assert (await state_at(pair.target, vm)) == (DomainState.PAUSED, None)

    async def test_a_target_that_has_a_copy_already_takes_no_other(self, pair: Pair) -> None:
        vm = await running(pair, "twin")
        await pair.target.define(vm, "twin", pair.spec("twin"), epoch=1)
        await pair.target.start(vm)
        with pytest.raises(DriverError):
            await migrate(pair, vm)
        assert (await state_at(pair.source, vm)) == (DomainState.RUNNING, None)

    async def test_what_does_not_run_here_cannot_move(self, pair: Pair) -> None:
        with pytest.raises(DriverError) as refusal:
            await migrate(pair, new_id())
        assert refusal.value.code == "hypervisor.no_domain"
        vm = new_id()
        await pair.source.define(vm, "fresh", pair.spec("fresh"), epoch=1)
        with pytest.raises(DriverError) as refusal:
            await migrate(pair, vm)
        assert refusal.value.code == "hypervisor.migration_failed"
        assert (await state_at(pair.source, vm)) == (DomainState.OFF, OffReason.NEVER_RAN)
        await pair.source.cancel_migration(vm)
        await pair.source.cancel_migration(new_id())
        assert await pair.source.transfer(vm) is None
        assert await pair.source.transfer(new_id()) is None

    async def test_another_run_than_the_one_that_was_to_move_stays(self, pair: Pair) -> None:
        vm = await running(pair, "restarted", epoch=2)
        with pytest.raises(DriverError) as refusal:
            await migrate(pair, vm, epoch=1)
        assert refusal.value.code == "hypervisor.migration_failed"
        assert (await state_at(pair.source, vm)) == (DomainState.RUNNING, None)
        await migrate(pair, vm, epoch=2)
        with pytest.raises(DriverError) as refusal:
            await migrate(pair, vm, epoch=3)
        assert refusal.value.code == "hypervisor.migration_failed"
        assert (await state_at(pair.source, vm)) == (DomainState.OFF, OffReason.MIGRATED)

    async def test_every_step_is_announced_on_both_sides(self, pair: Pair) -> None:
        vm = await running(pair, "loud")
        heard: dict[str, set[str]] = {"source": set(), "target": set()}

        async def listen(hypervisor: Hypervisor, to: set[str]) -> None:
            async for hint in hypervisor.events():
                to.add(hint)

        listeners = [
            asyncio.create_task(listen(pair.source, heard["source"])),
            asyncio.create_task(listen(pair.target, heard["target"])),
        ]
        try:
            await asyncio.sleep(0.2)
            await migrate(pair, vm)
            await wait_until(lambda: vm in heard["source"] and vm in heard["target"], "both sides told of it")
        finally:
            for listener in listeners:
                listener.cancel()
            await asyncio.gather(*listeners, return_exceptions=True)

    async def test_what_is_used_of_a_machine_counts_its_guests(self, pair: Pair) -> None:
        vm = await running(pair, "user")
        await pair.source.usage()
        await asyncio.sleep(0.1)
        usage = await pair.source.usage()
        assert 0 <= usage.cpu_per_cent <= 100
        assert usage.memory_free_mib > 0
        assert usage.memory_used_mib > 0
        assert usage.load1 >= 0
        assert [guest.vm for guest in usage.guests] == [vm]
        assert usage.guests[0].memory_used_mib > 0
        assert usage.guests[0].cpu_seconds >= 0
        assert (await pair.target.usage()).guests == ()
        await pair.source.destroy(vm)
        assert (await pair.source.usage()).guests == ()


async def running(pair: Pair, name: str, *, epoch: int = 1) -> str:
    vm = new_id()
    await pair.source.define(vm, name, pair.spec(name), epoch=epoch)
    await pair.source.start(vm)
    return vm


async def migrate(pair: Pair, vm: str, *, epoch: int = 1, force: bool = False) -> None:
    await pair.source.migrate(vm, epoch=epoch, target=pair.target_address, max_downtime_ms=DOWNTIME_MS, force=force)


@contextlib.asynccontextmanager
async def under_way(pair: Pair, vm: str) -> AsyncIterator[asyncio.Task[None]]:
    """A migration that has begun to send, and has not ended."""
    moving = asyncio.create_task(migrate(pair, vm))

    async def begun() -> bool:
        assert not moving.done(), f"it ended too soon: {moving}"
        progress, there = await pair.source.transfer(vm), await pair.target.get_domain(vm)
        arriving = there is not None and there.state is DomainState.INCOMING
        return arriving and progress is not None and progress.total_bytes > 0

    try:
        await wait_until(begun, "the migration is under way")
        yield moving
    finally:
        moving.cancel()
        await asyncio.gather(moving, return_exceptions=True)


async def state_at(hypervisor: Hypervisor, vm: str) -> tuple[DomainState, OffReason | None]:
    domain = await hypervisor.get_domain(vm)
    assert domain is not None, f"there is no domain of {vm}"
    return domain.state, domain.reason


async def wait_until_gone(hypervisor: Hypervisor, vm: str) -> None:
    async def gone() -> bool:
        return await hypervisor.get_domain(vm) is None

    await wait_until(gone, "nothing is left of what was arriving")


async def beats(console: object, number: int) -> list[int]:
    """The next counts of the guest."""
    seen = b""
    async with asyncio.timeout(PATIENCE_S):
        while len(found := re.findall(rb"heartbeat (\d+) up", seen)) < number:
            data = await console.read()  # type: ignore[attr-defined]
            assert data, f"the console ended after {seen!r}"
            seen += data
    return [int(count) for count in found]
