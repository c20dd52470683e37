"""A real daemon's log: vouched for, verified, exported, proved, rotated, anchored; and found out when tampered with."""

from __future__ import annotations

import json
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pvc.proof.note import check_signature, parse_key
from pvc.proof.verify import parse_checkpoints
from tests.integration.cli_process import Cli
from tests.integration.daemon_process import DaemonProcess
from tests.support.waiting import wait_until

VMS = 300
"""More than the records between two checkpoints, so that nobody has to wait a minute for one."""


class Lab:
    """A cluster of one daemon with a file as its anchor, and what a person does with it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.anchor = directory / "outside" / "checkpoints"
        self.anchor.parent.mkdir()
        self.daemon = DaemonProcess(directory, anchor={"file": str(self.anchor)})
        self.daemon.start()
        self.cli = Cli(directory, {"PVC_SOCKET": str(self.daemon.socket)})
        assert self.cli("cluster", "init", "main").code == 0
        wait_until(lambda: self.public_keys(), "a signing key")
        self.live()

    def live(self) -> None:
        """Let more happen than fits between two checkpoints, and wait for one."""
        before = self.newest()
        with self.daemon.client() as client:
            known = len(client.vms())
            for number in range(VMS):
                client.command("vm.define", {"name": f"vm{known + number}", "memory_mib": 64, "vcpus": 1})
        wait_until(lambda: self.newest() > before, "a checkpoint")

    def trust(self) -> dict[str, Any]:
        return self.data("log", "keys")

    def public_keys(self) -> list[str]:
        return [key["key"] for key in self.trust()["keys"]]

    def newest(self) -> int:
        """The size of the newest checkpoint."""
        checkpoint = self.trust()["checkpoint"]
        return checkpoint["size"] if checkpoint else 0

    def data(self, *words: str, code: int = 0) -> dict[str, Any]:
        ran = self.cli(*words, "-o", "json")
        assert ran.code == code, ran
        found: dict[str, Any] = json.loads(ran.out)
        return found

    def edit(self, file: str, position: int) -> None:
        """Change a record in one of the node's databases, keeping it a record, while the daemon is stopped."""
        with sqlite3.connect(self.directory / "data" / file) as db:
            (data,) = db.execute("SELECT data FROM record WHERE position = ?", (position,)).fetchone()
            record = msgspec.msgpack.decode(data)
            record["actor"]["principal"] = "mallory"
            db.execute("UPDATE record SET data = ? WHERE position = ?", (msgspec.msgpack.encode(record), position))
        db.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.daemon.stop()


def test_the_running_log_is_whole_and_vouched_for(lab: Lab) -> None:
    found = lab.data("log", "verify")
    assert found["ok"]
    assert found["records"] == found["compared_with_log"] >= VMS
    assert found["checkpoints"] >= 1
    shown = lab.cli("log", "verify")
    assert shown.code == 0
    assert "whole: nothing was changed" in shown.out


def test_an_exported_log_is_verified_without_the_daemon(lab: Lab, tmp_path: Path) -> None:
    file = str(tmp_path / "log.pvclog")
    assert lab.cli("log", "export", file).code == 0
    assert stat.S_IMODE(Path(file).stat().st_mode) == 0o600
    (tmp_path / "keys").write_text("\n".join(lab.public_keys()))
    (tmp_path / "kept").write_text(lab.cli("log", "checkpoint").out)
    alone = Cli(tmp_path, {})
    outside = ("--key", str(tmp_path / "keys"), "--checkpoint", str(tmp_path / "kept"))
    ran = alone("log", "verify", "--files", file, *outside)
    assert ran.code == 0, ran
    assert "1 of 1 hold" in ran.out
    data = Path(file).read_bytes()
    Path(file).write_bytes(data[:1_000] + bytes([data[1_000] ^ 1]) + data[1_001:])
    ran = alone("log", "verify", "--files", file)
    assert ran.code == 6
    assert "damaged" in ran.out
    Path(file).write_bytes(data[:-30])
    assert "truncated" in alone("log", "verify", "--files", file).out


