"""How libvirt's numbers, PVC's mark and QEMU's log together say how a domain stands."""

from __future__ import annotations

from pathlib import Path

import libvirt
import pytest

from pvc.drivers.domain_xml import Mark
from pvc.drivers.hypervisor import DomainState, OffReason
from pvc.drivers.libvirt_end import read_state

FRESH = Mark(name="web", epoch=1)
STARTED = Mark(name="web", epoch=1, started=True)
SETTLED = Mark(name="web", epoch=1, started=True, settled=True)
OFF, PAUSED, RUNNING = libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_RUNNING


@pytest.mark.parametrize(
    ("number", "mark", "expected"),
    [
        (RUNNING, FRESH, (DomainState.RUNNING, None)),
        (libvirt.VIR_DOMAIN_SHUTDOWN, SETTLED, (DomainState.RUNNING, None)),
        (libvirt.VIR_DOMAIN_BLOCKED, SETTLED, (DomainState.RUNNING, None)),
        (PAUSED, SETTLED, (DomainState.PAUSED, None)),
        (PAUSED, FRESH, (DomainState.OFF, OffReason.NEVER_RAN)),
        (PAUSED, STARTED, (DomainState.OFF, OffReason.NEVER_RAN)),
        (libvirt.VIR_DOMAIN_CRASHED, SETTLED, (DomainState.OFF, OffReason.CRASHED)),
        (OFF, FRESH, (DomainState.OFF, OffReason.NEVER_RAN)),
        (OFF, SETTLED, (DomainState.OFF, OffReason.UNKNOWN)),
    ],
)
def test_a_state_without_a_reason_of_its_own(
    number: int, mark: Mark, expected: tuple[DomainState, OffReason | None]
) -> None:
    assert read_state(number, 0, mark, None) == expected


@pytest.mark.parametrize(
    ("number", "detail"),
    [
        (PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR),
        (PAUSED, libvirt.VIR_DOMAIN_PAUSED_WATCHDOG),
        (libvirt.VIR_DOMAIN_PMSUSPENDED, 0),
    ],
)
def test_a_guest_that_stopped_for_a_reason_of_its_own_has_run_even_if_the_daemon_died_before_it_could_say_so(
    number: int, detail: int
) -> None:
    assert read_state(number, detail, STARTED, None) == (DomainState.PAUSED, None)


@pytest.mark.parametrize(
    "detail",
    [libvirt.VIR_DOMAIN_PAUSED_UNKNOWN, libvirt.VIR_DOMAIN_PAUSED_USER, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP],
)
def test_a_domain_that_is_paused_as_it_was_created_has_not_run(detail: int) -> None:
    assert read_state(PAUSED, detail, STARTED, None) == (DomainState.OFF, OffReason.NEVER_RAN)


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        (libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN, OffReason.GUEST),
        (libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED, OffReason.DESTROYED),
        (libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, OffReason.CRASHED),
        (libvirt.VIR_DOMAIN_SHUTOFF_DAEMON, OffReason.DESTROYED),
        (libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED, OffReason.MIGRATED),
    ],
)
def test_libvirts_reason_counts_when_it_has_one(detail: int, expected: OffReason) -> None:
    assert read_state(OFF, detail, SETTLED, None) == (DomainState.OFF, expected)


START = "2026-01-01 10:00:00.000+0000: starting up libvirt version: 9.0.0, qemu version: 7.2\n"
NOISE = "char device redirected to /dev/pts/0 (label charserial0)\n" * 30


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (START + NOISE + "2026-01-01 11:00:00.000+0000: shutting down, reason=destroyed\n", OffReason.DESTROYED),
        (START + "2026-01-01 11:00:00.000+0000: shutting down, reason=crashed\n", OffReason.CRASHED),
        (START + "2026-01-01 11:00:00.000+0000: shutting down, reason=shutdown\n", OffReason.GUEST),
        (START + "2026-01-01 11:00:00.000+0000: shutting down, reason=migrated\n", OffReason.MIGRATED),
        (START + "2026-01-01 11:00:00.000+0000: shutting down, reason=new-in-libvirt-99\n", OffReason.UNKNOWN),
        # The node lost power in the second run.
        ("2026-01-01 09:00:00.000+0000: shutting down, reason=crashed\n" + START, OffReason.UNKNOWN),
        (NOISE, OffReason.UNKNOWN),
        ("", OffReason.UNKNOWN),
    ],
)
def test_what_libvirt_forgot_stands_in_its_log(tmp_path: Path, log: str, expected: OffReason) -> None:
    path = tmp_path / "web.log"
    path.write_text(log)
    assert read_state(OFF, 0, SETTLED, path) == (DomainState.OFF, expected)


def test_a_log_that_is_not_there_leaves_the_reason_unknown(tmp_path: Path) -> None:
    assert read_state(OFF, 0, SETTLED, tmp_path / "none.log") == (DomainState.OFF, OffReason.UNKNOWN)


def test_a_mark_that_says_the_guest_has_moved_needs_no_log() -> None:
    moved = Mark(name="web", epoch=1, started=True, settled=True, moved=True)
    assert read_state(OFF, 0, moved, None) == (DomainState.OFF, OffReason.MIGRATED)
