"""Migrations that wait for their turn, and what becomes of one that nobody wants when it comes: libvirt is played."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import libvirt
import pytest

from pvc.drivers.domain_xml import Mark, mark_xml
from pvc.drivers.libvirt_migration import MAX_MIGRATIONS, LibvirtMigrations, MigrationSettings
from pvc.errors import DriverError

PATIENCE_S = 10.0


class PlayedError(libvirt.libvirtError):  # type: ignore[misc]
    """As libvirt raises it."""

    def __init__(self, code: int) -> None:
        super().__init__("played")
        self._code = code

    def get_error_code(self) -> int:
        return self._code

    def get_error_message(self) -> str:
        return "played"


class PlayedDomain:
    """Runs, and moves when it is told to, which lasts until it is let."""

    def __init__(self, vm: str, site: Site) -> None:
        self.vm = vm
        self.epoch = 1
        self.site = site
        self.on_its_way = False
        self.sent_to: list[str] = []
        self.moved = False

    def UUIDString(self) -> str:  # noqa: N802 - libvirt's
        return self.vm

    def name(self) -> str:
        return self.vm

    def metadata(self, *_: Any) -> str:
        return mark_xml(Mark(name=self.vm, epoch=self.epoch, started=True, settled=True))

    def setMetadata(self, *_: Any) -> None:  # noqa: N802
        pass

    def isActive(self) -> bool:  # noqa: N802
        return not self.moved

    def isPersistent(self) -> bool:  # noqa: N802
        return True

    def state(self) -> list[int]:
        if self.moved:
            return [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED]
        return [libvirt.VIR_DOMAIN_RUNNING, 0]

    def jobStats(self) -> dict[str, Any]:  # noqa: N802
        if not self.on_its_way:
            return {"type": libvirt.VIR_DOMAIN_JOB_NONE}
        return {
            "type": libvirt.VIR_DOMAIN_JOB_UNBOUNDED,
            "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT,
        }

    def migrateSetMaxDowntime(self, ms: int) -> None:  # noqa: N802
        pass

    def migrateToURI3(self, uri: str, parameters: Any, flags: int) -> None:  # noqa: N802
        self.sent_to.append(uri)
        self.on_its_way = True
        assert self.site.let.wait(PATIENCE_S)
        self.on_its_way, self.moved = False, True


class Site:
    """A node with more guests than may leave it at once; it is its own connection to libvirt, and its link."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.domains: dict[str, PlayedDomain] = {}
        self.migrations = LibvirtMigrations("played:", self, MigrationSettings(uri="{address}", tls=False), None)  # type: ignore[arg-type]
        self.tasks: list[asyncio.Task[None]] = []

    async def call(self, do: Callable[[Any], Any], *_: Any) -> Any:
        return do(self)

    def lookupByUUID(self, raw: bytes) -> PlayedDomain:  # noqa: N802
        for vm, domain in self.domains.items():
            if bytes.fromhex(vm.replace("-", "")) == raw:
                return domain
        raise PlayedError(libvirt.VIR_ERR_NO_DOMAIN)

    def close(self) -> None:
        pass

    def guest(self, number: int) -> PlayedDomain:
        vm = f"00000000-0000-4000-8000-{number:012d}"
        return self.domains.setdefault(vm, PlayedDomain(vm, self))

    def migrate(self, domain: PlayedDomain, *, epoch: int = 1, target: str = "hv2") -> asyncio.Task[None]:
        call = self.migrations.migrate(domain.vm, epoch=epoch, target=target, max_downtime_ms=300, force=False)
        task = asyncio.create_task(call)
        self.tasks.append(task)
        return task

    async def fill(self) -> None:
        """All turns are taken."""
        for number in range(MAX_MIGRATIONS):
            self.migrate(self.guest(number))
        async with asyncio.timeout(PATIENCE_S):
            while not all(domain.on_its_way for domain in self.domains.values()):
                await asyncio.sleep(0.01)


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    site = Site()
    monkeypatch.setattr("pvc.drivers.libvirt_migration.open_alive", lambda uri: site)
    await site.fill()
    yield site
    site.let.set()
    await asyncio.gather(*site.tasks, return_exceptions=True)
    await site.migrations.close()


async def failure(task: asyncio.Task[None]) -> str:
    with pytest.raises(DriverError) as refusal:
        async with asyncio.timeout(PATIENCE_S):
            await task
    return refusal.value.code


async def test_a_run_that_began_while_the_move_of_the_last_one_waited_is_not_moved(site: Site) -> None:
    late = site.guest(50)
    waiting = site.migrate(late)
    await asyncio.sleep(0.05)
    late.epoch = 2
    site.let.set()
    assert await failure(waiting) == "hypervisor.migration_failed"
    assert late.sent_to == []


async def test_a_move_that_waits_for_its_turn_is_dropped_at_once_when_it_is_cancelled(site: Site) -> None:
    late = site.guest(50)
    waiting = site.migrate(late)
    await asyncio.sleep(0.05)
    await site.migrations.cancel(late.vm)
    assert await failure(waiting) == "hypervisor.migration_cancelled"
    site.let.set()
    await asyncio.gather(*site.tasks[:-1])
    await asyncio.sleep(0.05)
    assert late.sent_to == []


async def test_a_move_to_elsewhere_takes_the_place_of_one_that_waits(site: Site) -> None:
    late = site.guest(50)
    waiting = site.migrate(late, target="hv2")
    await asyncio.sleep(0.05)
    other = site.migrate(late, target="hv3")
    assert await failure(waiting) == "hypervisor.migration_cancelled"
    site.let.set()
    async with asyncio.timeout(PATIENCE_S):
        await other
    assert late.sent_to == ["hv3"]


async def test_a_move_that_has_begun_is_waited_for_whoever_asks(site: Site) -> None:
    begun = site.guest(0)
    joined = site.migrate(begun, target="hv3")
    await asyncio.sleep(0.05)
    assert not joined.done()
    site.let.set()
    async with asyncio.timeout(PATIENCE_S):
        await joined
    assert begun.sent_to == ["hv2"]


async def test_a_dropped_move_can_be_asked_for_again(site: Site) -> None:
    late = site.guest(50)
    waiting = site.migrate(late)
    await asyncio.sleep(0.05)
    await site.migrations.cancel(late.vm)
    assert await failure(waiting) == "hypervisor.migration_cancelled"
    again = site.migrate(late)
    site.let.set()
    async with asyncio.timeout(PATIENCE_S):
        await again
    assert late.sent_to == ["hv2"]
