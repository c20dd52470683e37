"""A file is replaced in one step, or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pvc.files import replace_file


def test_the_new_content_takes_the_olds_place_with_the_wanted_permissions(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("old")
    path.chmod(0o644)
    replace_file(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("accident", [OSError("no room"), KeyboardInterrupt()])
def test_an_accident_leaves_the_old_content_and_no_scratch_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accident: BaseException
) -> None:
    path = tmp_path / "tokens"
    path.write_text("old")

    def fail(descriptor: int) -> None:
        raise accident

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(accident)):
        replace_file(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    (tmp_path / f".tokens.{os.getpid()}").write_text("half")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
