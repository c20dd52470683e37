"""What every hypervisor must do, real or simulated. A test class per twin inherits it and gives the fixture `machine`.

A guest of the suite beats on its console (`<name> heartbeat <n>`), and obeys `poweroff` and `crash` typed there.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable
from typing import Protocol

import pytest

from pvc.drivers.hypervisor import Console, Domain, DomainState, Hypervisor, OffReason
from pvc.errors import DriverError, NotFound, Unavailable
from pvc.events.vm import VmSpec

PATIENCE_S = 60.0
RETYPE_S = 3.0
"""How long a test waits for what an emulated guest does in a few seconds on an idle machine."""


class Machine(Protocol):
    """A machine under test, with one node's connection to it at a time."""

    hypervisor: Hypervisor

    def spec(self, name: str, *, deaf: bool = False) -> VmSpec:
        """A guest; a deaf one ignores its power button."""
        ...

    def broken_spec(self, name: str) -> tuple[VmSpec, str]:
        """One that can be defined but not started, and a word that the reason must contain."""
        ...

    async def reopen(self) -> Hypervisor:
        """The node's daemon was restarted: a new connection to the same machine."""
        ...

    async def destroy_behind_our_back(self, vm: str) -> None:
        """Somebody forces the domain off."""
        ...


class HypervisorContract:
    """The shared suite."""

    async def test_a_machine_says_what_it_can_run(self, machine: Machine) -> None:
        info = await machine.hypervisor.info()
        assert info.memory_mib > 256
        assert info.vcpus >= 1
        assert info.accelerator in ("kvm", "tcg", "simulated")
        assert info.version

    async def test_a_defined_domain_never_ran(self, machine: Machine) -> None:
        vm = await define(machine, "fresh", epoch=3)
        expected = Domain(vm=vm, name="fresh", epoch=3, state=DomainState.OFF, reason=OffReason.NEVER_RAN)
        assert await machine.hypervisor.get_domain(vm) == expected
        assert expected in await machine.hypervisor.list_domains()

    async def test_an_unknown_vm_has_no_domain_and_every_wish_about_it_is_quiet(self, machine: Machine) -> None:
        hypervisor, vm = machine.hypervisor, new_id()
        await hypervisor.shutdown(vm)
        await hypervisor.destroy(vm)
        await hypervisor.reset(vm, mark="m1")
        await hypervisor.forget(vm)
        assert await hypervisor.get_domain(vm) is None
        assert await hypervisor.get_domain("no uuid at all") is None

    async def test_what_was_never_defined_cannot_start(self, machine: Machine) -> None:
        with pytest.raises(DriverError) as refusal:
            await machine.hypervisor.start(new_id())
        assert refusal.value.code == "hypervisor.no_domain"

    async def test_a_started_domain_runs_and_a_destroyed_one_says_so(self, machine: Machine) -> None:
        vm = await define(machine, "web")
        await machine.hypervisor.start(vm)
        assert await state_of(machine, vm) == (DomainState.RUNNING, None)
        await machine.hypervisor.start(vm)
        assert await state_of(machine, vm) == (DomainState.RUNNING, None)
        await machine.hypervisor.destroy(vm)
        assert await state_of(machine, vm) == (DomainState.OFF, OffReason.DESTROYED)
        await machine.hypervisor.destroy(vm)
        assert await state_of(machine, vm) == (DomainState.OFF, OffReason.DESTROYED)

    async def test_a_start_that_is_asked_for_again_while_it_is_under_way_succeeds(self, machine: Machine) -> None:
        """As when the first one was given up as too slow: a running guest must not be told as one that cannot start."""
        vm = await define(machine, "slow")
        await asyncio.gather(*(machine.hypervisor.start(vm) for _ in range(3)))
        assert await state_of(machine, vm) == (DomainState.RUNNING, None)

    async def test_a_start_whose_permission_has_ended_lets_no_guest_run(self, machine: Machine) -> None:
        vm = await define(machine, "late")
        with pytest.raises(Unavailable) as refused:
            await machine.hypervisor.start(vm, may_run=lambda: False)
        assert refused.value.code == "hypervisor.too_late"
        assert await state_of(machine, vm) == (DomainState.OFF, OffReason.NEVER_RAN)
        await machine.hypervisor.start(vm)
        assert await state_of(machine, vm) == (DomainState.RUNNING, None)

    async def test_an_ended_domain_stays_with_its_reason_until_it_is_forgotten(self, machine: Machine) -> None:
        vm = await running(machine, "kept", epoch=5)
        await machine.hypervisor.destroy(vm)
        hypervisor = await machine.reopen()
        known = await hypervisor.get_domain(vm)
        assert known is not None
        assert (known.epoch, known.reason) == (5, OffReason.DESTROYED)
        await hypervisor.forget(vm)
        assert await hypervisor.get_domain(vm) is None
        assert vm not in [domain.vm for domain in await hypervisor.list_domains()]

    async def test_a_new_definition_replaces_an_ended_domain_and_its_past(self, machine: Machine) -> None:
        vm = await running(machine, "again", epoch=1)
        await machine.hypervisor.reset(vm, mark="m1")
        await machine.hypervisor.destroy(vm)
        await machine.hypervisor.define(vm, "renamed", machine.spec("renamed"), epoch=2)
        assert await machine.hypervisor.get_domain(vm) == Domain(
            vm=vm, name="renamed", epoch=2, state=DomainState.OFF, reason=OffReason.NEVER_RAN
        )

    async def test_a_running_domain_is_neither_redefined_nor_forgotten(self, machine: Machine) -> None:
        vm = await running(machine, "steady", epoch=1)
        await machine.hypervisor.define(vm, "other", machine.spec("other"), epoch=2)
        await machine.hypervisor.forget(vm)
        assert await machine.hypervisor.get_domain(vm) == Domain(
            vm=vm, name="steady", epoch=1, state=DomainState.RUNNING
        )

    async def test_two_vms_may_have_had_the_same_name(self, machine: Machine) -> None:
        first = await running(machine, "name")
        second = await define(machine, "name")
        names = {domain.vm: domain.name for domain in await machine.hypervisor.list_domains()}
        assert names == {first: "name", second: "name"}

    async def test_a_running_domain_outlives_the_daemon(self, machine: Machine) -> None:
        vm = await running(machine, "survivor", epoch=4)
        hypervisor = await machine.reopen()
        assert await hypervisor.get_domain(vm) == Domain(vm=vm, name="survivor", epoch=4, state=DomainState.RUNNING)

    async def test_a_domain_that_cannot_start_gives_the_reason_and_never_ran(self, machine: Machine) -> None:
        spec, word = machine.broken_spec("broken")
        vm = new_id()
        await machine.hypervisor.define(vm, "broken", spec, epoch=1)
        with pytest.raises(DriverError, match=word) as refusal:
            await machine.hypervisor.start(vm)
        assert refusal.value.code == "hypervisor.start_failed"
        assert "\n" not in refusal.value.message
        assert await state_of(machine, vm) == (DomainState.OFF, OffReason.NEVER_RAN)

    async def test_a_guest_that_obeys_acpi_powers_off(self, machine: Machine) -> None:
        vm = await running(machine, "polite")
        await wait_for_text(await machine.hypervisor.open_console(vm), b"polite heartbeat")
        await machine.hypervisor.shutdown(vm)
        await wait_for_state(machine, vm, DomainState.OFF, OffReason.GUEST)

    async def test_a_deaf_guest_goes_on_until_it_is_destroyed(self, machine: Machine) -> None:
        vm = new_id()
        await machine.hypervisor.define(vm, "deaf", machine.spec("deaf", deaf=True), epoch=1)
        await machine.hypervisor.start(vm)
        console = await machine.hypervisor.open_console(vm)
        await wait_for_text(console, b"deaf heartbeat")
        await machine.hypervisor.shutdown(vm)
        await wait_for_text(console, b"deaf heartbeat")
        await wait_for_text(console, b"deaf heartbeat")
        assert await state_of(machine, vm) == (DomainState.RUNNING, None)
        await machine.hypervisor.destroy(vm)
        assert await state_of(machine, vm) == (DomainState.OFF, OffReason.DESTROYED)

    async def test_a_guest_that_powers_itself_off_is_told_from_one_that_panics(self, machine: Machine) -> None:
        quitter, panicker = await running(machine, "quitter"), await running(machine, "panicker")
        await type_when_up(machine, quitter, b"quitter heartbeat", b"poweroff\n")
        await type_when_up(machine, panicker, b"panicker heartbeat", b"crash\n")
        await wait_for_state(machine, quitter, DomainState.OFF, OffReason.GUEST)
        await wait_for_state(machine, panicker, DomainState.OFF, OffReason.CRASHED)

    async def test_a_domain_forced_off_behind_our_back_is_destroyed(self, machine: Machine) -> None:
        vm = await running(machine, "victim")
        await machine.destroy_behind_our_back(vm)
        await wait_for_state(machine, vm, DomainState.OFF, OffReason.DESTROYED)

    async def test_a_reset_restarts_the_guest_once_per_mark(self, machine: Machine) -> None:
        vm = await running(machine, "pressed", epoch=2)
        console = await machine.hypervisor.open_console(vm)
        await wait_for_text(console, b"pressed heartbeat 2 ")
        await machine.hypervisor.reset(vm, mark="m1")
        assert await machine.hypervisor.get_domain(vm) == Domain(
            vm=vm, name="pressed", epoch=2, state=DomainState.RUNNING, reset_mark="m1"
        )
        await wait_for_text(console, b"pressed heartbeat 1 ")
        await machine.hypervisor.reset(vm, mark="m1")
        await wait_for_text(console, b"pressed heartbeat 2 ")
        hypervisor = await machine.reopen()
        known = await hypervisor.get_domain(vm)
        assert known is not None
        assert known.reset_mark == "m1"

    async def test_a_domain_that_is_off_is_not_reset(self, machine: Machine) -> None:
        vm = await define(machine, "resting")
        await machine.hypervisor.reset(vm, mark="m1")
        known = await machine.hypervisor.get_domain(vm)
        assert known is not None
        assert (known.state, known.reset_mark) == (DomainState.OFF, "")

    async def test_every_change_is_announced_to_every_listener(self, machine: Machine) -> None:
        heard: list[set[str]] = [set(), set()]

        async def listen(to: set[str]) -> None:
            async for vm in machine.hypervisor.events():
                to.add(vm)

        listeners = [asyncio.create_task(listen(to)) for to in heard]
        try:
            await asyncio.sleep(0.5)
            vm = await running(machine, "loud")
            await wait_until(lambda: all_hold(heard, vm), "the start was announced")
            for to in heard:
                to.clear()
            await machine.destroy_behind_our_back(vm)
            await wait_until(lambda: all_hold(heard, vm), "the end was announced")
        finally:
            for listener in listeners:
                listener.cancel()
            await asyncio.gather(*listeners, return_exceptions=True)

    async def test_a_console_of_a_domain_that_is_off_is_not_found(self, machine: Machine) -> None:
        vm = await define(machine, "silent")
        with pytest.raises(NotFound):
            await machine.hypervisor.open_console(vm)
        with pytest.raises(NotFound):
            await machine.hypervisor.open_console(new_id())

    async def test_a_console_takes_input_and_closing_it_leaves_the_guest_alone(self, machine: Machine) -> None:
        vm = await running(machine, "talker")
        console = await machine.hypervisor.open_console(vm)
        await wait_for_text(console, b"talker heartbeat")
        await console.write(b"echo marco-polo\n")
        await wait_for_text(console, b"marco-polo")
        await console.close()
        assert await asyncio.wait_for(read_to_the_end(console), PATIENCE_S) is not None
        again = await machine.hypervisor.open_console(vm)
        await wait_for_text(again, b"talker heartbeat")
        assert await state_of(machine, vm) == (DomainState.RUNNING, None)

    async def test_a_console_ends_with_its_guest(self, machine: Machine) -> None:
        vm = await running(machine, "short")
        console = await machine.hypervisor.open_console(vm)
        await machine.hypervisor.destroy(vm)
        assert await asyncio.wait_for(read_to_the_end(console), PATIENCE_S) is not None
        await console.close()

    async def test_what_the_guest_writes_is_kept_in_its_console_log(self, machine: Machine) -> None:
        vm = await running(machine, "writer")
        log = machine.hypervisor.console_log(vm)
        await wait_until(lambda: log.exists() and b"writer heartbeat 1 " in log.read_bytes(), "the log has a heartbeat")
        before = len(log.read_bytes())
        await machine.hypervisor.destroy(vm)
        await machine.hypervisor.define(vm, "writer", machine.spec("writer"), epoch=2)
        await machine.hypervisor.start(vm)
        # A new run is appended; the old one's last words are what an admin looks for after a crash.
        await wait_until(lambda: b"writer heartbeat 1 " in log.read_bytes()[before:], "the log has the next run too")


