"""Files that the command line writes what is secret or precious into: a device, a pipe or a link stays what it is."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from click import UsageError

from pvc.cli.log import written


def write(target: Path | str, content: bytes = b"keys") -> written:
    made = written(str(target))
    with made as out:
        out.write(content)
    return made


def left_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_a_file_is_its_owners_alone_and_replaces_the_one_before_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "keys.json"
    target.write_bytes(b"older and longer")
    target.chmod(0o644)
    assert write(target).can_be_read
    assert target.read_bytes() == b"keys" and stat.S_IMODE(target.stat().st_mode) == 0o600
    assert left_in(tmp_path) == {"keys.json"}


def test_a_directory_is_refused_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    (tmp_path / "keys.d").mkdir()
    with pytest.raises(UsageError, match=r"keys\.d is a directory"):
        write(tmp_path / "keys.d")
    assert (tmp_path / "keys.d").is_dir() and left_in(tmp_path) == {"keys.d"}


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_is_followed_and_stays_a_link(tmp_path: Path, exists: bool) -> None:
    there = tmp_path / "there"
    there.mkdir()
    if exists:
        (there / "keys").write_bytes(b"older")
    (tmp_path / "link").symlink_to("there/keys")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (there / "keys").read_bytes() == b"keys"
    assert left_in(tmp_path) == {"there", "link"} and left_in(there) == {"keys"}


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    made = write(pipe)
    reader.join(10)
    assert read == [b"keys"] and stat.S_ISFIFO(pipe.stat().st_mode) and left_in(tmp_path) == {"pipe"}
    assert not made.can_be_read and not made.is_stdout


def test_a_device_stays_a_device(tmp_path: Path) -> None:
    (tmp_path / "null").symlink_to("/dev/null")
    write(tmp_path / "null")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode) and left_in(tmp_path) == {"null"}
    assert not Path("/dev/null.part").exists()


def test_a_full_device_is_a_wrong_file_and_no_fault_of_pvc() -> None:
    with pytest.raises(UsageError, match="/dev/full cannot be written: No space left"):
        write("/dev/full")
    with pytest.raises(UsageError, match="/dev/full cannot be written: No space left"):
        write("/dev/full", bytes(1 << 20))
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


def test_what_standard_output_goes_to_is_not_replaced_by_its_other_name(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    os.write(1, b"before ")
    (tmp_path / "out").symlink_to("/proc/self/fd/1")
    assert write(tmp_path / "out").is_stdout
    assert capfdbinary.readouterr().out == b"before keys"
    assert (tmp_path / "out").is_symlink()


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_keys_are_not_left_beside_a_file_that_cannot_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(*((os, "fsync") if failing == "fsync" else (Path, "replace")), fail)
    with pytest.raises(UsageError, match="cannot be written: Input/output error"):
        write(tmp_path / "keys")
    assert left_in(tmp_path) == set()


def test_nothing_is_left_of_what_was_broken_off(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"older")
    with pytest.raises(KeyboardInterrupt), written(str(tmp_path / "keys")) as out:
        out.write(b"half")
        raise KeyboardInterrupt
    assert (tmp_path / "keys").read_bytes() == b"older" and left_in(tmp_path) == {"keys"}


def test_what_somebody_laid_there_before_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"")
    (tmp_path / "keys.part").symlink_to("theirs")
    write(tmp_path / "keys")
    assert (tmp_path / "theirs").read_bytes() == b"" and left_in(tmp_path) == {"theirs", "keys"}
