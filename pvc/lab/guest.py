"""The tiny guest: a Debian cloud kernel and a busybox initramfs that beats on its serial console and obeys ACPI.

`python -m pvc.lab.guest --out DIR` writes DIR/vmlinuz and DIR/initrd.img. The kernel is Debian's own package,
unpacked and never installed; the initramfs is written here in full, so no root and no cpio are needed.
What the guest does is in `pvc/lab/guest_files.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from pvc.errors import DriverError, PvcError
from pvc.files import replace_file
from pvc.lab.guest_files import FOLDERS, MODULES, files

KERNEL_META_PACKAGE = "linux-image-cloud-amd64"
_DOWNLOAD_TIMEOUT_S = 300.0
"""The package has 27 MB; a slow line needs minutes, a dead one must not hold the demo for ever."""
_COMMAND_TIMEOUT_S = 60.0
_PT_INTERP = 3
_DEFAULT_CACHE = Path("/var/cache/pvc/guest")

Progress = Callable[[str], None]


class GuestImage(msgspec.Struct, frozen=True, kw_only=True):
    """Where the guest's two files are, as `VmSpec.kernel` and `VmSpec.initrd` want them."""

    kernel: Path
    initrd: Path
    kernel_version: str


def build_guest(out: Path, *, cache: Path = _DEFAULT_CACHE, progress: Progress = lambda line: None) -> GuestImage:
    """Build the guest into `out`, or find it built already. Raises DriverError saying what is missing.

    Needs the network only when `cache` holds no kernel yet.
    """
    busybox = _find_busybox()
    kernel, modules, version = _kernel(cache, progress)
    out = out.resolve()
    image = GuestImage(kernel=out / "vmlinuz", initrd=out / "initrd.img", kernel_version=version)
    entries = [*((name, 0o755, content) for name, content in files(modules)), ("bin/busybox", 0o755, busybox)]
    archive = _cpio(entries)
    out.mkdir(parents=True, exist_ok=True)
    if _differs(image.initrd, archive):
        progress(f"writing {image.initrd} ({len(archive) // 1024} KiB)")
        replace_file(image.initrd, archive)  # a VM that is just starting reads the old one or the new one
    if _differs(image.kernel, kernel):
        progress(f"writing {image.kernel} (Linux {version})")
        replace_file(image.kernel, kernel)
    return image


def _find_busybox() -> bytes:
    path = shutil.which("busybox")
    data = Path(path).read_bytes() if path else b""
    if not data or _wants_a_loader(data):
        raise DriverError(
            "the guest needs a statically linked busybox, and this machine has none",
            code="lab.no_busybox",
            hint="apt-get install busybox-static",
        )
    return data


def _wants_a_loader(elf: bytes) -> bool:
    """Whether a 64-bit ELF program has a PT_INTERP header: a dynamic one, whose loader the initramfs does not have."""
    table = struct.unpack_from("<Q", elf, 32)[0]
    size, count = struct.unpack_from("<HH", elf, 54)
    return any(struct.unpack_from("<I", elf, table + i * size)[0] == _PT_INTERP for i in range(count))


def _kernel(cache: Path, progress: Progress) -> tuple[bytes, list[tuple[str, bytes]], str]:
    """The kernel, its modules (name, content) in loading order, and its version; from the cache if it is there."""
    have = sorted(cache.glob("vmlinuz-*"))
    if not have:
        cache.mkdir(parents=True, exist_ok=True)
        _fetch_kernel(cache, progress)
        have = sorted(cache.glob("vmlinuz-*"))
    kernel = have[-1]
    version = kernel.name.removeprefix("vmlinuz-")
    folder = cache / f"modules-{version}"
    modules = [(path.name, path.read_bytes()) for path in sorted(folder.glob("*.ko"))]
    return kernel.read_bytes(), modules, version


def _fetch_kernel(cache: Path, progress: Progress) -> None:
    with tempfile.TemporaryDirectory(dir=cache, prefix="unpack-") as scratch:
        package = _kernel_package()
        progress(f"downloading {package}")
        _run(["apt-get", "download", package], cwd=scratch, timeout=_DOWNLOAD_TIMEOUT_S)
        archives = list(Path(scratch).glob("*.deb"))
        assert len(archives) == 1, "apt-get download leaves one package"
        progress(f"unpacking {archives[0].name}")
        tree = Path(scratch) / "tree"
        _run(["dpkg-deb", "-x", str(archives[0]), str(tree)], cwd=scratch)
        kernel = next((tree / "boot").glob("vmlinuz-*"))
        version = kernel.name.removeprefix("vmlinuz-")
        kept = Path(scratch) / "modules"
        kept.mkdir()
        for number, path in enumerate(_loading_order(tree / "lib/modules" / version, MODULES)):
            shutil.copyfile(path, kept / f"{number:02}-{path.name}")
        shutil.rmtree(cache / f"modules-{version}", ignore_errors=True)
        kept.rename(cache / f"modules-{version}")
        # The kernel goes last: where it lies, the modules are complete.
        kernel.rename(cache / kernel.name)


