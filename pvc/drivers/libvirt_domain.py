"""One domain of libvirt: found, its mark read and written, its state told in PVC's words. Blocking."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import libvirt

from pvc.drivers.domain_xml import NAMESPACE, PREFIX, Mark, mark_xml, read_mark
from pvc.drivers.hypervisor import Domain, DomainState
from pvc.drivers.libvirt_end import read_state

GONE = {libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID}
"""How libvirt says that a domain vanished, or is off by now."""
_UNDER_WAY = {libvirt.VIR_DOMAIN_JOB_BOUNDED, libvirt.VIR_DOMAIN_JOB_UNBOUNDED}


def lookup(connection: Any, vm: str) -> Any:
    """The domain of a VM, or None."""
    try:
        return connection.lookupByUUID(UUID(vm).bytes)
    except ValueError:
        return None
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def mark_of(domain: Any) -> Mark | None:
    """PVC's mark of a domain; None when the domain is not PVC's, or gone."""
    try:
        return read_mark(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE))
    except ValueError:
        return None
    except libvirt.libvirtError as error:
        if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN_METADATA, libvirt.VIR_ERR_NO_DOMAIN):
            return None
        raise


def set_mark(domain: Any, mark: Mark) -> None:
    """Write the mark where it counts now and where it will count once the domain is off."""
    flags = 0
    if domain.isActive():
        flags |= libvirt.VIR_DOMAIN_AFFECT_LIVE
    if domain.isPersistent():
        flags |= libvirt.VIR_DOMAIN_AFFECT_CONFIG
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, mark_xml(mark), PREFIX, NAMESPACE, flags)


def quietly(do: Callable[[], Any]) -> None:
    """Do it, unless the domain ended or vanished since it was looked at."""
    try:
        do()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in GONE:
            raise


def read_domain(domain: Any, mark: Mark | None, log_dir: Path | None) -> Domain | None:
    """The domain as PVC knows it; None when it has no mark, or vanished."""
    if mark is None:
        return None
    try:
        number, detail = domain.state()
        coming, going = _on_the_way(domain, number, detail)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise
    state, reason = read_state(number, detail, mark, log_dir / f"{domain.name()}.log" if log_dir else None)
    if coming:
        state = DomainState.INCOMING
    elif going:
        # Also for the moment at the end in which it stands still.
        state = DomainState.RUNNING
    return Domain(
        vm=domain.UUIDString(),
        name=mark.name,
        epoch=mark.epoch,
        state=state,
        reason=None if coming or going else reason,
        reset_mark=mark.reset,
        migrating=going,
    )


def is_incoming(domain: Any) -> bool:
    """Whether it is arriving: not a guest of this machine yet."""
    number, detail = domain.state()
    # An outgoing one is paused so, too, at its very end.
    if (number, detail) != (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION):
        return False
    try:
        domain.jobStats()
    except libvirt.libvirtError as error:
        # "Migration statistics are available only on the source host."
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_UNSUPPORTED:
            return True
        if error.get_error_code() not in GONE:
            raise
    return False


def outgoing_job(domain: Any) -> dict[str, Any] | None:
    """libvirt's figures of the migration under way from here; None when there is none."""
    try:
        stats: dict[str, Any] = domain.jobStats()
    except libvirt.libvirtError as error:
        if error.get_error_code() in {*GONE, libvirt.VIR_ERR_OPERATION_UNSUPPORTED}:
            return None
        raise
    leaving = stats.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
    return stats if leaving and stats.get("type") in _UNDER_WAY else None


def _on_the_way(domain: Any, number: int, detail: int) -> tuple[bool, bool]:
    """Whether it is arriving, and whether it is leaving."""
    if number in (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED):
        return False, False
    if is_incoming(domain):
        return True, False
    return False, outgoing_job(domain) is not None
