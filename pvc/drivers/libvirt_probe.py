"""One look at a machine's libvirtd, from a program that ends after it: whether it answers, and what it is."""

from __future__ import annotations

import libvirt

from pvc.errors import Unavailable


def probe_libvirt(uri: str) -> str:
    """Its version and its driver's, in words. Blocks as long as libvirtd does. Raises Unavailable."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)  # or it writes to stderr by itself
    try:
        connection = libvirt.openReadOnly(uri)
        try:
            version, driver = connection.getLibVersion(), connection.getVersion()
            return f"libvirt {_dotted(version)}, {connection.getType()} {_dotted(driver)}"
        finally:
            connection.close()
    except libvirt.libvirtError as error:
        raise Unavailable(
            f"libvirt does not answer at {uri}: {error.get_error_message()}",
            code="hypervisor.unavailable",
            hint="systemctl status libvirtd; its log says why",
        ) from error


def _dotted(version: int) -> str:
    return f"{version // 1_000_000}.{version // 1_000 % 1_000}.{version % 1_000}"
