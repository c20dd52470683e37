"""KVM or TCG: which accelerator really works on this machine.

`/dev/kvm` may open, and answer, on a machine where a guest then hangs in its firmware for ever (nested virtualisation
that is only half there). So `auto` believes in KVM only after a guest of 512 bytes has run under it.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from pathlib import Path

import msgspec

from pvc.drivers.machine import boot_id
from pvc.errors import DriverError
from pvc.files import replace_file

QEMU = "qemu-system-x86_64"
PROOF_TIMEOUT_S = 2.5
"""A good KVM needs a tenth of a second. A bad one hangs for ever, or (seen) needs 4 s for what TCG does in 0.1 s."""
_VERSION_TIMEOUT_S = 10.0
_KILL_TIMEOUT_S = 5.0
"""A process that hangs within the kernel's KVM does not even die; the daemon has to start all the same."""
_CACHE_FILE = "accelerator.json"

_CPU = {"kvm": "host", "tcg": "max"}
"""The same as VMs get: (seen) a nested KVM that runs simple CPUs, and makes QEMU abort over a register of `host`."""
_EXIT_PORT = 0xF4
_EXIT_VALUE = 0x2A
_PROVEN = _EXIT_VALUE << 1 | 1
"""isa-debug-exit ends QEMU with (value << 1) | 1, which no failure of QEMU's own does."""

BOOT_SECTOR = (
    bytes(
        (
            *(0xB0, _EXIT_VALUE),  # mov al, value
            *(0xE6, _EXIT_PORT),  # out port, al: here it ends
            *(0xF4, 0xEB, 0xFD),  # hlt; jmp back to the hlt
        )
    ).ljust(510, b"\0")
    + b"\x55\xaa"
)
"""A disk's first sector as a BIOS runs it: the smallest guest there is."""


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    boot_id: str
    qemu: str
    accelerator: str


async def resolve_accelerator(setting: str, data_dir: Path, *, qemu: str = QEMU) -> str:
    """`kvm` or `tcg` from the setting `auto`, `kvm` or `tcg`.

    What `auto` found is kept in `data_dir` until the machine is rebooted or QEMU replaced. Raises DriverError when
    there is no QEMU, or when `kvm` was asked for and does not work.
    """
    assert setting in ("auto", "kvm", "tcg"), "the configuration knows no other"
    if setting == "tcg":
        return "tcg"
    cache = data_dir / _CACHE_FILE
    boot, version = boot_id(), await qemu_version(qemu)
    known = _read_cache(cache)
    if known is None or (known.boot_id, known.qemu) != (boot, version):
        works = await runs_a_guest("kvm", qemu=qemu)
        known = _Answer(boot_id=boot, qemu=version, accelerator="kvm" if works else "tcg")
        cache.parent.mkdir(parents=True, exist_ok=True)
        replace_file(cache, msgspec.json.encode(known))
    if setting == "kvm" and known.accelerator != "kvm":
        raise DriverError(
            f"KVM does not run a guest on this machine within {PROOF_TIMEOUT_S:.0f} s",
            code="hypervisor.no_kvm",
            hint=f'switch virtualisation on in the firmware, or set accelerator = "tcg"; to try again remove {cache}',
        )
    return known.accelerator


async def runs_a_guest(accelerator: str, *, qemu: str = QEMU, timeout: float = PROOF_TIMEOUT_S) -> bool:
    """Whether QEMU runs `BOOT_SECTOR` to its end with this accelerator in time. Its process is gone afterwards."""
    with tempfile.NamedTemporaryFile(prefix="pvc-boot-sector-") as disk:
        disk.write(BOOT_SECTOR)
        disk.flush()
        command = [qemu, "-accel", accelerator, "-cpu", _CPU[accelerator], "-machine", "pc", "-m", "16"]
        command += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        command += ["-drive", f"file={disk.name},format=raw,if=ide,snapshot=on"]
        command += ["-device", f"isa-debug-exit,iobase={_EXIT_PORT:#x},iosize=1"]
        try:
            code, _ = await _run(command, timeout)
        except TimeoutError:
            return False
        return code == _PROVEN


async def qemu_version(qemu: str = QEMU) -> str:
    """QEMU's own words for its version. Raises DriverError when there is none."""
    path = shutil.which(qemu)
    if path is None:
        raise DriverError(
            f"there is no {qemu} on this machine", code="hypervisor.no_qemu", hint="apt-get install qemu-system-x86"
        )
    try:
        code, output = await _run([path, "--version"], _VERSION_TIMEOUT_S)
    except TimeoutError:
        code, output = -1, ""
    if code != 0 or not output:
        raise DriverError(f"{path} --version fails", code="hypervisor.no_qemu", hint="reinstall qemu-system-x86")
    return output.splitlines()[0]


async def _run(command: list[str], timeout: float) -> tuple[int, str]:
    """Exit code and output. Raises TimeoutError, and leaves no process behind that can be killed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(timeout):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_KILL_TIMEOUT_S):
                    await process.wait()
    assert process.returncode is not None, "communicate waits for the end"
    return process.returncode, output.decode(errors="replace")


def _read_cache(path: Path) -> _Answer | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Answer)
    except (OSError, msgspec.MsgspecError):
        # Not there, or not readable: it is found out anew.
        return None