def test_a_proof_of_a_record_and_of_consistency_is_verified_without_the_daemon(lab: Lab, tmp_path: Path) -> None:
    size = lab.newest()
    proof = lab.cli("log", "prove", "7")
    assert proof.code == 0
    key = lab.public_keys()[-1]
    alone = Cli(tmp_path, {})
    ran = alone("log", "verify-proof", "-", "--key", key, text=proof.out)
    assert ran.code == 0, ran
    assert "record 7 is in the log of" in ran.out
    assert "vm.define" in ran.out
    forged = json.loads(proof.out)
    forged["proof"][0] = "00" * 32
    ran = alone("log", "verify-proof", "-", "--key", key, text=json.dumps(forged))
    assert (ran.code, ran.out.startswith("NOT proved")) == (6, True)
    lab.live()
    newer = lab.newest()
    proof = lab.cli("log", "consistency", str(size), str(newer))
    ran = alone("log", "verify-proof", "-", "--key", key, text=proof.out)
    assert ran.code == 0, ran
    assert f"the log of {size} records is the beginning of that of {newer}" in ran.out


def test_every_checkpoint_reaches_the_anchor(lab: Lab) -> None:
    wait_until(lambda: lab.anchor.exists() and anchored(lab)[-1] == lab.newest(), "the newest checkpoint outside")
    assert anchored(lab) == sorted(set(anchored(lab)))
    for signed in parse_checkpoints(lab.anchor.read_text()):
        assert check_signature(signed, [parse_key(key) for key in lab.public_keys()])


def test_a_rotated_key_signs_from_then_on_and_the_old_checkpoints_stay_valid(lab: Lab) -> None:
    old = lab.trust()["keys"][-1]["id"]
    ran = lab.cli("log", "rotate-key", "--wait")
    assert ran.code == 0, ran
    wait_until(lambda: lab.trust()["keys"][-1]["id"] != old, "a new key")
    lab.live()
    trust = lab.trust()
    assert trust["checkpoint"]["key_id"] == trust["keys"][-1]["id"] != old
    assert [bool(key["retired_at"]) for key in trust["keys"]][-2:] == [True, False]
    assert lab.data("log", "verify")["ok"]


def test_a_key_survives_kill_9_and_so_does_the_cursor_of_the_anchor(lab: Lab) -> None:
    before = lab.trust()["keys"]
    lab.daemon.kill()
    lab.daemon.start()
    lab.live()
    assert [key["id"] for key in lab.trust()["keys"]] == [key["id"] for key in before]
    wait_until(lambda: anchored(lab)[-1] == lab.newest(), "the newest checkpoint outside")
    assert lab.data("log", "verify")["ok"]


@pytest.mark.parametrize(("file", "kinds"), [("history.db", {"chain", "tree", "copy"}), ("log.db", {"copy"})])
def test_a_record_changed_in_a_database_is_found_and_named(tmp_path: Path, file: str, kinds: set[str]) -> None:
    lab = Lab(tmp_path)
    try:
        lab.daemon.stop()
        lab.edit(file, 42)
        lab.daemon.start()
        found = lab.data("log", "verify", code=6)
        assert kinds <= {finding["kind"] for finding in found["findings"]} <= kinds | {"root"}
        assert 42 in {finding["position"] for finding in found["findings"] if finding["kind"] in ("chain", "copy")}
        shown = lab.cli("log", "verify")
        assert (shown.code, "NOT whole" in shown.out) == (6, True)
        offline = lab.data("log", "verify", "--files", str(tmp_path / "data" / file), code=6)
        assert offline["findings"][0]["position"] == 42
    finally:
        lab.daemon.stop()


def anchored(lab: Lab) -> list[int]:
    return [signed.checkpoint.size for signed in parse_checkpoints(lab.anchor.read_text())]
