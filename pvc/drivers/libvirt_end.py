"""How a domain stands, and how it ended: libvirt's numbers, PVC's mark and QEMU's log read together."""

from __future__ import annotations

import re
from pathlib import Path

import libvirt

from pvc.drivers.domain_xml import Mark
from pvc.drivers.hypervisor import DomainState, OffReason

QEMU_LOG_DIR = Path("/var/log/libvirt/qemu")
_LOG_TAIL_BYTES = 8 * 1024
"""Enough for a run's last lines."""

_STATES = {
    libvirt.VIR_DOMAIN_PAUSED: DomainState.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: DomainState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTOFF: DomainState.OFF,
    # Its QEMU still stands, but only because libvirtd was away when the guest panicked.
    libvirt.VIR_DOMAIN_CRASHED: DomainState.OFF,
}
_PERHAPS_NOT_STARTED = {
    libvirt.VIR_DOMAIN_PAUSED_UNKNOWN,
    libvirt.VIR_DOMAIN_PAUSED_USER,
    libvirt.VIR_DOMAIN_PAUSED_STARTING_UP,
}
"""How a domain is paused that was created so. A full disk, a watchdog or a panic only pauses one that has run."""

_REASONS = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: OffReason.GUEST,
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: OffReason.DESTROYED,
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: OffReason.CRASHED,
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: OffReason.CRASHED,
    libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED: OffReason.MIGRATED,
    libvirt.VIR_DOMAIN_SHUTOFF_SAVED: OffReason.DESTROYED,
    libvirt.VIR_DOMAIN_SHUTOFF_FROM_SNAPSHOT: OffReason.DESTROYED,
    # libvirtd killed it while it came back, as when told to destroy a domain it had not found again yet.
    libvirt.VIR_DOMAIN_SHUTOFF_DAEMON: OffReason.DESTROYED,
}
_LOGGED_REASONS = {
    "shutdown": OffReason.GUEST,
    "destroyed": OffReason.DESTROYED,
    "crashed": OffReason.CRASHED,
    "failed": OffReason.CRASHED,
    "migrated": OffReason.MIGRATED,
    "saved": OffReason.DESTROYED,
    "daemon": OffReason.DESTROYED,
}
_LOG_LINE = re.compile(r"^\S+ \S+: (?:starting up|shutting down, reason=(\w+))", re.MULTILINE)


def read_state(number: int, detail: int, mark: Mark, log: Path | None) -> tuple[DomainState, OffReason | None]:
    """libvirt's state and its detail -> PVC's. `log` is libvirt's log of the domain's QEMU, if known."""
    state = _STATES.get(number, DomainState.RUNNING)
    if number == libvirt.VIR_DOMAIN_PAUSED and detail in _PERHAPS_NOT_STARTED and not mark.settled:
        return DomainState.OFF, OffReason.NEVER_RAN
    if state is not DomainState.OFF:
        return state, None
    if not mark.started:
        return state, OffReason.NEVER_RAN
    if number == libvirt.VIR_DOMAIN_CRASHED:
        return state, OffReason.CRASHED
    if mark.moved:
        return state, OffReason.MIGRATED
    # A restarted libvirtd knows no reason any more, but its log of the domain does.
    return state, _REASONS.get(detail) or (_logged_reason(log) if log else OffReason.UNKNOWN)


def _logged_reason(path: Path) -> OffReason:
    try:
        with path.open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - _LOG_TAIL_BYTES))
            tail = log.read().decode(errors="replace")
    except OSError:
        return OffReason.UNKNOWN
    # A start without an end: the node itself went down.
    ends = _LOG_LINE.findall(tail)
    return _LOGGED_REASONS.get(ends[-1], OffReason.UNKNOWN) if ends else OffReason.UNKNOWN