def new_id() -> str:
    return str(uuid.uuid4())


async def define(machine: Machine, name: str, *, epoch: int = 1) -> str:
    vm = new_id()
    await machine.hypervisor.define(vm, name, machine.spec(name), epoch=epoch)
    return vm


async def running(machine: Machine, name: str, *, epoch: int = 1) -> str:
    vm = await define(machine, name, epoch=epoch)
    await machine.hypervisor.start(vm)
    return vm


async def state_of(machine: Machine, vm: str) -> tuple[DomainState, OffReason | None]:
    domain = await machine.hypervisor.get_domain(vm)
    assert domain is not None, f"there is no domain of {vm}"
    return domain.state, domain.reason


async def wait_for_state(machine: Machine, vm: str, state: DomainState, reason: OffReason | None) -> None:
    async def there() -> bool:
        return (await state_of(machine, vm))[0] is state

    await wait_until(there, f"the domain is {state}")
    assert await state_of(machine, vm) == (state, reason)


async def wait_for_text(console: Console, text: bytes) -> bytes:
    """Read until `text` has come."""
    seen = b""
    async with asyncio.timeout(PATIENCE_S):
        while text not in seen:
            data = await console.read()
            assert data, f"the console ended after {seen!r}"
            seen += data
    return seen


async def read_to_the_end(console: Console) -> bytes:
    seen = b""
    while data := await console.read():
        seen += data
    return seen


async def type_when_up(machine: Machine, vm: str, sign: bytes, text: bytes) -> None:
    """Type what ends the guest. Its first beat may come before its shell listens, so it is typed until it works."""
    console = await machine.hypervisor.open_console(vm)
    await wait_for_text(console, sign)
    for _ in range(int(PATIENCE_S / RETYPE_S)):
        await console.write(text)
        with contextlib.suppress(AssertionError):
            await wait_until(lambda: _is_off(machine, vm), "the guest ends", within_s=RETYPE_S)
            break
    await console.close()


async def _is_off(machine: Machine, vm: str) -> bool:
    return (await state_of(machine, vm))[0] is DomainState.OFF


async def wait_until(
    holds: Callable[[], bool] | Callable[[], Awaitable[bool]], what: str, *, within_s: float = PATIENCE_S
) -> None:
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        now = holds()
        if now if isinstance(now, bool) else await now:
            return
        assert asyncio.get_running_loop().time() < deadline, f"it did not come true in {within_s:.0f} s: {what}"
        await asyncio.sleep(0.05)


def all_hold(heard: list[set[str]], vm: str) -> bool:
    return all(vm in to for to in heard)
