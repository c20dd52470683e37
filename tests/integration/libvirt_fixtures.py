"""A private libvirt host and the tiny guest, made once for all tests that need real VMs; skips, or fails, without."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.errors import DriverError
from pvc.events.vm import VmSpec
from pvc.lab.guest import GuestImage, build_guest
from pvc.lab.libvirt_host import LibvirtHost

CACHE = Path(os.environ.get("PVC_TEST_CACHE", Path(__file__).parents[2] / ".cache" / "guest"))
"""Shared with the demo, so that the kernel is fetched once."""
_QEMU_CACHE = "qemu-cache"
"""What libvirt learnt of QEMU takes it seconds to ask again; the answers stay true as long as QEMU stays."""


@pytest.fixture(scope="session")
def libvirt_host() -> Iterator[LibvirtHost]:
    """A libvirtd of our own, shared by the whole session; whoever stops or kills it starts it again."""
    yield from _serve()


@pytest.fixture
def own_libvirt_host() -> Iterator[LibvirtHost]:
    """A libvirtd for one test, which may do with it what it likes."""
    yield from _serve()


@pytest.fixture(scope="session")
def guest_image() -> GuestImage:
    """The tiny guest's kernel and initramfs."""
    try:
        return build_guest(CACHE, cache=CACHE / "cache")
    except DriverError as error:
        without_libvirt(error)
        raise


def guest_spec(image: GuestImage, name: str, *words: str) -> VmSpec:
    """The tiny guest with `name` on its heartbeat; `words` go onto its kernel command line (`pvc.deaf`, ...)."""
    return VmSpec(
        memory_mib=128,
        vcpus=1,
        kernel=str(image.kernel),
        initrd=str(image.initrd),
        cmdline=" ".join(("console=ttyS0 quiet", f"pvc.name={name}", *words)),
    )


def without_libvirt(error: DriverError) -> None:
    """One clear line, and a failure where PVC_TEST_REQUIRE says that libvirt must be there."""
    line = f"real VMs are not possible here: {error}"
    if "libvirt" in os.environ.get("PVC_TEST_REQUIRE", ""):
        pytest.fail(line, pytrace=False)
    pytest.skip(line)


def _serve() -> Iterator[LibvirtHost]:
    # Not pytest's own directory: its path may be too long for a socket.
    home = Path(tempfile.mkdtemp(prefix="pvc-lv-", dir="/tmp"))
    host = LibvirtHost(home, cache=CACHE / _QEMU_CACHE)
    try:
        try:
            host.start()
        except DriverError as error:
            without_libvirt(error)
        yield host
    finally:
        host.stop()
        shutil.rmtree(home)
