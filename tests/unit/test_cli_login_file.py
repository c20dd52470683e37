"""Logins at several clusters at once: none is lost over another."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pvc.cli import login_file
from pvc.cli.login_file import load_logins, remember_login
from pvc.client.errors import ConfigError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PVC_CONFIG_DIR", str(tmp_path))
    return tmp_path


def test_logins_at_once_do_not_undo_each_other(folder: Path) -> None:
    threads = [threading.Thread(target=remember_login, args=(f"c{i}", {"token": str(i)})) for i in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert load_logins() == {f"c{i}": {"token": str(i)} for i in range(24)}
    assert (folder / "logins.json").stat().st_mode & 0o777 == 0o600


def test_a_login_is_replaced_and_forgotten_by_itself(folder: Path) -> None:
    remember_login("main", {"token": "one", "refresh": "r1"})
    remember_login("edge", {"token": "two", "refresh": ""})
    remember_login("main", {"token": "three", "refresh": "r2"})
    remember_login("edge", None)
    remember_login("nowhere", None)
    assert load_logins() == {"main": {"token": "three", "refresh": "r2"}}


def test_a_file_that_cannot_be_written_leaves_what_there_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remember_login("main", {"token": "one"})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(login_file, "replace_file", full)
    with pytest.raises(ConfigError, match="No space left"):
        remember_login("edge", {"token": "two"})
    assert load_logins() == {"main": {"token": "one"}}
