"""How `auto` believes in KVM: with a stand-in for QEMU that ends, fails or hangs as it is told."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pvc.drivers.accelerator import BOOT_SECTOR, resolve_accelerator, runs_a_guest
from pvc.errors import DriverError


def a_qemu(tmp_path: Path, *, does: str, version: str = "QEMU emulator version 1") -> str:
    """A program that answers `--version`, counts its other runs in `tmp_path/runs`, and then `does` something."""
    path = tmp_path / "qemu"
    path.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && {{ echo "{version}"; exit 0; }}\necho run >> {tmp_path}/runs\n{does}\n'
    )
    path.chmod(0o755)
    return str(path)


def runs(tmp_path: Path) -> int:
    file = tmp_path / "runs"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_the_boot_sector_is_one_and_says_so() -> None:
    assert len(BOOT_SECTOR) == 512
    assert BOOT_SECTOR[510:] == b"\x55\xaa"


async def test_a_guest_that_ran_is_proof_enough_and_kept(tmp_path: Path) -> None:
    qemu = a_qemu(tmp_path, does="exit 85")
    assert await resolve_accelerator("auto", tmp_path / "data", qemu=qemu) == "kvm"
    assert await resolve_accelerator("auto", tmp_path / "data", qemu=qemu) == "kvm"
    assert await resolve_accelerator("kvm", tmp_path / "data", qemu=qemu) == "kvm"
    assert runs(tmp_path) == 1


@pytest.mark.parametrize("does", ["exit 0", "exit 1", "kill -ABRT $$"])
async def test_a_qemu_that_ends_any_other_way_proves_nothing(tmp_path: Path, does: str) -> None:
    assert await resolve_accelerator("auto", tmp_path, qemu=a_qemu(tmp_path, does=does)) == "tcg"
    assert runs(tmp_path) == 1


async def test_a_guest_that_hangs_is_killed_in_time(tmp_path: Path) -> None:
    began = time.monotonic()
    qemu = a_qemu(tmp_path, does=f"echo $$ > {tmp_path}/pid; exec sleep 60")
    assert not await runs_a_guest("kvm", qemu=qemu, timeout=0.5)
    assert time.monotonic() - began < 5
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


async def test_another_qemu_is_tried_anew(tmp_path: Path) -> None:
    assert await resolve_accelerator("auto", tmp_path, qemu=a_qemu(tmp_path, does="exit 1", version="old")) == "tcg"
    assert await resolve_accelerator("auto", tmp_path, qemu=a_qemu(tmp_path, does="exit 85", version="new")) == "kvm"


async def test_a_damaged_answer_is_found_out_anew(tmp_path: Path) -> None:
    (tmp_path / "accelerator.json").write_text("{")
    assert await resolve_accelerator("auto", tmp_path, qemu=a_qemu(tmp_path, does="exit 85")) == "kvm"


async def test_kvm_that_was_asked_for_and_does_not_work_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(DriverError) as refusal:
        await resolve_accelerator("kvm", tmp_path, qemu=a_qemu(tmp_path, does="exit 1"))
    assert refusal.value.code == "hypervisor.no_kvm"
    assert "tcg" in refusal.value.hint


async def test_tcg_needs_no_proof(tmp_path: Path) -> None:
    assert await resolve_accelerator("tcg", tmp_path, qemu=a_qemu(tmp_path, does="exit 1")) == "tcg"
    assert runs(tmp_path) == 0


async def test_a_machine_without_qemu_names_the_package(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="no-such-qemu") as refusal:
        await resolve_accelerator("auto", tmp_path, qemu="no-such-qemu")
    assert "qemu-system-x86" in refusal.value.hint
