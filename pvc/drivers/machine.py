"""What the kernel says of the machine that this process runs on."""

from __future__ import annotations

from pathlib import Path

from pvc.errors import PvcError

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Random, and another after each boot of the machine. Raises PvcError where there is no /proc."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError as error:
        raise PvcError(
            f"the kernel's boot id cannot be read: {error.strerror}",
            code="node.no_boot_id",
            hint="mount /proc",
        ) from error