def _kernel_package() -> str:
    """The concrete package behind Debian's meta package, so that unpacking it yields a kernel."""
    depends = _run(["apt-cache", "depends", KERNEL_META_PACKAGE])
    found = re.search(r"Depends: (linux-image-\S+-cloud-amd64)\s", depends)
    if found is None:
        raise DriverError(
            f"apt knows no {KERNEL_META_PACKAGE}",
            code="lab.no_kernel_package",
            hint="run apt-get update; the package sources must be Debian's, for amd64",
        )
    return found[1]


def _loading_order(tree: Path, names: Iterable[str]) -> list[Path]:
    """The files of the named modules and all they need, each after its needs.

    What a module needs stands in its own `.modinfo`, so no `depmod` has to run over the whole tree.
    """
    by_name = {path.stem.replace("-", "_"): path for path in tree.rglob("*.ko")}
    order: dict[str, Path] = {}

    def add(name: str) -> None:
        path = by_name.get(name)
        if name in order or path is None:
            # Absent: built into the kernel.
            return
        depends = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
        for needed in (depends[1].decode() if depends else "").split(","):
            add(needed.replace("-", "_"))
        order[name] = path

    for name in names:
        add(name)
    return list(order.values())


def _cpio(entries: list[tuple[str, int, bytes]]) -> bytes:
    """An initramfs in the "newc" format (kernel docs, early-userspace/buffer-format), the same bytes every time."""
    out = bytearray()

    def add(name: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> None:
        raw = name.encode() + b"\0"
        fields = (len(out) + 1, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(raw), 0)
        out.extend(b"070701" + b"".join(b"%08x" % field for field in fields) + raw)
        out.extend(bytes(-len(out) % 4))
        out.extend(content)
        out.extend(bytes(-len(out) % 4))

    for folder in FOLDERS:
        add(folder, 0o040755, b"")
    # Before devtmpfs is mounted, init's own output has to go somewhere.
    add("dev/console", 0o020600, b"", device=(5, 1))
    for name, mode, content in entries:
        add(name, 0o100000 | mode, content)
    add("TRAILER!!!", 0, b"")
    return bytes(out)


def _differs(path: Path, content: bytes) -> bool:
    if not path.exists() or path.stat().st_size != len(content):
        return True
    return hashlib.sha256(path.read_bytes()).digest() != hashlib.sha256(content).digest()


def _run(command: list[str], *, cwd: str | None = None, timeout: float = _COMMAND_TIMEOUT_S) -> str:
    try:
        # The commands are fixed words and paths of our own.
        done = subprocess.run(command, cwd=cwd, timeout=timeout, capture_output=True, text=True)  # noqa: S603
    except FileNotFoundError as error:
        raise DriverError(
            f"there is no {command[0]} on this machine", code="lab.no_tool", hint="needs Debian"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise DriverError(
            f"`{' '.join(command)}` was not done after {timeout:.0f} s",
            code="lab.command_timeout",
            hint="check the network and try again",
        ) from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise DriverError(
            f"`{' '.join(command)}` failed: {said[-1] if said else f'exit code {done.returncode}'}",
            code="lab.command_failed",
            hint="run apt-get update and try again" if command[0].startswith("apt") else "",
        )
    return done.stdout


def main(arguments: list[str] | None = None) -> int:
    """Command line: build the guest and say where it is."""
    parser = argparse.ArgumentParser(prog="python -m pvc.lab.guest", description="Build the tiny guest image.")
    parser.add_argument("--out", type=Path, required=True, help="where vmlinuz and initrd.img go")
    parser.add_argument("--cache", type=Path, default=_DEFAULT_CACHE, help="where the unpacked kernel is kept")
    options = parser.parse_args(arguments)
    try:
        image = build_guest(options.out, cache=options.cache, progress=lambda line: print(line, flush=True))
    except PvcError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"guest: {image.kernel} {image.initrd} (Linux {image.kernel_version})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
