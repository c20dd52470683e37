"""What this process can know of the machine that it runs on."""

from __future__ import annotations

import uuid
from pathlib import Path

from pvc.errors import PvcError
from pvc.events.vm import VmSpec
from pvc.files import replace_file
from pvc.thread_pool import DaemonPool

LOOKS = 16
"""Looks for files at a time. Storage that is away may keep each for ever; others then wait, and only for this."""

_looks = DaemonPool("files", LOOKS)
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


def machine_id(data_dir: Path) -> str:
    """A random text that this machine keeps; another machine with the same node name has another."""
    path = data_dir / "machine-id"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        replace_file(path, f"{uuid.uuid4()}\n".encode(), mode=0o600)
        return path.read_text().strip()


async def missing_files(spec: VmSpec) -> str:
    """Which file a VM needs that is not on this machine, in words; empty when all are there. Storage that is away may
    never answer: whoever asks needs a deadline."""
    paths = [disk.path for disk in spec.disks]
    paths += [path for path in (spec.kernel, spec.initrd) if path]
    missing = await _looks.run(lambda: [path for path in paths if not Path(path).exists()])
    return f"{missing[0]} is not there" if missing else ""
